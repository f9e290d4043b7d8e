"""How many seeds a pilot makes: those that are named, or as many looks as its decision takes."""

from collections.abc import Callable, Iterator
from typing import Literal

from loopedge.study.options import LOOKS

__all__ = ["looks"]

Seeds = int | Literal["auto"]


def looks(seeds: Seeds, known: int, is_decided: Callable[[int], bool]) -> Iterator[int]:
    """Yield how many seeds are to be there before the next look.

    Args:
        seeds: A number: it alone. ``auto``: 3, 5, 8 and 12 of them, until it is decided.
        known: Seeds of the pilot that is resumed: ``auto`` looks at no fewer.
        is_decided: Is asked with that number after each look.
    """
    planned = LOOKS if seeds == "auto" else (seeds,)
    least = known if seeds == "auto" else 0
    for count in [count for count in planned if count >= least] or [known]:
        yield count
        if is_decided(count):
            return
