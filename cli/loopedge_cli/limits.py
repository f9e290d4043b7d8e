"""Options that take an amount with its unit: bytes such as ``32MiB``, times such as ``50ms``."""

import typer

from loopedge.units import read_seconds, read_size

__all__ = ["parse_seconds", "parse_size"]


def parse_size(text: str) -> int:
    """Parse a number of bytes.

    Raises:
        typer.BadParameter: The text is none, or less than one byte.
    """
    size = read_size(text)
    if size is None:
        raise typer.BadParameter(f"{text!r} is not a size such as 32MiB.")
    return size


def parse_seconds(text: str) -> float:
    """Parse a time.

    Raises:
        typer.BadParameter: The text is none, or not above zero.
    """
    seconds = read_seconds(text)
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 50ms or 20m.")
    return seconds
