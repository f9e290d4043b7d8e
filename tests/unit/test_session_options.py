"""How sessions are opened: what each memory profile sets, and the arena that sessions of low share."""

import onnxruntime as ort
import pytest

from loopedge import session_options as opening
from loopedge.session_options import session_options

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
    assert entry(options, SHARED) == off
    wanted = getattr(ort.GraphOptimizationLevel, f"ORT_{level}_ALL")
    assert options.graph_optimization_level == wanted
    plain = session_options(2, memory, optimize=False)
    assert plain.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def test_an_onnxruntime_that_takes_no_arena_of_ours_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no shared allocators")

    monkeypatch.setattr(ort, "create_and_register_allocator", refuse)
    opening._has_shared_arena.cache_clear()
    try:
        options = session_options(1, "low")
        assert entry(options, PACKING_OFF) == "1"
        assert entry(options, SHARED) is None
    finally:
        opening._has_shared_arena.cache_clear()
