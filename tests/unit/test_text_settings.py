"""What a description of a text task remembers: its tokenizer, and whether its parts were named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tokenizer import TOKENIZER_FILE, train_tokenizer
from loopedge.tasks import pairs
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.task import SPLITS, Task, task_from_dict
from loopedge.tasks.text import TextTask

WORDS = [f"word {n} of {n * n}" for n in range(300)]


def write_text(folder: Path, name: str, words: list[str]) -> Path:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(words))
    return path


def write_pairs(folder: Path, name: str, words: list[str]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"input": w, "output": w[:4]}) + "\n" for w in words))
    return path


def text_task(path: Path, **options: Any) -> Task:
    return TextTask.from_path(path, context=4, **options)


def pairs_task(path: Path, **options: Any) -> PairsTask:
    return PairsTask.from_jsonl(path, length=40, **options)


KINDS = pytest.mark.parametrize(
    ("write", "make"), [(write_text, text_task), (write_pairs, pairs_task)]
)


@KINDS
def test_tokenizers_of_one_size_are_distinguished(tmp_path: Path, write: Any, make: Any) -> None:
    data = write(tmp_path, "data", WORDS)
    described = []
    for name, text in (("one", "ab" * 9), ("other", "xy" * 9)):
        file = tmp_path / f"{name}.json"
        file.write_text(train_tokenizer([text], 257).companions()[TOKENIZER_FILE])
        described.append(make(data, tokenizer=file).describe())
    assert described[0]["vocab_size"] == described[1]["vocab_size"]
    assert described[0] != described[1]
    assert make(data).describe()["tokenizer_sha256"] is None


@KINDS
@pytest.mark.parametrize("vocab", [None, 270])
def test_of_named_parts_the_data_given_is_taken_whole(
    tmp_path: Path, write: Any, make: Any, vocab: int | None
) -> None:
    files = [write(tmp_path, f"p{n}", WORDS[100 * n : 100 * n + 100]) for n in range(3)]
    task = make(files[0], validation=files[1], test=files[2], train_tokenizer=vocab)
    again = task_from_dict(task.describe(), data=files[1], companions=task.companions())
    expected = [batch.inputs for batch in task.evaluation("validation", 1000, 1000)]
    for split in SPLITS:
        found = [batch.inputs for batch in again.evaluation(split, 1000, 1000)]
        np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
    assert again.describe()["named_parts"] is True
    assert make(write(tmp_path, "all", WORDS)).describe()["named_parts"] is False


def test_long_pairs_of_a_whole_file_are_counted_once(tmp_path: Path) -> None:
    files = [write_pairs(tmp_path, f"p{n}", [*WORDS[:9], "x" * 99]) for n in range(3)]
    task = pairs_task(files[0], validation=files[1], test=files[2], skip_long=True)
    again = task_from_dict(task.describe(), data=files[1])
    assert again.describe()["skipped"] == 1


def test_a_tokenizer_sees_all_of_a_large_file_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_pairs(tmp_path, f"p{n}", [*["ab" * 9] * 90, *["xy" * 9] * 90]) for n in range(3)]
    monkeypatch.setattr(pairs, "MOST_LEARNED_BYTES", files[0].stat().st_size // 9)
    task = pairs_task(files[0], validation=files[1], test=files[2], train_tokenizer=270)
    assert len(task.tokenizer.encode("xyxyxyxy")) < 8
