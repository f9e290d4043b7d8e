"""Pairs without a network: what targets usually look like, and the source copied."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from loopedge.baselines.alignment import AlignedPairs, Alignment
from loopedge.baselines.attempts import (
    JUDGED,
    Best,
    CannotFitError,
    Judged,
    attempt,
    judged_by_tallies,
)
from loopedge.baselines.ngrams import NGrams
from loopedge.baselines.scores import BaselineScores
from loopedge.baselines.texts import likelihood_tallies, orders_tried
from loopedge.tasks.metrics import IGNORED, Tally, metric_value
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.sample_tallies import joined, weighted_total
from loopedge.tasks.task import Array, Batch, Split

__all__ = ["pair_baselines"]

MOST_PAIRS = 20_000
"""Training pairs that are looked at."""
ROWS = 64
MOST_TABLE = 1 << 24
"""Numbers of the table of positions by tokens."""

Answer = Callable[[Batch], tuple[Array, Array]]
"""A batch to the probability of each target, and the likeliest token, each (rows, positions)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitting:
    """The training pairs, and what they are judged with.

    Args:
        task: Pairs.
        samples: Most pairs of a split.
        sources: Ids of each source.
        targets: Ids of each target, with its end.
    """

    task: PairsTask
    samples: int
    sources: list[Array]
    targets: list[Array]

    def tallies(self, split: Split, answer: Answer) -> Tally:
        """Score answers sample by sample."""
        found = []
        for batch in self.task.evaluation(split, ROWS, self.samples):
            likely, token = answer(batch)
            nats = -np.log(np.maximum(likely, 1e-300))
            found.append(likelihood_tallies(nats, token == batch.targets, batch.targets))
        return joined(found)

    def judge(self, answer: Answer, about: str) -> Judged:
        """Score the validation and the test pairs."""
        tallies = {split: self.tallies(split, answer) for split in JUDGED}
        return judged_by_tallies(self.task, about, tallies)


def pair_baselines(task: PairsTask, samples: int) -> list[BaselineScores]:
    """Score token frequencies, the usual token of each position, n-grams of targets, copies and alignments of the source.

    Args:
        task: Pairs.
        samples: Most pairs of a split.
    """
    fitting = _seen(task, samples)
    fits: dict[str, Callable[[_Fitting], Judged]] = {
        "token frequency": _frequency,
        "usual token of each position": _by_position,
        "n-grams of targets": _ngrams,
        "copy of the source": _copy,
        "hidden Markov alignment": _aligned,
    }
    return [attempt(task, name, partial(fit, fitting)) for name, fit in fits.items()]


def _seen(task: PairsTask, samples: int) -> _Fitting:
    sources, targets = [], []
    for batch in task.evaluation("train", ROWS, MOST_PAIRS):
        for ids, first, wanted in zip(batch.inputs, _separators(batch), batch.targets, strict=True):
            sources.append(ids[:first])
            targets.append(wanted[wanted != IGNORED])
    return _Fitting(task=task, samples=samples, sources=sources, targets=targets)


def _separators(batch: Batch) -> Array:
    """Return where the separator stands: the first position that asks for a token, int64 (rows,)."""
    found: Array = (batch.targets != IGNORED).argmax(axis=1)
    return found


def _frequency(fitting: _Fitting) -> Judged:
    shares = _shares(fitting)

    def answer(batch: Batch) -> tuple[Array, Array]:
        likely = shares[np.maximum(batch.targets, 0)]
        return likely, np.full(batch.targets.shape, shares.argmax())

    return fitting.judge(answer, "")


def _shares(fitting: _Fitting) -> Array:
    """Return how often each token comes in targets, with add-one smoothing."""
    counts = np.bincount(np.concatenate(fitting.targets), minlength=fitting.task.vocab_size) + 1.0
    return np.asarray(counts / counts.sum())


def _by_position(fitting: _Fitting) -> Judged:
    """Count which token stands at each position of a target."""
    task, shares = fitting.task, _shares(fitting)
    longest = max(len(target) for target in fitting.targets)
    if (longest + 1) * task.vocab_size > MOST_TABLE:
        raise CannotFitError(
            f"{longest} positions of {task.vocab_size} tokens, at most {MOST_TABLE} numbers are counted"
        )
    table = np.zeros((longest + 1, task.vocab_size))
    for target in fitting.targets:
        table[np.arange(len(target)), target] += 1
    table = (table + shares) / (table.sum(axis=1, keepdims=True) + 1)
    usual = table.argmax(axis=1)

    def answer(batch: Batch) -> tuple[Array, Array]:
        behind = np.arange(batch.targets.shape[1]) - _separators(batch)[:, None]
        place = np.clip(behind, 0, longest)
        return table[place, np.maximum(batch.targets, 0)], usual[place]

    return fitting.judge(answer, f"{longest} positions")


def _ngrams(fitting: _Fitting) -> Judged:
    """Count runs of tokens of targets, behind the separator; the validation pairs choose the order."""
    task = fitting.task
    texts = [np.concatenate([[task.separator], target]) for target in fitting.targets]
    ngrams = NGrams(texts, task.vocab_size, orders_tried(task.vocab_size), leads=True)

    def answers(order: int) -> Answer:
        def answer(batch: Batch) -> tuple[Array, Array]:
            starts = _separators(batch)
            found = ngrams.probabilities(batch.inputs, batch.targets, starts)[order - 1]
            return found, ngrams.likeliest(batch.inputs, starts, order)

        return answer

    best: Best[int] = Best()
    for order in range(1, ngrams.order + 1):
        best.offer(_loss(fitting, answers(order)), order)
    return fitting.judge(
        answers(best.candidate), f"order {best.candidate}, interpolated Kneser-Ney"
    )


def _loss(fitting: _Fitting, answer: Answer) -> float:
    """Return the metric that decides on the validation pairs, lower is better; ties by likelihood."""
    task = fitting.task
    total = weighted_total(fitting.tallies("validation", answer))
    value = metric_value(task.metrics(total), task.metric)
    return (-value if task.higher_is_better else value) + 1e-9 * float(
        total["nats"] / max(1.0, total["asked"])
    )


def _copy(fitting: _Fitting) -> Judged:
    """Copy the source token by token, then end; how often that is right was counted on the training pairs."""
    task, shares = fitting.task, _shares(fitting)
    right = asked = 0
    for source, target in zip(fitting.sources, fitting.targets, strict=True):
        copied = np.full(len(target), task.end)
        copied[: len(source)] = source[: len(target)]
        right, asked = right + int((copied == target).sum()), asked + len(target)
    share = (right + 0.5) / (asked + 1.0)

    def answer(batch: Batch) -> tuple[Array, Array]:
        first = _separators(batch)[:, None]
        place = np.arange(batch.targets.shape[1]) - first
        inside = (place >= 0) & (place < first)
        copied = np.where(
            inside, np.take_along_axis(batch.inputs, np.where(inside, place, 0), axis=1), task.end
        )
        wanted = np.maximum(batch.targets, 0)
        likely = share * (copied == wanted) + (1 - share) * shares[wanted]
        usual = int(shares.argmax())
        wins = share + (1 - share) * shares[copied] >= (1 - share) * shares[usual]
        return likely, np.where(wins, copied, usual)

    return fitting.judge(answer, f"right at {share:.1%} of the training tokens")


def _aligned(fitting: _Fitting) -> Judged:
    """Align targets with their sources, and count what comes from where."""
    task = fitting.task
    pairs = AlignedPairs.of(fitting.sources, fitting.targets, task.separator)
    alignment = Alignment(pairs, task.vocab_size)

    def answer(batch: Batch) -> tuple[Array, Array]:
        asked = batch.targets != IGNORED
        sources = [ids[:first] for ids, first in zip(batch.inputs, _separators(batch), strict=True)]
        targets = [wanted[kept] for wanted, kept in zip(batch.targets, asked, strict=True)]
        found = AlignedPairs.of(sources, targets, task.separator)
        likely, token = alignment.probabilities(found)
        there = found.targets >= 0
        every, usual = np.ones(asked.shape), np.full(asked.shape, IGNORED)
        every[asked], usual[asked] = likely[there], token[there]  # row by row, in their order
        return every, usual

    return fitting.judge(answer, "contexts of up to 4 tokens of the source and one of the target")
