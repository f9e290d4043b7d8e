"""Text to token ids and back: bytes, or a tokenizer of the ``tokenizers`` library."""

import abc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.token_stream import ByteStream, JsonStream, TokenStream
from loopedge.errors import InputError, MissingExtraError
from loopedge.files.arrays import Array
from loopedge.files.input_files import read_bytes
from loopedge.options import option_name

__all__ = [
    "BYTES",
    "MOST_LEARNED_BYTES",
    "TOKENIZER_FILE",
    "ByteTokenizer",
    "JsonTokenizer",
    "Tokenizer",
    "choose_tokenizer",
    "described_tokenizer",
    "train_tokenizer",
]

BYTES = "bytes"
TOKENIZER_FILE = "tokenizer.json"
"""What a description calls the two kinds; the second is the name of the companion too."""

LEAST_VOCAB, MOST_VOCAB = 257, 1_000_000
"""Of a trained tokenizer: the 256 bytes and one merge at least."""

MOST_LEARNED_BYTES = 64 << 20
"""Text that a tokenizer is trained on at most."""

MARKUP = re.compile(r"[<>\[\]{}|]")
"""What tokens that steer a model are written with, where the JSON does not call them special."""

ENCODED = 16  # pieces that are encoded at once, on as many threads as the library takes


class Tokenizer(abc.ABC):
    """What turns text into ids 0 .. ``vocab_size`` - 1 and back.

    Attributes:
        name: As a description has it.
        vocab_size: One more than the largest id.
    """

    name: str
    vocab_size: int

    @abc.abstractmethod
    def encode(self, text: str) -> Array:
        """Return the ids of a text, int64 (tokens,)."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD, unknown ids nothing."""

    @abc.abstractmethod
    def show(self, token: int) -> str:
        """Return what one token looks like to a person."""

    @abc.abstractmethod
    def stream(self, prompt: Sequence[int] = ()) -> TokenStream:
        """Return what turns ids back into text one at a time, behind those of a prompt."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Array]:
        """Yield the ids of each piece of a text."""
        return map(self.encode, pieces)

    def control_tokens(self) -> dict[int, str]:
        """Return the tokens that steer a model, by id: those that no text stands for."""
        return {}

    def token_bytes(self) -> Array | None:
        """Return the bytes of text that each token stands for, int64 (vocabulary,).

        None: a token alone does not tell, as where a tokenizer lowercases or joins words.
        """
        return None

    def companions(self) -> dict[str, str]:
        """Return the file that must travel with the model, if there is one."""
        return {}

    def describe(self) -> dict[str, str | None]:
        """Return name and sha256: ids of tokenizers of one size mean different texts."""
        text = self.companions().get(TOKENIZER_FILE)
        digest = None if text is None else hashlib.sha256(text.encode("utf-8")).hexdigest()
        return {"tokenizer": self.name, "tokenizer_sha256": digest}


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8: 256 tokens, nothing to store."""

    name = BYTES
    vocab_size = 256

    def encode(self, text: str) -> Array:
        """Return the bytes."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of bytes."""
        return bytes(i for i in ids if 0 <= i < 256).decode("utf-8", errors="replace")

    def show(self, token: int) -> str:
        """Return a character of ASCII as it is, any other byte as a number."""
        return chr(token) if 32 <= token < 127 else f"0x{token:02x}"

    def stream(self, prompt: Sequence[int] = ()) -> ByteStream:
        """Return a decoder; what comes before does not matter."""
        return ByteStream()

    def token_bytes(self) -> Array:
        """Return a byte for each."""
        return np.ones(self.vocab_size, np.int64)


class JsonTokenizer(Tokenizer):
    """A tokenizer of the ``tokenizers`` library, from its JSON.

    Truncation and padding that the JSON asks for are left out, and so are the tokens that it adds
    around a text: a corpus is one long text.

    Args:
        text: The JSON.
        source: What errors call it.

    Raises:
        InputError: It is not a tokenizer.
        MissingExtraError: The library is not installed.
    """

    name = TOKENIZER_FILE

    def __init__(self, text: str, *, source: str = TOKENIZER_FILE) -> None:
        library = _library()
        try:
            self._tokenizer = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself
            reason = (str(error).strip().splitlines() or ["it cannot be read"])[0]
            raise InputError(
                f"{source} is not a tokenizer of the tokenizers library: {reason}",
                hint="name the tokenizer.json that Tokenizer.save wrote",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._text = text
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise InputError(f"{source} holds no token")
        self.vocab_size = max(ids) + 1

    def encode(self, text: str, *, around: bool = False) -> Array:
        """Return the ids; tokens that the JSON adds around a text are left out, unless ``around``.

        Raises:
            UnicodeEncodeError: The text holds half of a surrogate pair.
        """
        text.encode("utf-8")  # the library raises TypeError
        found = self._tokenizer.encode(text, add_special_tokens=around)
        return np.array(found.ids, np.int64)

    def stream(self, prompt: Sequence[int] = ()) -> JsonStream:
        """Return a decoder that knows the last tokens of the prompt."""
        return JsonStream(_library(), self._tokenizer, self.vocab_size, prompt)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its text."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def control_tokens(self) -> dict[int, str]:
        """Return the added tokens that are special, or look like markup: ``<think>``."""
        return {
            place: added.content
            for place, added in self._tokenizer.get_added_tokens_decoder().items()
            if added.special or MARKUP.search(added.content)
        }

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Array]:
        """Yield the ids of each piece; several are encoded at once."""
        waiting = iter(pieces)
        while some := list(islice(waiting, ENCODED)):
            for found in self._tokenizer.encode_batch_fast(some, add_special_tokens=False):
                yield np.array(found.ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        known = [i for i in ids if 0 <= i < self.vocab_size]
        text: str = self._tokenizer.decode(known, skip_special_tokens=False)
        return text

    def show(self, token: int) -> str:
        """Return the text of a token, or its name where it is part of a character."""
        text = self.decode([token])
        if text and "\ufffd" not in text:
            return text
        return self._tokenizer.id_to_token(token) or str(token)

    def token_bytes(self) -> Array | None:
        """Return the bytes of each token, where the vocabulary is written in bytes."""
        if (json.loads(self._text).get("decoder") or {}).get("type") != "ByteLevel":
            return None
        # The alphabet has a character of its own for each byte.
        sizes = np.zeros(self.vocab_size, np.int64)
        for token, place in self._tokenizer.get_vocab(with_added_tokens=False).items():
            sizes[place] = len(token)
        for place, added in self._tokenizer.get_added_tokens_decoder().items():
            sizes[place] = len(added.content.encode("utf-8"))
        return sizes

    def companions(self) -> dict[str, str]:
        """Return the JSON, as it was given."""
        return {TOKENIZER_FILE: self._text}


def read_tokenizer(path: str | Path) -> JsonTokenizer:
    """Read the JSON of a tokenizer.

    Raises:
        InputError: The file cannot be read or is not a tokenizer.
        MissingExtraError: The library is not installed.
    """
    source = Path(path)
    try:
        text = read_bytes(source, needed="a tokenizer.json").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not a tokenizer: byte {error.start} is not UTF-8") from error
    return JsonTokenizer(text, source=str(source))


def train_tokenizer(pieces: Iterable[str], vocab_size: int) -> JsonTokenizer:
    """Train byte-level byte-pair encoding; equal texts give equal tokenizers.

    Args:
        pieces: Text to train on.
        vocab_size: Tokens at most, the 256 bytes among them; a short text gives fewer.

    Raises:
        InputError: The size is out of bounds.
        MissingExtraError: The library is not installed.

    Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword
    Units", ACL 2016; on bytes as in Radford et al., "Language Models are Unsupervised Multitask
    Learners", 2019.
    """
    library = _library()
    if not LEAST_VOCAB <= vocab_size <= MOST_VOCAB:
        raise InputError(
            f"{option_name('train_tokenizer')} is {vocab_size}, allowed is {LEAST_VOCAB} to {MOST_VOCAB}"
        )
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return JsonTokenizer(tokenizer.to_str())


def choose_tokenizer(
    path: str | Path | None, vocab_size: int | None, pieces: Iterable[str]
) -> Tokenizer:
    """Return the tokenizer that options ask for.

    Args:
        path: ``--tokenizer``.
        vocab_size: ``--train-tokenizer``.
        pieces: Text to train it on; read only then.

    Raises:
        InputError: Both are given, or one cannot be used.
        MissingExtraError: The library is needed and not installed.
    """
    if path is not None and vocab_size is not None:
        raise InputError(
            f"{option_name('tokenizer')} and {option_name('train_tokenizer')} are both given",
            hint="leave one out: a tokenizer is read or trained",
        )
    if path is not None:
        return read_tokenizer(path)
    return ByteTokenizer() if vocab_size is None else train_tokenizer(pieces, vocab_size)


def described_tokenizer(description: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a task's description.

    Args:
        description: ``tokenizer`` names it; its JSON stands under ``companions``.

    Raises:
        InputError: The JSON is missing or is not a tokenizer.
        KeyError: There is no ``tokenizer``.
        MissingExtraError: The library is not installed.
    """
    name = description["tokenizer"]
    if name == BYTES:
        return ByteTokenizer()
    text = description.get("companions", {}).get(name)
    if text is None:
        raise InputError(f"the model was trained with a tokenizer, and its {name} is not there")
    return JsonTokenizer(text)


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise MissingExtraError("a tokenizer", extra="text") from error
    return tokenizers
