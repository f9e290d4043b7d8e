"""Files of other tools get their loops back: how many iterations, nodes and bytes, and the same outputs."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import loopedge
from benchmarks.reroll.subjects import SUBJECTS, Subject, feeds_of
from loopedge.deployment.rerolling import RerollResult
from tests.parity.tied_files import TIED, write_tied

Rolled = Callable[[str], RerollResult]

SIZES: list[dict[str, int]] = [{}, {"batch": 3, "sequence": 9, "height": 11, "width": 7}]
"""Of the free axes: those that were exported with, and others."""


@pytest.fixture(scope="session")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Rolled:
    """Write and re-roll a file once per session."""
    folder = tmp_path_factory.mktemp("tied")

    @cache
    def roll(name: str) -> RerollResult:
        return loopedge.reroll(write_tied(name, folder), folder / f"{name}.loop.onnx", threads=1)

    return roll


def compute(path: str | Path, subject: Subject, sizes: dict[str, int]) -> dict[str, NDArray[Any]]:
    """Run a file in ONNX Runtime alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = feeds_of(subject, **sizes)
    outputs = [port.name for port in session.get_outputs()]
    inputs = {port.name: feeds[port.name].numpy() for port in session.get_inputs()}
    return dict(zip(outputs, session.run(outputs, inputs), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIED)
def test_a_tied_file_gets_its_loops_back(name: str, rolled: Rolled) -> None:
    tied, result = TIED[name], rolled(name)
    loops = [loop.iterations for loop in result.loops]
    nodes = (result.source_nodes, result.nodes)
    pinned = (tied.loops, tied.nodes, tied.weight_bytes)
    assert (loops, nodes, result.weight_bytes) == pinned
    assert not any(loop.peeled_first or loop.peeled_last for loop in result.loops)
    onnx.checker.check_model(result.path, full_check=True)
    for sizes in SIZES:
        source, target = (
            compute(path, SUBJECTS[name], sizes) for path in (result.source, result.path)
        )
        assert list(source) == list(target)
        for output, expected in source.items():
            assert target[output].shape == expected.shape
            apart = np.abs(target[output].astype(np.float64) - expected).max()
            assert apart <= tied.error * np.abs(expected).max()
