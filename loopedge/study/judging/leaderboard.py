"""Arms, untied models and plain baselines in one table, by what they reached on the validation split."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from loopedge.baselines.scores import BaselineScores
from loopedge.study.judging.statistics import over_seeds
from loopedge.study.judging.summary import Summary, Values
from loopedge.study.options import UNLOOPED
from loopedge.study.result import Place
from loopedge.tasks.metrics import Metrics, metric_value

__all__ = ["leaderboard"]

MASE = "mase"
BASELINES = Mapping[str, Sequence[BaselineScores]]
"""By block. A block whose samples are those of another has the same scores."""


def leaderboard(
    summary: Sequence[Summary], baselines_by_block: BASELINES, metric: str, higher_is_better: bool
) -> list[Place]:
    """Return a row for each arm at a loop count and for each plain baseline, the best on the validation split first.

    Rows without a score stand last, in their order, with their reason.

    Args:
        summary: Rows of `summarise`.
        baselines_by_block: Scores of plain baselines.
        metric: The one that decides.
        higher_is_better: Its direction.
    """
    places = [_of_model(row, metric) for row in summary]
    places += [
        _of_baseline(name, scores, metric) for name, scores in _by_name(baselines_by_block).items()
    ]
    sign = -1.0 if higher_is_better else 1.0
    return sorted(
        places,
        key=lambda place: math.inf if place.validation is None else sign * place.validation,
    )


def _by_name(baselines_by_block: BASELINES) -> dict[str, dict[str, BaselineScores]]:
    found: dict[str, dict[str, BaselineScores]] = {}
    for block, scores in baselines_by_block.items():
        for score in scores:
            found.setdefault(score.name, {})[block] = score
    return found


def _values(scores: Mapping[str, BaselineScores], split: str, metric: str) -> Values:
    """Return a metric by block, where it is a finite number."""
    found = {}
    for block, score in scores.items():
        metrics: Metrics = getattr(score, split)
        value = metric_value(metrics, metric)
        if math.isfinite(value):
            found[block] = value
    return found


def _mean(values: Values) -> float | None:
    return fmean(values.values()) if values else None


def _of_baseline(name: str, scores: Mapping[str, BaselineScores], metric: str) -> Place:
    validation, test = (_values(scores, split, metric) for split in ("validation", "test"))
    over = over_seeds(list(test.values()))
    first = next(iter(scores.values()))
    reasons = [score.reason for score in scores.values() if score.reason is not None]
    same = len({(score.about, score.reason) for score in scores.values()}) == 1
    about = first.about if same else f"{first.about}; chosen anew in each block"
    return Place(
        name=name,
        kind="plain",
        validation=_mean(validation),
        test=_mean(test),
        deviation=None if over is None else over.sd,
        mase=_mean(_values(scores, "test", MASE)),
        runs=len(scores),
        finished=len(test),
        about=about,
        reason=reasons[0] if reasons else None,
        upper_bound=any(score.upper_bound for score in scores.values()),
    )


def _of_model(row: Summary, metric: str) -> Place:
    over = row.scores.get(MASE)
    mase = None if over is None else over.mean
    if metric == MASE and row.quality is not None:
        mase = row.quality.mean
    return Place(
        name=_name(row),
        kind="unlooped" if row.arm in UNLOOPED else "looped",
        arm=row.arm,
        loops=row.loops,
        validation=_mean(row.validation),
        test=_mean(row.test),
        deviation=None if row.quality is None else row.quality.sd,
        mase=mase,
        runs=row.runs,
        finished=row.runs - row.diverged - row.failed,
        reason=_reason(row),
    )


def _name(row: Summary) -> str:
    if row.arm in UNLOOPED:
        blocks = "1 block" if row.loops == 1 else f"{row.loops} blocks of their own"
        return f"{row.arm}, {blocks}"
    return f"{row.arm} with {row.loops} {'loop' if row.loops == 1 else 'loops'}"


def _reason(row: Summary) -> str | None:
    """Say how runs ended that have no score."""
    ended = [
        f"{count} of {row.runs} {how}"
        for count, how in ((row.diverged, "diverged"), (row.failed, "failed"))
        if count
    ]
    if not row.runs:
        return "not run"
    return " and ".join(ended) or None
