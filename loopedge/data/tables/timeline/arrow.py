"""Times that Arrow and Parquet hold in a type of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from loopedge.data.tables.timeline.writing import StoredTimes, Writing
from loopedge.data.tables.timeline.zones import DAY, SECOND
from loopedge.errors import InputError
from loopedge.files.arrays import Array

__all__ = ["read_moments", "stored_times"]

PER_UNIT = {"s": SECOND, "ms": SECOND // 1_000, "us": 1_000, "ns": 1}
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def stored_times(kind: Any) -> StoredTimes | None:
    """Return what a column of a type of time holds; None: its texts must say."""
    import pyarrow as pa

    types = pa.types
    if types.is_date(kind):
        return StoredTimes(kind="date", writing=Writing(date="%Y-%m-%d"))
    if types.is_timestamp(kind):
        writing = Writing(
            date="%Y-%m-%d",
            between=" ",
            clock="%H:%M:%S",
            digits=DIGITS[kind.unit],
            offset="" if kind.tz is None else "+00:00",
            trimmed=True,
        )
        if kind.tz is None:
            return StoredTimes(kind="date", writing=writing)
        named = "/" in kind.tz  # else an offset, or UTC
        return StoredTimes(kind="instant", writing=writing, zone=kind.tz if named else "UTC")
    if types.is_temporal(kind):  # a time of day, a duration: numbers that grow with it
        return StoredTimes(kind="number", writing=Writing())
    return None


def read_moments(column: Any, stored: StoredTimes, *, where: Callable[[int], str]) -> Array:
    """Return int64 nanoseconds since 1970 of dates and instants, else the numbers that the file holds.

    Args:
        column: Of an Arrow type of time.
        stored: What it holds.
        where: Says where a table row stands.

    Raises:
        InputError: A time is missing, or is too far from 1970.
    """
    import pyarrow as pa

    if column.null_count:
        row = int(np.asarray(column.is_null().to_numpy(zero_copy_only=False)).argmax())
        raise InputError(f"{where(row)}: the time is missing")
    kind = column.type
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    numbers = column.cast(pa.int32() if narrow else pa.int64()).to_numpy(zero_copy_only=False)
    moments: Array = numbers.astype(np.int64)
    if stored.kind == "number":
        return moments
    unit = DAY
    if pa.types.is_date64(kind):
        unit = PER_UNIT["ms"]
    elif pa.types.is_timestamp(kind):
        unit = PER_UNIT[kind.unit]
    far = np.abs(moments) > (2**63 - 1) // unit
    if far.any():
        raise InputError(
            f"{where(int(far.argmax()))}: the time is outside of the years 1678 to 2261",
            hint="number the rows, and name that column",
        )
    return moments * unit
