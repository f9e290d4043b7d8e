"""How this process was called, as a command line that runs elsewhere: without the folders of this machine."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["command_text"]

PROGRAM = "loopedge"


def command_text(words: Sequence[str] | None = None) -> str:
    """Return a command line; of an absolute path only the last part is kept.

    Args:
        words: Program and arguments; default: those of this process.
    """
    _, *rest = (sys.argv if words is None else list(words)) or [PROGRAM]
    return shlex.join([PROGRAM, *map(_without_folders, rest)])


def _without_folders(word: str) -> str:
    option, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    path = Path(value)
    return f"{option}{sign}{path.name if path.is_absolute() else value}"
