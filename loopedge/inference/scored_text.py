"""A text that judges language models: cut into windows of ids, the same ones for every model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopedge.artifact.companions import read_companions
from loopedge.data.id_files import Ids, store_ids
from loopedge.data.text_files import find_texts, read_pieces, whole
from loopedge.data.tokenizer import BYTES, Tokenizer, described_tokenizer
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.graph.metadata import Metadata
from loopedge.options import option, option_name

__all__ = ["ScoredText", "tokenizer_of"]


def tokenizer_of(model: str | Path, metadata: Metadata) -> Tokenizer:
    """Return the tokenizer of a language model.

    Raises:
        InputError: The model was not trained on text, or its tokenizer is not there.
        MissingExtraError: The library of its tokenizer is not installed.
    """
    task = metadata.task
    if task.get("name") != "text" or "tokenizer" not in task:
        trained = (
            f"on the task {task['name']!r}" if "name" in task else "on something it does not say"
        )
        raise InputError(
            f"{model} was trained {trained}: it has no perplexity",
            hint="loopedge train text PATH",
        )
    return described_tokenizer(task | {"companions": read_companions(model, metadata)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredText:
    """Windows of a text that do not overlap; each id of a window is asked after those before it.

    Args:
        ids: The whole text.
        tokenizer: What made them.
        context: Ids that a window feeds; one more follows.
        starts: Where the windows begin, int64 (windows,).
        bytes_per_token: Mean over the text, where the tokenizer does not say the bytes of a token.
    """

    ids: Ids
    tokenizer: Tokenizer
    context: int
    starts: Array
    bytes_per_token: float

    @classmethod
    def open(
        cls, path: str | Path, tokenizer: Tokenizer, *, context: int, samples: int
    ) -> "ScoredText":
        """Read a text file, or a folder of them.

        Args:
            path: UTF-8 text.
            tokenizer: Of the models.
            context: Ids of a window.
            samples: Most windows, evenly spread over the text.

        Raises:
            InputError: A file cannot be read, or the text is shorter than a window.
        """
        spans = whole(find_texts(path))
        ids = (
            Ids(spans, np.uint8)
            if tokenizer.name == BYTES
            else store_ids(
                {"test": tokenizer.encode_pieces(read_pieces(spans))}, tokenizer.vocab_size
            )["test"]
        )
        count = (len(ids) - 1) // context
        if count < 1:
            raise InputError(
                f"{path} has {len(ids)} tokens, {option('context', context)} needs {context + 1}",
                hint=option("context", len(ids) - 1) if len(ids) > 1 else "more text is needed",
            )
        starts = np.arange(count, dtype=np.int64) * context
        if count > samples:
            starts = starts[np.linspace(0, count - 1, samples).round().astype(np.int64)]
        return cls(
            ids=ids,
            tokenizer=tokenizer,
            context=context,
            starts=starts,
            bytes_per_token=sum(map(len, spans)) / max(1, len(ids)),
        )

    @property
    def tokens(self) -> int:
        """Ids that are asked."""
        return len(self.starts) * self.context

    def windows(self, size: int) -> Iterator[Array]:
        """Yield up to ``size`` windows at once, int64 (windows, context + 1)."""
        for first in range(0, len(self.starts), size):
            yield self.ids.windows(self.starts[first : first + size], self.context + 1)

    def text_bytes(self) -> float:
        """Return the bytes of what is asked."""
        sizes = self.tokenizer.token_bytes()
        if sizes is None:
            return self.tokens * self.bytes_per_token
        return float(sum(sizes[window[:, 1:]].sum() for window in self.windows(64)))

    def check_tokenizer(self, model: str | Path, found: Tokenizer) -> None:
        """Refuse a model whose ids mean another text.

        Raises:
            InputError: Its tokenizer is another one.
        """
        if found.describe() != self.tokenizer.describe():
            raise InputError(
                f"{model} has another tokenizer than the first model: their ids do not mean one text",
                hint=f"judge it alone; {option_name('text')} stays the same",
            )
