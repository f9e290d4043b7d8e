"""Find out where a file stops being UTF-8 text, without holding it."""

import codecs
from pathlib import Path

__all__ = ["first_bad_byte", "recoding_hint"]

CHECKED = 1 << 20  # bytes that are decoded at once
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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


def recoding_hint(path: Path, target: str) -> str:
    """Return the command that writes a file anew in UTF-8: from UTF-16 where its mark says so, else Latin-1."""
    with path.open("rb") as source:
        encoding = "utf-16" if source.read(2) in UTF16_MARKS else "latin1"
    return f"iconv -f {encoding} -t utf-8 {path} > {target}"
