"""Memory and nodes of the runs on a GPU."""

from collections.abc import Sequence
from html import escape

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import GpuMemory, Run
from loopedge.report.page import table
from loopedge.report.svg.bars import Part, bar
from loopedge.report.svg.legend import legend
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["gpu_cells", "gpu_section"]

PARTS = (
    ("weights_bytes", "weights", "op0"),
    ("workspace_bytes", "workspace", "op1"),
    ("activations_bytes", "activations", "op2"),
    ("context_bytes", "context and libraries", "rest"),
)
LISTED = 8


def gpu_section(runs: Sequence[Run]) -> list[str]:
    """Return bars of GPU memory, a table, and what ran on the CPU instead."""
    known = [
        (label, run, run.gpu)
        for label, run in zip(run_labels(runs), runs, strict=True)
        if run.gpu is not None
    ]
    if not known:
        return []
    largest = max(sum(value for *_, value in _parts(gpu)) for *_, gpu in known) or 1
    lines = ["<h2>GPU</h2>", "<figure>"]
    devices = ", ".join(dict.fromkeys(gpu.name for *_, gpu in known))
    lines.append(f"<figcaption>Memory on {escape(devices)}</figcaption>")
    for label, _, gpu in known:
        parts = [
            Part(colour, f"{name}: {size_text(value)}", value / largest)
            for name, colour, value in _parts(gpu)
        ]
        lines += bar(label, size_text(sum(value for *_, value in _parts(gpu))), parts)
    lines += [*legend([(colour, name) for _, name, colour in PARTS]), "</figure>"]
    heads = (
        "model", "weights", "workspace", "activations", "context", "Memcpy nodes", "nodes on the CPU",
        "process", "CUDA graph", "p50", "time",
    )  # fmt: skip
    rows = [
        (
            label,
            *gpu_cells(run, gpu),
            _size(gpu.process_bytes),
            "yes" if gpu.cuda_graph else "no",
            time_text(run.latency_ms.p50),
            ratio_text(run.time_ratio),
        )
        for label, run, gpu in known
    ]
    return [
        *lines,
        *table(heads, rows),
        '<p class="note">Process: its memory on the GPU beyond the context at the peak, by NVML; "-" where '
        "the driver does not tell. A Memcpy node copies between the CPU and the GPU.</p>",
        *(_fallen(label, gpu.fell_back) for label, _, gpu in known if gpu.fell_back),
    ]


def gpu_cells(run: Run, gpu: GpuMemory) -> list[str]:
    """Return weights, workspace, activations, context, Memcpy nodes and nodes on the CPU."""
    sizes = (gpu.weights_bytes, gpu.workspace_bytes, gpu.activations_bytes, gpu.context_bytes)
    elsewhere = sum(count for name, count in run.nodes.items() if name != run.provider)
    return [*map(_size, sizes), str(gpu.memcpy_nodes), str(elsewhere)]


def _parts(gpu: GpuMemory) -> list[tuple[str, str, int]]:
    return [(name, colour, max(getattr(gpu, key) or 0, 0)) for key, name, colour in PARTS]


def _size(size: int | None) -> str:
    return "-" if size is None else size_text(size)


def _fallen(label: str, nodes: Sequence[str]) -> str:
    more = f", and {len(nodes) - LISTED} more" if len(nodes) > LISTED else ""
    named = ", ".join(nodes[:LISTED])
    return f"<p>{escape(f'{label}: on the CPU ran {named}{more}.')}</p>"
