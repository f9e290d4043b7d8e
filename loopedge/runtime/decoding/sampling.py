"""Which token comes next: numpy alone.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p, then the draw. (llama.cpp
divides by the temperature last, so that its top-p and min-p do not see it.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.options import check_whole, option, option_name

__all__ = ["Sampler", "Sampling", "probability_of"]

Array = npt.NDArray[Any]

FIRST_CANDIDATES = 256
"""Tokens that top-p sorts first; of a peaked distribution these hold enough."""

MOST = {"temperature": 100.0, "repetition_penalty": 100.0}
LEAST = 1e-6
"""Of both: float32 logits divided by much less are infinite, and their differences no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is chosen. Without a temperature it is the most likely one.

    Args:
        temperature: Divides the logits, at least `LEAST`; None: the most likely token each time.
        top_k: Keep so many tokens, the most likely ones.
        top_p: Keep the fewest most likely tokens whose probabilities add up to this.
        min_p: Keep tokens that are at least so likely as this part of the most likely one.
        repetition_penalty: Logits of tokens that stand in the text already are divided by it where they are above 0,
            else multiplied.
        seed: Of the draws; None: another one each time.

    Raises:
        InputError: A value is out of bounds, or has no effect without a temperature.

    Source: top-k, Fan, Lewis and Dauphin, ACL 2018; top-p, Holtzman et al., ICLR 2020; min-p, Nguyen et al., ICLR
    2025; the penalty, Keskar et al., "CTRL", 2019.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_whole(top_k=self.top_k, seed=self.seed)
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and not LEAST <= value <= most:
                greedy = (
                    f"leave out {option_name('temperature')} for the most likely token each time"
                )
                raise InputError(
                    f"{option_name(name)} is {value}, {LEAST:f} to {most:g} are allowed",
                    hint=greedy if name == "temperature" else None,
                )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"{option_name('top_k')} is {self.top_k}, at least 1 is needed")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"{option_name('top_p')} is {self.top_p}, above 0 to 1 are allowed")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError(f"{option_name('min_p')} is {self.min_p}, 0 to 1 are allowed")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"{option_name('seed')} is {self.seed}, at least 0 is needed")
        if self.temperature is None:
            idle = [n for n in ("top_k", "top_p", "min_p", "seed") if getattr(self, n) is not None]
            if idle:
                raise InputError(
                    f"{option_name(idle[0])} has no effect without a temperature: the most likely token is taken",
                    hint=option("temperature", 1.0),
                )


class Sampler:
    """Chooses tokens of one text, one after the other.

    Args:
        sampling: How.
        vocabulary: Number of tokens.
    """

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = np.zeros(vocabulary, np.bool_)

    def see(self, ids: Any) -> None:
        """Note ids that stand in the text."""
        self._seen[ids] = True

    def choose(self, logits: Array) -> int:
        """Return the next token.

        Args:
            logits: float32 (vocabulary,). Not changed.
        """
        found = self.sampling
        if found.repetition_penalty is not None:
            penalty, seen = np.float32(found.repetition_penalty), np.flatnonzero(self._seen)
            held = logits[seen]
            logits = logits.copy()
            logits[seen] = np.where(held > 0, held / penalty, held * penalty)
        if found.temperature is None:
            return int(logits.argmax())
        ids, weights = self._kept(logits)
        sums = np.cumsum(weights, dtype=np.float64)
        place = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])

    def _kept(self, logits: Array) -> tuple[Array, Array]:
        """Return the ids that may be drawn, and their weights."""
        found = self.sampling
        assert found.temperature is not None
        scaled = (logits - logits.max()) / np.float32(found.temperature)
        if found.top_k is not None and found.top_k < len(scaled):
            # As transformers: what is as likely as the last one stays too.
            least = np.partition(scaled, -found.top_k)[-found.top_k]
            ids = np.flatnonzero(scaled >= least)
            weights = np.exp(scaled[ids])
        else:
            ids, weights = np.arange(len(scaled)), np.exp(scaled)
        if found.top_p is not None and found.top_p < 1:
            kept = _nucleus(weights, found.top_p)
            ids, weights = ids[kept], weights[kept]
        if found.min_p is not None:
            enough = weights >= np.float32(found.min_p) * weights.max()
            ids, weights = ids[enough], weights[enough]
        return ids, weights


def _nucleus(weights: Array, share: float) -> Array:
    """Return the places of the fewest largest weights that make up a share of all, the largest first."""
    wanted = share * weights.sum(dtype=np.float64)
    count = min(FIRST_CANDIDATES, len(weights))
    while True:
        places = np.argpartition(weights, len(weights) - count)[-count:]
        places = places[np.argsort(-weights[places], kind="stable")]
        sums = np.cumsum(weights[places], dtype=np.float64)
        if sums[-1] >= wanted or count == len(weights):
            return places[: int(np.searchsorted(sums, wanted)) + 1]
        count = min(count * 8, len(weights))


def probability_of(logits: Array, token: int) -> float:
    """Return how likely the model finds a token, whatever the sampling: float32 (vocabulary,) to 0 .. 1."""
    shifted = logits - logits.max()
    return float(np.exp(shifted[token]) / np.exp(shifted).sum(dtype=np.float64))
