"""Stop strings: text that ends a generation, wherever the borders of tokens are."""

from collections.abc import Sequence

from loopedge.errors import InputError
from loopedge.options import option_name

__all__ = ["StopStrings"]


class StopStrings:
    """Holds text back while it may be the beginning of a stop string.

    Args:
        stops: The strings.

    Attributes:
        found: The string that ended the text; None before.

    Raises:
        InputError: One is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise InputError(
                f"{option_name('stop')} is empty: a text without characters ends nothing"
            )
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """Return what may be shown once this text has come; the stop string itself never is."""
        if self.found is not None:
            return ""
        self._held += text
        ends = [
            (place + len(stop), place, stop)
            for stop in self._stops
            if (place := self._held.find(stop)) >= 0
        ]
        if ends:  # the first one that is whole: wherever the borders of tokens are, it is the same
            _, place, self.found = min(ends)
            shown, self._held = self._held[:place], ""
            return shown
        kept = max((self._overlap(stop) for stop in self._stops), default=0)
        split = len(self._held) - kept
        shown, self._held = self._held[:split], self._held[split:]
        return shown

    def rest(self) -> str:
        """Return what was held back, at the end of the text."""
        shown, self._held = self._held, ""
        return shown

    def _overlap(self, stop: str) -> int:
        """Return the length of the longest end of the text that a stop string begins with."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)
