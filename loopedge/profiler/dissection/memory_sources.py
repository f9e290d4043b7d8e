"""Take a model's memory apart by source, at the peak of loading and at that of running."""

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.errors import LoopedgeError
from loopedge.profiler.child.process_memory import SMAPS
from loopedge.profiler.dissection.arena import ArenaUse, arena_use
from loopedge.profiler.dissection.stored import copied_bytes
from loopedge.profiler.dissection.trace import read_trace
from loopedge.profiler.processes.highest import HighestMoment
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import MemorySources

__all__ = ["memory_sources", "with_peak"]

RUNS = 5
"""Inferences before the memory of running is read; it stands still after the second."""

ATTEMPTS = 4
MISSED_SHARE = 0.02
"""Of the peak of loading; where more of it was missed between two readings, the model is loaded again."""

CACHE = re.compile(r"(^|[._/])(past|present|cache)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What a loaded model holds in anonymous memory, in bytes, malloc trimmed."""

    packed_bytes: int
    copied_bytes: int
    graph_bytes: int

    @property
    def anon_bytes(self) -> int:
        return self.packed_bytes + self.copied_bytes + self.graph_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """Growth in bytes: the peak, and what is there after it, anonymous and of libraries."""

    name: str
    peak_bytes: int
    model_bytes: int
    retained_bytes: int
    transient_bytes: int
    anon_bytes: int
    libraries_bytes: int


def memory_sources(
    setup: ProcessSetup,
    events: Iterable[Mapping[str, Any]],
    files: Sequence[Path],
    *,
    outputs: Sequence[str] = (),
) -> tuple[MemorySources, MemorySources]:
    """Measure what the memory of a model consists of, in up to four processes of its own.

    Args:
        setup: The model; in ONNX Runtime, on the CPU.
        events: The trace of a few runs under the model's own memory profile.
        files: The model's file and those of its weights: pages of them that are mapped are counted as such.
        outputs: Names of its outputs; those that carry a cache are counted as such.

    Returns:
        The parts at the peak of loading, and at that of running. Each adds up to its own
        ``peak_bytes``; docs/profiling.md says how every part is measured.

    Raises:
        LoopedgeError: The system has no /proc/<pid>/smaps, or a process died.
        InputError: The model cannot be loaded.
    """
    if not SMAPS.exists():
        raise LoopedgeError(
            "memory by source needs /proc/<pid>/smaps of Linux, which this system does not have",
            hint="profile on the device, or leave the sources out",
        )
    mapped = [os.path.realpath(file) for file in files]
    arena = arena_use(events)
    loaded = _measure_loaded(setup, arena)
    process, highest = _load_watched(setup)
    with process:
        loading = _loading(process, highest, mapped, loaded)
        running = _running(process, mapped, loaded, arena)
        cache = _cache_bytes(process, outputs)
    if arena is None:  # its peak is not known; what the runs left behind is the least it was
        left = running.anon_bytes - running.retained_bytes - loaded.anon_bytes
        arena = ArenaUse(activations_bytes=max(left, 0))
    return (
        _parts(loading, loaded, ArenaUse(), 0),
        _parts(running, loaded, arena, min(cache, arena.activations_bytes)),
    )


def with_peak(sources: MemorySources, peak_bytes: int) -> MemorySources:
    """Return the sources of a peak that other processes measured.

    What malloc keeps differs from process to process: where theirs is lower, less was retained; all
    other difference stands in ``other_bytes``.
    """
    grown = peak_bytes - sources.peak_bytes
    less = min(max(-grown, 0), sources.retained_bytes)
    return replace(
        sources,
        peak_bytes=peak_bytes,
        retained_bytes=sources.retained_bytes - less,
        other_bytes=sources.other_bytes + grown + less,
    )


def _measure_loaded(setup: ProcessSetup, arena: ArenaUse | None) -> _Loaded:
    """Load with packing and without, each trimmed, and ask for the graph that runs."""
    low = replace(setup, memory="low")
    with tempfile.TemporaryDirectory(prefix="loopedge.") as scratch:
        optimized = Path(scratch) / "optimized.onnx"
        copied = 0
        if not is_ort_format(setup.model):  # that was optimized when written, and is mapped whole
            with MeasuredProcess(low, optimized=optimized):
                copied = copied_bytes(optimized)
        with MeasuredProcess(low, trace=Path(scratch) / "trace") as process:
            process.trim()
            plain = held = process.memory()["anon_bytes"]
            process.run(1)
            unpacked = arena_use(read_trace(process.end_trace()))
    if setup.memory != "low":
        with MeasuredProcess(setup) as process:
            process.trim()
            held = process.memory()["anon_bytes"]
    if arena is None or unpacked is None:
        packed = max(held - plain, 0)
    else:
        packed = max(arena.loaded_bytes - unpacked.loaded_bytes, 0)
    # A copy whose packed form is all that is read is freed: then packing adds less than it takes.
    freed = max(plain - (held - packed), 0)
    copied = max(copied - freed, 0)
    return _Loaded(
        packed_bytes=packed,
        copied_bytes=copied,
        graph_bytes=max(held - packed - copied, 0),
    )


def _load_watched(setup: ProcessSetup) -> tuple[MeasuredProcess, HighestMoment]:
    """Load the model and watch it; again, where the peak fell between two readings."""
    for attempt in range(ATTEMPTS):
        highest = HighestMoment()
        try:
            process = MeasuredProcess(setup, on_start=highest.start)
        finally:
            highest.stop()
        peak = process.loaded["baseline"]["rss_bytes"] + process.loaded["memory"]["peak_bytes"]
        missed = peak - highest.rss_bytes
        if missed <= MISSED_SHARE * process.loaded["memory"]["peak_bytes"]:
            break
        if attempt < ATTEMPTS - 1:
            process.close()
    return process, highest


def _loading(
    process: MeasuredProcess, highest: HighestMoment, files: Collection[str], loaded: _Loaded
) -> _Moment:
    baseline, grown = process.loaded["baseline"], process.loaded["memory"]
    after = process.resident(files)
    mapped = highest.mapped_bytes - baseline["mapped_bytes"]
    anonymous = highest.rss_bytes - highest.mapped_bytes - baseline["anon_bytes"]
    return _Moment(
        name="load",
        peak_bytes=grown["peak_bytes"],
        model_bytes=max(mapped - after["libraries_bytes"] - after["files_bytes"], 0),
        retained_bytes=max(grown["anon_bytes"] - loaded.anon_bytes, 0),
        transient_bytes=max(anonymous - grown["anon_bytes"], 0),
        anon_bytes=grown["anon_bytes"],
        libraries_bytes=after["libraries_bytes"],
    )


def _running(
    process: MeasuredProcess, files: Collection[str], loaded: _Loaded, arena: ArenaUse | None
) -> _Moment:
    process.reset_peak()
    process.run(RUNS)
    memory = process.memory()
    after = process.resident(files)  # reading the mappings takes memory: last
    process.trim()
    trimmed = process.memory()["anon_bytes"]
    given_back = memory["peak_bytes"] - memory["rss_bytes"]
    kept_by_malloc = max(memory["anon_bytes"] - trimmed, 0)
    kept_by_arena = 0
    if arena is not None:
        unused = trimmed - loaded.anon_bytes - arena.activations_bytes
        kept_by_arena = min(unused, arena.held_bytes - arena.activations_bytes)
        # A large buffer of a kernel is an activation while it is there; then malloc gives it back, or keeps it.
        buffers = max(-unused, 0)
        kept_by_malloc -= min(max(buffers - given_back, 0), kept_by_malloc)
        given_back -= buffers
    return _Moment(
        name="run",
        peak_bytes=memory["peak_bytes"],
        model_bytes=after["model_bytes"],
        retained_bytes=kept_by_malloc + max(kept_by_arena, 0),
        transient_bytes=max(given_back, 0),
        anon_bytes=memory["anon_bytes"],
        libraries_bytes=after["libraries_bytes"],
    )


def _cache_bytes(process: MeasuredProcess, outputs: Sequence[str]) -> int:
    """Return the bytes of the outputs that carry a cache."""
    caches = [name for name in outputs if CACHE.search(name)]
    if not caches:
        return 0
    with tempfile.TemporaryDirectory(prefix="loopedge.") as scratch:
        path = process.save_outputs(Path(scratch) / "outputs.npz")
        with np.load(path, allow_pickle=False) as stored:
            return sum(int(stored[name].nbytes) for name in caches)


def _parts(moment: _Moment, loaded: _Loaded, arena: ArenaUse, cache_bytes: int) -> MemorySources:
    parts = {
        "weights_mapped_bytes": moment.model_bytes,
        "weights_copied_bytes": loaded.copied_bytes,
        "packed_bytes": loaded.packed_bytes,
        "activations_bytes": arena.activations_bytes - cache_bytes,
        "kv_cache_bytes": cache_bytes,
        "graph_bytes": loaded.graph_bytes,
        "retained_bytes": moment.retained_bytes,
        "transient_bytes": moment.transient_bytes,
        "runtime_bytes": moment.libraries_bytes,
    }
    return MemorySources(
        moment=moment.name,
        peak_bytes=moment.peak_bytes,
        **parts,
        other_bytes=moment.peak_bytes - sum(parts.values()),
        peak_node=arena.peak_node,
    )
