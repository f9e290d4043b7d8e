"""Texts and pairs without a network: n-grams by hand, sums as the task makes them, nothing seen too early."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.baselines.alignment import AlignedPairs, Alignment
from loopedge.baselines.attempts import CannotFitError
from loopedge.baselines.fair import fair_baselines, fixed_evaluation
from loopedge.baselines.ngrams import NGrams
from loopedge.baselines.scores import BaselineScores
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import SPLITS
from loopedge.tasks.text import TextTask

Array = np.typing.NDArray[Any]


def discounts(counts: list[int]) -> dict[int, float]:
    n = Counter(counts)
    share = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.75
    exact = {k: k - (k + 1) * share * n[k + 1] / n[k] if n[k] else 0.75 for k in (1, 2, 3)}
    return {k: min(max(value, 0.05), 0.95 * k) for k, value in exact.items()}


def by_hand(text: list[int], vocab: int, order: int) -> Any:
    """Return interpolated modified Kneser-Ney of a text as a function of a token and what stands before it."""
    runs = [
        Counter(tuple(text[at : at + n]) for at in range(len(text) - n + 1))
        for n in range(1, order + 1)
    ]
    before = [Counter(run[1:] for run in longer) for longer in runs[1:]]
    levels = [*before, runs[-1]]

    def probability(token: int, context: tuple[int, ...]) -> float:
        if len(context) + 1 > order:
            context = context[len(context) + 1 - order :]
        level = levels[len(context)]
        lower = probability(token, context[1:]) if context else 1 / vocab
        total = sum(count for run, count in level.items() if run[:-1] == context)
        if not total:
            return lower
        taken = discounts(list(level.values()))
        left = sum(taken[min(count, 3)] for run, count in level.items() if run[:-1] == context)
        count = level[(*context, token)]
        return (count - (taken[min(count, 3)] if count else 0.0)) / total + left / total * lower

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_n_grams_are_modified_kneser_ney(order: int) -> None:
    drawn = np.random.default_rng(0)
    text = (drawn.integers(0, 5, 200) * drawn.integers(0, 2, 200)).tolist()
    ngrams = NGrams([np.array(text)], 6, order)
    inputs = drawn.integers(0, 6, (4, 7))
    wanted = by_hand(text, 6, order)
    starts = np.zeros(4, np.int64)
    everything = np.stack(
        [
            ngrams.probabilities(inputs, np.full_like(inputs, token), starts)[-1]
            for token in range(6)
        ]
    )
    assert everything.sum(axis=0) == pytest.approx(1.0)
    for row in range(4):
        for place in range(7):
            context = tuple(inputs[row, : place + 1].tolist())[-(order - 1) :] if order > 1 else ()
            for token in range(6):
                found = everything[token, row, place]
                assert found == pytest.approx(wanted(token, context)), (context, token)
    likeliest = ngrams.likeliest(inputs, starts, order)
    best = np.take_along_axis(everything, likeliest[None], axis=0)[0]
    assert best == pytest.approx(everything.max(axis=0))


def test_a_context_that_is_cut_off_is_the_shorter_one() -> None:
    text = np.random.default_rng(1).integers(0, 4, 300)
    ngrams = NGrams([text], 4, 3)
    inputs = np.array([[3, 1, 2], [0, 1, 2]])
    targets = np.array([[1, 2, 0]] * 2)
    whole = ngrams.probabilities(inputs, targets, np.array([0, 0]))
    cut = ngrams.probabilities(inputs, targets, np.array([1, 1]))
    assert (whole[2, 0, 1] != whole[2, 1, 1]) or (whole[2, 0, 0] != whole[2, 1, 0])
    assert cut[2, 0, 1:] == pytest.approx(cut[2, 1, 1:])


def test_no_count_reaches_from_one_text_into_the_next() -> None:
    apart = NGrams([np.array([0, 1, 0, 1]), np.array([2, 3, 2, 3])], 4, 2)
    joint = NGrams([np.array([0, 1, 0, 1, 2, 3, 2, 3])], 4, 2)
    inputs, targets, starts = np.array([[1]]), np.array([[2]]), np.zeros(1, np.int64)
    assert (
        apart.probabilities(inputs, targets, starts) < joint.probabilities(inputs, targets, starts)
    )[1].all()


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(5)
    words = ["loop", "edge", "model", "small", "and", "the"]
    text = " ".join(words[number] for number in drawn.integers(0, 6, 3000))
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def dense(ngrams: NGrams, inputs: Array, order: int) -> Array:
    """Return logits of all tokens, as a model gives them."""
    starts = np.zeros(len(inputs), np.int64)
    logits: Array = np.log(
        np.stack(
            [
                ngrams.probabilities(inputs, np.full_like(inputs, token), starts)[order - 1]
                for token in range(ngrams.vocab_size)
            ],
            axis=-1,
        )
    )
    return logits


@pytest.mark.slow
def test_n_grams_of_a_text_are_scored_as_a_model_is(text_file: Path) -> None:
    task = TextTask.from_path(text_file, context=16)
    score = {each.name: each for each in fair_baselines(task, 20)}["n-grams"]
    order = int(score.about.split("order ")[1].split(",")[0])
    ngrams = NGrams(task.parts["train"].sample(1 << 20), 256, 7)
    losses = []
    for tried in range(1, 8):
        batch = next(iter(task.evaluation("validation", 20, 20)))
        losses.append(task.tally(dense(ngrams, batch.inputs, tried), batch.targets)["nats"])
    assert order == 1 + int(np.argmin(losses))
    batch = next(iter(task.evaluation("test", 20, 20)))
    wanted = task.metrics(task.tally(dense(ngrams, batch.inputs, order), batch.targets))
    assert score.test == pytest.approx(wanted, rel=1e-5)
    assert score.test["perplexity"] < task.baselines("test", 20)["bigram"]["perplexity"]  # type: ignore[operator]
    assert task.metrics(weighted_total(score.tallies["test"])) == pytest.approx(score.test)
    assert len(score.tallies["test"]["nats"]) == 20
    assert fixed_evaluation(task)


def test_n_grams_do_not_see_the_test_part(text_file: Path) -> None:
    task = TextTask.from_path(text_file, context=16)
    text = text_file.read_text(encoding="utf-8")
    cut = len(text) * 96 // 100
    changed = text_file.with_name("changed.txt")
    changed.write_text(text[:cut] + "?" * (len(text) - cut), encoding="utf-8")
    other = TextTask.from_path(changed, context=16)
    for one, two in zip(fair_baselines(task, 20), fair_baselines(other, 20), strict=True):
        assert (one.about, one.validation) == (two.about, two.validation)
        assert one.test != two.test


@pytest.fixture
def pairs(tmp_path: Path) -> PairsTask:
    drawn = np.random.default_rng(6)
    path = tmp_path / "pairs.jsonl"
    lines = []
    for _ in range(400):
        word = "".join("abcdef"[letter] for letter in drawn.integers(0, 6, drawn.integers(1, 6)))
        lines.append(json.dumps({"input": word, "output": word if drawn.random() < 0.8 else "ab"}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return PairsTask.from_jsonl(path, length=32)


def by_name(found: list[BaselineScores]) -> dict[str, BaselineScores]:
    return {score.name: score for score in found}


def test_baselines_of_pairs(pairs: PairsTask) -> None:
    found = by_name(fair_baselines(pairs, 1000))
    assert set(found) == {
        "token frequency",
        "usual token of each position",
        "n-grams of targets",
        "copy of the source",
        "hidden Markov alignment",
    }
    batch = next(iter(pairs.evaluation("test", 1000, 1000)))
    copied = 0
    for ids, wanted in zip(batch.inputs, batch.targets, strict=True):
        target = wanted[wanted != -100]
        source = ids[: int((wanted != -100).argmax())]
        copied += target.tolist() == [*source.tolist(), pairs.end]
    copy = found["copy of the source"]
    assert copy.test["sequence_accuracy"] == pytest.approx(copied / len(batch.inputs))
    for score in found.values():
        assert score.reason is None
        for split in SPLITS[1:]:
            total = weighted_total(score.tallies[split])
            assert pairs.metrics(total) == pytest.approx(getattr(score, split))


def test_the_frequency_of_tokens_is_the_unigram_of_the_task(pairs: PairsTask) -> None:
    found = by_name(fair_baselines(pairs, 1000))["token frequency"]
    assert found.test == pytest.approx(pairs.baselines("test", 1000)["unigram"], rel=1e-5)


SOUNDS = {0: (5,), 1: (6, 7), 2: (), 3: (8,)}
"""What letters sound like: one has two sounds, one is silent."""


def spoken(count: int, seed: int) -> tuple[list[Array], list[Array]]:
    """Return words and how they sound: 3 becomes 9 before a 0, else 8; token 10 ends them."""
    drawn = np.random.default_rng(seed)
    sources, targets = [], []
    for _ in range(count):
        word = drawn.integers(0, 4, drawn.integers(2, 7))
        sounds = []
        for letter, behind in zip(word.tolist(), [*word[1:].tolist(), -1], strict=True):
            sounds += [9] if (letter, behind) == (3, 0) else list(SOUNDS[letter])
        sources.append(word)
        targets.append(np.array([*sounds, 10]))
    return sources, targets


def test_an_alignment_learns_double_and_silent_letters() -> None:
    alignment = Alignment(AlignedPairs.of(*spoken(2000, 0), 11), 12)
    pairs = AlignedPairs.of(*spoken(300, 1), 11)
    likely, token = alignment.probabilities(pairs)
    asked = pairs.targets >= 0
    right = token[asked] == pairs.targets[asked]
    frequent = np.bincount(pairs.targets[asked]).max() / asked.sum()
    assert frequent < 0.3
    assert right.mean() > 0.85  # runs of equal letters leave some in doubt
    assert (likely > 0).all()


def test_the_probabilities_of_an_alignment_add_up_to_one_and_see_no_later_token() -> None:
    alignment = Alignment(AlignedPairs.of(*spoken(500, 0), 11), 12)
    sources, targets = spoken(40, 2)
    pairs = AlignedPairs.of(sources, targets, 11)
    known, _ = alignment.probabilities(pairs)
    for position in (0, 1, 2):
        total = np.zeros(40)
        for token in range(12):
            changed = pairs.targets.copy()
            changed[:, position] = token
            changed[:, position + 1 :] = 5
            found, _ = alignment.probabilities(
                AlignedPairs(sources=pairs.sources, places=pairs.places, targets=changed)
            )
            assert found[:, :position] == pytest.approx(known[:, :position])
            total += found[:, position]
        assert total == pytest.approx(1.0)


def test_what_cannot_be_aligned_says_why() -> None:
    long = [np.zeros(1000, np.int64)] * 2
    with pytest.raises(CannotFitError, match="too long"):
        Alignment(AlignedPairs.of(long, long, 11), 12)
    with pytest.raises(CannotFitError, match="kinds of tokens"):
        Alignment(AlignedPairs.of(*spoken(5, 0), 11), 100_000)
