"""Operator times by iteration: what a Loop repeats is numbered by its return."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from loopedge.profiler.dissection.iterations import iteration_times
from loopedge.profiler.dissection.trace import operator_times
from loopedge.runtime.session_options import session_options

FIXTURES = Path(__file__).parents[1] / "fixtures"


def kernel(op: str, ts: int, dur: int, name: str = "", index: int = 0) -> dict[str, Any]:
    return {
        "name": f"{name or op}_kernel_time",
        "ts": ts,
        "dur": dur,
        "tid": 1,
        "args": {"op_name": op, "node_index": str(index)},
    }


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"name": "model_run", "ts": ts, "dur": dur, "tid": 1, "args": {}}


def test_iterations_begin_where_the_first_node_returns() -> None:
    events = [
        kernel("Loop", 0, 100, "core"),
        kernel("MatMul", 1, 20, index=0),
        kernel("Add", 25, 5, index=1),
        kernel("Add", 35, 5, index=2),
        kernel("MatMul", 50, 30, index=0),
        kernel("Add", 85, 6, index=1),
        kernel("Add", 92, 6, index=2),
        kernel("MatMul", 110, 50, "coda"),
        run(0, 200),
    ]
    first, second = iteration_times(events)
    assert (first.iteration, second.iteration) == (0, 1)
    assert first.ops == {"MatMul": pytest.approx(0.020), "Add": pytest.approx(0.010)}
    assert second.ops == {"MatMul": pytest.approx(0.030), "Add": pytest.approx(0.012)}
    assert second.ms == pytest.approx(0.042)


def test_nested_loops_and_branches_belong_to_the_outer_iteration() -> None:
    body = [
        kernel("If", 1, 10, index=0),
        kernel("Mul", 2, 8, index=0),
        kernel("Loop", 12, 30, "inner", index=1),
        kernel("MatMul", 13, 10, index=0),
        kernel("MatMul", 25, 10, index=0),
    ]
    events = [
        kernel("Loop", 0, 100, "core"),
        *body,
        *({**event, "ts": event["ts"] + 50} for event in body),
        run(0, 100),
    ]
    found = iteration_times(events)
    assert [one.iteration for one in found] == [0, 1]
    for one in found:
        assert one.ops["MatMul"] == pytest.approx(0.020)
        assert one.ops["Mul"] == pytest.approx(0.008)
        assert one.ops["If"] == pytest.approx(0.002)
        assert set(one.ops) == {"If", "Mul", "Loop", "MatMul"}


@pytest.mark.parametrize("names", [("first", "second"), ("core", "core2")])
def test_the_iterations_of_several_loops_follow_each_other(names: tuple[str, str]) -> None:
    events = [
        kernel("Loop", 0, 10, names[0]),
        kernel("Add", 1, 5),
        kernel("Loop", 20, 100, names[1], index=1),
        *(kernel("MatMul", 21 + 30 * i, 20) for i in range(3)),
        run(0, 130),
    ]
    found = iteration_times(events)
    assert [one.iteration for one in found] == [0, 1, 2, 3]
    assert [set(one.ops) for one in found] == [{"Add"}, *[{"MatMul"}] * 3]


def test_a_loop_beside_a_core_is_none() -> None:
    events = [
        kernel("Loop", 0, 10, "prelude/loop"),
        kernel("Add", 1, 5),
        kernel("Loop", 20, 100, "core", index=1),
        kernel("MatMul", 21, 20),
        run(0, 130),
    ]
    (only,) = iteration_times(events)
    assert set(only.ops) == {"MatMul"}


def test_an_iteration_behind_the_loop_is_the_last_one() -> None:
    around = [
        kernel("Gather", 0, 5, "core.last/row.gate.0"),
        kernel("MatMul", 200, 9, "core.last/linear"),
        kernel("Loop", 220, 40, "core.last/inner"),
        kernel("Add", 225, 10, "core/add"),
        kernel("MatMul", 270, 9, "coda/linear"),
        run(0, 300),
    ]
    looped = [
        kernel("Loop", 10, 100, "core"),
        kernel("MatMul", 11, 20, "core/linear"),
        kernel("MatMul", 41, 30, "core/linear"),
    ]
    *before, last = iteration_times([*looped, *around])
    assert [one.ops for one in before] == [
        {"MatMul": pytest.approx(0.020)},
        {"MatMul": pytest.approx(0.030)},
    ]
    assert last.iteration == 2
    assert set(last.ops) == {"Gather", "MatMul", "Loop", "Add"}
    assert last.ops["Gather"] == pytest.approx(0.005)
    assert last.ops["MatMul"] == pytest.approx(0.009)
    (only,) = iteration_times([looped[0], *around])  # a Loop that runs no time
    assert (only.iteration, only.ops) == (0, last.ops)


def test_an_unrolled_graph_is_read_by_its_names_and_another_gives_nothing() -> None:
    events = [
        kernel("Gather", 0, 5, "prelude/embedding"),
        kernel("MatMul", 10, 20, "core.0/linear"),
        kernel("MatMul", 30, 40, "core.1/linear"),
        run(0, 80),
    ]
    first, second = iteration_times(events)
    assert (first.iteration, second.iteration) == (0, 1)
    assert first.ms == pytest.approx(0.020)
    assert second.ms == pytest.approx(0.040)
    behind = [kernel("MatMul", 80, 7, "core2.0/linear"), run(0, 90)]
    assert [one.ms for one in iteration_times([*events[:-1], *behind])] == [
        pytest.approx(0.020),
        pytest.approx(0.040),
        pytest.approx(0.007),
    ]
    assert iteration_times([kernel("MatMul", 0, 20, "linear"), run(0, 30)]) == []
    assert iteration_times([]) == []


def test_the_fastest_quarter_of_the_runs_counts() -> None:
    events = []
    for i, factor in enumerate((100, 1, 9, 8, 7)):
        start = 10_000 * i
        events += [
            kernel("Loop", start, 20 * factor, "core"),
            kernel("MatMul", start + 1, 10 * factor),
            run(start, 21 * factor),
        ]
    (only,) = iteration_times(events, skip_runs=1)
    assert only.ms == pytest.approx(0.010)


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.onnx")), ids=lambda file: file.stem)
def test_real_iterations_and_what_is_around_them_add_up(file: Path, tmp_path: Path) -> None:
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "trace")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feeds = {
        one.name: np.zeros(
            [axis if isinstance(axis, int) else 2 for axis in one.shape],
            np.int64 if "int64" in one.type else np.float32,
        )
        for one in session.get_inputs()
    }
    for _ in range(5):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = iteration_times(events, skip_runs=1)
    assert [one.iteration for one in found] == list(range(len(found)))
    assert found, "a loop"
    total = sum(one.ms for one in operator_times(events, skip_runs=1))
    assert 0 < sum(one.ms for one in found) < total
    assert all(set(one.ops) == set(found[0].ops) for one in found)
