"""One sentence per comparison: what tying saves, and what it costs."""

from loopedge.profiler.pipeline import ProfileResult, Run
from loopedge.units import ratio_text, size_text

__all__ = ["cautions", "verdicts"]

BUSY = 1.5
"""Median against the fastest run: beyond this, something else was running."""


def verdicts(result: ProfileResult) -> list[str]:
    """Return one sentence per untied twin, and one per model that is not the first."""
    models = [run for run in result.runs if run.twin is None]
    twins = {run.path: run for run in result.runs if run.twin == "untied"}
    tied = [_tie_verdict(run, twins[run.path]) for run in models if run.path in twins]
    others = [_plain_verdict(models[0], other) for other in models[1:]]
    return [*tied[:1], *others, *tied[1:]]


def cautions(result: ProfileResult) -> list[str]:
    """Return what speaks against the figures: nodes that fell back, a machine that was busy."""
    fell_back = [
        f"{run.name}: {count} of {sum(run.nodes.values())} nodes ran on {provider}, "
        f"not on {run.provider}."
        for run in result.runs
        for provider, count in run.nodes.items()
        if provider != run.provider
    ]
    busiest = max(run.latency_ms.p50 / run.latency_ms.min for run in result.runs)
    busy = (
        f"The machine was busy: half of the runs took {ratio_text(busiest)} the fastest or longer. "
        "Bytes and time ratios hold; take p50, p95 and p99 again."
    )
    return [*fell_back, *([busy] if busiest > BUSY else [])]


def _tie_verdict(run: Run, twin: Run) -> str:
    tied = f"tying {run.loops} iterations" if run.loops else "tying its weights"
    return (
        f"{run.name}: {tied} makes the file "
        f"{_saving(twin.file_bytes, run.file_bytes)}, memory after load "
        f"{_saving(twin.anon_bytes, run.anon_bytes)}, peak memory "
        f"{_saving(twin.rss_peak_bytes, run.rss_peak_bytes)}, at "
        f"{ratio_text(run.time_ratio / twin.time_ratio)} the time of untied weights."
    )


def _saving(untied: int, tied: int) -> str:
    if tied <= 0 or untied <= 0:
        return f"{size_text(untied - tied)} smaller"
    sizes = f"({size_text(tied)} against {size_text(untied)})"
    if untied < tied:
        return f"{ratio_text(tied / untied)} larger {sizes}"
    return f"{ratio_text(untied / tied)} smaller {sizes}"


def _plain_verdict(first: Run, other: Run) -> str:
    return (
        f"{other.name} against {first.name}: "
        f"{ratio_text(other.file_bytes / first.file_bytes)} the file, "
        f"{ratio_text(max(other.rss_peak_bytes, 0) / max(first.rss_peak_bytes, 1))} the peak memory, "
        f"{ratio_text(other.time_ratio / first.time_ratio)} the time."
    )
