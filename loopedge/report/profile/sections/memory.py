"""What the peak of each run consists of, and what each memory figure means."""

from collections.abc import Sequence
from html import escape

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import MemorySources, Run
from loopedge.report.page import Cell, table
from loopedge.report.svg.bars import Part, bar
from loopedge.report.svg.legend import legend
from loopedge.units import size_text

__all__ = ["SHORT_SOURCES", "SOURCES", "meaning_section", "sources_by_moment", "sources_section"]

SOURCES = {
    "weights_mapped_bytes": "weights, mapped from the file",
    "weights_copied_bytes": "weights, copied",
    "packed_bytes": "weights, packed",
    "activations_bytes": "activations",
    "kv_cache_bytes": "KV cache",
    "graph_bytes": "graph objects",
    "retained_bytes": "freed, kept by malloc",
    "transient_bytes": "at the peak only",
    "runtime_bytes": "libraries",
    "other_bytes": "other",
}
"""The parts of `MemorySources` in words, in the order of the bars."""

SHORT_SOURCES = {
    "weights_mapped_bytes": "mapped",
    "weights_copied_bytes": "copied",
    "packed_bytes": "packed",
    "activations_bytes": "activations",
    "kv_cache_bytes": "cache",
    "graph_bytes": "graph",
    "retained_bytes": "kept",
    "transient_bytes": "transient",
    "runtime_bytes": "libraries",
    "other_bytes": "other",
}
"""The same where there is little room."""

MOMENTS = {"load": "loading", "run": "running"}

COLOURS = ("op0", "op6", "op1", "op2", "op3", "op4", "op5", "op8", "op7", "rest")

MEANINGS = {
    "peak (VmHWM)": "the highest resident memory from loading to the last inference, as the kernel counted it",
    "RSS (VmRSS)": "all resident pages after load, of files and of none",
    "anonymous (RssAnon)": "pages of no file: they cannot be dropped, only swapped; compare models by this",
    "file-mapped (RssFile)": "pages of files, such as mapped weights: the kernel may drop them and read them again",
    "USS": "pages that no other process shares: what ending the process would free",
}


def sources_by_moment(runs: Sequence[Run]) -> list[tuple[str, MemorySources]]:
    """Return the sources of each run under its label: of loading and of running, where both are known."""
    found = []
    for label, run in zip(run_labels(runs), runs, strict=True):
        both = {item.moment: item for item in (run.memory_sources, run.running_sources) if item}
        for moment in MOMENTS:
            if moment in both:
                ending = f", {MOMENTS[moment]}" if len(both) > 1 else ""
                found.append((label + ending, both[moment]))
    return found


def sources_section(runs: Sequence[Run]) -> list[str]:
    """Return stacked bars of the peaks by source, and their figures as a table."""
    known = sources_by_moment(runs)
    if not known:
        return []
    named = [
        (key, colour)
        for key, colour in zip(SOURCES, COLOURS, strict=True)
        if any(getattr(sources, key) for _, sources in known)
    ]
    largest = max(sum(max(getattr(sources, key), 0) for key, _ in named) for _, sources in known)
    lines = [
        "<h2>Memory by source</h2>",
        "<figure>",
        "<figcaption>What the peaks of loading and of running consist of; the parts add up to them. Other is what none of them "
        "explains, and is negative where two of them count the same bytes.</figcaption>",
    ]
    for label, sources in known:
        values = [(colour, SOURCES[key], getattr(sources, key)) for key, colour in named]
        parts = [
            Part(colour, f"{name}: {size_text(value)}", max(value, 0) / (largest or 1))
            for colour, name, value in values
        ]
        lines += bar(label, size_text(sources.peak_bytes), parts)
    nodes = {sources.peak_node for _, sources in known if sources.peak_node}
    rows: list[Sequence[Cell]] = [
        (
            (label, f"activations largest at {sources.peak_node}")
            if len(nodes) > 1 and sources.peak_node
            else label,
            *(size_text(getattr(sources, key)) for key, _ in named),
            size_text(sources.peak_bytes),
        )
        for label, sources in known
    ]
    return [
        *lines,
        *legend([(colour, SOURCES[key]) for key, colour in named]),
        "</figure>",
        *table(["model", *(SOURCES[key] for key, _ in named), "peak"], rows),
        *_peak_node(nodes),
    ]


def _peak_node(nodes: set[str]) -> list[str]:
    """Say at which node the activations are largest, where it is the same for all."""
    node = next(iter(nodes)) if len(nodes) == 1 else None
    return [f'<p class="note">Activations are largest at {escape(node)}.</p>'] if node else []


def meaning_section(runs: Sequence[Run]) -> list[str]:
    """Return one line for each memory figure, and the baseline that all are counted from."""
    if not runs:
        return []
    lines = ["<h2>What the memory figures mean</h2>", "<dl>"]
    lines += [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in MEANINGS.items()]
    baselines: dict[str, int] = {}
    for run in runs:
        baselines.setdefault(run.runtime, run.baseline_bytes)
    sizes = ", ".join(f"{size_text(size)} ({runtime})" for runtime, size in baselines.items())
    return [
        *lines,
        f"<dt>baseline</dt><dd>{escape(sizes)}: the process with its runtime imported and nothing "
        "loaded; every figure above is the growth over it</dd>",
        "</dl>",
    ]
