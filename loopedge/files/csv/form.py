"""How a CSV is written down: what its bytes do not say of themselves."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from loopedge.errors import InputError
from loopedge.options import by_face, option, option_name

__all__ = ["CsvForm", "check_encoding", "form_option"]

WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "apostrophe": "'"}
"""Characters that are hard to type, by the word that stands for them on the command line."""
NOTHING = "none"
"""Says that nothing groups digits, or starts a comment, where a model remembers something else."""
NO_TEXT = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})
"""Encodings of Python that no file has."""
ALIKE = (frozenset(" \u00a0\u2009\u202f"), frozenset("'\u2019"))
"""Characters that group digits and look alike: the spaces, and the apostrophes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    """How a CSV is written down.

    Args:
        encoding: Of the characters, as Python names it; default: UTF-8, or what a byte order mark says.
        delimiter: What separates the cells, one character or ``tab``; default: found in the first line.
        decimal: What stands before the decimals of a number.
        thousands: What groups the digits of a number by three; default: nothing does, as ``none`` says. A
            space stands for the non-breaking ones too.
        comment: What starts a line, or the rest of one, that holds no cells; default: nothing does.
        na_values: Further texts that stand for a missing value, in number columns and labels alike.

    Raises:
        InputError: A value cannot be meant, or two of them are the same character.
    """

    encoding: str | None = None
    delimiter: str | None = None
    decimal: str = "."
    thousands: str | None = None
    comment: str | None = None
    na_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, and take the words for a tab, a space and nothing."""
        for name in ("thousands", "comment"):
            if getattr(self, name) == NOTHING:
                object.__setattr__(self, name, None)
        object.__setattr__(self, "na_values", _checked_texts(self.na_values))
        for name in ("delimiter", "decimal", "thousands"):
            value = getattr(self, name)
            if value is None and name != "decimal":
                continue
            value = WORDS.get(value, value) if isinstance(value, str) else value
            _check_character(name, value)
            object.__setattr__(self, name, value)
        self._check_comment()
        self._check_distinct()
        if self.encoding is not None:
            check_encoding(self.encoding)

    @property
    def groupers(self) -> str:
        """Every character that groups digits: that of ``thousands`` and those that look like it."""
        if self.thousands is None:
            return ""
        return "".join(next((like for like in ALIKE if self.thousands in like), self.thousands))

    def _check_comment(self) -> None:
        comment: object = self.comment
        if comment is None:
            return
        if not isinstance(comment, str) or not comment.strip() or not comment.isprintable():
            raise InputError(
                f"{option_name('comment')} is {comment!r}, the text that starts a comment is needed",
                hint=form_option("comment", "#"),
            )
        if '"' in comment or comment[0] in "+-." or comment[0].isdigit():
            raise InputError(
                f"{option_name('comment')} is {comment!r}: values start like that",
                hint=form_option("comment", "#"),
            )

    def _check_distinct(self) -> None:
        """Refuse one character for two purposes; digits may be grouped by what separates cells that are quoted."""
        others = {"delimiter": self.delimiter or "", "thousands": self.groupers}
        for name, characters in others.items():
            if self.decimal in characters:
                raise InputError(
                    f"{option_name('decimal')} and {option_name(name)} are both {self.decimal!r}, two characters are needed",
                    hint=form_option("decimal", ",")
                    if name == "thousands" and self.decimal == "."
                    else f"leave out {option_name(name)}",
                )
        for name, characters in {**others, "decimal": self.decimal}.items():
            if any(character in (self.comment or "") for character in characters.strip()):
                raise InputError(
                    f"{option_name('comment')} {self.comment!r} holds the character of {option_name(name)}"
                )


def _checked_texts(texts: object) -> tuple[str, ...]:
    """Return texts without blanks around them, as cells are read."""
    found = [] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in found):
        raise InputError(f"{option_name('na_values')} is {texts!r}, a list of texts is needed")
    return tuple(text.strip() for text in found)


def _check_character(name: str, value: object) -> None:
    plain = isinstance(value, str) and len(value) == 1
    text = str(value)
    if not plain or text.isalnum() or text in '"+-\r\n\0\ufeff':
        words = ", or the word tab" if name == "delimiter" else ""
        example = {"delimiter": ";", "decimal": ","}.get(name, ".")
        raise InputError(
            f"{option_name(name)} is {value!r}, one character{words} is needed, no letter, digit, sign or quote",
            hint=form_option(name, example),
        )
    if name == "decimal" and text.isspace():
        raise InputError(f"{option_name(name)} is {value!r}: no number is written so")


def check_encoding(name: object) -> str:
    """Return Python's own name of an encoding.

    Raises:
        InputError: There is none of this name, or it is not one of text files.
    """
    try:
        found = codecs.lookup(name) if isinstance(name, str) else None
    except (LookupError, ValueError):
        found = None
    decoder: object = None if found is None else found.incrementaldecoder
    if (
        found is None
        or not found._is_text_encoding
        or decoder is None
        or found.name.replace("-", "_") in NO_TEXT
    ):
        raise InputError(
            f"{option_name('encoding')} is {name!r}, which names no encoding of text files",
            hint=f"for example {form_option('encoding', 'cp1252')}",
        )
    return found.name


def form_option(name: str, value: str) -> str:
    """Return an option of a table's form as it is written: ``--decimal ,``, in Python ``form=TableFormat(decimal=',')``."""
    python = f"({value!r},)" if name == "na_values" else repr(value)
    word = next((word for word, character in WORDS.items() if character == value), value)
    return by_face(option(name, word), f"form=TableFormat({name}={python})")
