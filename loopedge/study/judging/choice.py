"""Which arm at how many loops: the fewest loops that are surely good enough, or more seeds.

    decide(values, margin=..., higher_is_better=...) -> Choice

``values`` are the validation metric by candidate and block, `Values` of `loopedge.study.judging.summary`. `decide` is
pure, so that `--seeds auto` asks it after each look, and a simulation asks it thousands of times.

The model: metric = candidate + block + noise of one deviation for all candidates. Blocks are what candidates share: a
seed, and an origin where there are several. With a flat prior the means that the candidates would have over many seeds
have a multivariate Student's t distribution; probabilities are shares of draws from it, of fixed seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from loopedge.files.arrays import Array
from loopedge.study.judging.statements import Candidate
from loopedge.study.options import ARMS

__all__ = ["ACCEPT", "LEAST_BLOCKS", "PASS", "Choice", "decide", "honest_quality", "plainness"]

ACCEPT, PASS = 0.8, 0.2
"""A loop count is accepted from the one probability on, and passed by up to the other."""
LEAST_BLOCKS = 3
DRAWS = 20_000

Table = Mapping[tuple[str, int], Mapping[str, float]]
"""The metric by arm and loop count, and by block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the rule takes, and how sure it is.

    Args:
        outcome: ``accept``: a candidate is chosen. ``undecided``: more blocks are needed.
        chosen: None where it is undecided.
        best: Of the highest mean, or of the lowest where that is better; None where there is no candidate.
        count: The loop count that was accepted, or could be neither accepted nor passed by.
        candidates: Probability that each is within the margin of the best of all, by ``ARM-rN``.
        counts: Probability that the best of a loop count is within the margin of the best of all.
        deviation: Of one run about its candidate's mean, blocks taken out; None below two blocks.
        degrees: Degrees of freedom of the deviation.
        blocks: That every candidate has.
    """

    outcome: Literal["accept", "undecided"]
    chosen: Candidate | None
    best: Candidate | None
    count: int | None
    candidates: dict[str, float]
    counts: dict[int, float]
    deviation: float | None
    degrees: int
    blocks: int

    def sure(self, candidate: Candidate) -> float:
        """Return the probability that a candidate is within the margin of the best."""
        return self.candidates[f"{candidate.arm}-r{candidate.loops}"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "outcome": self.outcome,
            "chosen": None if self.chosen is None else _plain(self.chosen),
            "best": None if self.best is None else _plain(self.best),
            "count": self.count,
            "candidates": self.candidates,
            "counts": {str(count): share for count, share in self.counts.items()},
            "deviation": self.deviation,
            "degrees": self.degrees,
            "blocks": self.blocks,
        }


def decide(
    values: Table,
    *,
    margin: float,
    higher_is_better: bool,
    least_blocks: int = LEAST_BLOCKS,
    draws: int = DRAWS,
) -> Choice:
    """Choose among candidates by their validation metric.

    The loop counts are walked from the fewest up. One is accepted where the best of its arms is within the margin of the
    best of all with a probability of 0.8; the next is looked at where it is at most 0.2; between them it is undecided.
    At the count that is accepted, the plainest arm that is itself within the margin with 0.8 is taken, or else the one
    that most probably is.

    Args:
        values: Of the candidates all of whose runs finished: those that lack a block of the others are left out.
        margin: The difference that does not matter.
        higher_is_better: Of the metric.
        least_blocks: Fewer are undecided.
        draws: From the posterior distribution.
    """
    table = whole_table(values)
    if table is None:
        return _nothing(0)
    keys, rows = table
    merits = rows if higher_is_better else -rows
    means = merits.mean(axis=1)
    best = _candidate(keys[int(means.argmax())])
    blocks = rows.shape[1]
    if blocks < max(least_blocks, 2) and len(keys) > 1:
        return _nothing(blocks, best)
    deviation, degrees = pooled_deviation(merits)
    counts = np.array([loops for _, loops in keys])
    each, of_counts = probabilities(
        means[None], np.array([deviation]), degrees, blocks, counts, margin, draws
    )
    shares = dict(zip(sorted(set(counts.tolist())), of_counts[0].tolist(), strict=True))
    count, accepted = walk(shares)
    if blocks < least_blocks:
        accepted = False
    chosen = plainest(keys, each[0], count) if accepted else None
    return Choice(
        outcome="accept" if accepted else "undecided",
        chosen=None if chosen is None else _candidate(chosen),
        best=best,
        count=count,
        candidates={
            f"{arm}-r{loops}": float(p) for (arm, loops), p in zip(keys, each[0], strict=True)
        },
        counts=shares,
        deviation=deviation if degrees else None,
        degrees=degrees,
        blocks=blocks,
    )


def whole_table(values: Table) -> tuple[list[tuple[str, int]], Array] | None:
    """Return the candidates that have every block, and their values: float64 (candidates, blocks)."""
    blocks = sorted({block for of in values.values() for block in of})
    keys = [key for key, of in values.items() if blocks and all(block in of for block in blocks)]
    keys.sort(key=lambda key: (key[1], plainness(key[0])))
    if not keys:
        return None
    return keys, np.array([[values[key][block] for block in blocks] for key in keys], np.float64)


def pooled_deviation(values: Array) -> tuple[float, int]:
    """Return the deviation of a run about candidate and block, and its degrees of freedom.

    Args:
        values: float64 (candidates, blocks).
    """
    candidates, blocks = values.shape
    if candidates == 1:
        return (float(values.std(ddof=1)), blocks - 1) if blocks > 1 else (0.0, 0)
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    degrees = (candidates - 1) * (blocks - 1)
    return math.sqrt(float(np.square(rest).sum()) / degrees) if degrees else 0.0, degrees


def probabilities(
    means: Array,
    deviations: Array,
    degrees: int,
    blocks: int,
    counts: Array,
    margin: float,
    draws: int,
) -> tuple[Array, Array]:
    """Return how probably each candidate, and the best of each count, is within the margin of the best of all.

    Args:
        means: float64 (tables, candidates), higher is better.
        deviations: Of a run, (tables,).
        degrees: Of freedom of the deviations.
        blocks: That the means are over.
        counts: Loop count of each candidate.
        margin: The difference that does not matter.
        draws: From the posterior distribution.

    Returns:
        float64 (tables, candidates) and (tables, counts), the counts ascending.
    """
    units = _student(draws, means.shape[1], degrees)
    levels = np.unique(counts)
    each, of_counts = np.empty(means.shape), np.empty((len(means), len(levels)))
    for row, (mean, scale) in enumerate(zip(means, deviations / math.sqrt(blocks), strict=True)):
        drawn = mean + scale * units
        needed = drawn.max(axis=1) - margin
        within = drawn >= needed[:, None]
        each[row] = within.mean(axis=0)
        for column, level in enumerate(levels):
            of_counts[row, column] = within[:, counts == level].any(axis=1).mean()
    return each, of_counts


def walk(shares: Mapping[int, float]) -> tuple[int, bool]:
    """Return the loop count at which the walk ends, and whether it is accepted."""
    count = max(shares)
    for count in sorted(shares):
        if shares[count] >= ACCEPT:
            return count, True
        if shares[count] > PASS:
            break
    return count, False


def plainest(keys: Sequence[tuple[str, int]], shares: Array, count: int) -> tuple[str, int]:
    """Return the plainest arm at a count that is within the margin surely enough, or else the most probable."""
    there = [(key, share) for key, share in zip(keys, shares, strict=True) if key[1] == count]
    there.sort(key=lambda pair: plainness(pair[0][0]))
    sure = [key for key, share in there if share >= ACCEPT]
    return sure[0] if sure else max(there, key=lambda pair: pair[1])[0]


def honest_quality(
    validation: Table, test: Table, *, margin: float, higher_is_better: bool
) -> float | None:
    """Return the mean test metric of a choice that each block had no part in; None below three blocks.

    The choice is made again without each block in turn and judged on that block. A test metric of the chosen model
    flatters it, as far as what is lucky on validation is lucky on test too; this one does not.

    Args:
        validation: As `decide` takes them.
        test: The same candidates on the test split.
        margin: The difference that does not matter.
        higher_is_better: Of the metric.
    """
    table = whole_table(validation)
    if table is None:
        return None
    keys, _ = table
    blocks = sorted(validation[keys[0]])
    if len(blocks) < LEAST_BLOCKS:
        return None
    found = []
    for left in blocks:
        rest = {
            key: {block: value for block, value in validation[key].items() if block != left}
            for key in keys
        }
        choice = decide(
            rest,
            margin=margin,
            higher_is_better=higher_is_better,
            least_blocks=2,
            draws=DRAWS // 10,
        )
        taken = choice.chosen or choice.best
        value = None if taken is None else test.get((taken.arm, taken.loops), {}).get(left)
        if value is not None:
            found.append(value)
    return sum(found) / len(found) if found else None


def plainness(arm: str) -> int:
    """Return the place of an arm in the order of plainness: looped, constant, timestep."""
    return list(ARMS).index(arm)


@lru_cache(maxsize=8)
def _student(draws: int, candidates: int, degrees: int) -> Array:
    """Return draws of a multivariate t of unit scale, the same each time: float64 (draws, candidates)."""
    generator = np.random.default_rng(22)
    normal = generator.standard_normal((draws, candidates))
    if not degrees:
        return normal
    return normal / np.sqrt(generator.chisquare(degrees, size=(draws, 1)) / degrees)


def _nothing(blocks: int, best: Candidate | None = None) -> Choice:
    return Choice(
        outcome="undecided",
        chosen=None,
        best=best,
        count=None,
        candidates={},
        counts={},
        deviation=None,
        degrees=0,
        blocks=blocks,
    )


def _candidate(key: tuple[str, int]) -> Candidate:
    return Candidate(arm=key[0], loops=key[1])


def _plain(candidate: Candidate) -> dict[str, Any]:
    return {"arm": candidate.arm, "loops": candidate.loops}
