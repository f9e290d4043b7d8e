"""``loopedge export package.module:factory --weights weights.safetensors``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import loopedge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli

SOURCE = """
import torch
import loopedge

class Mine(loopedge.LoopedModule):
    loops = 3

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def example_inputs(self):
        return (torch.zeros(2, 7, 4),)

    def prelude(self, x):
        return x, ()

    def core(self, state, context, row):
        return torch.tanh(self.linear(state)) + state

    def coda(self, state, context):
        return state

def fails():
    raise ValueError("no such size")

def needs(size):
    return Mine()

def quits():
    import sys
    sys.exit(0)

def talks():
    print("hello from the factory")
    return Mine()

number = 3
built = Mine()
def other():
    return number
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a user stands in, with a module of their own."""
    (tmp_path / "mymodels").mkdir()
    (tmp_path / "mymodels" / "__init__.py").touch()
    (tmp_path / "mymodels" / "mine.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "mymodels" / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "mymodels" / "syntax.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mymodels"]:
        del sys.modules[name]


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "linear.weight": torch.randn(4, 4, generator=generator),
        "linear.bias": torch.randn(4, generator=generator),
    }


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_factory_with_weights(suffix: str, cli: Cli, package: Path) -> None:
    path = package / f"w.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": weights()}, path)
    else:
        save_file(weights(), path)
    outcome = cli("export", "mymodels.mine:Mine", "--weights", path, "--quiet")
    assert (outcome.code, outcome.out.strip()) == (0, "mine.onnx"), outcome.err
    x = np.random.default_rng(0).standard_normal((1, 5, 4)).astype(np.float32)
    given = loopedge.Session(package / "mine.onnx").run({"inputs": x})["outputs"]
    state = x
    stored = {name: value.numpy() for name, value in weights().items()}
    for _ in range(3):
        state = np.tanh(state @ stored["linear.weight"].T + stored["linear.bias"]) + state
    assert np.abs(given - state).max() < 1e-5


@pytest.mark.slow
def test_the_module_may_be_built_already(cli: Cli, package: Path) -> None:
    outcome = cli("export", "mymodels.mine:built", "-o", "b.onnx", "--json")
    assert outcome.json()["loops"] == 3


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nomodels.mine:Mine", "no Python module nomodels is found from this folder"),
        ("mymodels.absent:Mine", "no Python module mymodels.absent is found"),
        ("mymodels.mine:Absent", "mymodels.mine has no Absent"),
        ("mymodels.mine:number", "is not a function: int"),
        ("mymodels.mine:other", "gives int, a torch module is needed"),
        ("mymodels.mine:fails", "failed: ValueError: no such size (mine.py, line "),
        ("mymodels.mine:needs", "failed: TypeError: needs() missing 1 required"),
        ("mymodels.mine:quits", "failed: SystemExit: 0 (mine.py, line "),
        ("mymodels/mine.py:Mine", "names a file, a module is needed"),
        ("mymodels.broken:Mine", "importing mymodels.broken failed: ModuleNotFoundError"),
        ("mymodels.syntax:Mine", "importing mymodels.syntax failed: SyntaxError"),
    ],
)
def test_a_wrong_factory_is_one_line(source: str, text: str, cli: Cli, package: Path) -> None:
    outcome = cli("export", source)
    assert outcome.code == 2
    assert text in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not list(package.glob("*.onnx*"))


@pytest.mark.slow
def test_what_a_factory_prints_is_no_part_of_the_result(cli: Cli, package: Path) -> None:
    outcome = cli("export", "mymodels.mine:talks", "--json")
    assert outcome.json()["verified"]
    assert "hello from the factory" in outcome.err


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    merged = {**weights(), **changes}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (changed(**{"linear.bias": None}), "tensor linear.bias is missing"),
        (changed(extra=torch.zeros(1)), "the module has no tensor extra"),
        (changed(**{"linear.bias": torch.zeros(5)}), "linear.bias has shape (5,), the module's"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    tensors: dict[str, torch.Tensor], text: str, cli: Cli, package: Path
) -> None:
    save_file(tensors, package / "w.safetensors")
    outcome = cli("export", "mymodels.mine:Mine", "--weights", "w.safetensors")
    assert outcome.code == 2
    assert text in outcome.err


def test_a_file_of_weights_that_is_none_is_one_line(cli: Cli, package: Path) -> None:
    (package / "w.safetensors").write_bytes(b"no tensors at all")
    (package / "w.pt").write_bytes(b"no tensors at all")
    for name, text in (
        ("w.safetensors", "is not a safetensors file or is damaged"),
        ("w.pt", "w.pt"),
        ("absent.safetensors", "does not exist"),
    ):
        outcome = cli("export", "mymodels.mine:Mine", "--weights", name)
        assert outcome.code == 2
        assert text in outcome.err
    torch.save(torch.nn.Linear(2, 2), package / "code.pt")
    outcome = cli("export", "mymodels.mine:Mine", "--weights", "code.pt")
    assert (outcome.code, "pickled code" in outcome.err) == (2, True)


def test_weights_are_for_factories(cli: Cli, package: Path) -> None:
    (package / "m.pt").touch()
    outcome = cli("export", "m.pt", "--weights", "w.safetensors")
    assert (outcome.code, "holds its own weights" in outcome.err) == (2, True)


@pytest.mark.slow
def test_exit_and_inner_reach_the_exporter(cli: Cli, package: Path) -> None:
    outcome = cli(
        "export", "mymodels.mine:built", "-o", "e.onnx", "--exit", "tolerance=0.5", "--json"
    )
    assert outcome.json()["exit"] == "tolerance=0.5"
    np.savez(package / "x.npz", inputs=np.ones((2, 3, 4), np.float32))
    shown = cli("inspect", "e.onnx")
    assert "tolerance=0.5" in shown.out
    runs = {
        value: cli("run", "e.onnx", "-i", "x.npz", "--tolerance", value, "--json").json()
        for value in ("0", "1000")
    }
    ran = {
        value: next(o for o in result["outputs"] if o["name"] == "iterations")["max"]
        for value, result in runs.items()
    }
    assert ran == {"0": 3, "1000": 1}
    for words in (
        ("--exit", "never"),
        ("--inner", "rolled"),
        ("--form", "unrolled", "--inner", "loop"),
    ):
        assert cli("export", "mymodels.mine:built", "-o", "f.onnx", *words).code == 2
