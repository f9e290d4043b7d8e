"""Sequence to sequence on the user's own pairs: a decoder reads the source and writes the target."""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.json_lines import Pair, PairFormat, read_at, scan
from loopedge.data.tokenizer import (
    MOST_LEARNED_BYTES,
    Tokenizer,
    choose_tokenizer,
    described_tokenizer,
)
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.likelihood import (
    negative_log_likelihood,
    perplexity,
    rows_at_once,
    unigram_logits,
)
from loopedge.tasks.metrics import IGNORED, Metrics, Tally, class_metrics, class_tally, total
from loopedge.tasks.task import SPLITS, Array, Batch, Split, Task, generator_of

__all__ = ["PairLines", "PairsTask", "split_of"]

TENTHS: tuple[Split, ...] = ("train",) * 8 + ("validation", "test")
"""The split by the hash of the source, modulo ten."""

MOST_COUNTED = 4096
"""Training pairs that the baseline is counted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLines:
    """Pairs of a split: a file, and the byte offsets of its lines, int64 (pairs,)."""

    path: Path
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets)


class PairsTask(Task):
    """Write the target of a source: ``source <sep> target <end>``, padded on the right.

    The ids of ``<sep>`` and ``<end>`` follow those of the tokenizer, so that no text can hold them. The
    loss is on the target and ``<end>`` alone; metrics are teacher forced: each token is predicted
    from the right ones before it.

    Args:
        parts: The pairs of each split.
        tokenizer: Of sources and targets.
        form: The keys of the two strings.
        length: Most tokens of source, ``<sep>`` and target together.
        skip_long: Whether longer pairs were left out.
        skipped: How many were.
        shortest_source: Tokens of the shortest source of the training part, with its separator; None: not known.
        named_parts: Whether each split is a file of its own.
        seed: Of the batches.
        source: What errors call the data.

    Raises:
        InputError: A split holds no pair, or ``length`` is out of bounds.
    """

    name = "pairs"
    metric = "sequence_accuracy"

    def __init__(
        self,
        parts: Mapping[Split, PairLines],
        tokenizer: Tokenizer,
        form: PairFormat,
        *,
        length: int,
        skip_long: bool = False,
        skipped: int = 0,
        named_parts: bool = False,
        shortest_source: int | None = None,
        seed: int = 0,
        source: str = "pairs",
    ) -> None:
        for split in SPLITS:
            if not len(parts[split]):
                pairs = sum(map(len, parts.values()))
                left_out = f", {skipped} longer than {option('length', length)}" if skipped else ""
                raise InputError(
                    f"the {split} part of {source} holds no pair ({pairs} altogether{left_out})",
                    hint=f"raise {option_name('length')}"
                    if skipped
                    else f"more pairs are needed, or name the parts with {option_name('validation')} and {option_name('test')}",
                )
        self.parts = parts
        self.tokenizer = tokenizer
        self.form = form
        self.length = length
        self.skip_long = skip_long
        self.skipped = skipped
        self.named_parts = named_parts
        self.shortest_source = shortest_source
        self.seed = seed
        self.separator = tokenizer.vocab_size
        self.end = tokenizer.vocab_size + 1
        self.vocab_size = tokenizer.vocab_size + 2
        if skipped:
            self.notes = (f"pairs longer than {option('length', length)} were left out: {skipped}",)

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        source: str = "input",
        target: str = "output",
        length: int = 256,
        tokenizer: str | Path | None = None,
        train_tokenizer: int | None = None,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        skip_long: bool = False,
        seed: int = 0,
    ) -> "PairsTask":
        """Read the task from a file of JSON lines.

        Args:
            path: A JSON object a line. 80 % of the sources are for training, by their hash, unless
                the other parts are named: equal sources are in the same part.
            source: Key of what the model reads.
            target: Key of what it shall write.
            length: Most tokens of source, separator and target together.
            tokenizer: JSON of the ``tokenizers`` library; default: bytes.
            train_tokenizer: Train one of so many tokens instead, on the training part.
            validation: File of the validation part; then ``test`` is needed too.
            test: File of the test part.
            skip_long: Leave out longer pairs instead of refusing them.
            seed: Of the batches.

        Raises:
            InputError: A file, a line, the tokenizer or a size cannot be used.
            MissingExtraError: A tokenizer is asked for and the library is not installed.
        """
        if (validation is None) != (test is None):
            missing = option_name("validation") if validation is None else option_name("test")
            raise InputError(
                f"{missing} is missing: both parts are named, or none", hint=f"add {missing} FILE"
            )
        form = PairFormat(source=source, target=target)
        named: dict[Split, Path] = {"train": Path(path)}
        if validation is not None and test is not None:
            named |= {"validation": Path(validation), "test": Path(test)}
        chosen = choose_tokenizer(tokenizer, train_tokenizer, _learned(named, form))
        task = cls._from_files(named, chosen, form, length, skip_long=skip_long, seed=seed)
        task.input_files = (*named.values(), *([] if tokenizer is None else [Path(tokenizer)]))
        return task

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "PairsTask":
        """Rebuild the task from its description and its file; a tokenizer is not trained again.

        Where the parts were named, the file is one of them: each split is the whole of it.
        """
        if data is None:
            raise InputError(
                "pairs need their data", hint=f"name the JSON lines with {option_name('data')}"
            )
        form = PairFormat(source=description["source"], target=description["target"])
        tokenizer = described_tokenizer(description)
        named_parts = bool(description.get("named_parts", False))
        return cls._from_files(
            dict.fromkeys(SPLITS if named_parts else SPLITS[:1], Path(data)),
            tokenizer,
            form,
            description["length"],
            skip_long=description["skip_long"],
            seed=seed,
        )

    @classmethod
    def _from_files(
        cls,
        named: Mapping[Split, Path],
        tokenizer: Tokenizer,
        form: PairFormat,
        length: int,
        *,
        skip_long: bool,
        seed: int,
    ) -> "PairsTask":
        if length < 2:
            raise InputError(f"{option_name('length')} is {length}, at least 2 is needed")
        offsets = {split: array("q") for split in SPLITS}
        skipped, shortest = 0, length
        scanned: dict[Path, Split] = {}
        for file, path in named.items():
            if path in scanned:
                offsets[file] = offsets[scanned[path]]
                continue
            scanned[path] = file
            for pair in scan(path, form):
                asked = len(tokenizer.encode(pair.source)) + 1
                tokens = asked + len(tokenizer.encode(pair.target))
                if tokens > length:
                    if not skip_long:
                        raise _too_long(path, pair, tokens, length)
                    skipped += 1
                    continue
                split = split_of(pair.source) if len(named) == 1 else file
                offsets[split].append(pair.offset)
                if split == "train":
                    shortest = min(shortest, asked)
        parts = {
            split: PairLines(
                path=named.get(split, named["train"]),
                offsets=np.array(offsets[split], np.int64),
            )
            for split in SPLITS
        }
        return cls(
            parts,
            tokenizer,
            form,
            length=length,
            skip_long=skip_long,
            skipped=skipped,
            named_parts=len(named) > 1,
            shortest_source=shortest,
            seed=seed,
            source=named["train"].name,
        )

    def _pairs(self, split: Split, places: Array) -> list[tuple[Array, Array]]:
        lines = self.parts[split]
        texts = read_at(lines.path, self.form, lines.offsets[places].tolist())
        return [(self.tokenizer.encode(one), self.tokenizer.encode(two)) for one, two in texts]

    def _frame(self, split: Split, places: Array) -> Batch:
        """Return pairs as rows of ids, padded on the right to the longest."""
        pairs = self._pairs(split, places)
        longest = max(len(source) + 1 + len(target) for source, target in pairs)
        inputs = np.full((len(pairs), longest), self.end, np.int64)
        targets = np.full_like(inputs, IGNORED)
        mask = np.zeros_like(inputs)
        for row, (source, target) in enumerate(pairs):
            first = len(source)
            last = first + len(target)
            inputs[row, :first] = source
            inputs[row, first] = self.separator
            inputs[row, first + 1 : last + 1] = target
            targets[row, first:last] = target
            targets[row, last] = self.end
            mask[row, : last + 1] = 1
        return Batch(inputs=inputs, targets=targets, attention_mask=mask)

    def available(self, split: Split) -> int:
        """Return how many pairs a split has."""
        return len(self.parts[split])

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` pairs, with replacement."""
        generator = generator_of(self.seed, split, step)
        return self._frame(split, generator.integers(len(self.parts[split]), size=size))

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield the pairs of a split, or ``samples`` evenly spaced ones where there are more.

        Fewer than ``size`` come at once where the vocabulary is large.
        """
        places = self._evaluated(split, samples)
        size = rows_at_once(size, self.length, self.vocab_size)
        for first in range(0, len(places), size):
            yield self._frame(split, places[first : first + size])

    def _evaluated(self, split: Split, samples: int) -> Array:
        count = len(self.parts[split])
        if count <= samples:
            return np.arange(count)
        return np.linspace(0, count - 1, samples).round().astype(np.int64)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Count right tokens and targets, and add up how likely they were, in nats."""
        nats = negative_log_likelihood(outputs, targets)
        return class_tally(outputs, targets) | {"nats": nats}

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``sequence_accuracy`` over whole targets, ``accuracy`` and ``perplexity`` of tokens."""
        return class_metrics(tally) | {"perplexity": perplexity(tally["nats"], tally["asked"])}

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score how often each token stands in the targets of the training part."""
        seen = self._pairs("train", self._evaluated("train", MOST_COUNTED))
        counted = np.concatenate([target for _, target in seen] + [np.full(len(seen), self.end)])
        logits = unigram_logits(counted, self.vocab_size)
        tallies = (
            self.tally(np.broadcast_to(logits, (*batch.targets.shape, len(logits))), batch.targets)
            for batch in self.evaluation(split, samples, samples)
        )
        return {"unigram": self.metrics(total(tallies))}

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that answers at every position and takes a mask."""
        return {
            "vocab_size": self.vocab_size,
            "causal": True,
            "read": "all",
            "padding": True,
            "max_length": self.length,
            "min_length": self.shortest_source,
        }

    def companions(self) -> dict[str, str]:
        """Return the tokenizer, unless it is bytes."""
        return self.tokenizer.companions()

    def describe(self) -> dict[str, Any]:
        """Return name, keys, sizes, tokenizer, framing, pairs of each split and metric; no path."""
        return {
            "name": self.name,
            "kind": self.kind,
            "source": self.form.source,
            "target": self.form.target,
            "length": self.length,
            **self.tokenizer.describe(),
            "vocab_size": self.vocab_size,
            "separator": self.separator,
            "end": self.end,
            "named_parts": self.named_parts,
            "pairs": {split: len(self.parts[split]) for split in SPLITS},
            "skip_long": self.skip_long,
            "skipped": self.skipped,
            "seed": self.seed,
            "metric": self.metric,
        }


def split_of(source: str) -> Split:
    """Return the split of a pair: the same for equal sources, whatever file they stand in."""
    digest = hashlib.blake2b(source.encode("utf-8"), digest_size=8).digest()
    return TENTHS[int.from_bytes(digest, "big") % len(TENTHS)]


def _too_long(path: Path, pair: Pair, tokens: int, length: int) -> InputError:
    return InputError(
        f"{path.name}: line {pair.line} has {tokens} tokens with its separator, "
        f"{option('length', length)} is allowed",
        hint=f"{option('length', tokens)}, or {option('skip_long')} to leave such pairs out",
    )


def _learned(named: Mapping[Split, Path], form: PairFormat) -> Iterator[str]:
    """Yield the strings that a tokenizer is trained on: of a large file, every n-th training pair's."""
    path = named["train"]
    size = path.stat().st_size if path.is_file() else 0  # the scan refuses what is not a file
    every = max(1, -(-size // MOST_LEARNED_BYTES))
    pairs = (p for p in scan(path, form) if len(named) > 1 or split_of(p.source) == "train")
    for pair in islice(pairs, 0, None, every):
        yield pair.source
        yield pair.target
