"""Sweeps, twins and PyTorch side by side; what is measured in turns with what."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import loopedge
from loopedge.errors import InputError
from loopedge.profiler.processes import setup, turns
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.sweep import configurations
from tests.parity.models import make_model

Exporter = Callable[..., Path]


@pytest.mark.long
def test_one_command_gives_every_twin_and_pytorch(tmp_path: Path) -> None:
    model = make_model("tokens")
    checkpoint, path = tmp_path / "model.pt", tmp_path / "model.onnx"
    loopedge.save(model, checkpoint)
    loopedge.export(model, path)
    result = loopedge.profile(
        [path, checkpoint],
        unrolled=True,
        untied=True,
        sequence=8,
        runs=6,
        processes=2,
        details=False,
    )
    assert [(run.runtime, run.form, run.twin) for run in result.runs] == [
        ("onnxruntime", "loop", None),
        ("torch", None, None),
        ("onnxruntime", "unrolled", "unrolled"),
        ("onnxruntime", "unrolled", "untied"),
    ]
    loop, eager, unrolled, untied = result.runs
    assert loop.weight_bytes == unrolled.weight_bytes < untied.weight_bytes
    assert eager.loops == loop.loops == 3
    assert eager.provider == "PyTorch eager"
    assert eager.weight_bytes > 0
    for run in result.runs:
        assert run.processes == 2
        assert run.latency_ms.runs == 6
        assert run.rss_peak_bytes >= run.rss_load_bytes > 0
        low, high = run.spread["time_ratio"].low, run.spread["time_ratio"].high
        assert low <= run.time_ratio <= high
        assert run.spread["anon_bytes"].low <= run.anon_bytes <= run.spread["anon_bytes"].high
    assert json.loads(json.dumps(result.to_json()))["failures"] == []


@pytest.mark.long
def test_another_checkpoint_than_the_exported_one_is_reported(tmp_path: Path) -> None:
    mine, other, path = (tmp_path / name for name in ("model.pt", "other.pt", "model.onnx"))
    for file in (mine, other):
        loopedge.save(make_model("tokens", loops=3 if file == mine else 2), file)
    loopedge.export(mine, path)
    for file, notes in ((mine, 0), (other, 1)):
        result = loopedge.profile([path, file], sequence=4, runs=1, processes=1, details=False)
        about = [note for note in result.notes if "is not the checkpoint that model.onnx" in note]
        assert len(about) == notes


@pytest.mark.slow
def test_every_combination_is_profiled_and_named(exported: Exporter) -> None:
    path = exported("tokens", dynamic_loops=True)
    result = loopedge.profile(
        [path], loops=[1, 3], batch=[1, 2], sequence=4, runs=2, processes=1, details=False
    )
    assert [(run.batch, run.loops) for run in result.runs] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert result.runs[1].name == f"{path.name} (batch 1, 3 loops)"
    assert result.runs[0].time_ratio == 1.0


@pytest.mark.slow
def test_an_untied_twin_of_every_loop_count(exported: Exporter) -> None:
    path = exported("tokens", dynamic_loops=True)
    result = loopedge.profile(
        [path], untied=True, loops=[1, 3], sequence=4, runs=2, processes=1, details=False
    )
    once, once_untied, thrice, thrice_untied = result.runs
    assert once.weight_bytes == thrice.weight_bytes == once_untied.weight_bytes
    assert thrice_untied.weight_bytes > thrice.weight_bytes


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"batch": 0}, "batch is 0"), ({"loops": [3, 0]}, "loops is 0"), ({"threads": []}, "no size")],
)
def test_sizes_below_one_are_refused(sizes: dict[str, object], said: str) -> None:
    asked = {"batch": 1, "sequence": None, "loops": None, "threads": 1} | sizes
    with pytest.raises(InputError, match=said):
        configurations(**asked)  # type: ignore[arg-type]


@pytest.mark.slow
def test_given_inputs_have_one_size(exported: Exporter, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.ones((2, 5), np.int64))
    with pytest.raises(InputError, match="cannot be varied"):
        loopedge.profile([exported("tokens")], input=tmp_path / "x.npz", batch=[1, 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((2, 5, 1), np.int64), r"shape \(2, 5, 1\)"),
        (np.ones((2, 0), np.int64), "is empty"),
        (np.ones((2, 5), np.float32), "has type float32"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(
    exported: Exporter, tmp_path: Path, array: np.ndarray, said: str
) -> None:
    np.savez(tmp_path / "x.npz", input_ids=array)
    with pytest.raises(InputError, match=said):
        loopedge.profile([exported("tokens")], input=tmp_path / "x.npz")


def groups_of(sizes: list[int], free: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    monkeypatch.setattr(setup, "COPIES", 1)
    monkeypatch.setattr(setup, "RUNTIME_BYTES", {"onnxruntime": 0})
    monkeypatch.setattr(turns, "FREE_MEMORY", 1.0)
    memory = type("Told", (), {"available": free})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return turns._groups(
        [
            ProcessSetup(
                model=Path("m"), inputs=Path("x"), file_bytes=size, provider="CPU", threads=1
            )
            for size in sizes
        ]
    )


def test_models_that_fit_are_loaded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups_of([1, 1, 1], 3, monkeypatch) == [[0, 1, 2]]
    assert groups_of([1, 1, 1], 2, monkeypatch) == [[0, 1], [0, 2]]
    assert groups_of([1, 1, 5], 2, monkeypatch) == [[0], [1], [2]]
    assert groups_of([1] * 10, 100, monkeypatch) == [list(range(8)), [0, 8, 9]]
    assert groups_of([7], 2, monkeypatch) == [[0]]


@pytest.mark.slow
def test_a_csv_of_the_trained_columns_is_an_input(exported: Exporter, tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i / 2}" for i in range(6))
    (tmp_path / "x.csv").write_text(f"a,b\n{rows}\n", encoding="utf-8")
    (run,) = loopedge.profile(
        [exported("series")], input=tmp_path / "x.csv", runs=2, processes=1, details=False
    ).runs
    assert (run.batch, run.sequence) == (1, 6)
