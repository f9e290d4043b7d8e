"""Find the user's code by its name, and tell what it raises in one line that names the line of code."""

import importlib
import os
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from loopedge.errors import InputError

__all__ = ["FOREIGN_CODE", "import_object", "reason_of", "users_line"]


def _folder_of(package: str) -> str:
    """Return where a package lives, without importing it; a separator at the end keeps siblings out."""
    found = find_spec(package)
    return (
        f"{Path(found.origin).parent}{os.sep}" if found is not None and found.origin else "<none>"
    )


FOREIGN_CODE = (_folder_of("torch"), _folder_of(__package__), "<")
"""Whose lines are not the user's: PyTorch's, ours whatever the room, and Python's own."""


def import_object(source: str) -> Any:
    """Return what ``package.module:name`` names; the module may lie in the current folder.

    Raises:
        InputError: The module cannot be imported, or has nothing of that name.
    """
    name, _, attribute = source.rpartition(":")
    if not name:
        raise InputError(f"{source} names no module", hint="write it as package.module:name")
    found: Any = _import(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{name} has no {attribute}", hint="write it as package.module:name")
        found = getattr(found, part)
    return found


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: an installed package goes before a folder of its name
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"no Python module {error.name} is found from this folder",
                hint="run it in the folder that holds the package, or install the package",
            ) from error
        raise InputError(f"importing {name} failed: {reason_of(error)}") from error
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise InputError(f"importing {name} failed: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Return the kind and the first line of an error, and the user's line of code that raised it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = users_line(error.__traceback__)
    reason = type(error).__name__ + (f": {lines[0]}" if lines else "")
    return f"{reason} ({where})" if where else reason


def users_line(trace: TracebackType | None) -> str:
    """Return the innermost line that is neither PyTorch's nor ours, as ``file.py, line N``."""
    for frame in reversed(traceback.extract_tb(trace)):
        if not frame.filename.startswith(FOREIGN_CODE):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""
