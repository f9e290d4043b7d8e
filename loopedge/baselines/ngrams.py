"""Counts of runs of tokens, smoothed by interpolated modified Kneser-Ney; memory follows the tokens, not the vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopedge.tasks.task import Array

__all__ = ["NGrams"]

DISCOUNTED = 3
"""Counts of 1, of 2, and of 3 and more have a discount each."""
USUAL, LEAST, LARGEST_SHARE = 0.75, 0.05, 0.95
"""A discount where few counts say none; the least of any, and the largest as a share of its count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Smoothed:
    """Probabilities of an order.

    Args:
        seen: (runs,): of each run of tokens that was seen, its last token behind those before it.
        rest: (contexts,): what is left for the order below.
        best: (contexts,): the largest of ``seen`` behind each context, 0 where there is none.
        token: (contexts,): its token.
    """

    seen: Array
    rest: Array
    best: Array
    token: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """The runs of one length that were seen.

    Args:
        keys: int64 (runs,), ascending: number of the run without its last token, times the vocabulary, plus that token.
        counts: (runs,): how often.
        suffix: (runs,): number of the run without its first token.
        contexts: How many runs there are of one less.
    """

    keys: Array
    counts: Array
    suffix: Array
    contexts: int


class NGrams:
    """Interpolated modified Kneser-Ney of every order up to the highest (Chen and Goodman 1999, section 3).

    The highest order that is asked for takes counts; those below it, how many different tokens stood before.

    Args:
        texts: Token ids, one run of text each: no count reaches from one into the next.
        vocab_size: Kinds of tokens.
        order: The highest: tokens of a run.
        leads: The first token of each text is a context and is never counted as what comes.
    """

    def __init__(
        self, texts: Sequence[Array], vocab_size: int, order: int, *, leads: bool = False
    ) -> None:
        self.vocab_size = vocab_size
        self._runs = _count(texts, vocab_size, order, leads=leads)
        self.order = len(self._runs)
        self._lower: list[_Smoothed] = []
        self._top: list[_Smoothed] = []
        for place, runs in enumerate(self._runs):
            below = None if place == 0 else self._lower[-1].seen[runs.suffix]
            self._top.append(_smooth(runs, runs.counts, below, vocab_size))
            if place + 1 < self.order:
                longer = self._runs[place + 1]
                before = np.bincount(longer.suffix, minlength=len(runs.keys))
                self._lower.append(_smooth(runs, before, below, vocab_size))

    def probabilities(self, inputs: Array, targets: Array, starts: Array) -> Array:
        """Return the probability of each target by each order: float64 (orders, rows, positions).

        Args:
            inputs: int64 (rows, positions).
            targets: int64 (rows, positions): what comes behind each; out of the vocabulary where nothing is asked.
            starts: (rows,): the first position that may be looked at.
        """
        contexts = self._contexts(inputs, starts)
        asked = (targets >= 0) & (targets < self.vocab_size)
        tokens = np.where(asked, targets, 0)
        below = np.full(inputs.shape, 1 / self.vocab_size)
        found = []
        for place, (runs, numbers) in enumerate(zip(self._runs, contexts, strict=True)):
            keys = np.maximum(numbers, 0) * self.vocab_size + tokens
            places = _find(runs.keys, keys)
            found.append(_mixed(self._top[place], numbers, places, below))
            if place + 1 < self.order:
                below = _mixed(self._lower[place], numbers, places, below)
        return np.stack(found)

    def likeliest(self, inputs: Array, starts: Array, order: int) -> Array:
        """Return the token that is most probable behind each position, by one order: int64 (rows, positions)."""
        contexts = self._contexts(inputs, starts)
        best = np.full(inputs.shape, 1 / self.vocab_size)
        token = np.zeros(inputs.shape, np.int64)
        for length in range(1, order + 1):
            table = (self._top if length == order else self._lower)[length - 1]
            numbers = np.maximum(contexts[length - 1], 0)
            there = contexts[length - 1] >= 0
            lower = table.rest[numbers] * best
            wins = there & (table.best[numbers] >= lower)
            token = np.where(wins, table.token[numbers], token)
            best = np.where(there, np.maximum(table.best[numbers], lower), best)
        return token

    def _contexts(self, inputs: Array, starts: Array) -> list[Array]:
        """Return the number of the context of each order at each position, -1 where it was not seen or is cut off."""
        positions = np.arange(inputs.shape[1])
        found = [np.zeros(inputs.shape, np.int64)]
        ending = inputs.astype(np.int64)  # number of the run of some length that ends at a position
        for length in range(1, self.order):
            if length > 1:
                before = np.full(inputs.shape, -1, np.int64)
                before[:, 1:] = ending[:, :-1]
                runs = self._runs[length - 1]
                keys = np.where(before >= 0, before, 0) * self.vocab_size + inputs
                ending = np.where(before >= 0, _find(runs.keys, keys), -1)
            enough = positions - length + 1 >= starts[:, None]
            found.append(np.where(enough, ending, -1))
        return found


def _smooth(runs: _Runs, counts: Array, below: Array | None, vocab_size: int) -> _Smoothed:
    """Interpolate the counts of an order with the probabilities of the order below, (runs,); None: all tokens alike."""
    contexts = runs.keys // vocab_size
    discount = _discounts(counts)[np.minimum(counts, DISCOUNTED)]
    totals = np.bincount(contexts, counts, minlength=runs.contexts)
    left = np.bincount(contexts, discount, minlength=runs.contexts)
    known = np.where(totals > 0, totals, 1.0)
    rest = np.where(totals > 0, left / known, 1.0)
    lower = 1 / vocab_size if below is None else below
    seen = (counts - discount) / known[contexts] + rest[contexts] * lower
    best, token = np.zeros(runs.contexts), np.zeros(runs.contexts, np.int64)
    # The last of a context is its largest; of equal ones the smallest token, as argmax takes.
    order = np.lexsort((-runs.keys, seen, contexts))
    last = order[np.flatnonzero(np.diff(contexts[order], append=-1))]
    best[contexts[last]], token[contexts[last]] = seen[last], runs.keys[last] % vocab_size
    return _Smoothed(seen=seen, rest=rest, best=best, token=token)


def _mixed(table: _Smoothed, contexts: Array, places: Array, below: Array) -> Array:
    """Return the probabilities of an order; those of the order below where the context was not seen."""
    there = contexts >= 0
    rest = table.rest[np.where(there, contexts, 0)]
    seen = table.seen[np.maximum(places, 0)]
    return np.where(there, np.where(places >= 0, seen, rest * below), below)


def _find(keys: Array, wanted: Array) -> Array:
    """Return the places of keys in an ascending array, -1 where they are not in it."""
    if not len(keys):
        return np.full(wanted.shape, -1, np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def _count(texts: Sequence[Array], vocab_size: int, order: int, *, leads: bool) -> list[_Runs]:
    """Count the runs of each length; the numbers of runs of one are the tokens themselves, seen or not."""
    tokens = np.concatenate([np.asarray(text, np.int64) for text in texts])
    offsets = np.concatenate([np.arange(len(text)) for text in texts])
    counted = tokens[offsets >= int(leads)]
    every = np.arange(vocab_size)
    found = [
        _Runs(
            keys=every,
            counts=np.bincount(counted, minlength=vocab_size),
            suffix=np.zeros(vocab_size, np.int64),
            contexts=1,
        )
    ]
    ending = tokens
    for length in range(2, order + 1):
        places = np.flatnonzero(offsets >= length - 1)
        if not len(places):
            break
        keys = ending[places - 1] * vocab_size + tokens[places]
        unique, first, which, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        contexts, suffix = len(found[-1].keys), ending[places[first]]
        found.append(_Runs(keys=unique, counts=counts, suffix=suffix, contexts=contexts))
        ending = np.full(len(tokens), -1, np.int64)
        ending[places] = which.ravel()
    return found


def _discounts(counts: Array) -> Array:
    """Return what is taken off counts of 0, 1, 2, and 3 and more (Chen and Goodman 1999, equation 26)."""
    one, two, three, four = (float((counts == times).sum()) for times in (1, 2, 3, 4))
    share = one / (one + 2 * two) if one else USUAL
    pairs = ((1, one, two), (2, two, three), (3, three, four))
    found = [0.0]
    for times, here, above in pairs:
        exact = times - (times + 1) * share * above / here if here else USUAL
        found.append(min(max(exact, LEAST), LARGEST_SHARE * times))
    return np.array(found)
