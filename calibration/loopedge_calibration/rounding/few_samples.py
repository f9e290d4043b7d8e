"""As many samples as it takes, and no more: what is summed over thousands of positions hardly changes with further ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from loopedge_calibration.readers import Feeds, SampleBatch
from loopedge_calibration.samples import Part

__all__ = ["FEWEST_BATCHES", "Thinned", "evenly", "positions_of"]

FEWEST_BATCHES = 4
"""Batches that are kept at least, where there are so many: of larger ones fewer samples each."""


def positions_of(feeds: Feeds) -> int:
    """Return how many positions a batch has, of all its samples together."""
    first = next(iter(feeds.values()))
    return int(np.prod(first.shape[:2])) if np.ndim(first) > 1 else max(1, int(np.size(first)))


def evenly(total: int, kept: int) -> list[int]:
    """Return so many places, evenly spread."""
    if kept >= total:
        return list(range(total))
    return [int(place) for place in np.linspace(0, total - 1, kept).round()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinned:
    """Some batches of a part, evenly spread, of these some samples; as often as they are asked for.

    Args:
        part: The samples.
        sizes: Positions of each batch.
        most: Positions of all that are kept, about.
        cut: The model takes batches of other sizes.
    """

    part: Part
    sizes: Sequence[int]
    most: int
    cut: bool

    def __iter__(self) -> Iterator[SampleBatch]:
        total = sum(self.sizes)
        share = min(1.0, self.most / max(1, total))
        kept = max(min(FEWEST_BATCHES, len(self.sizes)), round(share * len(self.sizes)))
        places = set(evenly(len(self.sizes), kept))
        left = min(1.0, self.most / max(1, sum(self.sizes[place] for place in places)))
        for place, batch in enumerate(self.part):
            if place not in places:
                continue
            samples = len(batch.numbers)
            fewer = max(1, round(left * samples))
            if self.cut and fewer < samples:
                rows = np.zeros(samples, np.bool_)
                rows[evenly(samples, fewer)] = True
                yield batch.rows(rows)
            else:
                yield batch
