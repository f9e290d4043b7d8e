"""How sessions are opened: what each memory profile sets, and the arena that a session of low has."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from loopedge.profiler.child.process_memory import read_memory
from loopedge.runtime.session_options import FIRST_REGION_BYTES, open_session, session_options

SHARED = "session.use_env_allocators"
PACKING_OFF = "session.disable_prepacking"


def entry(options: ort.SessionOptions, name: str) -> str | None:
    try:
        return str(options.get_session_config_entry(name))
    except RuntimeError:
        return None


@pytest.mark.parametrize(
    ("memory", "off", "level"),
    [("balanced", None, "ENABLE"), ("low", "1", "ENABLE"), ("mapped", None, "DISABLE")],
)
def test_what_a_profile_sets(memory: str, off: str | None, level: str) -> None:
    options = session_options(2, memory)
    assert not options.enable_mem_pattern
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert entry(options, PACKING_OFF) == off
    wanted = getattr(ort.GraphOptimizationLevel, f"ORT_{level}_ALL")
    assert options.graph_optimization_level == wanted
    plain = session_options(2, memory, optimize=False)
    assert plain.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL


@pytest.fixture
def squares(tmp_path: Path) -> str:
    """Write a model that fills an arena: the product of a vector with itself, summed."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["column"]),
        helper.make_node("Mul", ["x", "column"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis"], ["y"], keepdims=0),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "squares", ends[:1], ends[1:], [axis])
    path = tmp_path / "squares.onnx"
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return str(path)


def opened(path: str, memory: str) -> tuple[ort.InferenceSession, ort.SessionOptions]:
    options = session_options(1, memory)
    return open_session(path, options, "CPUExecutionProvider", memory), options


def test_a_session_of_low_has_an_arena_that_goes_with_it(squares: str) -> None:
    (first, options), (second, _) = opened(squares, "low"), opened(squares, "low")
    assert entry(options, SHARED) == "1"
    assert entry(opened(squares, "balanced")[1], SHARED) is None
    before = read_memory().anon_bytes
    large = np.ones(4096, np.float32)  # 64 MiB of squares
    assert first.run(None, {"x": large})[0][0] == 4096
    assert read_memory().anon_bytes - before > 50 * 2**20
    del first
    assert read_memory().anon_bytes - before < 20 * 2**20  # the second session holds none of it
    assert second.run(None, {"x": large[:2]})[0].tolist() == [2.0, 2.0]


def test_where_no_arena_can_be_registered_the_session_has_its_own(
    squares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no shared allocators")

    monkeypatch.setattr(ort, "create_and_register_allocator", refuse)
    session, options = opened(squares, "low")
    assert entry(options, SHARED) is None
    assert session.run(None, {"x": np.ones(3, np.float32)})[0].tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("failing", [1, 2])
def test_an_arena_starts_with_its_first_region_or_the_session_goes_without(
    squares: str, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    starts: list[int] = []
    register = ort.create_and_register_allocator

    def count(place: ort.OrtMemoryInfo, arena: ort.OrtArenaCfg) -> None:
        starts.append(arena.initial_chunk_size_bytes)
        if len(starts) == failing:
            raise RuntimeError("no more of them")
        register(place, arena)

    monkeypatch.setattr(ort, "create_and_register_allocator", count)
    session, _ = opened(squares, "low")
    assert session.run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [2.0, 2.0]
    assert starts == [FIRST_REGION_BYTES] * failing


def test_opening_says_nothing(squares: str, capfd: pytest.CaptureFixture[str]) -> None:
    for memory in ("low", "balanced"):
        opened(squares, memory)
    assert capfd.readouterr() == ("", "")
