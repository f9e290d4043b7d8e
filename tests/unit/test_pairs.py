"""The task pairs: framing, splits, scores, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data import json_lines
from loopedge.errors import InputError
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.pairs import PairsTask, split_of
from loopedge.tasks.task import SPLITS, task_from_dict


def write(path: Path, pairs: list[tuple[str, str]], *keys: str) -> Path:
    source, target = keys or ("input", "output")
    lines = [json.dumps({source: one, target: two, "id": 7}) + "\n" for one, two in pairs]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pairs = [(f"wörd {n}" + "x" * (n % 5), f"wort {n}") for n in range(200)]
    return write(tmp_path / "pairs.jsonl", pairs)


def test_a_pair_is_framed_and_padded_on_the_right(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [("ab", "c"), ("d", "ef€")])
    task = PairsTask.from_jsonl(path, length=8, validation=path, test=path)
    [batch] = task.evaluation("train", 4, 4)
    sep, end = 256, 257
    a, b, c, d, e, f = b"abcdef"
    euro = list("€".encode())
    assert batch.inputs.tolist() == [[a, b, sep, c, end, end, end], [d, sep, e, f, *euro]]
    no = IGNORED
    assert batch.targets.tolist() == [[no, no, c, end, no, no, no], [no, e, f, *euro, end]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert task.model_fields()["vocab_size"] == 258
    assert task.model_fields()["padding"] is True


@pytest.mark.parametrize("size", [None, 270])
def test_batches_hold_the_pairs_of_their_split(data: Path, size: int | None) -> None:
    task = PairsTask.from_jsonl(data, length=40, train_tokenizer=size)
    lines = map(json.loads, data.read_text().splitlines())
    pairs = {line["input"]: line["output"] for line in lines}
    for split in SPLITS:
        batch = task.batch(split, 9, 2)
        for row, wanted in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            place = row.index(task.separator)
            source = task.tokenizer.decode(row[:place])
            assert split_of(source) == split
            asked = [token for token in wanted if token != IGNORED]
            assert asked[-1] == task.end
            assert task.tokenizer.decode(asked[:-1]) == pairs[source]
        np.testing.assert_array_equal(batch.inputs, task.batch(split, 9, 2).inputs)
    counts = task.describe()["pairs"]
    assert sum(counts.values()) == 200
    assert counts["train"] > 6 * counts["test"] > 0


def test_equal_sources_are_in_the_same_split(tmp_path: Path) -> None:
    pairs = [(f"s{n % 40}", f"t{n}") for n in range(400)]
    task = PairsTask.from_jsonl(write(tmp_path / "p.jsonl", pairs), length=20)
    seen = {
        split: {
            tuple(row[: row.index(task.separator)])
            for batch in task.evaluation(split, 64, 1000)
            for row in batch.inputs.tolist()
        }
        for split in SPLITS
    }
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 40


def test_keys_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [("a", "b"), ("c", "d")], "de", "en")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\n\r\n \n"))
    task = PairsTask.from_jsonl(
        path, source="de", target="en", length=5, validation=path, test=path
    )
    [batch] = task.evaluation("train", 4, 4)
    assert batch.inputs.tolist() == [[97, 256, 98], [99, 256, 100]]


def test_scores(data: Path) -> None:
    task = PairsTask.from_jsonl(data, length=40)
    [batch] = task.evaluation("test", 64, 8)
    known = np.where(batch.targets == IGNORED, 0, batch.targets)
    right = np.eye(task.vocab_size, dtype=np.float32)[known] * 100
    assert task.score(right, batch.targets) == pytest.approx(
        {"accuracy": 1, "sequence_accuracy": 1, "perplexity": 1}
    )
    right[0, batch.targets[0] == task.end] = 0  # one token of one pair is not known
    scores = task.score(right, batch.targets)
    assert scores["sequence_accuracy"] == 7 / 8
    asked = (batch.targets != IGNORED).sum()
    assert scores["accuracy"] == (asked - 1) / asked
    assert scores["perplexity"] == pytest.approx(task.vocab_size ** (1 / asked))
    baseline = task.baselines("test", 64)["unigram"]
    assert 0 < metric_value(baseline, "accuracy") < 1
    assert 1 < metric_value(baseline, "perplexity") < 50


@pytest.mark.parametrize("size", [None, 270])
def test_it_is_rebuilt_from_its_description(data: Path, size: int | None) -> None:
    task = PairsTask.from_jsonl(data, length=40, train_tokenizer=size, seed=3)
    described = task.describe()
    assert str(data.parent) not in str(described)
    again = task_from_dict(described, data=data, companions=task.companions())
    assert again.describe() == described
    np.testing.assert_array_equal(
        again.batch("validation", 4, 0).inputs, task.batch("validation", 4, 0).inputs
    )
    with pytest.raises(InputError, match="need their data"):
        task_from_dict(described)


def test_long_pairs_are_refused_or_left_out(tmp_path: Path) -> None:
    pairs = [(f"s{n}", "t") for n in range(60)]
    path = write(tmp_path / "p.jsonl", [*pairs, ("a" * 30, "b")])
    with pytest.raises(InputError, match=r"p\.jsonl: line 61 has 32 tokens") as caught:
        PairsTask.from_jsonl(path, length=10)
    assert "length=32" in (caught.value.hint or "")
    task = PairsTask.from_jsonl(path, length=10, skip_long=True)
    assert (task.skipped, sum(task.describe()["pairs"].values())) == (1, 60)
    assert task.notes == ("pairs longer than length=10 were left out: 1",)
    assert PairsTask.from_jsonl(path, length=32).notes == ()


GOOD = b'{"input": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"the train part of p\.jsonl holds no pair \(0 altogether\)"),
        (GOOD, "part of p.jsonl holds no pair"),
        (GOOD + b"not json\n", "line 2 is not JSON: Expecting value"),
        (GOOD + b"[" * 100_000, "line 2 is not JSON"),
        (GOOD + b'["a"]\n', "line 2 is a list, an object with two strings is needed"),
        (GOOD + b'{"input": "a", "out": "b"}', "line 2 lacks the key 'output'; it has 'input'"),
        (
            GOOD + b'{"input": 3, "output": "b"}',
            "line 2: 'input' is the number 3, a string is needed",
        ),
        (GOOD + b'{"input": "a", "output": ""}', "line 2: 'output' is empty"),
        (GOOD + b'{"input": "\\ud800", "output": "b"}', "half of a surrogate pair"),
        (GOOD + b'{"input": "\xff", "output": "b"}', r"is not UTF-8 text: byte 41 \(line 2\)"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        PairsTask.from_jsonl(path, length=10)
    assert "p.jsonl" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "MOST_LINE_BYTES", 20)
    path = tmp_path / "p.jsonl"
    path.write_bytes(GOOD)
    with pytest.raises(InputError, match="line 1 is longer than 20 bytes"):
        PairsTask.from_jsonl(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 1}, "length is 1, at least 2"),
        ({"validation": "v.jsonl"}, "test is missing"),
        ({"test": "t.jsonl"}, "validation is missing"),
    ],
)
def test_options_that_cannot_be(data: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PairsTask.from_jsonl(data, **options)


def test_no_file(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none", "does not exist")):
        with pytest.raises(InputError, match=words):
            PairsTask.from_jsonl(path)
