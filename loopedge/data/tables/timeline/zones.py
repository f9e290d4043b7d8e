"""Local times of a zone and the instants that they stand for, in arrays."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np

from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option

__all__ = ["DAY", "HOUR", "SECOND", "Zone"]

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Zone:
    """A time zone: what its clocks show at instants, in nanoseconds since 1970.

    Args:
        name: IANA name, such as ``Europe/Berlin``.

    Raises:
        InputError: No zone is called so.

    Unchecked: the clocks change at most once in 24 hours.
    """

    def __init__(self, name: str) -> None:
        try:
            self._info = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            if not available_timezones():
                raise InputError(
                    f"this machine has no database of time zones, {name!r} cannot be looked up",
                    hint="pip install tzdata",
                ) from error
            raise InputError(f"no time zone is called {name!r}", hint=_zone_hint(name)) from error
        self.name = name
        self._first, self._end = 0, 0
        self._changes, self._offsets = np.empty(0, np.int64), np.array([self._offset(0)])

    def __eq__(self, other: object) -> bool:
        """Zones are equal by name."""
        return isinstance(other, Zone) and other.name == self.name

    def __hash__(self) -> int:
        """Zones are equal by name."""
        return hash(self.name)

    def _offset(self, second: int) -> int:
        """Return nanoseconds that clocks are ahead of UTC, at seconds since 1970."""
        moment = EPOCH + timedelta(seconds=second)
        offset = moment.astimezone(self._info).utcoffset() or timedelta(0)
        return int(offset.total_seconds()) * SECOND

    def _cover(self, moments: Array) -> None:
        """Find every change of the clocks around some moments."""
        if not len(moments):
            return
        first, end = int(moments.min()) // DAY - 3, int(moments.max()) // DAY + 4
        if self._end and first >= self._first and end <= self._end:
            return
        if self._end:
            first, end = min(first, self._first), max(end, self._end)
        changes, offsets = [], [self._offset(first * 86_400)]
        for day in range(first, end):
            after = self._offset((day + 1) * 86_400)
            if after == offsets[-1]:
                continue
            low, high = day * 86_400, (day + 1) * 86_400
            while high - low > 1:
                middle = (low + high) // 2
                if self._offset(middle) == offsets[-1]:
                    low = middle
                else:
                    high = middle
            changes.append(high * SECOND)
            offsets.append(after)
        self._first, self._end = first, end
        self._changes, self._offsets = np.array(changes, np.int64), np.array(offsets, np.int64)

    def offsets(self, instants: Array) -> Array:
        """Return how far clocks are ahead of UTC: int64 nanoseconds."""
        self._cover(instants)
        found: Array = self._offsets[np.searchsorted(self._changes, instants, side="right")]
        return found

    def local(self, instants: Array) -> Array:
        """Return what clocks show at instants."""
        shown: Array = instants + self.offsets(instants)
        return shown

    def candidates(self, local: Array) -> tuple[Array, Array, Array]:
        """Return the instants at which clocks show local times.

        Returns:
            The earlier and the later instant, equal except where an hour stands twice; and bool: whether clocks
            show the time at all. Where they skip it, both are the instant at which they do.
        """
        self._cover(local)
        before, after = self.offsets(local - DAY), self.offsets(local + DAY)
        early, late = local - before, local - after
        early_shows = self.offsets(early) == before
        late_shows = self.offsets(late) == after
        shown = early_shows | late_shows
        skipped = local - before
        if len(self._changes):
            place = np.searchsorted(self._changes, local - after, side="right")
            skipped = self._changes[np.clip(place, 0, len(self._changes) - 1)]
        first = np.where(early_shows, early, np.where(late_shows, late, skipped))
        second = np.where(late_shows, late, np.where(early_shows, early, skipped))
        return np.minimum(first, second), np.maximum(first, second), shown

    def instants(self, local: Array) -> Array:
        """Return the first instant at which clocks show each local time, or skip it."""
        return self.candidates(local)[0]


def _zone_hint(name: str) -> str:
    """Name a zone whose city or spelling is like what was written."""
    wanted = name.strip().lower().replace(" ", "_")
    known = sorted(available_timezones())
    like = [zone for zone in known if wanted and wanted in zone.lower()]
    return form_option("timezone", like[0] if like else "Europe/Berlin")
