"""Pairs of strings in JSON lines: checked in one pass, then read where they stand."""

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopedge.data.text_files import changed, check_text
from loopedge.errors import InputError
from loopedge.files.encodings import guess_encoding, wrong_byte
from loopedge.files.input_files import check_file
from loopedge.options import option, option_name

__all__ = ["Pair", "PairFormat", "read_at", "scan"]

MOST_LINE_BYTES = 64 << 20
"""Bytes of a line: a file without line breaks is refused, not read into memory."""
ARRAY_HINT = "one object a line: jq -c '.[]' FILE.json > lines.jsonl"


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

    def parse(self, text: str, where: str) -> tuple[str, str]:
        """Return source and target of a line.

        Raises:
            InputError: It is not a JSON object, has a key twice, or lacks a string.
        """
        repeated: list[str] = []

        def take(pairs: list[tuple[str, object]]) -> dict[str, object]:
            found = dict(pairs)
            # The outermost object comes last, so that only its keys are left.
            repeated[:] = [] if len(found) == len(pairs) else _repeated(pairs)
            return found

        try:
            values = json.loads(text, object_pairs_hook=take)
        except json.JSONDecodeError as error:
            reason = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}"
            if _other_layout(text) is not None:
                reason = "its value goes on in the next line"
            elif text.startswith("\ufeff"):
                reason = "a byte order mark (U+FEFF) stands before it, files were joined"
            raise InputError(f"{where} is not JSON: {reason}", hint=_other_layout(text)) from error
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply"
            if isinstance(error, ValueError):
                reason = "a number has too many digits"
            raise InputError(f"{where} is not JSON: {reason}") from error
        if not isinstance(values, dict):
            raise InputError(
                f"{where} is {_kind(values)}, an object with two strings is needed",
                hint=ARRAY_HINT
                if isinstance(values, list)
                else '{"input": "...", "output": "..."}',
            )
        if repeated:
            raise InputError(
                f"{where}: the key {repeated[0]!r} stands {repeated.count(repeated[0])} times in the object",
                hint="leave one of them, or give each a name of its own",
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
            raise InputError(
                f"{where}: {key!r} is {_kind(value)}, a string is needed", hint=_string_hint(value)
            )
        if not value:
            raise InputError(f"{where}: {key!r} is empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: {key!r} holds half of a surrogate pair") from error
        return value


def _repeated(pairs: list[tuple[str, object]]) -> list[str]:
    counts = Counter(key for key, _ in pairs)
    return [key for key, _ in pairs if counts[key] > 1]


def _kind(value: object) -> str:
    """Say what a value is in the words of JSON, with the value itself where it is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"the number {value!r}"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names[type(value)]


def _string_hint(value: object) -> str:
    if value is None:
        return "leave the line out, or write a text there"
    return "write it as a text, in quotes"


def _other_layout(text: str) -> str | None:
    """Return what makes lines of a file of JSON that has one value over several lines."""
    start = text.strip()
    if start.startswith("["):
        return ARRAY_HINT
    return "one object a line: jq -c . FILE.json > lines.jsonl" if start == "{" else None


def _decode(source: Path, content: bytes, *, offset: int, line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        with source.open("rb") as lines:
            guess = guess_encoding(lines)
        raise wrong_byte(
            source, guess, encoding="utf-8", byte=offset + error.start, line=line
        ) from error


def scan(path: str | Path, form: PairFormat) -> Iterator[Pair]:
    """Yield every pair of a file, one line in memory at a time; blank lines are left out.

    Raises:
        InputError: The file or a line cannot be used; the message says which line.
    """
    source = check_file(path, needed="a file of JSON lines")
    check_text(source)
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
                    text = _decode(source, content, offset=start, line=number)
                    given, wanted = form.parse(text, where)
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
                found.append(form.parse(lines.readline().decode("utf-8"), where))
    except UnicodeDecodeError as error:
        raise changed(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return found
