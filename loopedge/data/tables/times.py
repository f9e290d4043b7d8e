"""The times of table rows as numbers that can be compared, and the ones that follow them."""

from dataclasses import dataclass, replace

import numpy as np

from loopedge.data.tables.timeline.frequency import Frequency
from loopedge.data.tables.timeline.writing import TimeKind, Writing
from loopedge.data.tables.timeline.zones import Zone
from loopedge.files.arrays import Array

__all__ = ["TimeKind", "Times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The time of each table row, in the order of the rows.

    Args:
        kind: What the moments are.
        moments: (table rows,): float64 or int64 numbers; int64 nanoseconds since 1970 of dates, and of instants in UTC.
        writing: How the file writes them.
        column: Name of the column that holds them.
        zone: Whose clocks the texts show, where it is known.
        frequency: The step from row to row, of most rows; None: there is none, or it was not looked for.
        typical: Of times that vary around a step, as those of a logger do: nanoseconds, or units of the numbers.
    """

    kind: TimeKind
    moments: Array
    writing: Writing
    column: str
    zone: Zone | None = None
    frequency: Frequency | None = None
    typical: int | float | None = None

    def text(self, row: int) -> str:
        """Return the time of a table row, as the file writes it."""
        return self._write(self.moments[row : row + 1])[0]

    def ahead(self, row: int, count: int) -> list[str]:
        """Return the times that follow a table row by steps of the frequency, as the file writes them.

        Args:
            row: The table row, as the moments are counted; from the end where it is negative.
            count: How many times.

        Returns:
            ``count`` texts; none where the times have no step that holds for most rows.
        """
        start = self.moments[row]
        steps = np.arange(1, count + 1)
        if self.frequency is None:
            if self.typical is None:
                return []
            return self._write(start + steps * self.typical)
        if not self.frequency.is_local:
            return self._write(self.frequency.at(start.item(), steps))
        shown = self.clock(np.array([start]))[0]
        return self._write(self.from_clock(self.frequency.at(int(shown), steps)))

    def clock(self, moments: Array) -> Array:
        """Return what clocks show at moments: the moments themselves where no zone is known."""
        return moments if self.zone is None else self.zone.local(moments)

    def from_clock(self, shown: Array) -> Array:
        """Return the first moments at which clocks show times, or skip them."""
        return shown if self.zone is None else self.zone.instants(shown)

    def grid(self, frequency: Frequency) -> Array:
        """Return the times on which a frequency counts: of clocks, where it counts days."""
        return self.clock(self.moments) if frequency.is_local else self.moments

    def take(self, rows: Array) -> "Times":
        """Return the times of some table rows, in their order."""
        return replace(self, moments=self.moments[rows])

    def _write(self, moments: Array) -> list[str]:
        return [self.writing.write(each, self.kind, self.zone) for each in moments.tolist()]
