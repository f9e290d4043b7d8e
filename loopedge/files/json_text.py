"""Read JSON that others wrote: whatever cannot be handed on is one error.

A value that is nested deeply, an integer without bound or half of a surrogate pair passes ``json.loads`` and
breaks what comes after: recursion, float32, the screen.
"""

import json
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files.input_files import read_bytes

__all__ = ["parse_json", "plain_problem", "read_json"]

DEEPEST = 64
MOST_VALUES = 1_000_000
LARGEST = 2**63


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is not JSON, is nested deeper than `DEEPEST`, or holds an integer of more than 64
            bits or text that is not Unicode; the message says so in one line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg.removesuffix(' at')}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    except ValueError as error:  # more digits than Python converts
        raise ValueError("a number has too many digits") from error
    problem = plain_problem(value)
    if problem is not None:
        raise ValueError(problem)
    return value


def read_json(path: str | Path, *, needed: str, hint: str | None = None) -> Any:
    """Return the value of a JSON file.

    Args:
        path: The file, UTF-8.
        needed: What must stand there, for messages: ``a table of ranges``.
        hint: What mends it.

    Raises:
        InputError: The file cannot be read, or as `parse_json`.
    """
    content = read_bytes(path, needed=needed, hint=hint)
    try:
        return parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {needed}: it is not a text file in UTF-8, byte {error.start}", hint=hint
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not {needed}: it is not JSON: {error}", hint=hint) from error


def plain_problem(value: Any) -> str | None:
    """Say what keeps plain values from being handed on, or None: nothing does.

    Args:
        value: Of dictionaries by text, lists, tuples, texts, numbers, booleans and None.
    """
    waiting, seen = [(value, 1)], 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:  # a pickle may hold one list in many places
            return f"it holds more than {MOST_VALUES:,} values"
        if isinstance(item, str):
            if not _is_unicode(item):
                return "a text holds half of a surrogate pair"
        elif isinstance(item, dict | list | tuple):
            if depth > DEEPEST:
                return f"it is nested deeper than {DEEPEST} levels"
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return "a key is not text"
                waiting += [(key, depth) for key in item]
            inside = item.values() if isinstance(item, dict) else item
            waiting += [(each, depth + 1) for each in inside]
        elif isinstance(item, int):
            if not -LARGEST <= item < LARGEST:
                return "a number has too many digits"
        elif item is not None and not isinstance(item, float):
            return f"it holds a {type(item).__name__}"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
