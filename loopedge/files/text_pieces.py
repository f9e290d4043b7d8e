"""Text that is read in pieces of whole lines: plain or compressed with gzip, in UTF-8 or another encoding."""

import codecs
import contextlib
import gzip
import io
import shlex
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files.encodings import (
    Guess,
    find_mark,
    guess_encoding,
    recoding_hint,
    wide_encoding,
    wrong_byte,
)
from loopedge.files.kinds import packed_kind
from loopedge.options import option_name

__all__ = ["MOST_LINE", "TextPieces", "count_lines", "line_end", "open_text"]

PIECE = 1 << 18  # bytes that are decoded at once
MOST_LINE = 1 << 24
"""Characters of a line: a file without line breaks is refused, not read into memory."""
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPieces:
    """A file that is being read as text.

    Args:
        source: The file.
        encoding: What its characters are read as.
        marked: Whether a byte order mark says so.
        compressed: Whether it is unpacked on the way.
        seems_utf8: Whether its first part reads as UTF-8, with other characters than ASCII.
        pieces: Its text without the mark, cut at ends of lines; can be iterated once.
    """

    source: Path
    encoding: str
    marked: bool
    compressed: bool
    seems_utf8: bool
    pieces: Iterator[str]


@contextlib.contextmanager
def open_text(
    source: Path,
    encoding: str | None = None,
    *,
    encoding_option: Callable[[str], str] | None = None,
) -> Iterator[TextPieces]:
    """Open a text; it is read while its pieces are iterated, inside the ``with`` block.

    Args:
        source: The file.
        encoding: Of its characters; default: UTF-8, or what a byte order mark says.
        encoding_option: Returns how the user names an encoding, for hints; default: there is no such option.

    Raises:
        InputError: The file cannot be read or unpacked, is not in the encoding, holds a NUL byte or a line of
            more than `MOST_LINE` characters; on opening, or while its pieces are iterated.
    """
    try:
        with _opened(source) as (content, compressed):
            head = content.peek(PIECE)
            wrong = packed_kind(source, head) if compressed else None
            if wrong is not None:
                raise wrong
            chosen = _choose(source, encoding, head)
            mark = find_mark(head)
            skipped = 0 if mark is None else mark[1]
            content.read(skipped)
            yield TextPieces(
                source=source,
                encoding=chosen,
                marked=mark is not None,
                compressed=compressed,
                seems_utf8=not head.isascii() and _reads_as_utf8(head),
                pieces=_Reader(source, content, chosen, skipped, encoding_option).pieces(),
            )
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except EOFError as error:
        raise InputError(
            f"{source} is a gzip file that ends too early: it was not copied or written whole",
            hint=f"gunzip --test {source}",
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{source} is a damaged gzip file: {str(error).strip().lower()}",
            hint=f"gunzip --test {source}",
        ) from error


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[Any, bool]]:
    """Open a file for reading bytes, and unpack what is compressed."""
    with io.BufferedReader(io.FileIO(source), PIECE) as content:
        if not content.peek(2).startswith(GZIP):
            yield content, False
            return
        with gzip.GzipFile(fileobj=content) as unpacked:
            yield _Unpacked(unpacked), True


class _Unpacked:
    """Bytes that can be looked at before they are read, as many as are asked for."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._held = b""

    def peek(self, size: int) -> bytes:
        if len(self._held) < size:
            self._held += self._content.read(size - len(self._held))
        return self._held

    def read(self, size: int) -> bytes:
        held, self._held = self._held[:size], self._held[size:]
        found: bytes = held or self._content.read(size)
        return found


def _choose(source: Path, encoding: str | None, head: bytes) -> str:
    """Return what a text is read as: the mark's encoding, else the one that is named, else UTF-8."""
    mark = find_mark(head)
    if encoding is None:
        return "utf-8" if mark is None else mark[0]
    name = codecs.lookup(encoding).name
    # utf-16 is either byte order, and utf-8-sig is UTF-8 with its mark.
    plain = name.removesuffix("-sig")
    if mark is not None:
        if not mark[0].startswith(plain):
            raise InputError(
                f"{source} starts with the byte order mark of {mark[0]}, its encoding cannot be {encoding}",
                hint=f"leave out {option_name('encoding')}",
            )
        return mark[0]
    if not plain.startswith(("utf-16", "utf-32")):
        return plain
    wide = wide_encoding(head)
    if wide is None and head and _reads_as_utf8(head):
        raise InputError(
            f"{source} is not {encoding} text: its first bytes are UTF-8",
            hint=f"leave out {option_name('encoding')}",
        )
    return wide if wide is not None and wide.startswith(plain) else plain


def _reads_as_utf8(head: bytes) -> bool:
    """Tell whether bytes that may end inside a character are UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class _Reader:
    """Decodes a file a piece at a time, and says where it is not what it should be."""

    def __init__(
        self,
        source: Path,
        content: Any,
        encoding: str,
        skipped: int,
        encoding_option: Callable[[str], str] | None,
    ) -> None:
        self.source = source
        self.encoding = encoding
        self._content = content
        self._bytes = skipped
        self._lines = 0
        self._compressed = isinstance(content, _Unpacked)
        self._encoding_option = encoding_option

    def pieces(self) -> Iterator[str]:
        """Yield the text, cut behind line ends."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        held = ""
        while True:
            block = self._content.read(PIECE)
            text = held + self._decode(decoder, block, held)
            end = line_end(text) if block else len(text)
            piece, held = text[:end], text[end:]
            if "\r\r\n" in piece:  # a line end that was converted twice
                piece = piece.replace("\r\r\n", "\r\n")
            if "\0" in piece:
                raise self._nul(self._lines + count_lines(piece[: piece.index("\0")]) + 1)
            if piece:
                yield piece
            self._lines += count_lines(piece)
            if len(held) > MOST_LINE:
                raise InputError(
                    f"{self.source.name}: line {self._lines + 1} is longer than {MOST_LINE} characters"
                )
            if not block:
                return

    def _decode(self, decoder: codecs.IncrementalDecoder, block: bytes, held: str) -> str:
        waiting = decoder.getstate()[0]  # the decoder counts from what it held back
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            good = (waiting + block)[: error.start].decode(self.encoding, errors="ignore")
            raise wrong_byte(
                self.source,
                self._guess(),
                encoding=self.encoding,
                byte=self._bytes - len(waiting) + error.start,
                line=self._lines + count_lines(held + good) + 1,
                compressed=self._compressed,
                encoding_option=self._encoding_option,
            ) from error
        self._bytes += len(block)
        return text

    def _guess(self) -> Guess:
        with _opened(self.source) as (content, _):
            return guess_encoding(content)

    def _nul(self, line: int) -> InputError:
        message = f"{self.source.name}: line {line} holds a NUL byte, which no text does"
        encoding = self._guess().encoding
        if encoding is None or not encoding.startswith(("utf-16", "utf-32")):
            path = shlex.quote(str(self.source))
            unpacked = f"gunzip -c {path} |" if self._compressed else f"<{path}"
            return InputError(
                message, hint=f"to drop such bytes: {unpacked} tr -d '\\000' > clean.csv"
            )
        return InputError(
            f"{message}; the file seems to be {encoding}",
            hint=recoding_hint(
                self.source,
                encoding,
                compressed=self._compressed,
                encoding_option=self._encoding_option,
            ),
        )


def count_lines(text: str) -> int:
    """Return how many line ends a text holds: of Unix, of Windows, or of old Macs."""
    if "\r" not in text:
        return text.count("\n")
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def line_end(text: str) -> int:
    """Return one past the last line end of a text that goes on: its last characters may be a part of one."""
    stop = len(text.rstrip("\r")) if text.endswith("\r") else len(text)
    return max(text.rfind("\n", 0, stop), text.rfind("\r", 0, stop)) + 1
