"""What a model takes of a GPU: memory by source, and which nodes do not run there."""

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.profiler.dissection.arena import ArenaUse, arena_use
from loopedge.profiler.dissection.nvml import Meter, NoMeterError, PeakWatch, open_meter
from loopedge.profiler.dissection.trace import read_trace
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import GpuMemory
from loopedge.runtime.cuda import CUDA_PROVIDER
from loopedge.runtime.placement import read_placement

__all__ = ["GpuReadings", "device_arena_use", "measure_gpu", "split_memory"]

RUNS = 5
"""The first allocates, a CUDA graph is captured in the second; the others are as all later ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReadings:
    """What NVML read of one process, in bytes: with a context alone, loaded, at its peak."""

    context_bytes: int | None = None
    loaded_bytes: int | None = None
    peak_bytes: int | None = None


def measure_gpu(setup: ProcessSetup, weight_bytes: int) -> tuple[GpuMemory, list[str]]:
    """Run a model a few times in a fresh process that has the GPU, of ours, to itself.

    Args:
        setup: The model.
        weight_bytes: Its weights as stored: CUDA does not pack, they are on the device once.

    Returns:
        Memory and placement, and notes on what could not be measured.

    Raises:
        ProviderError: CUDA does not run the model.
        LoopedgeError: The model cannot be loaded or run.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        meter: Meter | None = None
        try:
            meter = open_meter()
            stack.callback(meter.close)
        except NoMeterError as reason:
            notes.append(f"GPU memory was not measured: {reason}")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="loopedge."))
        readings, events = _run(setup, meter, Path(folder) / "trace")
        name = meter.name if meter else "unknown"
        source, driver = (meter.source, meter.driver) if meter else (None, None)
        if source == "device":
            notes.append(
                "the driver reports no memory per process here: GPU memory is the growth of what is used of "
                f"the device, {'idle before' if meter and meter.alone else 'which others share'}"
            )
    placement = read_placement(events)
    arena = device_arena_use(events, weight_bytes)
    return GpuMemory(
        name=name,
        driver=driver,
        source=source,
        weights_bytes=weight_bytes,
        **split_memory(readings, arena, weight_bytes),
        memcpy_nodes=placement.memcpy_nodes,
        cuda_graph=setup.cuda_graphs and placement.replayed,
        fell_back=[str(node) for node in placement.fell_back],
        host_nodes=[str(node) for node in placement.host_nodes],
    ), notes


def _run(
    setup: ProcessSetup, meter: Meter | None, trace: Path
) -> tuple[GpuReadings, list[dict[str, Any]]]:
    """Load and run a model; read its memory before and after loading, and at its peak over all."""
    with ExitStack() as stack:
        before: list[tuple[int, int | None, PeakWatch]] = []

        def used(pid: int) -> int | None:
            return None if meter is None else meter.used_bytes(pid)

        def look(pid: int) -> None:
            watch = PeakWatch(lambda: used(pid))
            before.append((pid, used(pid), stack.enter_context(watch)))

        process = stack.enter_context(MeasuredProcess(setup, trace=trace, before_load=look))
        ((pid, context, watch),) = before
        loaded = used(pid)
        process.run(RUNS)
        readings = GpuReadings(context_bytes=context, loaded_bytes=loaded, peak_bytes=watch.stop())
        return readings, read_trace(process.end_trace())


def device_arena_use(events: Iterable[Mapping[str, Any]], weight_bytes: int) -> ArenaUse | None:
    """Read the statistics of the device's arena out of a trace; None where there are none.

    Each node of a trace carries those of its own provider's arena (ONNX Runtime 1.31 and later).

    Args:
        events: Of the trace, the first run too.
        weight_bytes: What must have been in the arena before the first node: figures of less than half
            of it come from another one.
    """
    arena = arena_use(
        event for event in events if event.get("args", {}).get("provider") == CUDA_PROVIDER
    )
    return None if arena is None or arena.loaded_bytes < weight_bytes / 2 else arena


def split_memory(
    readings: GpuReadings, arena: ArenaUse | None, weight_bytes: int
) -> dict[str, int | None]:
    """Tell weights, activations and workspace apart.

    Activations are what the arena held in use at most beyond the load; without its statistics, what
    the process grew by from loading to its peak. The workspace is what the process holds beyond the
    context, weights and activations: handles and buffers of cuBLAS and cuDNN, kernels, and what the
    arena keeps in reserve. Where the parts are more than the process, something else let go of memory
    meanwhile or a short peak fell between two readings: then no workspace is named.

    Returns:
        By the names of `GpuMemory`, in bytes.
    """
    context, loaded, peak = readings.context_bytes, readings.loaded_bytes, readings.peak_bytes
    process = None if peak is None or context is None else peak - context
    activations = workspace = None
    if arena is not None:
        activations = arena.activations_bytes
    elif peak is not None and loaded is not None:
        activations = peak - loaded
    if process is not None and activations is not None:
        rest = process - weight_bytes - activations
        workspace = rest if rest >= 0 else None
    return {
        "process_bytes": process,
        "context_bytes": context,
        "workspace_bytes": workspace,
        "activations_bytes": activations,
        "arena_bytes": None if arena is None else arena.loaded_bytes + arena.held_bytes,
    }
