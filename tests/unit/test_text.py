"""The task text: windows, scores, baselines, and what is refused."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.task import SPLITS, task_from_dict
from loopedge.tasks.text import TextTask

TEXT = "".join(f"line {n}: the loop runs the block {n % 7} times. Größe €{n}\n" for n in range(400))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def with_bytes(corpus: Path) -> TextTask:
    return TextTask.from_path(corpus, context=16)


def with_tokens(corpus: Path) -> TextTask:
    return TextTask.from_path(corpus, context=16, train_tokenizer=300)


@pytest.mark.parametrize("make", [with_bytes, with_tokens])
def test_targets_are_the_inputs_shifted(corpus: Path, make: Any) -> None:
    task = make(corpus)
    for split in SPLITS:
        batch = task.batch(split, 5, 3)
        assert batch.inputs.shape == batch.targets.shape == (5, 16)
        np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        assert batch.attention_mask is None
        again, other = task.batch(split, 5, 3), task.batch(split, 5, 4)
        np.testing.assert_array_equal(batch.inputs, again.inputs)
        assert (batch.inputs != other.inputs).any()
        assert task.tokenizer.decode(batch.inputs[0].tolist()).strip("\ufffd") in TEXT


@pytest.mark.parametrize("make", [with_bytes, with_tokens])
def test_evaluation_sees_each_target_once(corpus: Path, make: Any) -> None:
    task = make(corpus)
    ids = task.parts["test"]
    targets = np.concatenate([b.targets for b in task.evaluation("test", 7, 10_000)])
    count = (len(ids) - 1) // 16 * 16
    np.testing.assert_array_equal(targets.ravel(), ids.read(1, count))
    fewer = [b.inputs for b in task.evaluation("test", 7, 9)]
    assert [len(inputs) for inputs in fewer] == [7, 2]


def test_a_split_is_not_seen_by_another(corpus: Path) -> None:
    task = with_bytes(corpus)
    read = [task.parts[split].read(0, len(task.parts[split])).tobytes() for split in SPLITS]
    assert b"".join(read) == TEXT.encode()
    assert [round(len(part) / len(TEXT.encode()), 2) for part in read] == [0.9, 0.05, 0.05]


def test_the_tokenizer_learns_from_the_training_part_alone(tmp_path: Path) -> None:
    for name, text in (("train", "ab " * 900), ("valid", "xyz " * 60), ("test", "xyz " * 60)):
        (tmp_path / name).write_text(text)
    task = TextTask.from_path(
        tmp_path / "train",
        context=4,
        train_tokenizer=280,
        validation=tmp_path / "valid",
        test=tmp_path / "test",
    )
    assert "xy" not in task.companions()["tokenizer.json"]
    assert task.tokenizer.decode(task.batch("test", 1, 0).inputs[0].tolist()) in "xyz " * 60
    assert task.describe()["tokens"]["test"] == 240


@pytest.mark.parametrize("make", [with_bytes, with_tokens])
def test_scores_of_a_model_that_knows_nothing_and_of_one_that_knows_all(
    corpus: Path, make: Any
) -> None:
    task = make(corpus)
    [batch] = task.evaluation("test", 4, 4)
    vocab_size = task.tokenizer.vocab_size
    blank = np.zeros((*batch.targets.shape, vocab_size), np.float32)
    scores = task.score(blank, batch.targets)
    assert scores["perplexity"] == pytest.approx(vocab_size, rel=1e-5)
    text_bytes = int(task.tokenizer.token_bytes()[batch.targets].sum())
    assert scores["bits_per_byte"] == pytest.approx(
        math.log2(vocab_size) * batch.targets.size / text_bytes, rel=1e-5
    )
    right = np.eye(vocab_size, dtype=np.float32)[batch.targets] * 100
    assert task.score(right, batch.targets) == pytest.approx(
        {"perplexity": 1, "bits_per_byte": 0, "accuracy": 1}
    )


def test_pairs_of_bytes_tell_more_than_bytes(corpus: Path) -> None:
    scores = with_bytes(corpus).baselines("test", 64)
    assert set(scores) == {"unigram", "bigram"}
    assert (
        1
        < metric_value(scores["bigram"], "perplexity")
        < metric_value(scores["unigram"], "perplexity")
        < 256
    )


def test_bits_per_byte_of_a_tokenizer_without_bytes(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "loop": 1, "block": 2}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "words.json"))
    (tmp_path / "a.txt").write_text("loop " * 1000)
    task = TextTask.from_path(tmp_path / "a.txt", context=4, tokenizer=tmp_path / "words.json")
    targets = task.batch("test", 2, 0).targets
    scores = task.score(np.zeros((2, 4, 3), np.float32), targets)
    assert scores["bits_per_byte"] == pytest.approx(math.log2(3) / 5, rel=1e-3)


@pytest.mark.parametrize("make", [with_bytes, with_tokens])
def test_it_is_rebuilt_from_its_description(corpus: Path, make: Any) -> None:
    task = make(corpus)
    described = task.describe()
    assert str(corpus.parent) not in str(described)
    again = task_from_dict(described, data=corpus, companions=task.companions())
    assert again.describe() == described
    batch, other = task.batch("train", 3, 1), again.batch("train", 3, 1)
    np.testing.assert_array_equal(batch.inputs, other.inputs)
    with pytest.raises(InputError, match="needs its data"):
        task_from_dict(described, companions=task.companions())


def test_the_tokenizer_of_a_description_must_be_there(corpus: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is not there"):
        task_from_dict(with_tokens(corpus).describe(), data=corpus)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (0, "context is 0, at least 1"),
        (5000, r"the validation part of corpus.txt has \d+ tokens, context=5000 needs 5001"),
    ],
)
def test_a_context_that_does_not_fit(corpus: Path, context: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        TextTask.from_path(corpus, context=context)
    if context:  # the hint is an option that works
        most = int((caught.value.hint or "").removeprefix("context="))
        assert TextTask.from_path(corpus, context=most).context == most


@pytest.mark.parametrize("given", ["validation", "test"])
def test_both_parts_are_named_or_none(corpus: Path, given: str) -> None:
    with pytest.raises(InputError, match="both parts are named, or none"):
        TextTask.from_path(corpus, context=8, **{given: corpus})  # type: ignore[arg-type]


PROGRAM = """
import sys
from loopedge.tasks.text import TextTask
from loopedge.profiler.child.process_memory import read_memory, reset_peak

TextTask.from_path(sys.argv[1], context=256).baselines("test", 64)
before = read_memory().rss_bytes
reset_peak()
task = TextTask.from_path(sys.argv[2], context=256)
for step in range(1000):
    task.batch("train", 32, step)
print(read_memory().peak_bytes - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(corpus: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    with large.open("wb") as target:
        for _ in range(-(-200_000_000 // len(TEXT.encode()))):
            target.write(TEXT.encode())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(corpus), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 20_000_000
