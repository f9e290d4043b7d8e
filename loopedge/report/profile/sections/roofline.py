"""How near each run comes to what the machine's own GEMM and copy reach."""

from collections.abc import Sequence

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import MachineLimits, Run
from loopedge.report.page import table
from loopedge.report.svg.bars import Part, bar

__all__ = ["limits_text", "roofline_section"]


def limits_text(limits: MachineLimits) -> str:
    """Say what the machine reaches: ``1 thread: GEMM 62 GFLOP/s, int8 GEMM 180 GOP/s, copy 11 GB/s``."""
    threads = f"{limits.threads} thread{'' if limits.threads == 1 else 's'}"
    parts = [f"GEMM {limits.gflops_per_second:.3g} GFLOP/s"]
    if limits.int8_gops_per_second is not None:
        parts.append(f"int8 GEMM {limits.int8_gops_per_second:.3g} GOP/s")
    return f"{threads}: {', '.join([*parts, f'copy {limits.gb_per_second:.3g} GB/s'])}"


def roofline_section(runs: Sequence[Run], limits: Sequence[MachineLimits]) -> list[str]:
    """Return bars of the share of both limits, and the figures as a table."""
    known = [
        (label, run.roofline)
        for label, run in zip(run_labels(runs), runs, strict=True)
        if run.roofline is not None
    ]
    if not known:
        return []
    lines = ["<h2>Against the machine's limits</h2>"]
    if limits:
        reached = "; ".join(map(limits_text, limits))
        lines.append(f'<p class="note">Measured in the same profile, {reached}.</p>')
    lines.append('<div class="panels">')
    for title, note, key, colour in (
        ("Arithmetic", "operations a second, of what GEMM reaches", "compute_share", "op0"),
        ("Traffic", "bytes a second that must move, of what a copy reaches", "copy_share", "op2"),
    ):
        lines += ["<figure>", f"<figcaption><b>{title}</b>: {note}</figcaption>"]
        for label, roofline in known:
            share = float(getattr(roofline, key))
            lines += bar(label, f"{share:.0%}", [Part(colour, label, min(max(share, 0.0), 1.0))])
        lines.append("</figure>")
    rows = [
        (
            label,
            f"{item.gflop:.3g}",
            f"{item.gb * 1000:.3g}",
            f"{item.gflops_per_second:.3g}",
            f"{item.compute_share:.0%}",
            f"{item.gb_per_second:.3g}",
            f"{item.copy_share:.0%}",
            item.bound,
        )
        for label, item in known
    ]
    heads = ("model", "GFLOP", "MB", "GFLOP/s", "of GEMM", "GB/s", "of copy", "bound by")
    return [
        *lines,
        "</div>",
        *table(heads, rows),
        '<p class="note">GFLOP and MB are those of one inference: its products, and the least that it '
        "must read and write, weights once per use and activations once. Bound by neither: both shares are "
        "below a half, and a faster GEMM or memory would change little.</p>",
    ]
