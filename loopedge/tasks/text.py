"""Language modelling on the user's own text: windows of bytes or tokens, each predicts the next."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.id_files import Ids, store_ids
from loopedge.data.text_files import Span, find_texts, read_pieces, split_texts, whole
from loopedge.data.tokenizer import (
    BYTES,
    MOST_LEARNED_BYTES,
    Tokenizer,
    choose_tokenizer,
    described_tokenizer,
)
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.likelihood import (
    bigram_logits,
    bits_per_byte,
    negative_log_likelihood,
    perplexity,
    rows_at_once,
    unigram_logits,
)
from loopedge.tasks.metrics import Metrics, Tally, class_tally, total
from loopedge.tasks.task import SPLITS, Array, Batch, Split, Task, generator_of

__all__ = ["TextTask"]

MOST_COUNTED = 2 << 20
"""Ids that the baselines are counted on, evenly spaced over the training part."""

COUNTED_ROWS = 64
"""Windows that a baseline is scored on at once: it takes logits like a model."""

MOST_BIGRAMS = 1024
"""Largest vocabulary for which pairs of tokens are counted."""


class TextTask(Task):
    """Predict the next byte or token of a text (causal language modelling).

    A sample is a window of ``context`` inputs; the target of each position is what follows it. A
    split is one long sequence, so that a window may span two files of it.

    Args:
        parts: The ids of each split.
        tokenizer: What made them.
        context: Positions of a window.
        bytes_per_token: Mean over the corpus, where the tokenizer's own bytes are not known.
        named_parts: Whether each split is a file or folder of its own.
        seed: Of the batches.
        source: What errors call the data.

    Raises:
        InputError: A split is shorter than a window and what follows it.
    """

    token_bytes: Array
    """float64 (vocabulary,): bytes of text that each token stands for."""

    name = "text"
    metric = "perplexity"
    higher_is_better = False

    def __init__(
        self,
        parts: Mapping[Split, Ids],
        tokenizer: Tokenizer,
        *,
        context: int,
        bytes_per_token: float = 1.0,
        named_parts: bool = False,
        seed: int = 0,
        source: str = "text",
    ) -> None:
        if context < 1:
            raise InputError(f"{option_name('context')} is {context}, at least 1 is needed")
        shortest = min(SPLITS, key=lambda split: len(parts[split]))
        if len(parts[shortest]) <= context:
            most = len(parts[shortest]) - 1
            raise InputError(
                f"the {shortest} part of {source} has {len(parts[shortest])} tokens, "
                f"{option('context', context)} needs {context + 1}",
                hint=option("context", most) if most > 0 else "more text is needed",
            )
        self.parts = parts
        self.tokenizer = tokenizer
        self.context = context
        self.named_parts = named_parts
        self.seed = seed
        sizes = tokenizer.token_bytes()
        self.token_bytes = (
            np.full(tokenizer.vocab_size, bytes_per_token) if sizes is None else sizes
        )

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        *,
        context: int,
        tokenizer: str | Path | None = None,
        train_tokenizer: int | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        seed: int = 0,
    ) -> "TextTask":
        """Read the task from a text file, or a folder of them.

        Args:
            path: UTF-8 text; 90 % of it are for training, unless the other parts are named.
            context: Positions of a window, in bytes or tokens.
            tokenizer: JSON of the ``tokenizers`` library; default: bytes.
            train_tokenizer: Train one of so many tokens instead, on the training part.
            validation: File or folder of the validation part; then ``test`` is needed too.
            test: File or folder of the test part.
            seed: Of the batches.

        Raises:
            InputError: A file, the tokenizer or a size cannot be used.
            MissingExtraError: A tokenizer is asked for and the library is not installed.
        """
        spans = _spans(path, validation, test)
        chosen = choose_tokenizer(tokenizer, train_tokenizer, _learned(spans["train"]))
        task = cls._from_spans(
            spans,
            chosen,
            context,
            named_parts=validation is not None,
            seed=seed,
            source=Path(path).name,
        )
        read = dict.fromkeys(span.path for split in SPLITS for span in spans[split])
        task.input_files = (*read, *([] if tokenizer is None else [Path(tokenizer)]))
        return task

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "TextTask":
        """Rebuild the task from its description and its text; a tokenizer is not trained again.

        Where the parts were named, the text is one of them: each split is the whole of it.
        """
        if data is None:
            raise InputError(
                "a text needs its data", hint=f"name the text file with {option_name('data')}"
            )
        tokenizer = described_tokenizer(description)
        named_parts = bool(description.get("named_parts", False))
        texts = whole(find_texts(data))
        spans = dict.fromkeys(SPLITS, texts) if named_parts else split_texts(texts)
        return cls._from_spans(
            spans,
            tokenizer,
            description["context"],
            named_parts=named_parts,
            seed=seed,
            source=Path(data).name,
        )

    @classmethod
    def _from_spans(
        cls,
        spans: Mapping[Split, list[Span]],
        tokenizer: Tokenizer,
        context: int,
        *,
        named_parts: bool,
        seed: int,
        source: str,
    ) -> "TextTask":
        if tokenizer.name == BYTES:
            parts: Mapping[Split, Ids] = {split: Ids(spans[split], np.uint8) for split in SPLITS}
        else:
            parts = store_ids(
                {split: tokenizer.encode_pieces(read_pieces(spans[split])) for split in SPLITS},
                tokenizer.vocab_size,
            )
        text_bytes = sum(len(span) for split in SPLITS for span in spans[split])
        return cls(
            parts,
            tokenizer,
            context=context,
            bytes_per_token=text_bytes / max(1, sum(map(len, parts.values()))),
            named_parts=named_parts,
            seed=seed,
            source=source,
        )

    def _cut(self, split: Split, starts: Array) -> Batch:
        windows = self.parts[split].windows(starts, self.context + 1)
        return Batch(inputs=windows[:, :-1].copy(), targets=windows[:, 1:].copy())

    def available(self, split: Split) -> int:
        """Return how many windows of a split do not overlap."""
        return (len(self.parts[split]) - 1) // self.context

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` windows, with replacement."""
        last = len(self.parts[split]) - self.context
        return self._cut(split, generator_of(self.seed, split, step).integers(last, size=size))

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield the windows of a split that do not overlap, or ``samples`` evenly spaced ones.

        Fewer than ``size`` come at once where the vocabulary is large.
        """
        count = (len(self.parts[split]) - 1) // self.context
        starts = np.arange(count) * self.context
        if count > samples:
            starts = starts[np.linspace(0, count - 1, samples).round().astype(np.int64)]
        size = rows_at_once(size, self.context, self.tokenizer.vocab_size)
        for first in range(0, len(starts), size):
            yield self._cut(split, starts[first : first + size])

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Add up how likely the targets were, in nats, and the bytes that they stand for."""
        return class_tally(outputs, targets) | {
            "nats": negative_log_likelihood(outputs, targets),
            "bytes": float(self.token_bytes[targets].sum()),
        }

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``perplexity`` per token, ``bits_per_byte``, and ``accuracy`` over tokens."""
        return {
            "perplexity": perplexity(tally["nats"], tally["asked"]),
            "bits_per_byte": bits_per_byte(tally["nats"], tally["bytes"]),
            "accuracy": tally["right"] / max(1, tally["asked"]),
        }

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score counts of the training part: of tokens, and of pairs where they are few."""
        vocab_size = self.tokenizer.vocab_size
        runs = self.parts["train"].sample(MOST_COUNTED)
        single = unigram_logits(np.concatenate(runs), vocab_size)
        tables = {"unigram": np.broadcast_to(single, (vocab_size, vocab_size))}
        if vocab_size <= MOST_BIGRAMS:
            before = np.concatenate([run[:-1] for run in runs])
            after = np.concatenate([run[1:] for run in runs])
            tables["bigram"] = bigram_logits(before, after, vocab_size)
        return {name: self._score_table(table, split, samples) for name, table in tables.items()}

    def _score_table(self, table: Array, split: Split, samples: int) -> Metrics:
        batches = self.evaluation(split, COUNTED_ROWS, samples)
        return self.metrics(
            total(self.tally(table[batch.inputs], batch.targets) for batch in batches)
        )

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that answers at every position."""
        return {
            "vocab_size": self.tokenizer.vocab_size,
            "causal": True,
            "read": "all",
            "max_length": self.context,
            "min_length": 1,  # the first position of a window sees itself alone
        }

    def companions(self) -> dict[str, str]:
        """Return the tokenizer, unless it is bytes."""
        return self.tokenizer.companions()

    def describe(self) -> dict[str, Any]:
        """Return name, sizes, tokenizer, tokens of each split and metric; no path."""
        return {
            "name": self.name,
            "kind": self.kind,
            "context": self.context,
            **self.tokenizer.describe(),
            "vocab_size": self.tokenizer.vocab_size,
            "named_parts": self.named_parts,
            "tokens": {split: len(self.parts[split]) for split in SPLITS},
            "seed": self.seed,
            "metric": self.metric,
        }


def _spans(
    path: str | Path, validation: str | Path | None, test: str | Path | None
) -> Mapping[Split, list[Span]]:
    """Return the bytes of each split: as they are named, or 90, 5 and 5 % of one text."""
    if validation is None and test is None:
        return split_texts(whole(find_texts(path)))
    if validation is None or test is None:
        missing = option_name("validation") if validation is None else option_name("test")
        raise InputError(
            f"{missing} is missing: both parts are named, or none", hint=f"add {missing} FILE"
        )
    return {
        "train": whole(find_texts(path)),
        "validation": whole(find_texts(validation)),
        "test": whole(find_texts(test)),
    }


def _learned(spans: list[Span]) -> Iterator[str]:
    """Yield the pieces that a tokenizer is trained on: of a large text, every n-th."""
    every = -(-sum(map(len, spans)) // MOST_LEARNED_BYTES)
    return islice(read_pieces(spans), 0, None, max(1, every))
