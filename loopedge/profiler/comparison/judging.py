"""Which figures of two profiles are compared, and which changes count as regressions."""

import math
from collections.abc import Sequence

from loopedge.profiler.client_report import AnyRun
from loopedge.profiler.comparison.matching import (
    Profile,
    same_client,
    same_machine,
    same_reference,
    was_busy,
)
from loopedge.profiler.comparison.result import Change
from loopedge.profiler.figures import GPU_FIGURES, LATENCY, beyond_noise, figure_of, spread_of

__all__ = ["change_of", "comparable_figures"]

JUDGED_BYTES = (
    "file_bytes",
    "weight_bytes",
    "anon_bytes",
    "uss_bytes",
    "rss_load_bytes",
    "rss_peak_bytes",
    "heap_bytes",
    *GPU_FIGURES,
)
ADVISED_BYTES = ("mapped_bytes",)
"""Pages of files come and go as the kernel likes."""

TIMES = ("time_ratio", LATENCY)
ADVISED_TIMES = ("load_seconds",)
"""Depends on what the page cache holds."""

STORED = ("file_bytes", "weight_bytes")


def comparable_figures(
    before: Profile, after: Profile, pairs: Sequence[tuple[AnyRun, AnyRun]]
) -> dict[str, bool]:
    """Return the figures that can be compared, and whether they are judged: those of two clients are not."""
    if not same_client(before, after):
        return dict.fromkeys((*JUDGED_BYTES, *ADVISED_BYTES, LATENCY, *ADVISED_TIMES), False)
    figures = dict.fromkeys(JUDGED_BYTES, True) | dict.fromkeys(ADVISED_BYTES, False)
    if not same_machine(before, after):
        return figures
    if same_reference(before, after, pairs):
        figures["time_ratio"] = True
    figures[LATENCY] = not was_busy(before, after)
    return figures | dict.fromkeys(ADVISED_TIMES, False)


def change_of(
    before: AnyRun, after: AnyRun, figure: str, *, judged: bool, allowed: float | None
) -> Change | None:
    """Return a figure before and after; None where one of the runs does not have it."""
    old, new = figure_of(before, figure), figure_of(after, figure)
    if not (math.isfinite(old) and math.isfinite(new)):
        return None
    past = judged and allowed is not None and _is_past(before, after, figure, allowed)
    return Change(
        figure=figure,
        before=old,
        after=new,
        ratio=new / old if old > 0 else None,
        beyond_noise=beyond_noise(before, after, figure),
        judged=judged,
        past=past,
    )


def _is_past(before: AnyRun, after: AnyRun, figure: str, allowed: float) -> bool:
    """Tell whether a figure grew by more than is allowed, and not by noise."""
    old, new = figure_of(before, figure), figure_of(after, figure)
    limit = max(old, 0.0) * (1 + allowed)
    beyond = beyond_noise(before, after, figure)
    if new <= limit:
        return False
    if figure in STORED:
        return True
    if figure in TIMES:
        # Three ranges out of ten do not meet on a busy machine, of one and the same model.
        spread = spread_of(after, figure)
        return beyond is True and spread is not None and spread.low > limit
    return beyond is not False
