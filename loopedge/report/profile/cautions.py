"""What speaks against the figures of a profile: it stands before them, and in the sentences that cite them."""

from collections.abc import Sequence

from loopedge.profiler.figures import BUSY, busy_ratio, stopped_early
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import ProfileResult, Run
from loopedge.report.profile.spread import half_width
from loopedge.units import ratio_text

__all__ = ["cautions", "time_caveat"]

LISTED = 5
"""Nodes that fell back and are named."""
NOISY = 0.1


def cautions(result: ProfileResult) -> list[str]:
    """Return what speaks against the figures: nodes that fell back, a machine that was busy, leaks."""
    runs = result.runs
    labels = run_labels(runs)
    found = [
        f"{label}: {count} of {sum(run.nodes.values())} nodes ran on {provider}, "
        f"not on {run.provider}."
        for label, run in zip(labels, runs, strict=True)
        for provider, count in run.nodes.items()
        if provider != run.provider and run.gpu is None and run.against_cpu is None
    ]
    found += [
        _fallen(label, run.gpu.fell_back)
        for label, run in zip(labels, runs, strict=True)
        if run.gpu is not None and run.gpu.fell_back
    ]
    found += [
        f"{label}: its anonymous memory grew while it ran; see how it does over time."
        for label, run in zip(labels, runs, strict=True)
        if run.soak is not None and run.soak.leaks
    ]
    busiest = max((busy_ratio(run) for run in runs), default=1.0)
    if busiest > BUSY:
        found.append(
            f"The machine was busy: half of the runs took {ratio_text(busiest)} the fastest or "
            "longer. Bytes and time ratios hold; take p50, p95 and p99 again."
        )
    if any(run.processes < 2 for run in runs):
        found.append("One process measured each figure: how far it swings is not known.")
    widest = max((half_width(run, "rss_peak_bytes") for run in runs), default=0.0)
    if widest > NOISY:
        found.append(
            f"Peak memory swings by up to {widest:.0%} between the processes of one model: "
            "compare the ranges, not the medians."
        )
    return found


def _fallen(label: str, nodes: Sequence[str]) -> str:
    """Name what ran on the CPU and computes data; shapes and a Loop's bookkeeping belong there."""
    named = "; ".join(nodes[:LISTED])
    more = f"; and {len(nodes) - LISTED} more" if len(nodes) > LISTED else ""
    return f"{label}: {len(nodes)} nodes fell back to the CPU: {named}{more}."


def time_caveat(*runs: Run) -> str:
    """Return what a reader of these runs' times must know, such as ``on a busy machine``; mostly nothing."""
    caveats = [
        f"{run.name} stopped after {len(run.iterations)} of {run.loops} iterations"
        for run in runs
        if stopped_early(run)
    ]
    if any(busy_ratio(run) > BUSY for run in runs):
        caveats.insert(0, "on a busy machine")
    return ", ".join(caveats)
