"""How loopedge opens a session of ONNX Runtime: onnxruntime alone, for the measured process too."""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort

from loopedge.runtime.denormals import POOL_ENTRIES, DenormalsAreZero
from loopedge.runtime.providers import CPU_PROVIDER, CUDA_PROVIDER, add_plug_in, is_plug_in

__all__ = ["open_session", "return_free_memory", "session_options"]

LOG_FATAL = 4
MAPPED_ORT_FORMAT = (
    "session.use_memory_mapped_ort_model",
    "session.use_ort_model_bytes_for_initializers",
)
"""Leave the weights of an ORT format file in the file; runtimes that do not know the first copy them."""

FIRST_REGION_BYTES = 4 * 2**20
"""What the arena of ``low`` asks malloc for first. ONNX Runtime asks for 1 MiB, then for 2, 4 and so on: large
activations, the logits among them, do not fit into what smaller ones leave, and new pages are touched."""

_REGISTERING = threading.Lock()


def session_options(
    threads: int | None = None,
    memory: str = "balanced",
    *,
    model: str | Path | None = None,
    optimize: bool = True,
) -> ort.SessionOptions:
    """Return the options of every session.

    The memory pattern is off: it keeps a block per input shape beside what the first run has taken,
    3 MiB on the paper's block, and saves no time (benchmarks/int8/choices.py).

    Args:
        threads: Threads inside an operator, with one between operators; default: ONNX Runtime's choice.
        memory: ``balanced``; ``low``: weights are not packed; ``mapped``, for a prepared file: its
            graph is optimized already.
        model: The file to be opened: one in ORT format is mapped (docs/reach.md has the figures).
        optimize: Let the optimizers look at the graph; without, pages of their code are never read.
    """
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL  # failures are raised, and said once
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if memory == "low":
        options.add_session_config_entry("session.disable_prepacking", "1")
    if memory == "mapped" or not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if model is not None and str(model).endswith(".ort"):
        for entry in MAPPED_ORT_FORMAT:
            options.add_session_config_entry(entry, "1")
    return options


def open_session(
    path: str,
    options: ort.SessionOptions,
    provider: str | tuple[str, dict[str, Any]],
    memory: str = "balanced",
) -> ort.InferenceSession:
    """Create a session, by a memory profile that its options were made for; options serve one session.

    ONNX Runtime would answer a provider that fails by printing so and running on the CPU; here it
    raises. Options of CUDA are on top of those that every session of it has.

    Raises:
        ProviderError: A plug-in cannot be loaded, or finds no device.
    """
    name, chosen = provider if isinstance(provider, tuple) else (provider, {})
    if name == CUDA_PROVIDER:
        from loopedge.runtime.cuda import (
            cuda_provider,  # a measured session on the CPU does without
        )

        chosen = {**cuda_provider()[1], **chosen}
    providers = [(name, chosen) if chosen else name]
    if name != CPU_PROVIDER and is_plug_in(name):
        add_plug_in(options, name, chosen)
        providers = []
    for key, value in POOL_ENTRIES.items():
        options.add_session_config_entry(key, value)
    arena = _arena_of_its_own(options) if memory == "low" else contextlib.nullcontext()
    with arena, DenormalsAreZero():  # the latter puts back what the entry does to this thread
        session = ort.InferenceSession(
            path, options, providers=providers or None, enable_fallback=0
        )
    if memory != "low":
        return_free_memory()
    return session


@contextlib.contextmanager
def _arena_of_its_own(options: ort.SessionOptions) -> Iterator[None]:
    """Give the session that is opened within an arena that starts with `FIRST_REGION_BYTES`.

    ONNX Runtime takes such a setting from the allocators of the process alone. So one is registered for
    this session, and behind it another one that holds nothing: the arena goes when the session does. What a
    program has registered itself is replaced. Where that fails, the session has ONNX Runtime's own arena.
    """
    with _REGISTERING:  # of two threads at once, one would get the other's arena
        if not _register_arena():
            yield
            return
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            yield
        finally:
            _register_arena()


def _register_arena() -> bool:
    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    arena = ort.OrtArenaCfg({"initial_chunk_size_bytes": FIRST_REGION_BYTES})
    try:
        ort.create_and_register_allocator(place, arena)
    except Exception:  # onnxruntime raises a kind of its own per failure
        return False
    return True


def return_free_memory() -> None:
    """Give pages that malloc keeps for later back to the system, where the C library can.

    ONNX Runtime packs a weight again for each node that reads it, and each weight of a prepared file once
    more, finds the packed one by its hash, and frees the second: glibc keeps some 3 to 14 MiB of that
    (docs/memory.md).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
