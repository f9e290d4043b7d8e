"""Labels without a network: the most frequent class, and regressions on what sums a window up."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopedge.baselines.attempts import JUDGED, Best, CannotFitError, Judged, attempt
from loopedge.baselines.scores import BaselineScores
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.sample_tallies import joined, sample_tallies
from loopedge.tasks.task import Array, Batch, Split

__all__ = ["SUMMARIES", "label_baselines", "summaries"]

SUMMARIES = ("mean", "deviation", "least", "most", "first", "last", "slope")
"""What is known of each column in a window."""
MOST_WINDOWS = 8_000
"""Training windows that are looked at."""
MOST_NUMBERS = 4_000_000
"""Numbers of all tallies: a confusion matrix a sample."""
AT_ONCE = 128
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse penalties of logistic regression."""
LEAVES, TREES = 15, (25, 50, 100)
MOST_TREES = 900
"""A class has trees of its own."""
SEED = 0
Answer = Callable[[Array], Array]
"""Summaries (windows, features) to log-probabilities (windows, classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summed:
    """Windows summed up: float64 (windows, features), and their classes."""

    features: Array
    labels: Array


class _Fitting:
    """What a classifier is fitted, chosen and judged on."""

    def __init__(self, task: LabelledSeriesTask, samples: int) -> None:
        self.task = task
        self.parts = {split: self._summed(split, samples) for split in JUDGED}
        self._training: _Summed | None = None

    def _summed(self, split: Split, samples: int) -> _Summed:
        found = [
            (summaries(batch), batch.targets)
            for batch in self.task.evaluation(split, AT_ONCE, samples)
        ]
        features, labels = zip(*found, strict=True)
        return _Summed(features=np.concatenate(features), labels=np.concatenate(labels))

    @property
    def training(self) -> _Summed:
        """The training windows, or evenly spaced ones of many; summed up when first asked for."""
        if self._training is None:
            self._training = self._summed("train", MOST_WINDOWS)
        return self._training

    def loss(self, answer: Answer) -> float:
        """Return the metric that decides on the validation windows, lower is better; ties by likelihood."""
        task, part = self.task, self.parts["validation"]
        outputs = answer(part.features)
        value = metric_value(task.score(outputs, part.labels), task.metric)
        value = -value if task.higher_is_better else value
        likely = outputs[np.arange(len(outputs)), part.labels]
        return value - 1e-9 * float(np.maximum(likely, -1e3).mean())

    def judge(self, answer: Answer, about: str) -> Judged:
        """Score answers of the validation and the test windows, sample by sample."""
        metrics, tallies = {}, {}
        task = self.task
        for split, part in self.parts.items():
            outputs = answer(part.features)
            metrics[split] = task.score(outputs, part.labels)
            if len(outputs) * len(task.classes) ** 2 <= MOST_NUMBERS:
                batch = Batch(inputs=part.features, targets=part.labels)
                tallies[split] = joined([sample_tallies(task, outputs, batch)])
        return Judged(about=about, metrics=metrics, tallies=tallies)


def label_baselines(task: LabelledSeriesTask, samples: int) -> list[BaselineScores]:
    """Fit and score every classifier.

    Args:
        task: Labels of windows.
        samples: Most windows of a split.
    """
    fitting = _Fitting(task, samples)
    return [
        attempt(task, "most frequent class", lambda: _most_frequent(fitting)),
        attempt(task, "discriminant analysis on summaries", lambda: _discriminant(fitting)),
        attempt(task, "logistic regression on summaries", lambda: _logistic(fitting)),
        attempt(task, "boosting on summaries", lambda: _boosting(fitting)),
    ]


def summaries(batch: Batch) -> Array:
    """Sum each window up, column by column, over the values that are there: float64 (windows, columns * 7).

    A column without any value in a window has zeros. The slope is per row, by least squares.
    """
    values = batch.inputs.astype(np.float64)
    seen = ~np.isnan(values)
    if batch.attention_mask is not None:
        seen &= batch.attention_mask.astype(bool)[:, :, None]
    kept = np.where(seen, values, 0.0)
    counts = seen.sum(axis=1)
    least_one = np.maximum(1, counts)
    mean = kept.sum(axis=1) / least_one
    centred = np.where(seen, values - mean[:, None], 0.0)
    rows = np.arange(values.shape[1])[:, None]
    first, last = seen.argmax(axis=1), values.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)
    middle = np.where(seen, rows, 0).sum(axis=1) / least_one
    apart = np.where(seen, rows - middle[:, None], 0.0)
    spread = np.square(apart).sum(axis=1)
    found = {
        "mean": mean,
        "deviation": np.sqrt(np.square(centred).sum(axis=1) / least_one),
        "least": np.where(seen, values, np.inf).min(axis=1),
        "most": np.where(seen, values, -np.inf).max(axis=1),
        "first": np.take_along_axis(kept, first[:, None], axis=1)[:, 0],
        "last": np.take_along_axis(kept, last[:, None], axis=1)[:, 0],
        "slope": (centred * apart).sum(axis=1) / np.where(spread > 0, spread, 1.0),
    }
    stacked = np.stack([found[name] for name in SUMMARIES], axis=-1)  # (windows, columns, 7)
    stacked = np.where((counts > 0)[:, :, None], stacked, 0.0)
    return stacked.reshape(len(values), -1)


def _most_frequent(fitting: _Fitting) -> Judged:
    task = fitting.task
    counts = task.counts["train"]
    shares = np.log((counts + 1.0) / (counts + 1.0).sum())

    def answer(features: Array) -> Array:
        return np.broadcast_to(shares, (len(features), len(shares)))

    name = task.classes[int(counts.argmax())]
    return fitting.judge(
        answer, f"{name!r}, {counts.max() / counts.sum():.1%} of the training part"
    )


def _discriminant(fitting: _Fitting) -> Judged:
    """Fit linear discriminant analysis, its covariance shrunk by Ledoit and Wolf's rule, to each set of summaries."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    training = _two_classes(fitting)
    best: Best[tuple[str, Answer]] = Best()
    for words, places in _sets(training.features.shape[1]).items():
        model = make_pipeline(
            StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        )
        model.fit(training.features[:, places], training.labels)
        answer = _answer(model, places, len(fitting.task.classes))
        best.offer(fitting.loss(answer), (words, answer))
    words, answer = best.candidate
    return fitting.judge(answer, f"{words}, covariance shrunk by Ledoit and Wolf's rule")


def _logistic(fitting: _Fitting) -> Judged:
    """Fit each set of summaries and each penalty; the validation windows choose."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    training = _two_classes(fitting)
    best: Best[tuple[str, float, Answer]] = Best()
    for words, places in _sets(training.features.shape[1]).items():
        for strength in STRENGTHS:
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=strength, max_iter=500, random_state=SEED)
            )
            model.fit(training.features[:, places], training.labels)
            answer = _answer(model, places, len(fitting.task.classes))
            best.offer(fitting.loss(answer), (words, strength, answer))
    words, strength, answer = best.candidate
    return fitting.judge(answer, f"{words}, penalty {1 / strength:g}")


def _boosting(fitting: _Fitting) -> Judged:
    """Fit trees; the validation windows choose how many."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    training = _two_classes(fitting)
    classes = len(fitting.task.classes)
    most = max(5, min(TREES[-1], MOST_TREES // classes))
    model = HistGradientBoostingClassifier(
        max_iter=most,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=max(2, min(20, len(training.labels) // (4 * classes))),
        early_stopping=False,
        random_state=SEED,
    )
    model.fit(training.features, training.labels)
    best: Best[tuple[int, Answer]] = Best()
    for trees in sorted({min(trees, most) for trees in TREES}):
        answer = _staged(model, trees, classes)
        best.offer(fitting.loss(answer), (trees, answer))
    trees, answer = best.candidate
    return fitting.judge(answer, f"all summaries, {trees} trees of {LEAVES} leaves for each class")


def _staged(model: Any, trees: int, classes: int) -> Answer:
    def answer(features: Array) -> Array:
        stages = model.staged_predict_proba(features)
        shares = next(itertools.islice(stages, trees - 1, None))
        return _logarithms(model, shares, classes)

    return answer


def _two_classes(fitting: _Fitting) -> _Summed:
    training = fitting.training
    found = len(np.unique(training.labels))
    if found < 2:
        raise CannotFitError(
            f"the training windows that are looked at hold {found} class, 2 are needed"
        )
    return training


def _sets(features: int) -> dict[str, Array]:
    """Return which features are tried together: the means alone, or all."""
    every = np.arange(features)
    return {"means": every[:: len(SUMMARIES)], "all summaries": every}


def _answer(model: Any, places: Array, classes: int) -> Answer:
    """Return what a fitted classifier says of every class."""

    def answer(features: Array) -> Array:
        return _logarithms(model, model.predict_proba(features[:, places]), classes)

    return answer


def _logarithms(model: Any, shares: Array, classes: int) -> Array:
    """Return log-probabilities of all classes; one that the classifier has not seen has no chance."""
    outputs = np.full((len(shares), classes), -np.inf)
    outputs[:, model.classes_] = np.log(shares + 1e-300)
    return outputs
