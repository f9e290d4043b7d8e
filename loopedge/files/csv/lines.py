"""Lines of a CSV file without its comments, each with its number in the file."""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path

from loopedge.errors import InputError
from loopedge.files.csv.quotes import Quotes
from loopedge.files.text_pieces import count_lines

__all__ = ["Lines"]


class Lines:
    """Lines of a file without comments; knows which line of the file each was."""

    def __init__(
        self,
        source: Path,
        pieces: Iterable[str],
        *,
        delimiter: str,
        comment: str | None,
        skip_first: bool,
    ) -> None:
        self.delimiter = delimiter
        self._source = source
        self._pieces = iter(pieces)
        self._current = StringIO()
        self._held: str | None = None  # text that was looked at and comes next
        self._comment = comment
        self._skip = skip_first
        self._seen = 0  # lines of the pieces before
        self._dropped = array("q")  # how many lines were kept before each that was left out
        self._pruned = 0  # lines left out that are no more asked for

    def __iter__(self) -> Iterator[str]:
        """Yield the lines that hold cells, with their ends."""
        lines: Iterator[str] = itertools.chain.from_iterable(self._texts())
        if self._skip:
            lines = self._without_separator(lines)
        return lines if self._comment is None else self._uncommented(lines, self._comment)

    def again(self, pieces: Iterable[str]) -> "Lines":
        """Return the same lines, of the same file that is opened once more."""
        return Lines(
            self._source,
            pieces,
            delimiter=self.delimiter,
            comment=self._comment,
            skip_first=self._skip,
        )

    def number(self, count: int) -> int:
        """Return the number in the file of the ``count``-th line that was kept."""
        return count + self._pruned + bisect_left(self._dropped, count)

    def prune(self, count: int) -> None:
        """Forget what was left out before the ``count``-th line; no earlier one is asked for any more."""
        done = bisect_left(self._dropped, count)
        self._pruned += done
        del self._dropped[:done]

    def all_kept(self, count: int) -> bool:
        """Tell whether no line was left out behind the ``count``-th."""
        return not self._dropped or self._dropped[-1] < count

    def plain_text(self) -> str | None:
        """Return the next lines without a quote or a comment, whole, or None; at the end of a line that was read."""
        if self._comment is not None:
            return None
        text = self._current.read() or self._next_piece()
        if text is None or '"' in text:
            self._held = text
            return None
        return text

    def put_back(self, text: str) -> None:
        """Let lines come once more that `plain_text` returned."""
        self._held = text

    def _texts(self) -> Iterator[StringIO]:
        while (piece := self._next_piece()) is not None:
            self._current = StringIO(piece, newline="")
            yield self._current

    def _next_piece(self) -> str | None:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        piece = next(self._pieces, None)
        if piece is not None:
            if "\ufeff" in piece:
                self._check_marks(piece)
            self._seen += count_lines(piece)
        return piece

    def _check_marks(self, piece: str) -> None:
        for number, line in enumerate(StringIO(piece, newline=""), start=self._seen + 1):
            if line.startswith("\ufeff"):
                raise InputError(
                    f"{self._source.name}: line {number} starts with a byte order mark (U+FEFF): files were joined",
                    hint="join them without their marks, and without their headers",
                )

    def _without_separator(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if line.strip():
                self._dropped.append(0)
                break
            yield line
        yield from lines

    def _uncommented(self, lines: Iterator[str], comment: str) -> Iterator[str]:
        quotes = Quotes(self.delimiter)
        kept = 0
        blank = self.delimiter == " "
        for line in lines:
            if quotes.open is None and line.lstrip().startswith(comment):
                self._dropped.append(kept)
                continue
            kept += 1
            if '"' not in line and quotes.open is None:
                place = line.find(comment)
            else:
                found = quotes.read(line, comment)
                place = -1 if found is None else found
            if place >= 0:  # the blanks before a comment are not of its cell
                line = (line[:place] if blank else line[:place].rstrip(" ")) + "\n"
            yield line
