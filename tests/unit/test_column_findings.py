"""What a person should know of columns: constant ones, counters, series at levels far apart."""

from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns
from loopedge.tasks.series import SeriesTask

ROWS = 200
NOISE = np.random.default_rng(0).normal(size=ROWS)


def task_of(*values: Any, names: str = "yx", **options: Any) -> SeriesTask:
    stacked = np.stack(values, axis=1).astype(np.float64)
    columns = Columns(
        names=tuple(names[: stacked.shape[1]]),
        values=stacked,
        observed=~np.isnan(stacked),
        edges=options.pop("edges", None),
        series=options.pop("series", ()),
    )
    return SeriesTask(columns, context=5, horizon=2, **options)


def lines(task: SeriesTask, kind: str) -> list[str]:
    return [finding.line for finding in task.findings if finding.kind == kind]


def test_a_constant_covariate_is_named_with_the_option_that_drops_it() -> None:
    (line,) = lines(task_of(NOISE, np.full(ROWS, 0.1)), "constant")
    assert "column 'x' is 0.1 in every table row" in line
    assert 'leave out covariates="x"' in line


def test_a_constant_target_has_nothing_to_forecast() -> None:
    (line,) = lines(task_of(np.full(ROWS, 7.0)), "constant")
    assert "column 'y' is 7 in every table row: there is nothing to forecast" in line


def test_constant_in_the_training_part_alone() -> None:
    late = np.where(np.arange(ROWS) < 150, 3.0, 4.0)  # 140 rows train
    (line,) = lines(task_of(NOISE, late), "constant")
    assert "column 'x' is 3 in every training row and varies later" in line


def test_constant_in_some_of_many_series_is_counted() -> None:
    values = NOISE.copy()
    values[40:80] = 5.0
    values[80:120] = 6.0
    task = task_of(values, edges=np.arange(0, 201, 40), series=("a", "b", "c", "d", "e"), group="g")
    (line,) = lines(task, "constant")
    assert "column 'y' is constant in 2 of 5 series, the first 'b'" in line


def test_rounding_of_a_computed_constant_is_no_swing() -> None:
    computed = (0.1 + np.arange(ROWS)) - np.arange(ROWS)
    assert lines(task_of(NOISE, computed * 0 + (0.1 + 0.2)), "constant")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", ["steady", "any"])
def test_a_counter_is_named_with_how_much_lies_beyond(sign: int, step: str) -> None:
    counter = sign * np.cumsum(np.ones(ROWS) if step == "steady" else np.abs(NOISE))
    (line,) = lines(task_of(NOISE, counter), "drift")
    trained, tested = counter[:140], counter[170:]
    beyond = np.mean((tested < trained.min()) | (tested > trained.max()))
    assert (
        f"column 'x' only {'rises' if sign > 0 else 'falls'}: {beyond:.0%} of the test rows" in line
    )
    assert 'scaling="window"' in line
    assert 'leave out covariates="x"' in line
    assert not lines(task_of(NOISE, counter, scaling="window"), "drift")


def test_a_target_that_only_rises_is_named_too() -> None:
    (line,) = lines(task_of(np.cumsum(np.abs(NOISE))), "drift")
    assert "column 'y' only rises" in line
    assert "leave out" not in line


def test_what_rises_and_falls_or_stays_within_is_no_counter() -> None:
    assert not lines(task_of(NOISE, np.arange(ROWS) % 24), "drift")
    assert not lines(task_of(NOISE), "drift")
    steps = np.minimum(np.arange(ROWS), 20)  # rises at first, then stays
    assert not lines(task_of(NOISE, steps), "drift")


def test_a_count_that_begins_anew_in_each_series_is_a_counter() -> None:
    within = np.tile(
        np.arange(40.0), 5
    )  # hours of a run: beyond in each, for each is split by time
    task = task_of(NOISE, within, edges=np.arange(0, 201, 40), series=tuple("abcde"), group="g")
    assert lines(task, "drift")


def test_levels_far_apart_are_named_with_the_option() -> None:
    values = np.concatenate([1 + 0.1 * NOISE[:100], 40_000 + 4_000 * NOISE[:100]])
    task = task_of(values, edges=np.array([0, 100, 200]), series=("a", "b"), group="g")
    (line,) = lines(task, "series")
    means = values[:70].mean(), values[100:170].mean()
    assert f"{means[0]:.4g} to {means[1]:,.0f} on average in 2 series, and 1 of them" in line
    assert 'scaling="window"' in line
    windowed = task_of(
        values, edges=np.array([0, 100, 200]), series=("a", "b"), group="g", scaling="window"
    )
    assert not lines(windowed, "series")


def test_levels_within_their_swings_are_not_named() -> None:
    values = np.concatenate([NOISE[:100], 3 + NOISE[100:]])
    task = task_of(values, edges=np.array([0, 100, 200]), series=("a", "b"), group="g")
    assert not lines(task, "series")


@pytest.mark.parametrize(
    ("value", "others", "named"),
    [
        (-999.0, 20 + NOISE, "-999"),
        (9999.9, 20 + NOISE, "9999.9"),
        (-32768.0, 20 + NOISE, "-32768"),
        (-999.25, 20 + NOISE, "-999.25"),
        (99.0, 60 + 30 * np.sin(np.arange(ROWS)), None),  # as likely a value as any
        (-999.0, 4000 * NOISE, None),
        (-1000.0, 20 + NOISE, None),
    ],
)
def test_a_number_that_may_stand_for_a_missing_value_is_named(
    value: float, others: Any, named: str | None
) -> None:
    values = others.copy()
    values[[3, 90, 150]] = value
    found = [line for line in lines(task_of(values), "left-out") if "may stand" in line]
    assert len(found) == (named is not None)
    if named is not None:
        rest = values[values != value]
        assert (
            f"column 'y' is {named} in 3 table rows, and {rest.min():.4g} to {rest.max():.4g} in all"
            in found[0]
        )
        assert f"na_values=('{named}',)" in found[0]
