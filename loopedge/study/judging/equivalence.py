"""What a loop more is worth on one's own data, measured in blocks with weights of their own."""

import math
from statistics import fmean

import numpy as np

from loopedge.study.judging.statements import Equivalence
from loopedge.study.judging.statistics import LEAST_SEEDS, student_quantile
from loopedge.study.judging.summary import Values

__all__ = ["recurrence_equivalence"]

RATIOS = ("perplexity",)
"""Metrics that are exponents of a loss: their logarithm is taken."""


def recurrence_equivalence(
    one: Values, tied: Values, untied: Values | None, *, metric: str, higher_is_better: bool
) -> Equivalence:
    """Return the recurrence-equivalence exponent of a pilot's own data, with its 95 % interval.

    Schwethelm, Rueckert and Kaissis (2026, arXiv 2604.21106) fit ``L = E + A (N_once + r^phi N_rec)^-alpha`` over 116
    runs: r loops are worth ``r^phi`` blocks of their own; phi is 0 where a loop more is worth nothing, and 1 where it is
    worth a block. A pilot has three points of such a curve at r: one block, r loops of one block, and r blocks. Between
    1 and r the loss is taken as linear in the logarithm of the depth, the shape that three points can bear::

        L(d) = L(1) - G log(d) / log(r),   G = L(1) - L_untied(r)
        L_tied(r) = L(r^phi)   =>   phi = (L(1) - L_tied(r)) / (L(1) - L_untied(r))

    So phi is the share of the untied model's gain that the loops reach. It may be below 0, where loops do harm, and
    above 1. Where the true curve flattens within r it is larger than the exponent of the paper's curve.

    The interval is Fieller's (1954) for a ratio of means, over the blocks that all three have, paired: with few blocks it
    is wider than the delta method's, and not symmetric. It is bounded where the untied gain is not within noise, that is
    where its own 95 % interval excludes zero; elsewhere the exponent cannot be identified.

    Args:
        one: Test metric by block with one loop.
        tied: With the most loops.
        untied: With as many blocks of their own; None where the arm was not made.
        metric: Its name; the logarithm of a perplexity is the loss.
        higher_is_better: Its direction.
    """
    if not untied:
        return _unknown("no-untied-arm")
    blocks = sorted(set(one) & set(tied) & set(untied))
    if len(blocks) < LEAST_SEEDS:
        return _unknown("too-few-runs")
    of_tied = _gains(one, tied, blocks, metric, higher_is_better=higher_is_better)
    of_untied = _gains(one, untied, blocks, metric, higher_is_better=higher_is_better)
    bounds = fieller(of_tied, of_untied)
    if bounds is None or fmean(of_untied) <= 0:
        return _unknown("untied-gain-within-noise")
    exponent = fmean(of_tied) / fmean(of_untied)
    return Equivalence(exponent=exponent, low=bounds[0], high=bounds[1])


def _unknown(reason: str) -> Equivalence:
    return Equivalence(exponent=None, low=None, high=None, reason=reason)  # type: ignore[arg-type]


def _gains(
    one: Values, other: Values, blocks: list[str], metric: str, *, higher_is_better: bool
) -> list[float]:
    """Return by how much the loss falls from one loop, block by block."""
    change = math.log if metric in RATIOS else float
    sign = -1.0 if higher_is_better else 1.0
    return [sign * (change(one[block]) - change(other[block])) for block in blocks]


def fieller(above: list[float], below: list[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the ratio of two means of paired values.

    All ratios q for which mean(above - q below) is not off zero, by Student's t; None where they are not bounded: the
    mean of ``below`` is itself within noise of zero.

    Args:
        above: Values of the numerator.
        below: Values of the denominator, paired with them.
    """
    count = len(above)
    top, bottom = np.array(above), np.array(below)
    factor = student_quantile(count) ** 2 / count
    a = bottom.mean() ** 2 - factor * bottom.var(ddof=1)
    if not a > 0:
        return None
    covariance = float(((top - top.mean()) * (bottom - bottom.mean())).sum() / (count - 1))
    b = top.mean() * bottom.mean() - factor * covariance
    c = top.mean() ** 2 - factor * top.var(ddof=1)
    half = math.sqrt(max(0.0, float(b * b - a * c)))
    return float((b - half) / a), float((b + half) / a)
