"""What `diagnose` says of a test split, of classes, lengths, duplicates and tokens, where the right figure is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import stdtrit

import loopedge
from loopedge.baselines.scores import BaselineScores
from loopedge.diagnosis.duplicates import advise_duplicates, measure_duplicates
from loopedge.diagnosis.lengths import advise_lengths, measure_lengths
from loopedge.diagnosis.tables.classes import advise_classes, measure_classes
from loopedge.diagnosis.test_split import advise_origins, measure_test_split
from loopedge.diagnosis.vocabulary import advise_vocabulary, measure_vocabulary
from loopedge.errors import InputError
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.text import TextTask
from tests.unit.series_of import autoregression, forecast_of, labels_of

pytest.importorskip("sklearn", reason="baselines need the extra 'pilot'")

SAMPLES = 400


def scored(name: str, right: np.ndarray) -> BaselineScores:
    """Return a baseline that is right in some samples of two classes."""
    matrix = np.zeros((len(right), 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1] = right, 1 - right
    tally: dict[str, np.ndarray] = {"confusion": matrix}
    accuracy: dict[str, float | None] = {"accuracy": float(right.mean())}
    return BaselineScores(
        name=name, validation=accuracy, test=accuracy, tallies={"test": tally, "validation": tally}
    )


def test_the_smallest_difference_of_independent_samples_is_that_of_theory() -> None:
    task = labels_of(np.arange(60.0), ["a", "b"] * 30)
    name = next(iter(task.tally(np.eye(2)[[0, 1]], np.array([0, 1]))))
    draw = np.random.default_rng(1)
    first = (draw.random(SAMPLES) < 0.8).astype(float)
    second = np.where(draw.random(SAMPLES) < 0.2, 1 - first, first)
    baselines = [scored("first", first), scored("second", second)]
    for each in baselines:
        for tally in each.tallies.values():
            tally[name] = tally.pop("confusion")
    found = measure_test_split(task, baselines)
    assert found is not None
    assert (found.blocks, found.samples) == (SAMPLES, SAMPLES)
    factor = stdtrit(SAMPLES - 1, 0.975) + stdtrit(SAMPLES - 1, 0.8)
    expected = factor * (first - second).std(ddof=1) / math.sqrt(SAMPLES)
    assert found.smallest_difference == pytest.approx(expected, rel=0.1)
    assert found.share == pytest.approx((found.smallest_difference or 0) / (1 - found.value))


@pytest.mark.slow
def test_fewer_and_dependent_windows_see_less() -> None:
    long = loopedge.diagnose(forecast_of(autoregression({1: 0.6}, 800)), windows=100, look_back=2)
    short = loopedge.diagnose(forecast_of(autoregression({1: 0.6}, 200)), windows=100, look_back=2)
    ahead = loopedge.diagnose(
        forecast_of(autoregression({1: 0.6}, 1500), horizon=20), windows=100, look_back=2
    )
    assert long.test_split is not None
    assert short.test_split is not None
    assert ahead.test_split is not None
    assert (long.test_split.share or 0) < (short.test_split.share or 0)
    assert ahead.test_split.block >= 20
    assert ahead.test_split.blocks < long.test_split.blocks
    assert short.test_split.deviation is not None


def test_origins_are_offered_where_only_large_differences_show() -> None:
    task = labels_of(np.arange(60.0), ["a", "b"] * 30)
    assert measure_test_split(task, []) is None
    found = measure_test_split(
        forecast_of(np.arange(99.0)),
        [
            BaselineScores(
                name=name,
                validation={"rmse": 1.0},
                test={"rmse": 1.0},
                tallies={
                    "test": {
                        "squared": np.random.default_rng(seed).random((20, 1)),
                        "absolute": np.ones((20, 1)),
                        "asked": np.ones((20, 1)),
                    }
                },
            )
            for seed, name in enumerate(("one", "other"))
        ],
        series=np.zeros(20, np.int64),
        overlap=5,
    )
    assert found is not None
    assert (found.block, found.blocks) == (5, 4)
    (advice,) = advise_origins(found, may_roll=True, rolled=False)
    assert advice.option is not None
    assert advice.option.startswith("origins=")
    (advice,) = advise_origins(found, may_roll=False, rolled=False)
    assert advice.option is None


def test_classes_that_are_not_balanced_are_said() -> None:
    labels = ["rare" if row % 25 == 0 else "usual" for row in range(400)]
    found = measure_classes(labels_of(np.arange(400.0) % 7, labels))
    assert found.most_frequent == "usual"
    train = labels[3:280]
    assert found.share == pytest.approx(train.count("usual") / len(train))
    assert found.rare == ["rare"]
    said = [advice.message for advice in advise_classes(found)]
    assert any("macro_f1" in message for message in said)
    assert any("fewer than 5" in message for message in said)


def test_classes_that_are_balanced_are_not() -> None:
    found = measure_classes(labels_of(np.arange(400.0) % 7, ["a", "b"] * 200))
    assert advise_classes(found) == []


def test_test_samples_that_stand_in_training_are_counted() -> None:
    values = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 80)
    labels = ["a" if value > 2 else "b" for value in values]
    task = labels_of(values, labels)
    found = measure_duplicates(task, 50)
    assert (found.test, found.repeated, found.contradicted) == (50, 50, 0)
    (advice,) = advise_duplicates(found)
    assert "100%" in advice.message
    other = [*labels[:340], *["b"] * 60]
    found = measure_duplicates(labels_of(values, other), 60)
    assert found.contradicted == sum(value > 2 for value in values[340:])
    fresh = measure_duplicates(labels_of(np.random.default_rng(0).normal(size=400), labels), 50)
    assert advise_duplicates(fresh) == []


def test_lengths_of_whole_series_and_what_is_cut() -> None:
    lengths = [3, 9, 4, 6, 5, 7, 4, 8, 6, 5, 7, 3]
    labels = [label for number, rows in enumerate(lengths) for label in ["ab"[number % 2]] * rows]
    values = np.random.default_rng(0).normal(size=len(labels))
    task = labels_of(values, labels, lengths=lengths, context=5, min_context=3)
    found = measure_lengths(task, 100)
    assert found is not None
    assert (found.shortest, max(found.longest.values()), found.fixed) == (3, 9, False)
    assert found.cut == pytest.approx(sum(rows > 5 for rows in lengths) / len(lengths))
    assert advise_lengths(found)[0].option == "context=9"


def test_texts_and_pairs_have_lengths_and_tokens(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abcd" * 900 + "z" * 200)  # only the last 5 %, the test part, have a z alone
    task = TextTask.from_path(path, context=16)
    found = measure_vocabulary(task, 1000)
    assert found is not None
    assert found.used == 4
    assert found.entropy == pytest.approx(2, abs=1e-3)
    assert found.unseen == 1
    assert advise_vocabulary(found)
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        json.dumps({"input": "x" * (1 + row % 9) + str(row), "output": "y"}) for row in range(200)
    ]
    pairs.write_text("\n".join(lines))
    lengths = measure_lengths(PairsTask.from_jsonl(pairs, length=32), 500)
    assert lengths is not None
    assert not lengths.fixed
    # A source of up to nine letters and three digits, its separator, a letter and an end.
    assert max(lengths.longest.values()) <= 9 + 3 + 3


def test_what_is_generated_has_nothing_to_describe() -> None:
    with pytest.raises(InputError, match="generates its samples"):
        loopedge.diagnose(SortingTask(length=4, vocab=4))


@pytest.mark.parametrize("options", [{"samples": 0}, {"windows": 10}, {"look_back": 1.5}])
def test_bounds_that_cannot_be(options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        loopedge.DiagnoseOptions(**options)
