"""Operator times from a trace: a Loop without what runs inside it, warm-up runs left out."""

from pathlib import Path
from typing import Any

import pytest

from loopedge.profiler.child import process_memory as memory
from loopedge.profiler.child.process_memory import parse_status, read_memory
from loopedge.profiler.dissection.trace import nodes_by_provider, operator_times


def kernel(op: str, ts: int, dur: int) -> dict[str, Any]:
    name = f"node_{op}_kernel_time"
    return {"name": name, "ts": ts, "dur": dur, "tid": 1, "cat": "Node", "args": {"op_name": op}}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"name": "model_run", "ts": ts, "dur": dur, "tid": 1, "cat": "Session", "args": {}}


def one_run(start: int, factor: int = 1) -> list[dict[str, Any]]:
    """A Loop of 100 us that holds two iterations of MatMul (30) and Add (10), then a Gelu."""
    events = [
        kernel("MatMul", 5, 30),
        kernel("Add", 35, 10),
        kernel("MatMul", 50, 30),
        kernel("Add", 80, 10),
        kernel("Loop", 0, 100),
        kernel("Gelu", 100, 20),
        run(0, 121),
    ]
    return [
        {**event, "ts": start + event["ts"] * factor, "dur": event["dur"] * factor}
        for event in events
    ]


def test_a_loop_keeps_only_its_own_time() -> None:
    times = {item.op: item for item in operator_times(one_run(0))}
    assert times["MatMul"].ms == pytest.approx(0.060)
    assert times["MatMul"].count == 2
    assert times["Loop"].ms == pytest.approx(0.020)
    assert sum(item.ms for item in times.values()) == pytest.approx(0.120)
    assert sum(item.share for item in times.values()) == pytest.approx(1.0)


def test_writing_the_events_of_a_body_is_not_charged_to_the_loop() -> None:
    """Two iterations of four nodes, 3 us of tracing after each, 7 us more per iteration."""
    events, ts = [], 0
    for _ in range(2):
        ts += 7
        for op in ("Gather", "MatMul", "Mul", "Add"):
            events.append(kernel(op, ts, 10))
            ts += 13
    times = {
        item.op: item.ms for item in operator_times([*events, kernel("Loop", 0, ts), run(0, ts)])
    }
    assert times["Loop"] == pytest.approx(0.014)
    assert times["Add"] == pytest.approx(0.020)


def test_warm_up_and_the_slower_runs_are_left_out_and_the_rest_is_averaged() -> None:
    factors = (1, 90, 3, 50, 1, 80, 70, 60, 40)
    events = [
        event for i, factor in enumerate(factors) for event in one_run(20_000 * i, factor=factor)
    ]
    times = {item.op: item for item in operator_times(events, skip_runs=1)}
    assert times["Gelu"].ms == pytest.approx((0.020 + 0.060) / 2)
    assert times["MatMul"].count == 2
    assert next(iter(times)) == "MatMul", "largest first"


def test_parts_that_a_provider_runs_as_one_node_have_one_name() -> None:
    names = (
        "OpenVINOExecutionProvider_15345838948792404296_1",
        "OpenVINOExecutionProvider_77665544_0",
    )
    events = [kernel(name, 20 * i, 10) for i, name in enumerate(names)]
    (found,) = operator_times([*events, kernel("Gelu_1", 50, 0), run(0, 60)])[:1]
    assert (found.op, found.count) == ("OpenVINO subgraph", 2)


def test_a_trace_without_runs_gives_nothing() -> None:
    assert operator_times([]) == []


def test_nodes_are_counted_once_by_the_provider_that_ran_them() -> None:
    events = one_run(0) + one_run(1000)
    for event in events:
        event["args"] = event["args"] | {"provider": "Fast" if "Mat" in event["name"] else "Slow"}
    assert nodes_by_provider(events) == {"Fast": 1, "Slow": 3}


def test_memory_can_be_read_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    known = read_memory()
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere/status"))
    found = read_memory()
    assert found.rss_bytes == pytest.approx(known.rss_bytes, rel=0.1)
    assert found.anon_bytes + found.mapped_bytes == found.rss_bytes
    assert found.peak_bytes >= found.rss_bytes


def test_memory_is_parsed_and_read() -> None:
    text = "Name:\tx\nVmHWM:\t  40 kB\nVmRSS:\t  30 kB\nRssAnon:\t  20 kB\nRssFile:\t  10 kB\n"
    parsed = parse_status(text, uss_bytes=5)
    assert (parsed.rss_bytes, parsed.anon_bytes) == (30 * 1024, 20 * 1024)
    assert (parsed.mapped_bytes, parsed.peak_bytes) == (10 * 1024, 40 * 1024)
    with pytest.raises(ValueError, match="anon_bytes"):
        parse_status("VmRSS:\t1 kB\nVmHWM:\t1 kB\nRssFile:\t1 kB\n", uss_bytes=0)
    assert read_memory().rss_bytes > 1_000_000
