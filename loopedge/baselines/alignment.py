"""A hidden Markov model of aligned pairs: each token of a target comes from a place of the source that moves on.

Vogel, Ney and Tillmann 1996, HMM-based word alignment in statistical translation: the place moves by 0 to 3 tokens, as silent
letters and double sounds need. What comes hangs on the source around the place, and on the token before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopedge.baselines.attempts import CannotFitError
from loopedge.tasks.task import Array

__all__ = ["AlignedPairs", "Alignment"]

STEPS = (0.2, 0.6, 0.15, 0.05)
"""How likely the place moves by so many, before anything was counted."""
ROUNDS = (2, 2, 2, 2, 5)
"""Tokens of the contexts that are counted in each round."""
LONGEST = 5
"""At the place, behind it, before it, two behind it, and the last token of the target."""
BACKED_OFF = 3.0
"""Counts of a context that weigh as much as the probabilities of the shorter one."""
FLOOR = 1e-6
"""Share of places that lie elsewhere, and of tokens that were never seen."""
LEAST_SHARE = 1e-2
"""An aligned place that is less likely is not counted."""
MOST_WORK, LEAST_PAIRS = 30_000_000, 100
"""Pairs times places times positions; fewer pairs than the least are not worth a fit."""
MOST_TABLE = 20_000_000
"""Numbers of a table of contexts by tokens; longer contexts than that allows are left out."""
AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedPairs:
    """Pairs as arrays.

    Args:
        sources: int64 (pairs, places): tokens, then the stop, then the stop again.
        places: int64 (pairs,): places of each, one stop among them.
        targets: int64 (pairs, positions), -1 where nothing is asked.
    """

    sources: Array
    places: Array
    targets: Array

    @classmethod
    def of(cls, sources: Sequence[Array], targets: Sequence[Array], stop: int) -> "AlignedPairs":
        """Pad pairs of ids."""
        places = np.array([len(source) + 1 for source in sources])
        padded = np.full((len(sources), int(places.max())), stop, np.int64)
        answers = np.full((len(targets), max(map(len, targets))), -1, np.int64)
        for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
            padded[row, : len(source)] = source
            answers[row, : len(target)] = target
        return cls(sources=padded, places=places, targets=answers)

    def rows(self, part: slice) -> "AlignedPairs":
        """Return some of the pairs."""
        return AlignedPairs(
            sources=self.sources[part], places=self.places[part], targets=self.targets[part]
        )

    @property
    def work(self) -> int:
        """Places times positions of a pair."""
        return int(self.sources.shape[1] * self.targets.shape[1])

    @property
    def kept(self) -> Array:
        """Which places there are: bool (pairs, places)."""
        return np.asarray(np.arange(self.sources.shape[1]) < self.places[:, None])

    def around(self, base: int) -> Array:
        """Return one number for the tokens at each place, behind it, before it and two behind it: int64 (pairs, places)."""
        last = self.sources[:, -1:]
        behind = np.concatenate([self.sources[:, 1:], last], axis=1)
        further = np.concatenate([behind[:, 1:], last], axis=1)
        before = np.concatenate([np.full_like(last, base - 1), self.sources[:, :-1]], axis=1)
        return np.asarray(((self.sources * base + behind) * base + before) * base + further)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Probabilities of tokens behind contexts of one length, (contexts, tokens), by their ascending keys."""

    keys: Array
    table: Array
    divisor: int

    def find(self, keys: Array) -> tuple[Array, Array]:
        """Return the rows of the longest contexts' keys, and which of them were seen."""
        wanted = keys // self.divisor
        rows = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return rows, self.keys[rows] == wanted


class Alignment:
    """Fit by expectation and maximization, on evenly spaced pairs where there are many.

    Args:
        pairs: Of the training part.
        vocab_size: Kinds of tokens.

    Raises:
        CannotFitError: Pairs are too long, or there are too many kinds of tokens.
    """

    def __init__(self, pairs: AlignedPairs, vocab_size: int) -> None:
        self._base = vocab_size + 2
        if self._base**LONGEST >= 2**62:
            raise CannotFitError(f"{vocab_size:,} kinds of tokens are too many to count contexts")
        if LEAST_PAIRS * pairs.work > MOST_WORK:
            raise CannotFitError(
                f"sources of {pairs.sources.shape[1]} and targets of {pairs.targets.shape[1]} tokens are too long"
            )
        pairs = pairs.rows(
            slice(None, None, max(1, -(-len(pairs.places) * pairs.work // MOST_WORK)))
        )
        self._vocab_size = vocab_size
        self._tokens = np.unique(pairs.targets[pairs.targets >= 0])
        self._steps = np.array(STEPS)
        self._levels: list[_Level] = []
        size = max(1, AT_ONCE // pairs.work)
        parts = [pairs.rows(slice(at, at + size)) for at in range(0, len(pairs.places), size)]
        for longest in ROUNDS:
            self._learn(parts, longest)

    def probabilities(self, pairs: AlignedPairs) -> tuple[Array, Array]:
        """Return the probability of each token behind those before it, and the likeliest: (pairs, positions) each."""
        around, kept = pairs.around(self._base), pairs.kept
        shape = pairs.targets.shape
        likely, best = np.zeros(shape), np.zeros(shape, np.int64)
        here = self._start(kept)
        for position in range(shape[1]):
            shares = self._shares(self._keys(around, pairs.targets, position))
            mixed = np.einsum("ns,nsv->nv", here, shares)
            wanted = pairs.targets[:, position]
            token, known = self._numbers(wanted)
            rows = np.arange(len(wanted))
            likely[:, position] = np.where(known, (1 - FLOOR) * mixed[rows, token], 0.0)
            best[:, position] = self._tokens[mixed.argmax(axis=1)]
            came = np.where(known[:, None], shares[rows, :, token], 1.0)
            here = self._move(_scaled(here * came, kept), kept)
        return likely + FLOOR / self._vocab_size, best

    def _learn(self, parts: list[AlignedPairs], longest: int) -> None:
        """Align the pairs by what is known, and count again."""
        keys, tokens, weights = [], [], []
        steps = np.full(len(STEPS), 1e-3)
        for part in parts:
            if self._levels:
                shares, moved = self._align(part)
                steps += moved
            else:
                shares = _diagonal(part)
            pair, position, place = np.nonzero(shares > LEAST_SHARE)
            around = part.around(self._base)[pair, place]
            before = np.where(position > 0, part.targets[pair, position - 1], self._base - 1)
            keys.append(around * self._base + before)
            tokens.append(np.searchsorted(self._tokens, part.targets[pair, position]))
            weights.append(shares[pair, position, place])
        if self._levels:
            self._steps = steps / steps.sum()
        self._count(np.concatenate(keys), np.concatenate(tokens), np.concatenate(weights), longest)

    def _count(self, keys: Array, tokens: Array, weights: Array, longest: int) -> None:
        """Make the tables of contexts up to a length, each smoothed by the one before."""
        kinds = len(self._tokens)
        usual = np.bincount(tokens, weights, minlength=kinds) + 1e-3
        found: list[_Level] = [
            _Level(
                keys=np.zeros(1, np.int64),
                table=(usual / usual.sum())[None],
                divisor=self._base**LONGEST,
            )
        ]
        for length in range(1, longest + 1):
            divisor = self._base ** (LONGEST - length)
            contexts, which = np.unique(keys // divisor, return_inverse=True)
            if len(contexts) * kinds > MOST_TABLE:
                break
            counts = np.bincount(
                which.ravel() * kinds + tokens, weights, minlength=len(contexts) * kinds
            ).reshape(-1, kinds)
            rows, _ = found[-1].find(contexts * divisor)
            total = counts.sum(axis=1, keepdims=True) + BACKED_OFF
            table = (counts + BACKED_OFF * found[-1].table[rows]) / total
            found.append(_Level(keys=contexts, table=table, divisor=divisor))
        self._levels = found

    def _keys(self, around: Array, targets: Array, position: int) -> Array:
        """Return the keys of the longest contexts at a position: int64 (pairs, places)."""
        before = np.full(len(targets), self._base - 1)
        if position:
            before = np.where(targets[:, position - 1] < 0, before, targets[:, position - 1])
        return np.asarray(around * self._base + before[:, None])

    def _shares(self, keys: Array) -> Array:
        """Return the probability of every seen token at each place: (pairs, places, tokens)."""
        found = np.broadcast_to(self._levels[0].table[0], (*keys.shape, len(self._tokens)))
        for level in self._levels[1:]:
            rows, seen = level.find(keys)
            found = np.where(seen[..., None], level.table[rows], found)
        return found

    def _of_token(self, keys: Array, token: Array) -> Array:
        """Return the probability of one token a pair at each place: (pairs, places)."""
        wanted = np.broadcast_to(token[:, None], keys.shape)
        found = self._levels[0].table[0][wanted]
        for level in self._levels[1:]:
            rows, seen = level.find(keys)
            found = np.where(seen, level.table[rows, wanted], found)
        return np.asarray(found)

    def _numbers(self, wanted: Array) -> tuple[Array, Array]:
        """Return the number of each token among the seen ones, and whether it is one."""
        numbers = np.minimum(np.searchsorted(self._tokens, wanted), len(self._tokens) - 1)
        return numbers, self._tokens[numbers] == wanted

    def _start(self, kept: Array) -> Array:
        """Return where the first token comes from: as if the place before it were the one before the source."""
        first = np.zeros(kept.shape)
        first[:, 0] = self._steps[0]
        for step in range(1, min(len(STEPS), kept.shape[1] + 1)):
            first[:, step - 1] += self._steps[step]
        return _scaled(first, kept)

    def _move(self, here: Array, kept: Array) -> Array:
        """Return where the next token comes from."""
        moved = np.zeros_like(here)
        for step in range(min(len(STEPS), here.shape[1])):
            moved[:, step:] += self._steps[step] * here[:, : here.shape[1] - step]
        return _scaled(moved, kept)

    def _align(self, pairs: AlignedPairs) -> tuple[Array, Array]:
        """Return the share of each place in each position, (pairs, positions, places), and how often places moved how far."""
        around, kept = pairs.around(self._base), pairs.kept
        asked = pairs.targets >= 0
        count, positions = pairs.targets.shape
        came = np.ones((count, positions, kept.shape[1]))
        forward = np.zeros_like(came)
        here = self._start(kept)
        for position in range(positions):
            token, _ = self._numbers(pairs.targets[:, position])
            found = self._of_token(self._keys(around, pairs.targets, position), token)
            came[:, position] = np.where(asked[:, position, None], found, 1.0)
            forward[:, position] = _scaled(here * came[:, position], kept)
            here = self._move(forward[:, position], kept)
        shares, steps = np.zeros_like(came), np.zeros(len(STEPS))
        back = np.ones((count, kept.shape[1]))
        for position in range(positions - 1, -1, -1):
            together = _scaled(forward[:, position] * back, kept)
            shares[:, position] = np.where(asked[:, position, None], together, 0.0)
            if position:
                ahead = came[:, position] * back * kept
                before = forward[:, position - 1]
                back = np.zeros_like(ahead)
                each = []
                for step in range(min(len(STEPS), ahead.shape[1])):
                    width = ahead.shape[1] - step
                    moved = self._steps[step] * ahead[:, step:]
                    back[:, :width] += moved
                    each.append((before[:, :width] * moved).sum(axis=1))
                total = np.stack(each, axis=1)
                sure = total / np.maximum(total.sum(axis=1, keepdims=True), 1e-300)
                steps[: len(each)] += sure[asked[:, position]].sum(axis=0)
                back /= np.maximum(back.max(axis=1, keepdims=True), 1e-300)
        return shares, steps


def _scaled(shares: Array, kept: Array) -> Array:
    """Return shares of places that add up to one, none of them 0 where there is a place."""
    found = np.where(kept, shares, 0.0)
    found = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300)
    found = np.where(kept, found + FLOOR, 0.0)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _diagonal(pairs: AlignedPairs) -> Array:
    """Return shares of places near the diagonal, (pairs, positions, places): a first guess."""
    positions, places = pairs.targets.shape[1], pairs.sources.shape[1]
    asked = pairs.targets >= 0
    lengths = np.maximum(1, asked.sum(axis=1))
    at = np.arange(positions)[None, :, None] / lengths[:, None, None]
    of = np.arange(places)[None, None, :] / pairs.places[:, None, None]
    shares = np.exp(-np.square((at - of) * np.minimum(lengths, pairs.places)[:, None, None]))
    shares = np.where(pairs.kept[:, None, :] & asked[:, :, None], shares, 0.0)
    return np.asarray(shares / np.maximum(shares.sum(axis=2, keepdims=True), 1e-300))
