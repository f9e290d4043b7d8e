"""Pairs of strings in JSON lines: checked in one pass, then read where they stand."""

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.options import option, option_name

__all__ = ["Pair", "PairFormat", "read_at", "scan"]

MOST_LINE_BYTES = 64 << 20
"""Bytes of a line: a file without line breaks is refused, not read into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A line of the file: where it starts in bytes, its number from 1 on, and its two strings."""

    offset: int
    line: int
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFormat:
    """The keys of an object's two strings, which differ."""

    source: str = "input"
    target: str = "output"

    def __post_init__(self) -> None:
        """Refuse one key for both: the model would learn to copy."""
        if self.source == self.target:
            raise InputError(
                f"{option_name('source')} and {option_name('target')} are both {self.source!r}, two keys are needed",
                hint=f"{option('source', 'KEY')} {option('target', 'OTHER')}",
            )

    def parse(self, content: bytes, where: str, *, offset: int) -> tuple[str, str]:
        """Return source and target of a line.

        Raises:
            InputError: It is not UTF-8, is not a JSON object, or lacks a string.
        """
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8 text: byte {offset + error.start}") from error
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
            raise InputError(f"{where} is not JSON: {reason}") from error
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply"
            if isinstance(error, ValueError):
                reason = "a number has too many digits"
            raise InputError(f"{where} is not JSON: {reason}") from error
        if not isinstance(values, dict):
            raise InputError(
                f"{where} holds no JSON object", hint='{"input": "...", "output": "..."}'
            )
        return self._string(values, self.source, where), self._string(values, self.target, where)

    def _string(self, values: dict[str, object], key: str, where: str) -> str:
        if key not in values:
            raise InputError(
                f"{where} lacks the key {key!r}; it has {', '.join(map(repr, values)) or 'none'}",
                hint=f"name the keys with {option_name('source')} and {option_name('target')}",
            )
        value = values[key]
        if not isinstance(value, str):
            raise InputError(f"{where}: {key!r} is {type(value).__name__}, a string is needed")
        if not value:
            raise InputError(f"{where}: {key!r} is empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: {key!r} holds half of a surrogate pair") from error
        return value


def scan(path: str | Path, form: PairFormat) -> Iterator[Pair]:
    """Yield every pair of a file, one line in memory at a time; blank lines are left out.

    Raises:
        InputError: The file or a line cannot be used; the message says which line.
    """
    source = check_file(path, needed="a file of JSON lines")
    try:
        with source.open("rb") as lines:
            offset = number = 0
            while content := lines.readline(MOST_LINE_BYTES + 1):
                number += 1
                where = f"{source.name}: line {number}"
                if len(content) > MOST_LINE_BYTES:
                    raise InputError(f"{where} is longer than {MOST_LINE_BYTES} bytes")
                start = offset
                offset += len(content)
                if start == 0 and content.startswith(codecs.BOM_UTF8):
                    start = len(codecs.BOM_UTF8)
                    content = content[start:]
                if content.strip():
                    given, wanted = form.parse(content, where, offset=start)
                    yield Pair(offset=start, line=number, source=given, target=wanted)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error


def read_at(path: Path, form: PairFormat, offsets: Sequence[int]) -> list[tuple[str, str]]:
    """Return the pairs of the lines that start at byte offsets.

    Raises:
        InputError: The file has changed since it was scanned.
    """
    found = []
    try:
        with path.open("rb") as lines:
            for offset in offsets:
                lines.seek(offset)
                where = f"{path.name}: the line at byte {offset}"
                found.append(form.parse(lines.readline(), where, offset=offset))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return found
