"""From a task to its description: each family of figures that the data has, then what to act on."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loopedge.baselines.fair import fair_baselines
from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.diagnosis import Diagnosis
from loopedge.diagnosis.duplicates import advise_duplicates, measure_duplicates
from loopedge.diagnosis.lengths import advise_lengths, measure_lengths
from loopedge.diagnosis.options import DiagnoseOptions
from loopedge.diagnosis.tables.classes import advise_classes, measure_classes
from loopedge.diagnosis.tables.drift import advise_scaling, measure_drift
from loopedge.diagnosis.tables.forecastability import advise_horizon, measure_forecastability
from loopedge.diagnosis.tables.jumps import advise_jumps, measure_jumps
from loopedge.diagnosis.tables.lagged import Lagged, lagged
from loopedge.diagnosis.tables.look_back import LookBack, advise_context, find_look_back
from loopedge.diagnosis.tables.season import Season, advise_season, measure_season
from loopedge.diagnosis.tables.surrogate import MOST_FEATURES, check_extra
from loopedge.diagnosis.test_split import TestSplit, advise_origins, measure_test_split
from loopedge.diagnosis.vocabulary import advise_vocabulary, measure_vocabulary
from loopedge.errors import InputError
from loopedge.options import option_name, with_keywords
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.splits import rows_needed
from loopedge.tasks.task import HOMES, SPLITS, Task
from loopedge.tasks.text import TextTask

__all__ = ["Diagnosis", "at_found_context", "diagnose", "find_rows"]

LEAST_LOOK_BACK = 32
MOST_LOOK_BACK = 512
LEAST_HELD = 8
"""Validation windows below which nothing is measured on them."""
LEAST_CONTEXT = 4

Tables = SeriesTask | LabelledSeriesTask


def diagnose(task: Task, options: DiagnoseOptions | None = None, **keywords: Any) -> Diagnosis:
    """Describe the data of a task before any training: what it holds, and what its test split can see.

    It is a description, never a prediction of what loops or a timestep encoding are worth: docs/diagnose.md says what was
    tried, and how far it went.

    Args:
        task: Of data of your own: `SeriesTask`, `LabelledSeriesTask`, `TextTask`, `PairsTask`, or a task of your own.
        options: How much is looked at; default: the defaults.
        keywords: Fields of `DiagnoseOptions`; they win.

    Returns:
        Figures by family, and what to act on, the most important first.

    Raises:
        InputError: The task generates its data.
        MissingExtraError: scikit-learn is not installed.
    """
    chosen = with_keywords("diagnose", DiagnoseOptions, options, keywords)
    if task.name in HOMES and not isinstance(task, Tables | TextTask | PairsTask):
        raise InputError(
            f"the task {task.name} generates its samples: there is no data to describe",
            hint="loopedge diagnose data.csv --target COLUMN",
        )
    check_extra()
    started = time.perf_counter()
    found = _of_table(task, chosen) if isinstance(task, Tables) else _of_any(task, chosen)
    advice = sorted(found.advice, key=lambda each: -each.weight)
    return replace(found, advice=_once(advice), seconds=time.perf_counter() - started)


def at_found_context(
    task: Tables, options: DiagnoseOptions | None = None, *, min_context: int | None = None
) -> Tables:
    """Return the task with the context that its look-back asks for, where its user named none.

    Args:
        task: With whatever context.
        options: How far back is searched.
        min_context: Least table rows of history that its user named.
    """
    check_extra()
    if isinstance(task, LabelledSeriesTask) and task.group is not None:
        lengths = np.diff(task.columns.bounds)
        longest = int(lengths.max())
        least = int(lengths.min()) if min_context is None else min_context
        return task.at_context(longest, min_context=min(least, longest))
    season = measure_season(task) if isinstance(task, SeriesTask) else None
    look_back = find_rows(task, options or DiagnoseOptions(), season)
    enough = None if look_back is None else look_back[0].enough
    return task.at_context(
        max(enough or 1, LEAST_CONTEXT, min_context or 1), min_context=min_context
    )


def _of_table(task: Tables, options: DiagnoseOptions) -> Diagnosis:
    """Describe forecasts or labels of a table."""
    season = drift = jumps = classes = None
    advice: list[Advice] = []
    if isinstance(task, SeriesTask):
        season, drift, jumps = measure_season(task), measure_drift(task), measure_jumps(task)
        advice += [] if drift is None else advise_scaling(drift, scaled_by=task.scaled_by)
        advice += [] if jumps is None else advise_jumps(jumps)
    else:
        classes = measure_classes(task)
        advice += advise_classes(classes)
    searched = find_rows(task, options, season)
    forecastability = None
    if searched is not None:
        look_back, held = searched
        forecastability = measure_forecastability(held, look_back)
        if np.ptp(held.targets, axis=0).any():  # what never changes is named by the file's faults
            advice += advise_horizon(forecastability, look_back)
        if not _whole_series(task):
            advice += advise_context(look_back)
    if season is not None:
        measured = searched is not None and searched[0].rows is not None
        advice += advise_season(season, None if measured else task.context)
    lengths = measure_lengths(task, options.samples)
    advice += [] if lengths is None else advise_lengths(lengths)
    duplicates = None
    if not isinstance(task, SeriesTask):  # windows of forecasts that stand still repeat each other
        duplicates = measure_duplicates(task, options.samples)
        advice += advise_duplicates(duplicates)
    test_split = _test_split(task, options)
    if test_split is not None:
        advice += advise_origins(
            test_split, may_roll=_may_roll(task), rolled=getattr(task, "origin", None) is not None
        )
    return Diagnosis(
        task=task.name,
        subject=_subject(task),
        windows={split: task.available(split) for split in SPLITS},
        advice=advice,
        findings=task.findings,
        forecastability=forecastability,
        look_back=None if searched is None else searched[0],
        season=season,
        drift=drift,
        jumps=jumps,
        test_split=test_split,
        lengths=lengths,
        classes=classes,
        duplicates=duplicates,
        vocabulary=None,
        seconds=0.0,
    )


def _of_any(task: Task, options: DiagnoseOptions) -> Diagnosis:
    """Describe texts, pairs and tasks of one's own: lengths, tokens, duplicates, and what the test split sees."""
    lengths = measure_lengths(task, options.samples)
    vocabulary = measure_vocabulary(task, options.samples)
    duplicates = measure_duplicates(task, options.samples)
    test_split = _test_split(task, options)
    advice = advise_duplicates(duplicates)
    advice += [] if lengths is None or isinstance(task, TextTask) else advise_lengths(lengths)
    advice += [] if vocabulary is None else advise_vocabulary(vocabulary)
    advice += [] if test_split is None else advise_origins(test_split, may_roll=False, rolled=False)
    counts = {split: task.available(split) for split in SPLITS}
    return Diagnosis(
        task=task.name,
        subject=_subject(task),
        windows={split: count for split, count in counts.items() if count is not None},
        advice=advice,
        findings=(),
        forecastability=None,
        look_back=None,
        season=None,
        drift=None,
        jumps=None,
        test_split=test_split,
        lengths=lengths,
        classes=None,
        duplicates=duplicates,
        vocabulary=vocabulary,
        seconds=0.0,
    )


def find_rows(
    task: Tables, options: DiagnoseOptions, season: Season | None = None
) -> tuple[LookBack, Lagged] | None:
    """Return the look-back and the windows that judged it; None where there are too few of them.

    Args:
        task: Windows of a table.
        options: How much is looked at.
        season: Of the table; twice its period is searched at least.
    """
    rows = options.look_back or _searched(task, season)
    rows = max(1, min(rows, MOST_FEATURES // len(task.columns.names)))
    fit = lagged(task, "train", lags=rows, most=options.windows, seed=options.seed)
    held = lagged(task, "validation", lags=rows, most=options.windows // 2, seed=options.seed)
    if len(fit.targets) < LEAST_HELD or len(held.targets) < LEAST_HELD:
        return None
    return find_look_back(fit, held, context=task.context, searched=rows), held


def _searched(task: Tables, season: Season | None) -> int:
    """Return how many rows are searched where the user does not say: twice the context and the season."""
    longest = int(np.diff(task.columns.piece_bounds).max())
    if _whole_series(task):
        return min(longest, MOST_LOOK_BACK)
    wanted = max(2 * task.context, LEAST_LOOK_BACK)
    if season is not None and season.period is not None:
        wanted = max(wanted, 2 * season.period + 1)
    return max(1, min(wanted, MOST_LOOK_BACK, longest // 4))


def _whole_series(task: Tables) -> bool:
    return isinstance(task, LabelledSeriesTask) and task.group is not None


def _test_split(task: Task, options: DiagnoseOptions) -> TestSplit | None:
    """Judge the baselines, and see what tells two of them apart."""
    baselines = fair_baselines(task, options.samples)
    if isinstance(task, TextTask):  # windows follow each other, and do not overlap
        windows = np.zeros(min(options.samples, task.available("test")), np.int64)
        return measure_test_split(task, baselines, series=windows, seed=options.seed)
    if not isinstance(task, Tables) or _whole_series(task):
        return measure_test_split(task, baselines, seed=options.seed)
    stops = task.evaluated_stops("test", options.samples)
    ahead = task.horizon if isinstance(task, SeriesTask) else task.context
    stride = max(1, len(task.stops["test"]) // max(1, len(stops)))
    return measure_test_split(
        task,
        baselines,
        series=task.columns.series_of(stops - 1),
        overlap=-(-ahead // stride),
        seed=options.seed,
    )


def _may_roll(task: Tables) -> bool:
    """Tell whether a task has rows for several origins."""
    if not isinstance(task, SeriesTask):
        return False
    rows = int(np.diff(task.columns.bounds).max())
    return rows >= rows_needed(task.min_context, task.horizon, 5)


def _once(advice: Sequence[Advice]) -> list[Advice]:
    """Leave out a second advice of another context: the first one matters more."""
    context = option_name("context")
    named = [each for each in advice if each.option and each.option.startswith(context)]
    return [each for each in advice if each not in named[1:]]


def _subject(task: Task) -> str:
    """Say what was looked at: ``sunspots, 12 rows ahead, from 48``."""
    if isinstance(task, SeriesTask):
        names = ", ".join(task.columns.names[: task.targets])
        ahead = "1 row" if task.horizon == 1 else f"{task.horizon} rows"
        return f"{names}, {ahead} ahead, seeing {task.context}"
    if isinstance(task, LabelledSeriesTask):
        what = f"of whole series by {task.group}" if task.group is not None else "of the last row"
        return f"{task.label}, the label {what}, seeing {task.context} rows"
    return task.name
