"""A baseline is tried: what it reached, or why it failed; never an error, never a warning."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from loopedge.baselines.scores import BaselineScores
from loopedge.errors import InterruptedRunError, LoopedgeError
from loopedge.tasks.metrics import Metrics, Tally, metric_value
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import Split, Task

__all__ = ["JUDGED", "Best", "CannotFitError", "Judged", "attempt", "judged_by_tallies", "plain"]

JUDGED: tuple[Split, ...] = ("validation", "test")
"""The splits that a baseline is scored on."""


class CannotFitError(LoopedgeError):
    """A baseline does not suit this data; the message says why."""


Candidate = TypeVar("Candidate")


class Best(Generic[Candidate]):
    """What had the lowest loss of all that was offered, simpler ones first.

    Args:
        margin: Share of the lowest loss by which a later one must be below it.
    """

    def __init__(self, margin: float = 0.0) -> None:
        self._margin = margin
        self._found: tuple[float, Candidate] | None = None

    def offer(self, loss: float, candidate: Candidate) -> None:
        """Take a candidate if it is better than those before it."""
        if self._found is None or loss < self._found[0] - self._margin * abs(self._found[0]):
            self._found = loss, candidate

    @property
    def candidate(self) -> Candidate:
        """The best.

        Raises:
            CannotFitError: Nothing was offered.
        """
        if self._found is None:
            raise CannotFitError("nothing could be fitted on the training part")
        return self._found[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a baseline answered, scored.

    Args:
        about: What was fitted and chosen, in one line.
        metrics: By split.
        tallies: By split what each sample adds; empty where the task scores it as a whole.
    """

    about: str
    metrics: dict[Split, Metrics]
    tallies: dict[Split, Tally]


def judged_by_tallies(task: Task, about: str, tallies: dict[Split, Tally]) -> Judged:
    """Return the scores that follow from what each sample adds."""
    metrics = {
        split: plain(task.metrics(weighted_total(tally))) for split, tally in tallies.items()
    }
    return Judged(about=about, metrics=metrics, tallies=tallies)


def plain(metrics: Metrics) -> Metrics:
    """Return metrics as Python's own numbers, as results.json holds them."""
    return {name: None if value is None else float(value) for name, value in metrics.items()}


def attempt(task: Task, name: str, fit: Callable[[], Judged]) -> BaselineScores:
    """Fit and score a baseline.

    Args:
        task: Says which metric decides.
        name: Of the baseline.
        fit: Does it.

    Returns:
        What it reached; its reason where it raised anything, or its metric is not finite.

    Raises:
        InterruptedRunError: The pilot was asked to end.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            judged = fit()
            reason = _unusable(task, judged)
        except InterruptedRunError:  # somebody ends the pilot, not the baseline
            raise
        except LoopedgeError as error:
            judged, reason = None, error.message
        except Exception as error:  # one baseline must not end a pilot
            judged, reason = None, f"{type(error).__name__}: {error}".splitlines()[0]
    seconds = time.perf_counter() - started
    if judged is None or reason is not None:
        return BaselineScores(name=name, seconds=seconds, reason=reason)
    return BaselineScores(
        name=name,
        about=judged.about,
        validation=judged.metrics["validation"],
        test=judged.metrics["test"],
        tallies=judged.tallies,
        seconds=seconds,
    )


def _unusable(task: Task, judged: Judged) -> str | None:
    for split in JUDGED:
        if not math.isfinite(metric_value(judged.metrics[split], task.metric)):
            return f"its {task.metric} on the {split} split is not a finite number"
    return None
