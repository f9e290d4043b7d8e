"""Two profiles, before and after: what changed, by how much, and whether that is beyond the noise.

docs/profiling.md says which figures are judged against an allowed regression, and why.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from loopedge.errors import BudgetError, InputError
from loopedge.options import option, option_name
from loopedge.profiler.client_report import AnyRun
from loopedge.profiler.comparison.judging import change_of, comparable_figures
from loopedge.profiler.comparison.matching import (
    SETTINGS,
    Profile,
    cautions_of,
    client_name,
    differences_of,
    pairs_of,
    same_client,
    same_machine,
)
from loopedge.profiler.comparison.result import (
    COMPARISON_VERSION,
    Change,
    ComparedRun,
    Comparison,
    Regression,
)
from loopedge.profiler.figures import FIGURE_NAMES, figure_text
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Failure, ProfileResult
from loopedge.profiler.result_file import read_report
from loopedge.units import percent_text, ratio_text

__all__ = ["Comparison", "check_regressions", "compare"]

SAME_WORK = "same name of the file, batch, sequence and loops"


def compare(
    before: str | Path | ProfileResult,
    after: str | Path | ProfileResult,
    *,
    max_regression: float | None = None,
) -> Comparison:
    """Compare two profiles, or a profile with the report of a bundle's client, run by run.

    Runs belong together when their settings are the same and so is their path, or else their name. Of two clients, or
    a profile and a client, they do when the name of the file, batch, sequence and loops are the same.

    Args:
        before: The earlier profile: what `loopedge.profile` returned, or a file that
            ``loopedge profile --json``, or the program ``bench`` of a client, printed.
        after: The later one.
        max_regression: By which part a judged figure may grow: 0.05 allows 5 %. None: nothing is
            judged, and there are no regressions; those of two clients never are.

    Returns:
        What changed; `check_regressions` raises where something is past what is allowed.

    Raises:
        InputError: ``max_regression`` is negative, no number, or asked of two clients; a file holds no profile, or the
            profiles have no run in common.
    """
    _check_allowed(max_regression)
    one, other = _opened(before), _opened(after)
    if max_regression is not None and not same_client(one, other):
        raise InputError(
            f"{client_name(one)} measured the first, {client_name(other)} the second: one does not judge the other",
            hint=f"leave out {option_name('max_regression')}",
        )
    return _compare(one, other, max_regression)


def _opened(profile: str | Path | ProfileResult) -> Profile:
    return profile if isinstance(profile, ProfileResult) else read_report(profile)


def _compare(before: Profile, after: Profile, max_regression: float | None) -> Comparison:
    pairs = pairs_of(before, after)
    old, new = _labels(before.runs), _labels(after.runs)
    figures = comparable_figures(before, after, pairs)
    compared = [
        _compared(one, other, new[id(other)], figures, max_regression) for one, other in pairs
    ]
    matched = {id(run) for pair in pairs for run in pair}
    gone = [run for run in before.runs if id(run) not in matched]
    failed = _failed({old[id(run)]: run for run in gone}, after.failures)
    if not pairs and not failed:
        raise InputError(
            "the two profiles have no run in common: "
            + ("same file, twin and settings" if same_client(before, after) else SAME_WORK),
            hint="profile the same models with the same options",
        )
    past = [_regression(run, change) for run in compared for change in run.changes if change.past]
    return Comparison(
        schema_version=COMPARISON_VERSION,
        before_client=before.client,
        after_client=after.client,
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


def _labels(runs: Sequence[AnyRun]) -> dict[int, str]:
    return dict(zip(map(id, runs), run_labels(runs), strict=True))


def _check_allowed(max_regression: float | None) -> None:
    if max_regression is not None and not 0 <= max_regression < math.inf:
        raise InputError(
            f"{option_name('max_regression')} is {max_regression}, 0 or more is needed",
            hint=option("max_regression", 0.05),
        )


def _compared(
    before: AnyRun, after: AnyRun, label: str, figures: dict[str, bool], allowed: float | None
) -> ComparedRun:
    changes = [
        change_of(before, after, figure, judged=judged, allowed=allowed)
        for figure, judged in figures.items()
    ]
    return ComparedRun(
        label=label,
        changes=[change for change in changes if change is not None],
        differences={
            key: [one, other] for key, (one, other) in differences_of(before, after).items()
        },
        **{name: getattr(after, name) for name in ("name", "path", *SETTINGS)},
    )


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


def _failed(gone: dict[str, AnyRun], failures: Sequence[Failure]) -> list[Regression]:
    """Return the runs of before whose model could not be measured after."""
    reasons = {(failure.name, failure.twin): failure.reason for failure in failures}
    reasons |= {(failure.path, failure.twin): failure.reason for failure in failures}
    failed = [
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
        for label, reason in failed
        if reason is not None
    ]
