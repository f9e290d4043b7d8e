"""Options that take one count or several, separated by commas."""

import typer

__all__ = ["Counts", "parse_counts"]


class Counts(tuple[int, ...]):
    """Counts from 1 on; reads as it is written on the command line."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the counts separated by commas."""
        return ",".join(map(str, iter(self)))


def parse_counts(text: str) -> Counts:
    """Parse counts separated by commas.

    Raises:
        typer.BadParameter: A part of the text is not a count from 1 on.
    """
    try:
        found = Counts(int(part) for part in str(text).split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a count nor counts separated by commas."
        ) from None
    if min(found) < 1:
        raise typer.BadParameter(f"{min(found)} is not in the range x>=1.")
    return found
