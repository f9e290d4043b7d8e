"""Ids of tokens as callers hand them over: one sequence, or one for each text of a batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError

__all__ = ["Ids", "check_ids", "id_rows", "next_ids"]

Array = npt.NDArray[Any]
Ids = Sequence[int] | Sequence[Sequence[int]] | Sequence[Array] | Array


def id_rows(ids: Ids, *, batch: int) -> list[Array]:
    """Return the ids of each text, int64 (sequence,).

    Args:
        ids: For one text its ids, or in a list of one; for a batch a list, or an array (batch, sequence).
        batch: Texts.

    Raises:
        InputError: There are others than ``batch`` texts, one is empty, or holds no integers.
    """
    if isinstance(ids, np.ndarray):
        rows = [ids] if ids.ndim < 2 else list(ids)
    else:
        given: list[Any] = list(ids)
        nested = any(np.ndim(item) for item in given)
        rows = [np.asarray(row) for row in given] if nested else [np.asarray(given)]
    if len(rows) != batch:
        raise InputError(f"{len(rows)} texts were given, the batch is {batch}")
    for place, row in enumerate(rows):
        if row.ndim != 1:
            raise InputError(f"ids have shape {row.shape}, (sequence,) is needed for each text")
        if row.size == 0:
            which = f"text {place + 1} of the batch" if batch > 1 else "the text"
            raise InputError(f"{which} is empty: there is nothing to go on with")
    return [_integers(row) for row in rows]


def next_ids(tokens: int | Sequence[int] | Array, *, batch: int) -> Array:
    """Return one id for each text, int64 (batch,).

    Raises:
        InputError: There are more or fewer, or they are no integers.
    """
    found = np.asarray(tokens).reshape(-1)
    if found.size != batch:
        raise InputError(
            f"{found.size} tokens were given for {batch} texts: one for each is needed"
        )
    return _integers(found)


def check_ids(ids: Array, size: int, path: object) -> None:
    """Refuse ids outside of a vocabulary of ``size``.

    Raises:
        InputError: As said.
    """
    wrong = (ids < 0) | (ids >= size)
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            f"token {place + 1} is {ids[place]}, {path} takes ids from 0 to {size - 1}",
            hint="is it the tokenizer of this model?",
        )


def _integers(array: Array) -> Array:
    if array.dtype.kind not in "iu":
        raise InputError(f"ids have type {array.dtype}, integers are needed")
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"an id is {array.max()}, that is no token")
    return array.astype(np.int64, copy=False)
