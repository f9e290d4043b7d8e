"""Iterations of exported models: nested Loops belong to the outer one, an early exit ends the list."""

import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.graph.inputs import generate_inputs
from loopedge.profiler.dissection.iterations import iteration_times
from loopedge.profiler.dissection.trace import operator_times
from loopedge.profiler.result import IterationTime
from loopedge.runtime.session_options import session_options
from tests.parity.conftest import Exporter
from tests.parity.test_inner_loops import DEEPEST, INNER, Refiner

pytestmark = pytest.mark.slow


def run_traced(model: Path, folder: Path) -> tuple[list[IterationTime], dict[str, float]]:
    """Return the iterations, and the executions of each operator in an inference."""
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = generate_inputs(open_artifact(model), batch=1, sequence=7, loops=None, seed=0)
    for _ in range(5):
        session.run(None, feeds)
    events: list[Any] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts = {item.op: item.count for item in operator_times(events, skip_runs=1)}
    return iteration_times(events, skip_runs=1), counts


def test_inner_loops_are_summed_into_the_outer_iteration(tmp_path: Path) -> None:
    loopedge.export(Refiner(deep=True, loops=3), tmp_path / "m.onnx", inner="loop")
    found, counts = run_traced(tmp_path / "m.onnx", tmp_path)
    assert [one.iteration for one in found] == [0, 1, 2]
    assert counts["Loop"] == 1 + 3 * (1 + INNER), "one around all, and two kinds inside"
    assert counts["MatMul"] == 3 * (1 + INNER * (1 + DEEPEST)), "each product is traced"
    assert all({"Loop", "MatMul", "Tanh"} <= set(one.ops) for one in found)


def test_an_early_exit_ends_the_list(tmp_path: Path, exported: Exporter) -> None:
    at_once, counts = run_traced(exported("tokens", exit="tolerance=1e9"), tmp_path)
    to_the_end, _ = run_traced(exported("tokens"), tmp_path)
    assert len(at_once) == 1 < len(to_the_end)
    assert counts["Loop"] == 1


def test_the_unrolled_form_tells_as_many(tmp_path: Path, exported: Exporter) -> None:
    looped, _ = run_traced(exported("tokens"), tmp_path)
    unrolled, _ = run_traced(exported("tokens", form="unrolled"), tmp_path)
    assert len(unrolled) == len(looped)
    assert all(one.ops["MatMul"] > 0 for one in unrolled)
