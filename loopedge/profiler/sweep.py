"""The configurations that each model is profiled in: every combination of the sizes that were named."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from loopedge.errors import InputError
from loopedge.options import option

__all__ = ["Configuration", "configurations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One point of a sweep."""

    batch: int
    sequence: int | None
    loops: int | None
    threads: int


def configurations(
    batch: int | Sequence[int],
    sequence: int | Sequence[int] | None,
    loops: int | Sequence[int] | None,
    threads: int | Sequence[int],
) -> list[Configuration]:
    """Return every combination of the sizes that were named.

    Raises:
        InputError: One of them is below 1.
    """
    axes: dict[str, list[Any]] = {}
    for name, asked in (
        ("batch", batch),
        ("sequence", sequence),
        ("loops", loops),
        ("threads", threads),
    ):
        sizes = list(asked) if isinstance(asked, Sequence) else [asked]
        for size in sizes:
            if size is not None and size < 1:
                raise InputError(f"{name} is {size}, at least 1 is needed", hint=option(name, 1))
        if not sizes:
            raise InputError(f"no size of {name} was named", hint=option(name, 1))
        axes[name] = list(dict.fromkeys(sizes))
    return [
        Configuration(**dict(zip(axes, point, strict=True))) for point in product(*axes.values())
    ]
