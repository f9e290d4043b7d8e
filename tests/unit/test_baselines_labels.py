"""Labels without a network: what sums a window up, and classifiers that no test row has chosen."""

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from loopedge.baselines.fair import fair_baselines, fixed_evaluation
from loopedge.baselines.labels import SUMMARIES, summaries
from loopedge.data.tables.columns import Columns
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import Batch

Array = np.typing.NDArray[Any]
NAMES = [
    "most frequent class",
    "discriminant analysis on summaries",
    "logistic regression on summaries",
    "boosting on summaries",
]


def labelled(values: Array, codes: Array, classes: int, **more: Any) -> Columns:
    return Columns(
        names=tuple(f"x{place}" for place in range(values.shape[1])),
        values=values,
        observed=~np.isnan(values),
        labels=tuple(f"class {number}" for number in range(classes)),
        codes=codes.astype(np.int32),
        **more,
    )


def series_of_classes(shift: float = 1.5, per_class: int = 30) -> LabelledSeriesTask:
    """Return a task of 3 classes whose series differ in their means."""
    drawn = np.random.default_rng(0)
    series = 3 * per_class
    codes = np.repeat(np.arange(series) % 3, 12)
    values = drawn.normal(size=(series * 12, 2)) + shift * codes[:, None]
    columns = labelled(
        values,
        codes,
        3,
        edges=np.arange(0, series * 12 + 1, 12),
        series=tuple(f"series {number}" for number in range(series)),
    )
    return LabelledSeriesTask(columns, label="kind", context=12, group="series")


def test_summaries_are_those_of_the_values_that_are_there() -> None:
    inputs = np.zeros((3, 5, 2), np.float32)
    inputs[0, :, 0] = [9, 9, 2, np.nan, 8]  # two rows of padding
    inputs[1, :, 0] = [1, 2, 3, 4, 5]
    inputs[2] = np.nan
    mask = np.array([[0, 0, 1, 1, 1], [1] * 5, [1] * 5])
    batch = Batch(inputs=inputs, targets=np.zeros(3, np.int64), attention_mask=mask)
    found = summaries(batch).reshape(3, 2, len(SUMMARIES))
    by_name = dict(zip(SUMMARIES, found[0, 0], strict=True))
    assert by_name == pytest.approx(
        {"mean": 5, "deviation": 3, "least": 2, "most": 8, "first": 2, "last": 8, "slope": 3}
    )
    whole = dict(zip(SUMMARIES, found[1, 0], strict=True))
    slope = np.polyfit(np.arange(5), [1, 2, 3, 4, 5], 1)[0]
    assert whole == pytest.approx(
        {
            "mean": 3,
            "deviation": np.std([1, 2, 3, 4, 5]),
            "least": 1,
            "most": 5,
            "first": 1,
            "last": 5,
            "slope": slope,
        }
    )
    assert (found[2] == 0).all()


def test_classifiers_are_those_of_scikit_learn() -> None:
    task = series_of_classes()
    found = {score.name: score for score in fair_baselines(task, 1000)}
    parts = {split: next(iter(task.evaluation(split, 1000, 1000))) for split in ("train", "test")}
    x = {split: summaries(batch) for split, batch in parts.items()}
    y = {split: batch.targets for split, batch in parts.items()}
    for name, words in (("discriminant analysis", "means"), ("logistic regression", "means")):
        score = found[f"{name} on summaries"]
        places = slice(None, None, len(SUMMARIES)) if words in score.about else slice(None)
        scaler = StandardScaler().fit(x["train"][:, places])
        model: Any = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        if name == "logistic regression":
            strength = 1 / float(score.about.split("penalty ")[1])
            model = LogisticRegression(C=strength, max_iter=500)
        model.fit(scaler.transform(x["train"][:, places]), y["train"])
        said = model.predict(scaler.transform(x["test"][:, places]))
        assert score.test["accuracy"] == pytest.approx((said == y["test"]).mean())
    most = np.bincount(y["train"]).argmax()
    assert found["most frequent class"].test["accuracy"] == (y["test"] == most).mean()


def test_what_samples_add_sums_up_to_the_metrics() -> None:
    task = series_of_classes()
    found = fair_baselines(task, 1000)
    assert [score.name for score in found] == NAMES
    for score in found:
        assert score.reason is None
        for split in ("validation", "test"):
            total = weighted_total(score.tallies[split])
            assert task.metrics(total) == pytest.approx(getattr(score, split))


def test_no_classifier_sees_the_test_rows() -> None:
    drawn = np.random.default_rng(2)
    codes = np.arange(600) // 7 % 2
    values = drawn.normal(size=(600, 1)) + codes[:, None]
    task = LabelledSeriesTask(labelled(values, codes, 2), label="kind", context=6)
    first = min(int(stop) for stop in task.stops["test"]) - 1
    changed, other_codes = values.copy(), codes.copy()
    changed[first:], other_codes[first:] = 100.0, 1 - codes[first:]
    other = LabelledSeriesTask(labelled(changed, other_codes, 2), label="kind", context=6)
    for one, two in zip(fair_baselines(task, 1000), fair_baselines(other, 1000), strict=True):
        assert one.about == two.about
        assert one.validation == two.validation
        assert one.test != two.test


@pytest.mark.slow
def test_a_class_that_no_looked_at_window_holds_and_many_classes() -> None:
    drawn = np.random.default_rng(3)
    codes = np.concatenate([np.arange(150), drawn.integers(0, 150, 1850)])
    values = codes[:, None] + 0.1 * drawn.normal(size=(2000, 1))
    task = LabelledSeriesTask(labelled(values, codes, 150), label="kind", context=2)
    found = {score.name: score for score in fair_baselines(task, 300)}
    assert found["most frequent class"].tallies == {}  # 300 matrices of 150 x 150 are too many
    for name in NAMES[:3]:
        assert found[name].reason is None
    assert found["discriminant analysis on summaries"].test["accuracy"] > 0.5  # type: ignore[operator]
    assert fixed_evaluation(task)
