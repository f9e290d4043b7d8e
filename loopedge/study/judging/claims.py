"""Does a model beat the strongest baseline? All candidates at once, over seeds and over the test split's own luck.

    strongest(baselines, metric, higher_is_better=...) -> Baseline | None
    claim(values, baseline, evidence=..., higher_is_better=...) -> Claims | None

``values`` are the test metric by candidate and block; `evidence_of` makes of the per-sample tallies of the runs and of the
baseline what the test split's luck is computed from. Without it the interval is over the blocks alone: so it is in tasks
whose samples are drawn anew by each seed.

Two sources of luck are added. *Seeds*: the variance of a difference over the seeds of an origin, pooled over all candidates,
with what they share (a seed's own samples, a seed's own luck). *Period*: the variance over the samples of the test split,
`loopedge.study.judging.period`, kept apart by origin. The intervals are simultaneous, as in Dunnett's test of many treatments
against one control: Student's t of many variables with the correlation that both sources have together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtr, fdtri, stdtrit

from loopedge.baselines.scores import BaselineScores
from loopedge.files.arrays import Array
from loopedge.study.judging.choice import LEAST_BLOCKS, Table, whole_table
from loopedge.study.judging.period import (
    PeriodLuck,
    Windows,
    average,
    influences,
    period_luck,
)
from loopedge.study.judging.statements import Candidate
from loopedge.study.judging.statistics import CONFIDENCE, Interval
from loopedge.tasks.metrics import Metrics, Tally

__all__ = ["Baseline", "Claims", "claim", "evidence_of", "origin_of", "simultaneous", "strongest"]

DRAWS = 4000
LEAST_SAMPLES = 4
"""Fewer samples of a test split do not show how much luck it has: their own differences are nearly none."""
POWER = 0.8
"""Share of periods in which a difference of `Claims.visible` is seen."""
Over = Literal["seeds", "seeds and windows", "seeds, windows and origins", "seeds and samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The strongest plain baseline: of the best mean test metric, so that no other one is better where models are judged.

    Args:
        name: In words.
        about: How it was fitted.
        value: Mean test metric over the blocks.
        values: Test metric by block.
        scores: Its other metrics, means over the blocks.
    """

    name: str
    about: str
    value: float
    values: dict[str, float]
    scores: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Every candidate against the strongest baseline on the test split, model less baseline.

    Args:
        differences: Mean and simultaneous 95 % interval by ``ARM-rN``; no bounds below three blocks.
        over: What the intervals are over.
        quantile: Standard errors from a mean to either end.
        degrees: Of freedom of the errors.
        seed_deviation: Standard error of a mean by the seeds.
        period_deviation: Standard error by the samples of the test split; None: they are drawn anew by each seed.
        covariance: Of the differences, seeds and period together.
        block_length: Samples that are taken as one draw.
        samples: Of the test split.
        visible: The smallest true difference that is seen in 80 of 100 such test splits, were there no luck of seeds.
    """

    differences: dict[str, Interval]
    over: Over
    quantile: float | None
    degrees: float | None
    seed_deviation: float | None
    period_deviation: float | None
    covariance: list[list[float]]
    block_length: int | None
    samples: int | None
    visible: float | None

    def of(self, candidate: Candidate) -> Interval | None:
        """Return the difference of a candidate."""
        return self.differences.get(f"{candidate.arm}-r{candidate.loops}")

    def between(self, mine: Candidate, other: Candidate) -> Interval | None:
        """Return the difference of two candidates, ``mine - other``, as sure as all others are at once."""
        names = list(self.differences)
        one, two = (f"{each.arm}-r{each.loops}" for each in (mine, other))
        if one not in names or two not in names:
            return None
        mean = self.differences[one].mean - self.differences[two].mean
        if self.quantile is None:
            return Interval(mean=mean, low=None, high=None)
        i, j = names.index(one), names.index(two)
        matrix = self.covariance
        half = self.quantile * math.sqrt(max(0.0, matrix[i][i] + matrix[j][j] - 2 * matrix[i][j]))
        return Interval(mean=mean, low=mean - half, high=mean + half)

    @property
    def is_of_period(self) -> bool:
        """Whether the test split's luck is more of the uncertainty than that of the seeds."""
        return (self.period_deviation or 0.0) > (self.seed_deviation or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "differences": {name: of.to_json() for name, of in self.differences.items()},
            "over": self.over,
            "quantile": self.quantile,
            "degrees": self.degrees,
            "seed_deviation": self.seed_deviation,
            "period_deviation": self.period_deviation,
            "covariance": self.covariance,
            "block_length": self.block_length,
            "samples": self.samples,
            "visible": self.visible,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Claims":
        """Return what `to_json` wrote."""
        fields = {name: value for name, value in plain.items() if name != "differences"}
        differences = {
            name: Interval(mean=of["mean"], low=of["low"], high=of["high"])
            for name, of in plain["differences"].items()
        }
        return cls(differences=differences, **fields)


def origin_of(block: str) -> str:
    """Return the origin of a block's name: ``o1`` of ``s0-o1``, empty where there is one test period."""
    return block.partition("-")[2]


def strongest(
    baselines: Mapping[str, Sequence[BaselineScores]], metric: str, *, higher_is_better: bool
) -> Baseline | None:
    """Return the baseline of the best mean test metric, of those that every block has; upper bounds are no baselines.

    Args:
        baselines: By block.
        metric: Which one decides.
        higher_is_better: Its direction.
    """
    by_name: dict[str, dict[str, BaselineScores]] = {}
    for block, scored in baselines.items():
        for one in scored:
            value = one.test.get(metric)
            if not one.upper_bound and value is not None and math.isfinite(value):
                by_name.setdefault(one.name, {})[block] = one
    whole = [of for of in by_name.values() if len(of) == len(baselines)]
    if not whole:
        return None
    found = [_mean_of(of, metric) for of in whole]
    return (max if higher_is_better else min)(found, key=lambda one: one.value)


def evidence_of(
    names: Mapping[tuple[str, int], Mapping[str, str]],
    tallies: Mapping[str, Mapping[str, Tally]],
    baseline: Mapping[str, Mapping[str, Tally]],
    *,
    metrics: Callable[[Tally], Metrics],
    metric: str,
) -> dict[str, Array] | None:
    """Return each origin's influences: of every sample on every candidate's difference, (candidates, samples).

    Args:
        names: Name of the run by candidate and block, of the candidates that finished every block, in the order of
            `whole_table`.
        tallies: Of each run by name and split, as ``samples.npz`` holds them.
        baseline: Of the strongest baseline by block and split.
        metrics: Makes metrics of sums, as `Task.metrics`.
        metric: Which one decides.

    Returns:
        By origin; None where a run or the baseline has no tallies.
    """
    changes: dict[str, list[list[Array]]] = {}
    known: dict[str, Array] = {}
    for of in names.values():
        mine: dict[str, list[Array]] = {}
        for block, name in of.items():
            run = tallies.get(name, {}).get("test")
            plain = baseline.get(block, {}).get("test")
            if not run or not plain:
                return None
            origin = origin_of(block)
            if origin not in known:
                known[origin] = influences(plain, metrics, metric)
            change = influences(run, metrics, metric)
            if change.shape != known[origin].shape:
                return None
            mine.setdefault(origin, []).append(change - known[origin])
        for origin, parts in mine.items():
            changes.setdefault(origin, []).append(parts)
    return {
        origin: np.stack([np.mean(parts, axis=0) for parts in of]) for origin, of in changes.items()
    }


def claim(
    values: Table,
    baseline: Mapping[str, float],
    *,
    evidence: Mapping[str, Array] | None = None,
    windows: Mapping[str, Windows] | None = None,
    bounded: bool = False,
    draws: int = DRAWS,
) -> Claims | None:
    """Return what can be said of every candidate against the baseline.

    Args:
        values: Test metric by candidate and block; candidates that lack a block of the others are left out.
        baseline: Test metric by block.
        evidence: By origin, of `evidence_of`.
        windows: By origin, how the samples hang together.
        bounded: The metric is a share of right answers, from 0 to 1.
        draws: That the quantile is computed from.

    Returns:
        None where no candidate has a block in common with the baseline.
    """
    common = {key: {b: v for b, v in of.items() if b in baseline} for key, of in values.items()}
    table = whole_table(common)
    if table is None:
        return None
    keys, rows = table
    blocks = sorted(common[keys[0]])
    differences = rows - np.array([baseline[block] for block in blocks])
    names = [f"{arm}-r{loops}" for arm, loops in keys]
    means = differences.mean(axis=1)
    if len(blocks) < LEAST_BLOCKS or (not bounded and _too_few(evidence)):
        return _without_bounds(dict(zip(names, means.tolist(), strict=True)))
    origins = [origin_of(block) for block in blocks]
    covariance, degrees, alone = seed_covariance(differences, origins)
    seeds = covariance
    luck = None if alone else _luck(evidence, windows, bounded=bounded)
    if luck is not None:
        luck = _with_origins(differences, origins, covariance, luck)
        covariance = covariance + luck.covariance
        degrees = _joined_degrees((seeds, degrees), (luck.covariance, luck.degrees))
    quantile = simultaneous(covariance, degrees, draws)
    errors = np.sqrt(np.diag(covariance))
    return Claims(
        differences={
            name: Interval(mean=mean, low=mean - quantile * error, high=mean + quantile * error)
            for name, mean, error in zip(names, means.tolist(), errors.tolist(), strict=True)
        },
        over=_over(luck, windows, len(set(origins))),
        quantile=quantile,
        degrees=degrees,
        seed_deviation=_typical(seeds),
        period_deviation=None if luck is None else _typical(luck.covariance),
        covariance=covariance.tolist(),
        block_length=None if luck is None else luck.length,
        samples=None if luck is None else luck.samples,
        visible=None if luck is None else _visible(luck),
    )


def seed_covariance(differences: Array, origins: Sequence[str]) -> tuple[Array, float, bool]:
    """Return the covariance of the means by the luck of seeds, and its degrees of freedom.

    All candidates have one variance, and any two of them one correlation: what they share by block. Where an origin has one
    seed, the variance is that between the origins, which holds the luck of the period too.

    Args:
        differences: float64 (candidates, blocks).
        origins: Of each block.

    Returns:
        Covariance, degrees, and whether it is all there is.
    """
    candidates, blocks = differences.shape
    numbers = np.unique(np.array(origins), return_inverse=True)[1]
    sizes = np.bincount(numbers)
    alone = bool(len(sizes) > 1 and sizes.min() < 2)
    if alone:
        numbers, sizes = np.zeros(blocks, np.int64), np.array([blocks])
    level = np.stack([differences[:, numbers == n].mean(axis=1) for n in range(len(sizes))])
    rest = differences - level.T[:, numbers]
    free = blocks - len(sizes)
    variance = float(np.square(rest).sum()) / (candidates * free)
    shared = float(np.square(rest.mean(axis=0)).sum()) / free
    correlation = 1.0
    if candidates > 1 and variance > 0:
        correlation = (candidates * shared / variance - 1) / (candidates - 1)
    correlation = min(1.0, max(0.0, correlation))
    degrees = free * candidates / (1 + (candidates - 1) * correlation**2)
    matrix = (1 - correlation) * np.eye(candidates) + correlation
    return variance / blocks * matrix, degrees, alone


def simultaneous(covariance: Array, degrees: float, draws: int = DRAWS) -> float:
    """Return how many standard errors all intervals have to each side, so that all hold at once in 95 %.

    The quantile of the largest of correlated variables of Student's t. Their numerators are draws of fixed seed, their common
    denominator is integrated.
    """
    one = float(stdtrit(degrees, (1 + CONFIDENCE) / 2))
    errors = np.sqrt(np.diag(covariance))
    if len(covariance) == 1 or not (errors > 0).all():
        return one
    normal = _normal(draws, len(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(errors, errors))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    largest = np.square(normal @ root.T).max(axis=1)

    def outside(quantile: float) -> float:
        return float(chdtr(degrees, degrees * largest / quantile**2).mean()) - (1 - CONFIDENCE)

    most = float(stdtrit(degrees, 1 - (1 - CONFIDENCE) / 2 / len(covariance)))
    low, high = one * 0.9, most * 1.1
    return float(brentq(outside, low, high, xtol=1e-4))


@lru_cache(maxsize=8)
def _normal(draws: int, count: int) -> Array:
    """Return independent normal draws, the same each time, whose variances and correlations are exact: (draws, count)."""
    drawn = np.random.default_rng(22).standard_normal((draws, count))
    root = np.linalg.cholesky(drawn.T @ drawn / draws)
    exact: Array = np.linalg.solve(root, drawn.T).T
    return exact


def _too_few(evidence: Mapping[str, Array] | None) -> bool:
    """Return whether a test split holds too few samples to show its luck."""
    return any(changes.shape[1] < LEAST_SAMPLES for changes in (evidence or {}).values())


def _luck(
    evidence: Mapping[str, Array] | None,
    windows: Mapping[str, Windows] | None,
    *,
    bounded: bool,
) -> PeriodLuck | None:
    """Return the luck of the test splits of all origins; None where it is not known."""
    if not evidence or not windows or any(origin not in windows for origin in evidence):
        return None
    return average(
        {
            origin: period_luck(changes, windows[origin], bounded=bounded)
            for origin, changes in evidence.items()
        }
    )


def _with_origins(
    differences: Array, origins: Sequence[str], seeds: Array, luck: PeriodLuck
) -> PeriodLuck:
    """Return the luck of the period, larger where the origins disagree more than windows and seeds explain (F test)."""
    names = sorted(set(origins))
    if len(names) < 3:
        return luck
    means = [float(differences[:, [o == name for o in origins]].mean()) for name in names]
    between = float(np.var(means, ddof=1)) / len(names)
    explained = float(luck.covariance.mean() + seeds.mean())
    bound = float(fdtri(len(names) - 1, max(1.0, luck.degrees), CONFIDENCE))
    if explained <= 0 or between <= bound * explained:
        return luck
    added = between - explained
    return PeriodLuck(
        covariance=luck.covariance + added,
        degrees=len(names) - 1.0,
        length=luck.length,
        samples=luck.samples,
    )


def _joined_degrees(*parts: tuple[Array, float]) -> float:
    """Return the degrees of freedom of a sum of variances (Satterthwaite)."""
    variances = [float(np.diag(covariance).mean()) for covariance, _ in parts]
    if not sum(variances):
        return max(degrees for _, degrees in parts)
    below = sum(v**2 / degrees for v, (_, degrees) in zip(variances, parts, strict=True))
    return sum(variances) ** 2 / below


def _visible(luck: PeriodLuck) -> float:
    quantile = stdtrit(luck.degrees, (1 + CONFIDENCE) / 2) + stdtrit(luck.degrees, POWER)
    return float(quantile * _typical(luck.covariance))


def _typical(covariance: Array) -> float:
    return math.sqrt(float(np.diag(covariance).mean()))


def _over(luck: PeriodLuck | None, windows: Mapping[str, Windows] | None, origins: int) -> Over:
    if luck is None or not windows:
        return "seeds"
    if origins > 1:
        return "seeds, windows and origins"
    independent = all(of.reach == 0 for of in windows.values())
    return "seeds and samples" if independent else "seeds and windows"


def _without_bounds(means: Mapping[str, float]) -> Claims:
    return Claims(
        differences={
            name: Interval(mean=mean, low=None, high=None) for name, mean in means.items()
        },
        over="seeds",
        quantile=None,
        degrees=None,
        seed_deviation=None,
        period_deviation=None,
        covariance=[],
        block_length=None,
        samples=None,
        visible=None,
    )


def _mean_of(of: Mapping[str, BaselineScores], metric: str) -> Baseline:
    first = next(iter(of.values()))
    values = {block: float(one.test[metric] or 0.0) for block, one in of.items()}
    names = dict.fromkeys(name for one in of.values() for name in one.test)
    return Baseline(
        name=first.name,
        about=first.about,
        value=sum(values.values()) / len(values),
        values=values,
        scores={name: _mean([one.test.get(name) for one in of.values()]) for name in names},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known and len(known) == len(values) else None
