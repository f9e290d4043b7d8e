"""Where cells of a CSV are quoted: comments outside of them, and quotes that are not closed as they should be."""

from dataclasses import dataclass

__all__ = ["Quotes"]


@dataclass(slots=True)
class Quotes:
    """Follows the quotes of lines, as ``csv.reader`` reads them.

    Args:
        delimiter: What separates the cells.
        column: Of the cell that is being read, from 1.
        line: Number of the line that was read last, from 1.
        open: Line and column of the cell whose quote is open.
        torn: Line and column of the first cell behind whose closing quote other text stands, and that quote's line.
    """

    delimiter: str
    column: int = 1
    line: int = 0
    open: tuple[int, int] | None = None
    torn: tuple[int, int, int] | None = None

    def read(self, line: str, comment: str | None = None) -> int | None:
        """Follow the next line; return where a comment starts in it.

        Args:
            line: With its line end.
            comment: What starts one, outside of quotes.
        """
        self.line += 1
        started = self.open is not None  # whether a character of the cell has come
        if not started:
            self.column = 1
        place = 0
        while place < len(line):
            character = line[place]
            if self.open is not None:
                if character == '"':
                    after = line[place + 1 : place + 2]
                    if after == '"':
                        place += 1
                    else:
                        if self.torn is None and after not in {"", "\r", "\n", self.delimiter}:
                            self.torn = (*self.open, self.line)
                        self.open = None
            elif comment is not None and line.startswith(comment, place):
                return place
            elif character == self.delimiter:
                self.column += 1
                started = False
                place += 1
                continue
            elif character == '"' and not started:
                self.open = (self.line, self.column)
            started = True
            place += 1
        return None
