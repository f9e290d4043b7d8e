"""Ids back to text one at a time: a character of several tokens appears when its last one has come."""

import abc
import codecs
from collections.abc import Sequence
from typing import Any

__all__ = ["ByteStream", "JsonStream", "TokenStream"]

REMEMBERED = 16
"""Last ids of a prompt that what follows is decoded behind: a decoder may drop the space of a first word."""


class TokenStream(abc.ABC):
    """The text of ids, as they come."""

    @abc.abstractmethod
    def add(self, token: int) -> str:
        """Return what an id adds to the text; nothing while a character is not whole."""

    @abc.abstractmethod
    def rest(self) -> str:
        """Return what was held back at the end: U+FFFD for bytes that are no character."""


class ByteStream(TokenStream):
    """Bytes of UTF-8; ids past 255 are no text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the characters that a byte ends."""
        return self._decoder.decode(bytes([token])) if 0 <= token < 256 else ""

    def rest(self) -> str:
        """Return U+FFFD for a character that has begun."""
        return self._decoder.decode(b"", final=True)


class JsonStream(TokenStream):
    """Tokens of the ``tokenizers`` library.

    Args:
        library: The library.
        tokenizer: Its tokenizer.
        size: One more than the largest id; others are no text.
        prompt: Ids before the first one.
    """

    def __init__(self, library: Any, tokenizer: Any, size: int, prompt: Sequence[int]) -> None:
        self._library = library
        self._tokenizer = tokenizer
        self._size = size
        self._begin()
        self._waiting: list[int] = []
        for token in prompt[-REMEMBERED:]:
            self.add(token)
        self._waiting = []  # what the prompt holds back is not of this text

    def add(self, token: int) -> str:
        """Return the text that an id ends."""
        if not 0 <= token < self._size:
            return ""
        self._waiting.append(token)
        try:
            text: str | None = self._stream.step(self._tokenizer, token)
        except (
            Exception
        ):  # the library raises Exception itself, where a decoder takes back what it gave
            waiting, self._waiting = self._waiting, []
            self._begin()
            return self._decode(waiting)
        if text is None:
            return ""
        self._waiting = []
        return text

    def rest(self) -> str:
        """Return the text of ids that end in the middle of a character."""
        waiting, self._waiting = self._waiting, []
        return self._decode(waiting) if waiting else ""

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def _begin(self) -> None:
        self._stream = self._library.decoders.DecodeStream(skip_special_tokens=False)
