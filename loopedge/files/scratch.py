"""Copies that work needs for a while: errors never name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopedge.errors import LoopedgeError

__all__ = ["never_named"]

SUFFIXES = (".onnx", ".ort")


@contextmanager
def never_named(folder: Path, name: object) -> Iterator[None]:
    """Let errors call every model in a folder by another name: the user knows no copy of it.

    Args:
        folder: Holds copies alone.
        name: What the copies are of.
    """
    try:
        yield
    except LoopedgeError as error:
        error.message = _renamed(error.message, folder, str(name))
        if error.hint is not None:
            error.hint = _renamed(error.hint, folder, str(name))
        error.args = (error.message, *error.args[1:])
        raise


def _renamed(text: str, folder: Path, name: str) -> str:
    start = f"{folder}/"
    while (at := text.find(start)) >= 0:
        rest = at + len(start)
        ends = [
            text.find(suffix, rest) + len(suffix) for suffix in SUFFIXES if suffix in text[rest:]
        ]
        end = min(ends) if ends else rest
        text = f"{text[:at]}{name}{text[end:]}"
    return text
