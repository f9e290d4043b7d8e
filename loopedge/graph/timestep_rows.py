"""Timestep rows unlike a model's own, for checks: an untrained stack hides a wrong core behind gates of zero."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["random_rows", "shuffled_rows"]

Array = npt.NDArray[Any]

MEAN, DEVIATION = 0.5, 0.25


def random_rows(tables: Mapping[str, Array], generator: np.random.Generator) -> dict[str, Array]:
    """Return tables of the same shapes: floats drawn anew, rows of other types in another order.

    An integer may be an index, a boolean a switch: what the model was not made for could fail in it, and drawn values
    rounded to integers would be zeros.
    """
    return {
        name: generator.normal(MEAN, DEVIATION, table.shape).astype(table.dtype)
        if np.issubdtype(table.dtype, np.floating)
        else _in_another_order(table, generator)
        for name, table in tables.items()
    }


def shuffled_rows(tables: Mapping[str, Array], generator: np.random.Generator) -> dict[str, Array]:
    """Return the tables with their rows in another order, for models that do not take any values."""
    return {name: _in_another_order(table, generator) for name, table in tables.items()}


def _in_another_order(table: Array, generator: np.random.Generator) -> Array:
    """Return the rows in another order: where the drawn one changes nothing, each row one place on."""
    drawn: Array = generator.permutation(table, axis=0)
    return np.roll(table, 1, axis=0) if np.array_equal(drawn, table) else drawn
