"""Tables of a flatbuffer that may be damaged: each access is checked, and their number is bounded.

Offsets of a flatbuffer lead anywhere in the file, and several may lead to one place: a small file can hold a graph of
any size. ONNX Runtime's reader follows them unchecked.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DamagedError", "FlatTable", "Reading"]

BROKEN = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)
"""What ONNX Runtime's reader raises where an offset leads out of the file; its own calls alone are guarded."""

ACCESSES_PER_BYTE, FREE_ACCESSES = 4, 100_000


class DamagedError(Exception):
    """The file is not in ORT format, or was changed since it was written."""


@dataclass(slots=True)
class Reading:
    """How much of a file was read: a sound one takes less than `ACCESSES_PER_BYTE` a byte."""

    size: int
    accesses: int = 0

    def count(self) -> None:
        """Note an access.

        Raises:
            DamagedError: There were more than the file has bytes for.
        """
        self.accesses += 1
        if self.accesses > FREE_ACCESSES + ACCESSES_PER_BYTE * self.size:
            raise DamagedError("it holds more than fits into it")


class FlatTable:
    """A table; its fields are methods by ONNX Runtime's names, and other tables come as this class.

    Args:
        stored: The table of ONNX Runtime's reader.
        reading: Of the whole file.
    """

    def __init__(self, stored: Any, reading: Reading) -> None:
        self.stored = stored
        self.reading = reading

    def __getattr__(self, field: str) -> Callable[..., Any]:
        return lambda *place: self._read(field, place)

    def _read(self, field: str, place: tuple[Any, ...]) -> Any:
        self.reading.count()
        try:
            value = getattr(self.stored, field)(*place)
        except BROKEN as error:
            raise DamagedError(f"{field} leads out of it") from error
        if field.endswith("Length") and not 0 <= value <= self.reading.size:
            raise DamagedError(f"{field} is {value}")
        plain = value is None or isinstance(value, bytes | int | float | np.ndarray)
        return value if plain else FlatTable(value, self.reading)

    def table(self, field: str, *place: Any) -> "FlatTable":
        """Return a table that must be there.

        Raises:
            DamagedError: It is not.
        """
        found = self._read(field, place)
        if not isinstance(found, FlatTable):
            raise DamagedError(f"it holds no {field}")
        return found

    def tables(self, field: str) -> list["FlatTable"]:
        """Return the tables of a list."""
        return [self.table(field, place) for place in range(self._read(f"{field}Length", ()))]
