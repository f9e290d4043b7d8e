"""Text files: found, checked as UTF-8, cut into parts, and read piece by piece."""

import codecs
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopedge.data.split import Split
from loopedge.errors import InputError
from loopedge.files.encodings import (
    HEAD,
    find_mark,
    first_bad_byte,
    guess_encoding,
    recoding_hint,
    wide_encoding,
    wrong_byte,
)
from loopedge.files.input_files import check_file
from loopedge.files.kinds import find_kind, other_kind

__all__ = [
    "SUFFIXES",
    "TRAIN_PERCENT",
    "VALIDATION_PERCENT",
    "Span",
    "changed",
    "check_text",
    "check_utf8",
    "find_texts",
    "read_pieces",
    "split_texts",
    "whole",
]

SUFFIXES = (".md", ".raw", ".rst", ".text", ".tokens", ".txt")
"""What a file of a folder must end in; a file that is named itself may be called anything."""

TRAIN_PERCENT, VALIDATION_PERCENT = 90, 5

PIECE = 1 << 16  # bytes of a piece of text


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Items ``start`` .. ``end`` - 1 of a file: bytes, or ids of one size."""

    path: Path
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def find_texts(path: str | Path) -> list[Path]:
    """Return a text file, or those of a folder and its subfolders in the order of their paths.

    Hidden files and folders are left out.

    Raises:
        InputError: There is none, or a file is not UTF-8 text.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"{source} does not exist")
    found = [source]
    if source.is_dir():
        found = sorted(
            file
            for file in source.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(source).parts)
            and file.is_file()
        )
        if not found:
            raise InputError(
                f"{source} holds no text file: none ends in {', '.join(SUFFIXES)}",
                hint="name a text file",
            )
    for file in found:
        check_utf8(check_file(file, needed="a text file"))
    if not any(map(len, whole(found))):
        raise InputError(f"{source} is empty: it holds no text")
    return found


def check_utf8(path: Path) -> None:
    """Read a file once, and refuse what is not UTF-8.

    Raises:
        InputError: With the first byte that is not, counted from 0, its line, and the encoding that the file seems
            to have; or the file is of another kind, or cannot be read.
    """
    check_text(path)
    try:
        place = first_bad_byte(path)
        if place is None:
            return
        with path.open("rb") as source:
            guess = guess_encoding(source)
        line = _line_of(path, place)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    raise wrong_byte(path, guess, encoding="utf-8", byte=place, line=line)


def check_text(path: Path) -> None:
    """Refuse what is known by its first bytes to be no UTF-8 text: compressed files, UTF-16, other kinds.

    Raises:
        InputError: With what the file is, and what makes a text of it; or it cannot be read.
    """
    wrong = other_kind(path, "a text")
    if wrong is not None:
        raise wrong
    kind = find_kind(path)
    if kind is not None:
        name = {"gzip": "compressed with gzip", "parquet": "a Parquet file"}.get(kind, "Arrow data")
        hint = f"gunzip --keep {shlex.quote(str(path))}" if kind == "gzip" else None
        raise InputError(f"{path} is {name}, a text is needed", hint=hint)
    try:
        with path.open("rb") as source:
            head = source.read(HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    mark = find_mark(head)
    wide = wide_encoding(head) if mark is None else mark[0]
    if wide is not None and wide != "utf-8":
        raise InputError(
            f"{path} is not UTF-8 text, it {'seems to be' if mark is None else 'is marked as'} {wide}",
            hint=recoding_hint(path, wide),
        )


def _line_of(path: Path, place: int) -> int:
    """Return the line of a byte."""
    line, left = 1, place
    with path.open("rb") as source:
        while left and (chunk := source.read(min(left, 1 << 20))):
            line += chunk.count(b"\n")
            left -= len(chunk)
    return line


def whole(paths: Iterable[Path]) -> list[Span]:
    """Return files as spans of all their bytes, without a byte order mark: it is not text."""
    return [Span(path=path, start=_mark(path), end=path.stat().st_size) for path in paths]


def _mark(path: Path) -> int:
    """Return how many bytes of a file are its byte order mark."""
    with path.open("rb") as source:
        mark = source.read(len(codecs.BOM_UTF8))
    return len(mark) if mark == codecs.BOM_UTF8 else 0


def split_texts(spans: Sequence[Span]) -> Mapping[Split, list[Span]]:
    """Cut texts, read one after the other, into 90 % train, 5 % validation and 5 % test.

    The borders are counted in bytes and moved to the next character.
    """
    total = sum(map(len, spans))
    first = total * TRAIN_PERCENT // 100
    second = total * (TRAIN_PERCENT + VALIDATION_PERCENT) // 100
    before, rest = _cut(spans, first)
    middle, last = _cut(rest, second - sum(map(len, before)))
    return {"train": before, "validation": middle, "test": last}


def _cut(spans: Sequence[Span], place: int) -> tuple[list[Span], list[Span]]:
    """Return what lies before the first character that starts at byte ``place`` or later, and the rest."""
    left = place
    for index, span in enumerate(spans):
        if left < len(span):
            at = _character_start(span, span.start + max(0, left))
            halves = (
                Span(path=span.path, start=span.start, end=at),
                Span(path=span.path, start=at, end=span.end),
            )
            before, after = ([half] if len(half) else [] for half in halves)
            return [*spans[:index], *before], [*after, *spans[index + 1 :]]
        left -= len(span)
    return list(spans), []


def _character_start(span: Span, place: int) -> int:
    with span.path.open("rb") as source:
        source.seek(place)
        following = source.read(min(4, span.end - place))
    skipped = 0
    while skipped < len(following) and following[skipped] & 0xC0 == 0x80:  # continuation bytes
        skipped += 1
    return place + skipped


def read_pieces(spans: Iterable[Span], size: int = PIECE) -> Iterator[str]:
    """Yield the text of spans in pieces of about ``size`` bytes.

    A piece ends after a line where it can, else after a character, and at the end of a span.

    Raises:
        InputError: A file has changed since it was checked.
    """
    for span in spans:
        with span.path.open("rb") as source:
            source.seek(span.start)
            left, carried = len(span), b""
            while left:
                read = source.read(min(size, left))
                if not read:
                    raise changed(span.path)
                left -= len(read)
                chunk = carried + read
                end = len(chunk) if not left else _piece_end(chunk)
                carried = chunk[end:]
                if end:
                    try:
                        yield chunk[:end].decode("utf-8")
                    except UnicodeDecodeError as error:
                        raise changed(span.path) from error


def _piece_end(chunk: bytes) -> int:
    """Return one past the last line break, or where the last character starts."""
    end = chunk.rfind(b"\n") + 1
    if end:
        return end
    end = len(chunk) - 1
    while end > 0 and chunk[end] & 0xC0 == 0x80:
        end -= 1
    return end


def changed(path: Path) -> InputError:
    """Return the error of a file that is not what it was when it was checked."""
    return InputError(f"{path} was changed while it was read", hint="start again")
