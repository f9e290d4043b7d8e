"""What ONNX Runtime's arena held, from the memory figures of a trace."""

from typing import Any

from loopedge.profiler.dissection.arena import arena_use


def node(
    name: str, ts: int, dur: int, in_use: int, peak: int, delta: int = 0, held: int = 500
) -> dict[str, Any]:
    figures = {
        "mem_bytes_in_use": in_use,
        "mem_in_use_peak": peak,
        "mem_in_use_delta": delta,
        "mem_arena_held": held,
    }
    args = {"op_name": "X"} | {key: str(value) for key, value in figures.items()}
    return {"name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def test_the_peak_is_at_the_node_that_made_it_not_at_the_loop_around_it() -> None:
    events = [
        {"name": "model_run", "ts": 0, "dur": 99, "args": {}},
        node("embed", 1, 5, in_use=110, peak=110, delta=10),
        node("core", 10, 60, in_use=120, peak=190, held=260),
        node("core/gelu", 20, 10, in_use=170, peak=190),
        node("core/linear", 40, 10, in_use=120, peak=190),
    ]
    found = arena_use(events)
    assert found is not None
    assert (found.loaded_bytes, found.activations_bytes) == (100, 90)
    assert found.peak_node == "core/gelu"
    assert found.held_bytes == 400


def test_where_loading_took_more_the_most_after_a_node_counts() -> None:
    events = [
        node("embed", 1, 5, in_use=20, peak=900, delta=20),
        node("gelu", 10, 5, in_use=70, peak=900),
        node("linear", 20, 5, in_use=30, peak=900),
    ]
    found = arena_use(events)
    assert found is not None
    assert (found.loaded_bytes, found.activations_bytes) == (0, 70)
    assert found.peak_node == "gelu"


def test_a_first_node_may_be_the_peak() -> None:
    found = arena_use([node("only", 1, 5, in_use=70, peak=70, delta=70)])
    assert found is not None
    assert (found.activations_bytes, found.peak_node) == (70, "only")


def test_without_an_arena_nothing_is_reported() -> None:
    assert (
        arena_use([{"name": "x_kernel_time", "ts": 0, "dur": 1, "args": {"op_name": "X"}}]) is None
    )
