"""Which forecasts of a model the page may plot, and what stands in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.baselines.series.all import refitted
from loopedge.runtime.session import Session
from loopedge.study.design import Cell
from loopedge.study.judging.statements import Candidate, Decision
from loopedge.study.judging.verdict import Verdict, subject_of
from loopedge.study.plotted.window import ChosenBy, PlottedWindow
from loopedge.study.runs.blocks import BlockTasks
from loopedge.study.runs.cell import cell_path
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array, Task

__all__ = ["choose_windows", "plot_windows", "windows_of_pilot"]

BATCH_SIZE = 64
WORST = 0.9
"""Quantile of the errors at which the worst tenth begins."""
HISTORY = 4
"""Horizons of history that are plotted before a forecast, at least `LEAST_HISTORY` values."""
LEAST_HISTORY = 24
Forecaster = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The test windows of a model: values before each, what followed, what it forecast; float64 (windows, rows)."""

    history: Array
    truth: Array
    forecast: Array


def windows_of_pilot(
    tasks: BlockTasks, setup: RunSetup, cells: Sequence[dict[str, Any]], verdict: Verdict
) -> list[PlottedWindow]:
    """Return the windows of the model that the verdict is about: of its first seed, at the last origin.

    Args:
        tasks: Of the blocks.
        setup: Of the runs.
        cells: Their results.
        verdict: Of the pilot.

    Raises:
        LoopedgeError: The model cannot be run.
    """
    decision = verdict.statements[0]
    subject = subject_of(verdict.choice, decision) if isinstance(decision, Decision) else None
    made = [
        Cell(arm=one["arm"], loops=one["loops"], seed=one["seed"], origin=one.get("origin"))
        for one in cells
        if one["status"] == "done"
    ]
    mine = [cell for cell in made if subject == Candidate(arm=cell.arm, loops=cell.loops)]
    if subject is None or not mine:
        return []
    cell = min(mine, key=lambda cell: (cell.seed, -(cell.origin or 0)))
    task = tasks.of(cell)
    return plot_windows(
        task,
        cell_path(setup.folder, cell).with_name("model.onnx"),
        subject,
        samples=setup.design.train_config(cell).samples,
        baseline=None if verdict.baseline is None else str(verdict.baseline["name"]),
    )


def plot_windows(
    task: Task,
    model: Path,
    candidate: Candidate,
    *,
    samples: int,
    baseline: str | None = None,
) -> list[PlottedWindow]:
    """Return a few windows of the test split: two of median error and one at the limit of the worst tenth.

    Of several targets the first one is plotted.

    Args:
        task: Of the block that the model was trained in.
        model: The exported float model.
        candidate: What it is.
        samples: Most windows that are judged, as those of the pilot.
        baseline: The strongest plain baseline, which is fitted again; None: there is none.

    Returns:
        None of a task that is no forecast.
    """
    if not isinstance(task, SeriesTask):
        return []
    judged = _judge(task, model, samples)
    errors = _errors(judged.forecast, judged.truth)
    stops = task.evaluated_stops("test", samples)
    forecaster = None if baseline is None else refitted(task, baseline, samples)
    return [
        _window(task, candidate, chosen_by, number, judged, stops, baseline, forecaster)
        for chosen_by, number in choose_windows(errors)
    ]


def choose_windows(errors: Array) -> list[tuple[ChosenBy, int]]:
    """Return which windows are plotted.

    Args:
        errors: float64 (windows,), NaN where nothing was observed.

    Returns:
        The two whose errors stand in the middle, then the one that a tenth of all is worse than; of few windows
        fewer, none twice.
    """
    order = [int(number) for number in np.argsort(errors) if np.isfinite(errors[number])]
    if not order:
        return []
    middle = (len(order) - 1) // 2
    found: list[tuple[ChosenBy, int]] = [("median", order[middle])]
    if len(order) > 2:
        found.append(("median", order[middle + 1]))
    worst = order[int(np.ceil(WORST * len(order))) - 1]
    if worst not in (number for _, number in found):
        found.append(("worst", worst))
    return found


def _judge(task: SeriesTask, model: Path, samples: int) -> _Judged:
    session = Session(model, threads=1)
    names, output = session.expected.sampled, session.output_names[0]
    kept = max(HISTORY * task.horizon, LEAST_HISTORY)
    parts = []
    for batch in task.evaluation("test", BATCH_SIZE, samples):
        past = np.asarray(batch.inputs[..., 0], np.float64)
        if batch.attention_mask is not None:
            past = np.where(batch.attention_mask > 0, past, np.nan)
        outputs = np.asarray(session.run(batch.feeds(names))[output], np.float64)
        forecast = outputs.reshape(batch.targets.shape)[..., 0]
        parts.append((past[:, -kept:], batch.targets[..., 0], forecast))
    history, truth, forecast = (np.concatenate(each) for each in zip(*parts, strict=True))
    return _Judged(history=history, truth=truth, forecast=forecast)


def _errors(forecast: Array, truth: Array) -> Array:
    """Return the root mean square error of each window over the values that were observed."""
    squares = np.square(forecast - truth)
    seen = np.isfinite(truth)
    total = np.where(seen, squares, 0.0).sum(axis=-1)
    count = seen.sum(axis=-1)
    errors: Array = np.sqrt(
        np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    )
    return errors


def _window(
    task: SeriesTask,
    candidate: Candidate,
    chosen_by: ChosenBy,
    number: int,
    judged: _Judged,
    stops: Array,
    baseline: str | None,
    forecaster: Forecaster | None,
) -> PlottedWindow:
    truth, forecast = judged.truth[number], judged.forecast[number]
    other = None
    if forecaster is not None:
        other = forecaster(stops[number : number + 1])[0, :, 0]
    series = task.columns.series
    of = int(task.columns.series_of(stops[number : number + 1] - 1)[0])
    return PlottedWindow(
        arm=candidate.arm,
        loops=candidate.loops,
        chosen_by=chosen_by,
        sample=number,
        target=task.columns.names[0],
        series=str(series[of]) if series else None,
        error=float(_errors(forecast[None], truth[None])[0]),
        history=_plain(judged.history[number]),
        truth=_plain(truth),
        forecast=_plain(forecast),
        baseline_name=None if other is None else baseline,
        baseline_error=None if other is None else float(_errors(other[None], truth[None])[0]),
        baseline=None if other is None else _plain(other),
    )


def _plain(values: Array) -> list[float | None]:
    """Return values with six digits; None where there is none."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
