"""Make a file's arrays what a trained model takes: its columns, its mask, finite numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.data.description import TABLES
from loopedge.errors import InputError
from loopedge.graph.metadata import Metadata
from loopedge.runtime.session import DTYPES, Session

__all__ = ["MASK", "check_finite", "fill_mask", "named_columns"]

Array = npt.NDArray[Any]

MASK = "attention_mask"


def named_columns(metadata: Metadata) -> tuple[str, ...]:
    """Return the columns that the model was trained on, in their order; none where no table was."""
    task = metadata.task
    if task.get("name") not in TABLES:
        return ()
    targets = [task["target"]] if "target" in task else task.get("targets", [])  # 0.1: one target
    return (*targets, *task["covariates"])


def fill_mask(session: Session, arrays: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Add the ``attention_mask`` that a model takes and a file lacks: it keeps every position.

    A window of fewer rows than the task's context is padded on the left and masked there, as in
    training: a learned position is that of a row before the last one.

    Args:
        session: The model; one that loopedge did not write is left alone.
        arrays: Its inputs by name.

    Returns:
        The inputs, and what a person should know of them.
    """
    feeds = dict(arrays)
    if session.metadata.foreign or MASK not in session.inputs or MASK in feeds:
        return feeds, []
    name = next((name for name in session.inputs if name in feeds), None)
    if name is None or feeds[name].ndim < 2:
        return feeds, []  # the session says what is wrong with them
    values = feeds[name]
    batch, rows = values.shape[:2]
    task = session.metadata.task
    padded = 0
    if named_columns(session.metadata) and values.shape[2:] == (len(task["mean"]),):
        padded = max(task["context"] - rows, 0) if rows else 0
        mean = np.asarray(task["mean"], np.float32)  # what training pads with
        padding = np.broadcast_to(mean, (batch, padded, len(mean)))
        feeds[name] = np.concatenate([padding, values], axis=1)
    kept = np.arange(padded + rows) >= padded
    feeds[MASK] = np.broadcast_to(kept, (batch, padded + rows)).astype(np.int64)
    notes = [f"the file holds no {MASK}: every position is kept"]
    if padded:
        notes.append(f"{rows} rows are padded on the left to the context of {padded + rows} rows")
    return feeds, notes


def check_finite(session: Session, arrays: Mapping[str, Array], columns: Sequence[str]) -> None:
    """Refuse numbers that a model turns into no answer; NaN passes where it means a missing value.

    Args:
        session: The model; one that loopedge did not write is left alone.
        arrays: Its inputs by name.
        columns: Names of the last axis of a continuous input, where they are known.

    Raises:
        InputError: The message names the input and the place.
    """
    if session.metadata.foreign:
        return
    missing = session.metadata.missing_values
    for name, array in arrays.items():
        dtype = DTYPES.get(session.inputs[name].type) if name in session.inputs else None
        if dtype is None or not (array.dtype.kind == "f" and np.issubdtype(dtype, np.floating)):
            continue
        with np.errstate(over="ignore"):
            values: Array = array.astype(dtype)
        wrong = np.isinf(values) if missing else ~np.isfinite(values)
        if not wrong.any():
            continue
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        allowed = f"finite numbers of {np.dtype(dtype)}{' and missing values' if missing else ''}"
        gone = bool(np.isnan(values[place]))
        raise InputError(
            f"input {name}: {_place(place, array.shape, columns)} is {array[place]:g}, the model "
            f"takes {allowed}",
            hint="fill missing values first, or train with --missing indicator" if gone else None,
        )


def _place(place: tuple[int, ...], shape: tuple[int, ...], columns: Sequence[str]) -> str:
    """Return where a value stands, counted from 1 as in a table."""
    if len(place) not in {2, 3}:
        return f"place {place}"
    *sample, row, column = place
    named = f" {columns[column]!r}" if len(columns) == shape[-1] else f" {column + 1}"
    first = f"sample {sample[0] + 1}, " if sample and shape[0] > 1 else ""
    return f"{first}row {row + 1}, column{named}"
