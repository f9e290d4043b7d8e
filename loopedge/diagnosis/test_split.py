"""What the test split can see: the smallest difference between two forecasts that is not chance."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.baselines.resampling import block_length, draw_blocks, metric_draws
from loopedge.baselines.scores import BaselineScores
from loopedge.diagnosis.advice import Advice
from loopedge.options import option
from loopedge.tasks.metrics import Tally, metric_value
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import Array, Task

__all__ = ["TestSplit", "advise_origins", "measure_test_split"]

PIECES = 5
"""Parts of the test period whose scores are compared."""
CONFIDENCE, POWER = 0.975, 0.8
"""A difference is seen where its 95 % interval leaves out zero, in four of five test periods like this one."""
COMPARABLE = 2.0
"""Baselines whose error is up to twice the best one's are compared with it."""
COARSE = 0.05
"""A smallest difference above this share of the best baseline's error is worth a word."""
MOST_ORIGINS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSplit:
    """How well the test split tells two forecasts apart, measured with baselines, before there is a model.

    Args:
        metric: The one that decides.
        samples: Of the split that are scored.
        block: Samples that are drawn together, as neighbours resemble each other.
        blocks: So many independent pieces the split has.
        baseline: The best one on the validation split.
        value: What it reaches on the test split.
        deviation: Standard deviation of its score over `PIECES` parts of the test period that follow each other; None
            where there are too few samples, or samples have no order.
        against: The baseline that it was compared with.
        smallest_difference: Difference of the metric that is seen in four of five such test periods; None where no
            two baselines differ.
        share: The same as a share of the best baseline's error: of 1 less the metric where higher is better.
        baselines: Value of each on the test split.
    """

    __test__ = False  # pytest takes it for a test by its name

    metric: str
    samples: int
    block: int
    blocks: int
    baseline: str
    value: float
    deviation: float | None
    against: str | None
    smallest_difference: float | None
    share: float | None
    baselines: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_test_split(
    task: Task,
    baselines: Sequence[BaselineScores],
    *,
    series: Array | None = None,
    overlap: int = 1,
    seed: int = 0,
) -> TestSplit | None:
    """Draw blocks of the test samples, and see how far the difference of two baselines moves.

    Args:
        task: Scores.
        baselines: With tallies of the test split; those without are left out.
        series: int (samples,): which series each sample is of, in the order of time; None: the samples are independent.
        overlap: Samples that a block has at least, as windows overlap.
        seed: Of the drawing.

    Returns:
        None where no baseline has tallies.
    """
    known = [
        each
        for each in baselines
        if each.reason is None and not each.upper_bound and each.tallies.get("test")
    ]
    known = [each for each in known if math.isfinite(metric_value(each.test, task.metric))]
    if not known:
        return None
    best = min(known, key=lambda each: _error(task, each.validation))
    value = metric_value(best.test, task.metric)
    others = [each for each in known if each is not best]
    near = COMPARABLE * _error(task, best.test)
    rivals = [each for each in others if _error(task, each.test) <= near] or others
    samples = len(next(iter(best.tallies["test"].values())))
    order = np.zeros(samples, np.int64) if series is None else series
    least = None if series is None else overlap
    found = [_standard_error(task, best, each, order, least, seed) for each in rivals]
    found = [each for each in found if each[0] > 0]
    typical = sorted(found)[len(found) // 2] if found else None
    difference = None if typical is None else typical[0] * _factor(typical[2])
    error = _error(task, best.test)
    return TestSplit(
        metric=task.metric,
        samples=samples,
        block=1 if typical is None else typical[1],
        blocks=samples if typical is None else typical[2],
        baseline=best.name,
        value=value,
        deviation=None if series is None else _between_parts(task, best.tallies["test"], series),
        against=None if typical is None else typical[3],
        smallest_difference=difference,
        share=None if difference is None or not error > 0 else difference / error,
        baselines={each.name: metric_value(each.test, task.metric) for each in known},
    )


def _error(task: Task, metrics: Any) -> float:
    """Return the metric as an error: lower is better; of an accuracy what it lacks to 1."""
    value = metric_value(metrics, task.metric)
    if not math.isfinite(value):
        return math.inf
    return 1 - value if task.higher_is_better else value


def _standard_error(
    task: Task,
    best: BaselineScores,
    other: BaselineScores,
    series: Array,
    least: int | None,
    seed: int,
) -> tuple[float, int, int, str]:
    """Return the standard error of the difference of two baselines, samples of a block, blocks, and the other's name.

    Args:
        task: Scores.
        best: One of them.
        other: The other one.
        series: Of each sample.
        least: Samples of a block; None: the samples are independent.
        seed: Of the drawing.
    """
    mine, theirs = best.tallies["test"], other.tallies["test"]
    length = 1 if least is None else block_length(_difference(mine, theirs), least=least)
    blocks = draw_blocks(series, length=length, seed=seed)
    draws = metric_draws(task, mine, blocks) - metric_draws(task, theirs, blocks)
    draws = draws[np.isfinite(draws)]
    error = float(draws.std(ddof=1)) if len(draws) > 1 else 0.0
    # A deviation of few blocks comes out small, by as much as that of few values without ddof.
    return (
        error * math.sqrt(blocks.count / max(1, blocks.count - 1)),
        length,
        blocks.count,
        other.name,
    )


def _difference(mine: Tally, theirs: Tally) -> Array:
    """Return by how much two forecasts differ in each sample, in whatever the first tally counts."""
    for name in ("in_units", "squared", "right", "nats"):
        if name in mine:
            each = mine[name] - theirs[name]
            flat: Array = each.reshape(len(each), -1).sum(axis=1)
            return flat
    name = next(iter(mine))
    each = (mine[name] - theirs[name]).reshape(len(mine[name]), -1)
    # Of a confusion matrix the diagonal counts what is right.
    size = math.isqrt(each.shape[1])
    if size * size == each.shape[1]:
        each = each[:, :: size + 1]
    summed: Array = each.sum(axis=1)
    return summed


def _factor(blocks: int) -> float:
    """Return how many standard errors a difference must have: quantiles of Student's t, by the blocks less one."""
    from scipy.special import stdtrit

    freedom = max(1, blocks - 1)
    return float(stdtrit(freedom, CONFIDENCE) + stdtrit(freedom, POWER))


def _between_parts(task: Task, tallies: Tally, series: Array) -> float | None:
    """Return the deviation of a score between parts of the test period: first fifths of all series, second ones, ..."""
    samples = len(series)
    if samples < 4 * PIECES:
        return None
    starts = np.searchsorted(series, series, side="left")
    sizes = np.searchsorted(series, series, side="right") - starts
    parts = (np.arange(samples) - starts) * PIECES // sizes
    values = []
    for part in range(PIECES):
        total = weighted_total(tallies, (parts == part).astype(np.int64))
        values.append(metric_value(task.metrics(total), task.metric))
    finite = [value for value in values if math.isfinite(value)]
    return float(np.std(finite, ddof=1)) if len(finite) > 2 else None


def advise_origins(found: TestSplit, *, may_roll: bool, rolled: bool) -> list[Advice]:
    """Say where only large differences show, and that more origins see smaller ones.

    Args:
        found: What the test split sees.
        may_roll: The task has origins, and rows enough for them.
        rolled: It is at several origins already.
    """
    if found.share is None or found.smallest_difference is None or found.share < COARSE:
        return []
    origins = min(MOST_ORIGINS, max(2, math.ceil((found.share / COARSE) ** 2)))
    share = f"{found.share:.0%} of the best baseline's error"
    if found.share > 1:
        share = "more than all that the best baseline gets wrong"
    message = (
        f"this test split sees differences of {found.smallest_difference:.3g} {found.metric} and more, {share}; smaller ones "
        "are chance"
    )
    chosen = option("origins", origins) if may_roll and not rolled else None
    return [Advice(kind="test-split", message=message, option=chosen, weight=0.85)]
