"""Two profiles, before and after: what changed, by how much, and whether that is beyond the noise.

docs/profiling.md says which figures are judged against an allowed regression, and why.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import BudgetError, InputError
from loopedge.profiler.comparison.matching import (
    SETTINGS,
    cautions_of,
    pairs_of,
    same_machine,
    same_reference,
    was_busy,
)
from loopedge.profiler.figures import (
    FIGURE_NAMES,
    GPU_FIGURES,
    LATENCY,
    beyond_noise,
    figure_of,
    figure_text,
    spread_of,
)
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Failure, ProfileResult, Run
from loopedge.profiler.result_file import read_profile
from loopedge.units import percent_text, ratio_text

__all__ = [
    "COMPARISON_VERSION",
    "Change",
    "ComparedRun",
    "Comparison",
    "Regression",
    "check_regressions",
    "compare",
    "compare_files",
]

COMPARISON_VERSION = 1
"""Of its JSON."""

JUDGED_BYTES = (
    "file_bytes",
    "weight_bytes",
    "anon_bytes",
    "uss_bytes",
    "rss_load_bytes",
    "rss_peak_bytes",
    *GPU_FIGURES,
)
ADVISED_BYTES = ("mapped_bytes",)
"""Pages of files come and go as the kernel likes."""

TIMES = ("time_ratio", LATENCY)
ADVISED_TIMES = ("load_seconds",)
"""Depends on what the page cache holds."""

STORED = ("file_bytes", "weight_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure of a run, before and after.

    ``ratio`` is after over before, None where that is no number; ``beyond_noise`` whether the ranges
    over the processes do not meet, None where one process measured it; ``judged`` whether the figure
    counts against an allowed regression, ``past`` whether it is past that.
    """

    figure: str
    before: float
    after: float
    ratio: float | None
    beyond_noise: bool | None
    judged: bool
    past: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run that both profiles hold, named as in the second; ``label`` tells it from its namesakes."""

    label: str
    name: str
    path: str
    twin: str | None
    runtime: str
    device: str
    memory: str
    threads: int
    batch: int
    sequence: int | None
    loops: int | None
    compute: str
    cuda_graph: bool
    changes: list[Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A judged figure that is past what is allowed, or a run that can no longer be measured.

    ``figure`` is None for the latter, and so are the numbers.
    """

    label: str
    figure: str | None
    before: float | None
    after: float | None
    ratio: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two profiles: the runs of both, those of one alone, what speaks against it, what regressed."""

    schema_version: int
    before_created: str
    after_created: str
    same_machine: bool
    max_regression: float | None
    cautions: list[str]
    runs: list[ComparedRun]
    new: list[str]
    gone: list[str]
    regressions: list[Regression]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def compare_files(
    before: str | Path, after: str | Path, *, max_regression: float | None = None
) -> Comparison:
    """Compare two files that ``loopedge profile --json`` printed; see `compare`.

    Raises:
        InputError: A file holds no profile, or as `compare`.
    """
    return compare(read_profile(before), read_profile(after), max_regression=max_regression)


def compare(
    before: ProfileResult, after: ProfileResult, *, max_regression: float | None = None
) -> Comparison:
    """Compare two profiles, run by run.

    Runs belong together when their settings are the same and so is their path, or else their name.

    Args:
        before: The earlier profile.
        after: The later one.
        max_regression: By which part a judged figure may grow: 0.05 allows 5 %. None: nothing is
            judged, and there are no regressions.

    Returns:
        What changed; `check_regressions` raises where something is past what is allowed.

    Raises:
        InputError: ``max_regression`` is negative or no number, or the profiles have no run in common.
    """
    _check_allowed(max_regression)
    pairs = pairs_of(before.runs, after.runs)
    old, new = _labels(before.runs), _labels(after.runs)
    figures = _figures(before, after, pairs)
    compared = [
        _compared(one, other, new[id(other)], figures, max_regression) for one, other in pairs
    ]
    matched = {id(run) for pair in pairs for run in pair}
    gone = [run for run in before.runs if id(run) not in matched]
    failed = _failed({old[id(run)]: run for run in gone}, after.failures)
    if not pairs and not failed:
        raise InputError(
            "the two profiles have no run in common: same file, twin and settings",
            hint="profile the same models with the same options",
        )
    past = [_regression(run, change) for run in compared for change in run.changes if change.past]
    return Comparison(
        schema_version=COMPARISON_VERSION,
        before_created=before.created,
        after_created=after.created,
        same_machine=same_machine(before, after),
        max_regression=max_regression,
        cautions=cautions_of(before, after, pairs),
        runs=compared,
        new=[new[id(run)] for run in after.runs if id(run) not in matched],
        gone=[old[id(run)] for run in gone],
        regressions=[] if max_regression is None else [*failed, *past],
    )


def check_regressions(comparison: Comparison) -> None:
    """Refuse a comparison with regressions.

    Raises:
        BudgetError: A judged figure is past what is allowed, or a run can no longer be measured.
    """
    found = comparison.regressions
    if not found or comparison.max_regression is None:
        return
    ratios = [item.ratio for item in found if item.ratio is not None]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    raise BudgetError(
        f"{found[0].label}: {found[0].reason}{more}; "
        f"allowed is a growth by {percent_text(comparison.max_regression)}",
        measured=max(ratios) - 1 if ratios else None,
        allowed=comparison.max_regression,
    )


def _labels(runs: Sequence[Run]) -> dict[int, str]:
    return dict(zip(map(id, runs), run_labels(runs), strict=True))


def _check_allowed(max_regression: float | None) -> None:
    if max_regression is not None and not 0 <= max_regression < math.inf:
        raise InputError(
            f"max-regression is {max_regression}, 0 or more is needed", hint="--max-regression 0.05"
        )


def _figures(
    before: ProfileResult, after: ProfileResult, pairs: Sequence[tuple[Run, Run]]
) -> dict[str, bool]:
    """Return the figures that can be compared, and whether they are judged."""
    figures = dict.fromkeys(JUDGED_BYTES, True) | dict.fromkeys(ADVISED_BYTES, False)
    if not same_machine(before, after):
        return figures
    if same_reference(before, after, pairs):
        figures["time_ratio"] = True
    figures[LATENCY] = not was_busy(before, after)
    return figures | dict.fromkeys(ADVISED_TIMES, False)


def _compared(
    before: Run, after: Run, label: str, figures: dict[str, bool], allowed: float | None
) -> ComparedRun:
    changes = [
        _change(before, after, figure, judged, allowed) for figure, judged in figures.items()
    ]
    return ComparedRun(
        label=label,
        changes=[change for change in changes if change is not None],
        **{name: getattr(after, name) for name in ("name", "path", *SETTINGS)},
    )


def _change(
    before: Run, after: Run, figure: str, judged: bool, allowed: float | None
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


def _is_past(before: Run, after: Run, figure: str, allowed: float) -> bool:
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


def _regression(run: ComparedRun, change: Change) -> Regression:
    old, new = (figure_text(change.figure, value) for value in (change.before, change.after))
    grown = "grew" if change.ratio is None else f"is {ratio_text(change.ratio)} what it was"
    return Regression(
        label=run.label,
        figure=change.figure,
        before=change.before,
        after=change.after,
        ratio=change.ratio,
        reason=f"{FIGURE_NAMES[change.figure]} {grown}, {old} before and {new} after",
    )


def _failed(gone: dict[str, Run], failures: Sequence[Failure]) -> list[Regression]:
    """Return the runs of before whose model could not be measured after."""
    reasons = {(failure.name, failure.twin): failure.reason for failure in failures}
    reasons |= {(failure.path, failure.twin): failure.reason for failure in failures}
    told = [
        (label, reasons.get((run.path, run.twin)) or reasons.get((run.name, run.twin)))
        for label, run in gone.items()
    ]
    return [
        Regression(
            label=label,
            figure=None,
            before=None,
            after=None,
            ratio=None,
            reason=f"cannot be measured any more: {reason}",
        )
        for label, reason in told
        if reason is not None
    ]
