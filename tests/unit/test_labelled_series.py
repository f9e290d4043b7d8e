"""Classes of windows and of whole series: what is asked, how it is split and scored, what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.errors import InputError
from loopedge.tasks.confusion import confusion_metrics, confusion_tally
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.metrics import IGNORED, total
from loopedge.tasks.splits import split_series
from loopedge.tasks.task import SPLITS, task_from_dict


def write(folder: Path, rows: Sequence[tuple[object, ...]], header: str = "x,kind") -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def shops(folder: Path, count: int = 24, rows: int = 6) -> Path:
    """Shop i has ``rows + i % 3`` rows that hold i, and the label of i % 2."""
    return write(
        folder,
        [
            (f"s{i}", i, "even" if i % 2 == 0 else "odd")
            for i in range(count)
            for _ in range(rows + i % 3)
        ],
        "shop,x,kind",
    )


def test_the_label_is_the_one_of_the_last_row(tmp_path: Path) -> None:
    path = write(tmp_path, [(r, "abc"[r % 3]) for r in range(100)])
    task = LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=5)
    assert task.classes == ["a", "b", "c"]
    fields = task.model_fields()
    assert (fields["outputs"], fields["classify"], fields["read"]) == (3, True, "last")
    seen: dict[str, set[int]] = {}
    for split in SPLITS:
        rows: set[int] = set()
        for batch in task.evaluation(split, 8, 1000):
            last = batch.inputs[:, -1, 0].astype(int)
            np.testing.assert_array_equal(batch.targets, last % 3)
            rows.update(last.tolist())
        seen[split] = rows
    assert seen["train"] == set(range(4, 70))
    assert seen["validation"] == set(range(70, 85))
    assert seen["test"] == set(range(85, 100))
    counts = task.describe()["class_counts"]
    assert counts["test"] == {"a": 5, "b": 5, "c": 5}


def test_numbers_are_sorted_as_numbers_and_texts_as_texts(tmp_path: Path) -> None:
    rows = [(r, ["10", "2", "2.0", "1"][r % 4]) for r in range(80)]
    task = LabelledSeriesTask.from_file(
        write(tmp_path, rows), label="kind", covariates=["x"], context=2
    )
    assert task.classes == ["1", "2", "2.0", "10"]
    rows = [(r, ["10", "2", "none"][r % 3]) for r in range(80)]
    task = LabelledSeriesTask.from_file(
        write(tmp_path, rows), label="kind", covariates=["x"], context=2
    )
    assert task.classes == ["10", "2", "none"]


def test_a_whole_series_is_one_sample_and_stays_in_one_split(tmp_path: Path) -> None:
    task = LabelledSeriesTask.from_file(
        shops(tmp_path), label="kind", covariates=["x"], context=7, min_context=6, group="shop"
    )
    assert task.model_fields()["padding"]
    seen: list[int] = []
    for split in SPLITS:
        for batch in task.evaluation(split, 5, 100):
            shop = batch.inputs[:, -1, 0].astype(int)
            np.testing.assert_array_equal(batch.targets, shop % 2)
            assert batch.attention_mask is not None
            np.testing.assert_array_equal(
                batch.attention_mask.sum(axis=1), np.minimum(6 + shop % 3, 7)
            )
            seen += shop.tolist()
    assert sorted(seen) == list(range(24))
    assert task.describe()["class_counts"]["train"] == {"even": 8, "odd": 9}
    scaling = task.scaling()
    assert scaling is not None
    trained = {int(b.inputs[i, -1, 0]) for b in task.evaluation("train", 50, 50) for i in range(17)}
    values = np.concatenate([np.full(6 + i % 3, i) for i in sorted(trained)])
    assert scaling.input_mean[0] == pytest.approx(values.mean())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.randoms())
def test_the_split_of_series_depends_on_their_names_alone(classes: list[int], random: Any) -> None:
    names = [f"series {i}" for i in range(len(classes))]
    split = split_series(names, np.array(classes))
    numbers = np.concatenate([split[part] for part in SPLITS])
    assert sorted(numbers.tolist()) == list(range(len(classes)))
    for kind in set(classes):
        count = classes.count(kind)
        train = sum(classes[i] == kind for i in split["train"])
        assert train >= 1
        assert abs(train - 0.7 * count) <= 1.2
    enough = len(classes) >= len(set(classes)) + 2
    assert all(len(split[part]) for part in SPLITS) or not enough
    if len(classes) >= 20 * len(set(classes)):
        shares = [len(split[part]) / len(classes) for part in SPLITS]
        np.testing.assert_allclose(shares, (0.7, 0.15, 0.15), atol=1 / len(classes))
    order = list(range(len(classes)))
    random.shuffle(order)
    other = split_series([names[i] for i in order], np.array([classes[i] for i in order]))
    for part in SPLITS:
        assert {names[i] for i in split[part]} == {names[order[i]] for i in other[part]}


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_scores_from_a_confusion_matrix(classes: int, rows: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes))
    targets = generator.integers(classes, size=rows)
    said = logits.argmax(axis=1)
    scores = confusion_metrics(confusion_tally(logits, targets))
    assert scores["accuracy"] == pytest.approx((said == targets).mean())
    f1 = []
    for kind in set(targets.tolist()) | set(said.tolist()):
        right = ((said == kind) & (targets == kind)).sum()
        precision = right / max(1, (said == kind).sum())
        recall = right / max(1, (targets == kind).sum())
        f1.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert scores["macro_f1"] == pytest.approx(np.mean(f1))
    parts = total(confusion_tally(logits[i::2], targets[i::2]) for i in range(min(2, rows)))
    assert confusion_metrics(parts) == scores
    targets[0] = IGNORED
    left_out = confusion_tally(logits, targets)["confusion"].sum()
    assert left_out == rows - 1


def test_the_baseline_says_the_most_frequent_class_of_training(tmp_path: Path) -> None:
    rows = [(r, "rare" if r % 4 == 0 else "often") for r in range(100)]
    task = LabelledSeriesTask.from_file(
        write(tmp_path, rows), label="kind", covariates=["x"], context=2
    )
    scores = task.baselines("test", 1000)["most_frequent"]
    assert scores["accuracy"] == pytest.approx(12 / 15)
    assert scores["macro_f1"] == pytest.approx((2 * 12 / 27) / 2)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_missing_label_is_never_asked_for(tmp_path: Path, grouped: bool) -> None:
    if grouped:
        path = shops(tmp_path)
        path.write_text(path.read_text().replace("s3,3,odd", "s3,3,"))
    else:
        rows = [(r, "" if r % 5 == 0 else "ab"[r % 2]) for r in range(100)]
        path = write(tmp_path, rows)
    options: Any = {"label": "kind", "covariates": ["x"], "context": 3}
    options |= {"group": "shop"} if grouped else {}
    task = LabelledSeriesTask.from_file(path, **options)
    last = [
        int(row)
        for split in SPLITS
        for batch in task.evaluation(split, 100, 100)
        for row in batch.inputs[:, -1, 0]
    ]
    assert last
    assert not any(row == 3 if grouped else row % 5 == 0 for row in last)


def test_a_column_without_any_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [(r, "") for r in range(100)])
    with pytest.raises(InputError, match="column 'kind' holds no label at all"):
        LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=5)


def test_a_missing_number_is_refused_and_missing_labels_are_not_counted(tmp_path: Path) -> None:
    rows = [(r, "" if r % 5 == 0 else "ab"[r % 2]) for r in range(100)]
    path = write(tmp_path, [*rows, ("", "a")])
    with pytest.raises(InputError, match=r"column 'x': the value is missing$"):
        LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=5)


@pytest.mark.parametrize("grouped", [False, True])
def test_it_is_rebuilt_from_its_description_with_its_classes(tmp_path: Path, grouped: bool) -> None:
    path = shops(tmp_path)
    options: Any = {"group": "shop", "min_context": 2} if grouped else {}
    if not grouped:
        path = write(tmp_path, [(r, "abc"[r % 3]) for r in range(100)])
    task = LabelledSeriesTask.from_file(
        path, label="kind", covariates=["x"], context=5, seed=2, **options
    )
    description = task.describe()
    rebuilt = task_from_dict(description, data=path)
    assert rebuilt.describe() == description
    original, again = task.batch("train", 6, 1), rebuilt.batch("train", 6, 1)
    np.testing.assert_array_equal(original.inputs, again.inputs)
    np.testing.assert_array_equal(original.targets, again.targets)
    # Other data may lack a class: the others keep their numbers.
    last = task.classes[-1]
    path.write_text(path.read_text().replace(f",{task.classes[0]}\n", f",{last}\n"))
    fewer = task_from_dict(description, data=path)
    assert fewer.describe()["classes"] == task.classes
    path.write_text(path.read_text().replace(f",{last}\n", ",new\n", 1))
    with pytest.raises(InputError, match=r"'new' of column 'kind' is not a class|has the labels"):
        task_from_dict(description, data=path)
    with pytest.raises(InputError, match="needs its data"):
        task_from_dict(description)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("a" * 100, "column 'kind' holds the class 'a' alone, at least 2 are needed"),
        (
            "ab" * 40 + "c" * 3 + "ab" * 8 + "a",
            r"class 'c' .*never occurs in training .*3 of valid",
        ),
        ("ab" * 45 + "c" * 10, r"'c' .*never occurs in training \(windows: 10 of test\)"),
        ("abab", "has no train window: 4 rows are too few for a context of 3"),
    ],
)
def test_labels_that_cannot_be_learned(tmp_path: Path, labels: str, words: str) -> None:
    path = write(tmp_path, list(enumerate(labels)))
    with pytest.raises(InputError, match=words):
        LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=3)


def test_series_that_cannot_be_used(tmp_path: Path) -> None:
    options: Any = {"label": "kind", "covariates": ["x"], "group": "shop"}
    path = shops(tmp_path)
    with pytest.raises(InputError, match=r"8 of 24 series have fewer than 7 rows, .* 's0', 6"):
        LabelledSeriesTask.from_file(path, **options, context=7)
    with pytest.raises(InputError, match="needs a column that the model sees"):
        LabelledSeriesTask.from_file(path, **{**options, "covariates": []}, context=7)
    few = shops(tmp_path, count=3)
    with pytest.raises(InputError, match=r"no test series: 3 with a label of 2 .* at least 4"):
        LabelledSeriesTask.from_file(few, **options, context=6)
    path.write_text(path.read_text().replace("s1,1,odd", "s1,1,even", 1))
    with pytest.raises(InputError, match="shop 's1' has the labels 'even' and 'odd'") as caught:
        LabelledSeriesTask.from_file(path, **options, context=6)
    assert caught.value.hint == "leave out group to classify each row's window"
