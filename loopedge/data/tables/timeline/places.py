"""Where the table rows of a file stand, for people, in a few bytes."""

from bisect import bisect_right

import numpy as np

from loopedge.data.tables.chunks import Chunk

__all__ = ["Places"]


class Places:
    """Table rows by number, and the line of each where the file has lines.

    Args:
        source: Name of the file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._rows: list[int] = []
        self._ahead: list[int] = []  # of the line, from that row on

    def add(self, chunk: Chunk) -> None:
        """See further table rows."""
        if chunk.lines is None:
            return
        lines = np.asarray(chunk.lines, np.int64)
        ahead = lines - (chunk.first + np.arange(len(lines)))
        before = self._ahead[-1] if self._ahead else None
        changed = np.flatnonzero(np.diff(ahead, prepend=ahead[0] - 1 if before is None else before))
        self._rows += (chunk.first + changed).tolist()
        self._ahead += ahead[changed].tolist()

    @property
    def is_plain(self) -> bool:
        """Whether each table row is a line of its own, below one of names."""
        return self._ahead == [2]

    def row(self, row: int) -> str:
        """Return ``row 3 (line 4)`` of a table row's number from 0."""
        place = bisect_right(self._rows, row) - 1
        line = "" if place < 0 else f" (line {row + self._ahead[place]})"
        return f"row {row + 1}{line}"

    def where(self, row: int) -> str:
        """Return the file, and where a table row stands in it."""
        return f"{self.source}: {self.row(row)}"
