"""Text that appears piece by piece on standard output."""

import sys

from loopedge_cli.streams import printing

__all__ = ["StreamedText"]

KEPT = "\n\t"
"""Control characters that a terminal is given."""


class StreamedText:
    """Prints the pieces of a text as they come.

    On a terminal control characters are printed by number: what a model writes moves no cursor and changes no title.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout is not None and sys.stdout.isatty()
        self._open = False

    def add(self, text: str) -> None:
        """Print a piece at once.

        Raises:
            InputError: Standard output is closed, or its disk is full.
            BrokenPipeError: The reader is gone.
        """
        if not text:
            return
        shown = "".join(map(_visible, text)) if self._terminal else text
        with printing():
            sys.stdout.write(shown)
        self._open = not shown.endswith("\n")

    def end(self) -> None:
        """End the line that the text stands in.

        Raises:
            InputError: As `add`, like the other.
            BrokenPipeError: The reader is gone.
        """
        if self._open:
            with printing():
                sys.stdout.write("\n")
            self._open = False


def _visible(letter: str) -> str:
    control = letter < " " or "\x7f" <= letter <= "\x9f"
    return f"\\x{ord(letter):02x}" if control and letter not in KEPT else letter
