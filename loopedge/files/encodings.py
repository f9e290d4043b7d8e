"""Find out how the characters of a file are written, and where it stops being so, without holding it."""

import codecs
import contextlib
import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import InputError

__all__ = [
    "HEAD",
    "Guess",
    "find_mark",
    "first_bad_byte",
    "guess_encoding",
    "iconv_command",
    "recoding_hint",
    "wide_encoding",
    "wrong_byte",
]

CHECKED = 1 << 20  # bytes that are decoded at once
HEAD = 1 << 16
"""Bytes in which NULs are counted."""
SAMPLE = 1 << 15  # bytes of lines that are not ASCII, from which the encoding is guessed
SEARCHED = 1 << 26  # bytes in which such lines are looked for
LONGEST_LINE = 1 << 12  # bytes of such a line

MARKS = (  # that of UTF-32 starts as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LETTER = r"[^\W\d_\u00aa\u00b2\u00b3\u00b5\u00b9\u00ba\u00bc-\u00be]"
SMALL = r"a-z\u00df-\u00ff\u0153\u0161\u017e\u0430-\u045f"
SIGN_INSIDE = re.compile(rf"{LETTER}[^\w\s\u2019\u00b7\u2013!-~\u00a0]{LETTER}")
"""A sign between letters: no word of Western Europe has one, but for the apostrophe, the middle dot and the dash."""
NARROW = re.compile(r"[\uff61-\uff9f\u3131-\u318e]")
"""Half-width kana and single jamo, as other texts of East Asia read in a wrong encoding."""
CENTRAL = re.compile(
    r"\b\u00e8|\u0153(?![ui])|[\u00ec\u00f2\u00f9](?=\w)|\u00f1(?![aeiou\u00e1\u00e9\u00ed\u00f3\u00fa])|\u00e6\b"
    rf"|(?<=\w)[\u00b3\u00b9\u00bf]\w|\u00a3(?=[{SMALL}])|{LETTER}{{3}}[\u00b3\u00b9]|\u00f8[\u00ec\u00ed\u00e9\u00e1]"
)
"""Letters of Central Europe (Windows-1250) as they read in Windows-1252, where no word of Western Europe has them."""
TURKISH = re.compile(r"[\u00f0\u00fe]\w*\u00fd|\u00fd\w*[\u00f0\u00fe]|\u00dd\w*[a-z]|\w\u00fd\b")
"""Letters of Turkish as they read in Windows-1252."""
WORD = re.compile(rf"{LETTER}+")
COMMON = frozenset(
    "\u00e4\u00f6\u00fc\u00c4\u00d6\u00dc\u00df\u00e9\u00e8\u00ea\u00e0\u00e2\u00e7\u00f1\u00e5\u00c5\u00e1\u00ed\u00f3\u00fa\u00c9\u00b0\u00b5\u00b2\u00a0"
)
"""Letters and signs with marks that tables hold most."""
OTHERS = (
    *("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
"""What tables are written in; all that `charset_normalizer` knows besides is tried where none of these fits."""
NEAR = 0.1
"""Difference of its measure of disorder that says nothing."""
ICONV = {"mac_roman": "macintosh", "latin_1": "latin1"}
"""What iconv calls encodings that Python calls otherwise."""


def find_mark(head: bytes) -> tuple[str, int] | None:
    """Return the encoding that a byte order mark says, and the mark's length; None where there is none."""
    return next(((name, len(mark)) for mark, name in MARKS if head.startswith(mark)), None)


def first_bad_byte(path: Path) -> int | None:
    """Return the place of the first byte that is not UTF-8, counted from 0; None where there is none.

    Raises:
        OSError: The file cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = pending = 0
    try:
        with path.open("rb") as source:
            while chunk := source.read(CHECKED):
                pending = len(decoder.getstate()[0])  # the decoder counts from what it held back
                decoder.decode(chunk)
                done += len(chunk)
            pending = len(decoder.getstate()[0])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return done - pending + error.start
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a file that is not UTF-8 seems to be.

    Args:
        encoding: Python's name; None: it cannot be known.
        mixed: Whether most of its lines are UTF-8, so that no one encoding fits.
        sample: Lines from which it was guessed.
    """

    encoding: str | None = None
    mixed: bool = False
    sample: bytes = b""

    @property
    def words(self) -> str:
        """The first word that is not ASCII, as the encoding reads it, for people to judge; or nothing."""
        if self.encoding is None:
            return ""
        text = self.sample.decode(self.encoding, errors="replace")
        found = re.search(r"\w*[^\x00-\x7f]\w*", text)
        return f", which reads {found[0]!r}" if found else ""


def guess_encoding(content: Any) -> Guess:
    """Find out which encoding a file that is not UTF-8 has, as far as can be known.

    UTF-16 and UTF-32 are known by their mark or by where their NULs stand. Else the lines that are not ASCII
    decide: text of Western Europe is Windows-1252, and of all others `charset_normalizer` says what they are.

    Args:
        content: The file, opened for bytes, at its start.

    Raises:
        OSError: The file cannot be read.
    """
    head = content.read(HEAD)
    mark = find_mark(head)
    wide = mark[0] if mark is not None else wide_encoding(head)
    if wide is not None:
        return Guess(encoding=wide)
    sample, mixed = _sample(_lines(head, content))
    if mixed or not sample:
        return Guess(mixed=mixed)
    return Guess(encoding=_name_sample(sample), sample=sample)


def wrong_byte(
    source: Path,
    guess: Guess,
    *,
    encoding: str,
    byte: int,
    line: int,
    compressed: bool = False,
    encoding_option: Callable[[str], str] | None = None,
) -> InputError:
    """Return the error of a file with a byte that its encoding does not have.

    Args:
        source: The file.
        guess: What it seems to be.
        encoding: What it was read as, as Python names it.
        byte: The place of the byte, from 0, in what was unpacked.
        line: Its line.
        compressed: Whether the file is compressed with gzip.
        encoding_option: Returns how the user names an encoding; default: there is no such option.
    """
    name = "UTF-8" if encoding == "utf-8" else encoding
    found = f"{source} is not {name} text: byte {byte} (line {line})"
    if guess.mixed and encoding == "utf-8":
        recoded = iconv_command(source, None, compressed=compressed)
        return InputError(f"{found}, though other lines are", hint=f"to drop such bytes: {recoded}")
    if guess.encoding in {None, encoding}:
        hint = "write it as UTF-8" if encoding_option is None else encoding_option("NAME")
        return InputError(found, hint=hint)
    return InputError(
        f"{found}, it seems to be {guess.encoding}{guess.words}",
        hint=recoding_hint(
            source, str(guess.encoding), compressed=compressed, encoding_option=encoding_option
        ),
    )


def recoding_hint(
    source: Path,
    encoding: str,
    *,
    compressed: bool = False,
    encoding_option: Callable[[str], str] | None = None,
) -> str:
    """Return how a file is read that has an encoding: by an option, where there is one, and written anew."""
    recoded = iconv_command(source, encoding, compressed=compressed)
    return recoded if encoding_option is None else f"{encoding_option(encoding)}, or {recoded}"


def iconv_command(source: Path, encoding: str | None, *, compressed: bool = False) -> str:
    """Return the command that writes a file anew in UTF-8.

    Args:
        source: The file.
        encoding: Of the file, as Python names it; None: UTF-8 with wrong bytes, which are left out.
        compressed: Whether it is compressed with gzip.
    """
    name = "utf-8" if encoding is None else _iconv_name(encoding)
    drop = " -c" if encoding is None else ""
    path = shlex.quote(str(source))
    ending = Path(source.name.removesuffix(".gz")).suffix or ".txt"
    if compressed:
        return f"gunzip -c {path} | iconv{drop} -f {name} -t utf-8 > utf8{ending}"
    return f"iconv{drop} -f {name} -t utf-8 {path} > utf8{ending}"


def _iconv_name(encoding: str) -> str:
    """Return what iconv calls an encoding: utf-16-le without the last hyphen, for example."""
    plain = ICONV.get(encoding, encoding.replace("_", "-"))
    return re.sub(r"^(utf-\d+)-([lb]e)$", r"\1\2", plain)


def wide_encoding(head: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 without a mark by the places of their NULs: ASCII characters have them."""
    places = [head[start::4].count(0) for start in range(4)]
    total = sum(places)
    if total * 50 < len(head) or total < 2:
        return None
    if total * 2 > len(head) and min(places) * 9 < total:
        full = places.index(min(places))
        return {0: "utf-32-le", 3: "utf-32-be"}.get(full)
    even, odd = places[0] + places[2], places[1] + places[3]
    if min(even, odd) * 9 > max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _lines(head: bytes, content: Any) -> Iterator[bytes]:
    """Yield the lines of a file's first part, those of the head among them."""
    held, read = head, len(head)
    while held:
        *lines, held = held.split(b"\n")
        yield from lines
        more = content.read(CHECKED) if read < SEARCHED else b""
        read += len(more)
        if not more or len(held) > CHECKED:
            yield held
            held = b""
        held += more


def _sample(lines: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return lines that are not UTF-8, and whether as many are UTF-8 without being ASCII."""
    found, size, other, good = [], 0, 0, 0
    for line in lines:
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            other += 1
            found.append(line[:LONGEST_LINE])
            size += len(found[-1])
            if size > SAMPLE:
                break
    return b"\n".join(found), good >= max(1, other)


def _name_sample(sample: bytes) -> str | None:
    """Name the encoding of text that is neither UTF-8 nor UTF-16."""
    for encoding in ("cp1252", "cp850", "mac_roman"):
        with contextlib.suppress(UnicodeDecodeError):
            if _is_western(sample.decode(encoding), all_common=encoding != "cp1252"):
                return encoding
    from charset_normalizer import from_bytes

    found = list(from_bytes(sample, cp_isolation=list(OTHERS))) or list(from_bytes(sample))
    if not found:
        return None
    near = [match for match in found if match.chaos <= found[0].chaos + NEAR]
    best = min(near, key=lambda match: _strangeness(str(match)))
    return None if best.encoding in {"ascii", "utf_8"} else str(best.encoding)


def _is_western(text: str, *, all_common: bool) -> bool:
    """Tell whether text is of Western Europe: letters with marks among plain ones, and signs beside words.

    Args:
        text: As decoded.
        all_common: All letters that are not ASCII must be common ones.
    """
    if any(not character.isprintable() and not character.isspace() for character in text):
        return False
    if all_common and not {at for at in text if not at.isascii()} <= COMMON:
        return False
    if (
        SIGN_INSIDE.search(text)
        or _odd_capitals(text)
        or CENTRAL.search(text)
        or TURKISH.search(text)
    ):
        return False
    letters = "".join(word for word in WORD.findall(text) if len(word) > 1 and not word.isascii())
    return sum(map(str.isascii, letters)) * 5 >= len(letters) * 2


def _strangeness(text: str) -> tuple[int, int]:
    """Return how much of a text is as in a wrong encoding, and its capitals that are not ASCII."""
    capitals = sum(character.isupper() and not character.isascii() for character in text)
    latin = len(CENTRAL.findall(text)) + len(SIGN_INSIDE.findall(text))
    return _odd_capitals(text) + len(NARROW.findall(text)) + latin, capitals


def _odd_capitals(text: str) -> int:
    """Return how many capitals that are not ASCII stand behind small letters."""
    return sum(
        before.islower() and at.isupper() and not at.isascii()
        for before, at in itertools.pairwise(text)
    )
