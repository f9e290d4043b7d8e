"""Masks are told apart by what they hold."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loopedge.graph.decoding.attention.masks import Causal, Refused, classify

Array = NDArray[Any]
LENGTHS = (1, 2, 3, 5, 8, 13)


def distance(length: int) -> Array:
    return np.arange(length)[:, None] - np.arange(length)[None, :]


def windowed(window: int) -> Callable[[int], Array]:
    return lambda length: (distance(length) >= 0) & (distance(length) < window)


def added(mask: Array, hidden: float = -np.inf) -> Array:
    return np.where(mask, 0.0, hidden).astype(np.float32)


READ: dict[str, tuple[Callable[[int], Array], int | None]] = {
    "causal": (lambda length: distance(length) >= 0, None),
    "causal, four axes": (lambda length: (distance(length) >= 0)[None, None], None),
    "causal, a row per batch row": (
        lambda length: np.repeat((distance(length) >= 0)[None, None], 2, axis=0),
        None,
    ),
    "added": (lambda length: added(distance(length) >= 0), None),
    "added, transformers": (lambda length: added(distance(length) >= 0, -3.4028235e38), None),
    "added, ten thousand": (lambda length: added(distance(length) >= 0, -1e4), None),
    "window of one": (windowed(1), 1),
    "window": (windowed(4), 4),
    "window, added": (lambda length: added(windowed(4)(length)), 4),
    "window as long as the longest": (windowed(13), None),
}

REFUSED: dict[str, tuple[Callable[[int], Array], str]] = {
    "everything": (lambda length: np.ones((length, length), bool), "behind their own"),
    "prefix": (
        lambda length: (distance(length) >= 0) | (np.arange(length) < 2)[None, :],
        "behind their own",
    ),
    "without the first": (
        lambda length: (distance(length) >= 0) & (np.arange(length) > 0)[None, :],
        "do not read all positions",
    ),
    "every second": (
        lambda length: (distance(length) >= 0) & (distance(length) % 2 == 0),
        "do not read all positions",
    ),
    "by distance": (
        lambda length: added(distance(length) >= 0) - 0.5 * np.abs(distance(length)),
        "adds something",
    ),
    "by head": (
        lambda length: np.stack([windowed(2)(length), windowed(3)(length)])[None],
        "from head to head",
    ),
    "half of the length": (lambda length: windowed((length + 1) // 2)(length), "changes"),
    "integers": (lambda length: (distance(length) >= 0).astype(np.int64), "type is int64"),
    "a table that ends": (
        lambda length: np.tri(min(length, 8), dtype=bool),
        r"shape \(8, 8\) at 13",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_masks_that_a_cache_can_have(name: str) -> None:
    mask, window = READ[name]
    assert classify({length: mask(length) for length in LENGTHS}) == Causal(window)


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_it_cannot(name: str) -> None:
    mask, reason = REFUSED[name]
    answer = classify({length: mask(length) for length in LENGTHS})
    assert isinstance(answer, Refused)
    assert re.search(reason, answer.reason), answer.reason
