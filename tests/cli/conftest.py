"""The command line in process, on the committed models."""

import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cli.in_process import Said, run_words

__all__ = ["Cli", "Said"]

FIXTURES = Path(__file__).parents[1] / "fixtures"


Cli = Callable[..., Said]


@pytest.fixture
def cli() -> Cli:
    """Run ``loopedge`` with the given words."""

    def run(*words: object) -> Said:
        return run_words(words)

    return run


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of every training infinite in its third step, whatever the arithmetic."""
    from loopedge.trainer.steps.step import Step, Stepper

    honest = Stepper.compute

    def compute(self: Stepper, step: int) -> Step:
        made = honest(self, step)
        return replace(made, loss=math.inf) if step == 2 else made

    monkeypatch.setattr(Stepper, "compute", compute)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three loops, fixed; ``input_ids`` (batch, sequence <= 16) to ``logits``."""
    return Path(shutil.copy(FIXTURES / "tiny.onnx", tmp_path))


@pytest.fixture
def tiny_dynamic(tmp_path: Path) -> Path:
    """The same weights with an input ``loops``, clamped to 1 .. 3."""
    return Path(shutil.copy(FIXTURES / "tiny_dynamic.onnx", tmp_path))


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """Two sequences of six tokens."""
    path = tmp_path / "x.npz"
    np.savez(path, input_ids=np.arange(12).reshape(2, 6))
    return path


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights stand in ``external.onnx.data``."""
    import onnx_ir as ir

    path = tmp_path / "external.onnx"
    model = ir.load(FIXTURES / "tiny.onnx")
    ir.save(model, path, external_data="external.onnx.data", size_threshold_bytes=256)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 32 KiB, half of what the models need."""
    yield from _mount(tmp_path / "small", "size=32k")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk that cannot be written, for root neither."""
    yield from _mount(tmp_path / "read_only", "ro,size=32k")


def _mount(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command on this machine")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
