"""Prediction intervals by split conformal: right values by sorting errors one by one."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from loopedge.data.description import description_problem
from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
from loopedge.tasks.intervals import (
    LEVELS,
    Forecasts,
    Intervals,
    fit_intervals,
    needed,
    window_deviations,
)
from loopedge.tasks.series import SeriesTask

Array = Any
HORIZON, TARGETS = 3, 2


def drawn(windows: int, seed: int, *, missing: float = 0.0, series: int = 1) -> Forecasts:
    """Return forecasts of 0 of normal values that spread by step and target."""
    generator = np.random.default_rng(seed)
    spread = np.arange(1, 1 + HORIZON * TARGETS).reshape(HORIZON, TARGETS)
    targets = generator.normal(size=(windows, HORIZON, TARGETS)) * spread
    targets[generator.random(targets.shape) < missing] = np.nan
    return Forecasts(
        outputs=np.zeros(targets.shape, np.float32),
        targets=targets,
        deviations=generator.uniform(0.5, 1.5, size=(windows, TARGETS)),
        series=np.arange(windows) % series,
        context=8,
    )


def quantile(errors: Array, percent: int) -> float | None:
    """Return the ceil((n + 1) p)-th smallest absolute error, None where there are fewer."""
    known = sorted(abs(error) for error in errors if not math.isnan(error))
    rank = math.ceil(Fraction(percent, 100) * (len(known) + 1))
    return known[rank - 1] if rank <= len(known) else None


def fitted(*arguments: Any, **options: Any) -> Intervals:
    intervals, _ = fit_intervals(*arguments, **options)
    assert intervals is not None
    return intervals


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("windows", [60, 99, 137])
def test_half_widths_are_order_statistics_of_each_step_and_target(
    windows: int, missing: float
) -> None:
    validation = drawn(windows, 0, missing=missing)
    intervals = fitted(validation, drawn(50, 1))
    assert [level.percent for level in intervals.levels] == list(LEVELS)
    for level in intervals.levels:
        for step in range(HORIZON):
            for place in range(TARGETS):
                wanted = quantile(validation.errors[:, step, place], level.percent)
                assert level.high[step, place] == wanted
                assert level.low[step, place] == -level.high[step, place]


def test_coverage_and_width_are_counted_value_by_value() -> None:
    validation, test = drawn(80, 0), drawn(60, 1, missing=0.2, series=2)
    intervals = fitted(validation, test, names=("north", "south"), unit="raw")
    for level in intervals.levels:
        coverage = level.coverage
        assert coverage is not None
        inside = np.full(test.targets.shape, np.nan)
        for place, value in np.ndenumerate(test.targets):
            if not math.isnan(value):
                inside[place] = abs(value) <= level.high[place[1:]]
        assert coverage.share == pytest.approx(np.nanmean(inside))
        np.testing.assert_allclose(np.array(coverage.step_share, float), np.nanmean(inside, axis=0))
        np.testing.assert_allclose(np.array(coverage.step_width, float), 2 * level.high)
        counts = (~np.isnan(inside)).sum(axis=0)
        mean_width = (2 * level.high * counts).sum(axis=0) / counts.sum(axis=0)
        np.testing.assert_allclose(np.array(coverage.width, float), mean_width)
        shares = [np.nanmean(inside[test.series == number]) for number in range(2)]
        assert coverage.worst_share == pytest.approx(min(shares))
        assert coverage.worst_series == ("north", "south")[int(np.argmin(shares))]


def test_values_like_those_of_the_validation_split_are_covered() -> None:
    shares: list[list[Any]] = []
    for seed in range(40):
        intervals = fitted(drawn(40, seed), drawn(400, 1000 + seed))
        shares.append([level.coverage.share for level in intervals.levels if level.coverage])
    mean = np.mean(shares, axis=0)
    # Of exchangeable values: between p and p + 1 / (n + 1), here 0.8 to 0.824 and 0.95 to 0.974.
    assert 0.79 < mean[0] < 0.83
    assert 0.945 < mean[1] < 0.98


@pytest.mark.parametrize(
    ("windows", "levels"), [(3, []), (4, [80]), (18, [80]), (19, [80, 95]), (39, [80, 95])]
)
def test_a_level_that_needs_more_windows_is_left_out(windows: int, levels: list[int]) -> None:
    intervals, findings = fit_intervals(drawn(windows, 0), drawn(windows, 0))
    assert levels == ([] if intervals is None else [level.percent for level in intervals.levels])
    said = [finding.message for finding in findings if "too few" in finding.message]
    assert said == [
        f"no {percent} % interval: {windows} validation windows are too few, it needs {least}"
        for percent, least in ((80, 4), (95, 19))
        if percent not in levels
    ]
    assert (needed(80), needed(95), needed(80, "apart"), needed(95, "apart")) == (4, 19, 9, 39)


@pytest.mark.parametrize(("available", "hint"), [(300, "samples=19"), (12, None), (18, None)])
def test_where_windows_were_thinned_the_option_is_named(available: int, hint: str | None) -> None:
    _, findings = fit_intervals(drawn(12, 0), drawn(12, 1), available=available)
    assert findings[0].hint == hint


def test_the_step_with_the_fewest_values_decides_what_is_left_out() -> None:
    validation = drawn(40, 0)
    validation.targets[:25, 2, 1] = np.nan
    intervals, findings = fit_intervals(validation, drawn(40, 1))
    assert intervals is not None
    assert [level.percent for level in intervals.levels] == [80]
    assert findings[0].message.startswith("no 95 % interval: 15 validation windows are too few")


def test_sides_apart_leave_half_outside_on_each_side() -> None:
    validation = drawn(99, 0)
    intervals = fitted(validation, drawn(30, 1), sides="apart")
    ordered = np.sort(validation.errors, axis=0)
    by_level = {level.percent: level for level in intervals.levels}
    np.testing.assert_array_equal(by_level[80].high, ordered[90 - 1])
    np.testing.assert_array_equal(by_level[80].low, ordered[10 - 1])


def test_what_fails_on_the_test_split_is_said() -> None:
    test = drawn(50, 1)
    test.targets[:] *= 10
    intervals, findings = fit_intervals(drawn(80, 0), test)
    assert intervals is not None
    assert len(findings) == 2
    for level, finding in zip(intervals.levels, findings, strict=True):
        assert level.coverage is not None
        assert level.coverage.share is not None
        assert f"the {level.percent} % interval holds {level.coverage.share:.1%} of the test" in (
            finding.message
        )
    nothing = drawn(30, 1)
    nothing.targets[:] = np.nan
    for level in fitted(drawn(80, 0), nothing).levels:
        assert level.coverage is not None
        assert level.coverage.share is None
        assert level.coverage.width == [None, None]


def test_deviations_of_windows() -> None:
    inputs = np.random.default_rng(0).normal(size=(5, 6, 2)) * 3 + 50
    inputs[0, :3, 0] = np.nan
    inputs[1, :, 1] = 0.1  # never changes, though the mean is not 0.1 to the last bit
    inputs[2, :, 0] = np.nan
    inputs[3, 1:, 1] = np.nan
    mask = np.ones((5, 6), np.int64)
    mask[4, :2] = 0
    found = window_deviations(inputs, mask)
    assert found[0, 0] == pytest.approx(np.nanstd(inputs[0, :, 0]))
    assert found[0, 1] == pytest.approx(inputs[0, :, 1].std())
    np.testing.assert_allclose(found[4], inputs[4, 2:].std(axis=0))
    assert np.isnan([found[1, 1], found[2, 0], found[3, 1]]).all()
    assert np.isnan(found).sum() == 3
    level = 1e12 + np.arange(6.0)[None, :, None]
    assert window_deviations(level) == pytest.approx(np.arange(6).std())


def test_intervals_in_units_of_the_window() -> None:
    validation, test = drawn(60, 0, series=2), drawn(40, 1, series=2)
    for array in (validation.deviations, validation.targets):
        array[::2] *= 1000
    validation.deviations[1, 0] = np.nan
    intervals = fitted(validation, test, names=("a", "b"))
    assert intervals.unit == "window"
    still = [np.nanquantile(validation.deviations[:, place], 0.1) for place in range(2)]
    np.testing.assert_allclose(intervals.still, still)
    units = validation.deviations.copy()
    units[1, 0] = still[0]
    scaled = validation.targets / units[:, None, :]
    around = intervals.around(test.outputs, intervals.units_of(test.deviations))
    for level in intervals.levels:
        for step in range(HORIZON):
            for place in range(TARGETS):
                half = quantile(scaled[:, step, place], level.percent)
                assert half is not None
                low, high = around[level.percent]
                wide = half * test.deviations[:, place]
                np.testing.assert_allclose(high[:, step, place], wide)
                np.testing.assert_allclose(low[:, step, place], -wide)


@pytest.mark.parametrize(("context", "unit"), [(15, "raw"), (16, "window")])
def test_the_unit_of_a_single_series_hangs_on_its_context(context: int, unit: str) -> None:
    validation, test = (replace(drawn(30, seed), context=context) for seed in (0, 1))
    assert fitted(validation, test).unit == unit
    assert fitted(validation, test, names=("a", "b")).unit == "window"


def description(intervals: Intervals) -> dict[str, Any]:
    """Return a task's description as a file holds it."""
    described = {
        "name": "series",
        "covariates": [],
        "mean": [0.0] * TARGETS,
        "context": 8,
        "horizon": HORIZON,
        "targets": ["y", "z"],
        "intervals": intervals.to_json(),
    }
    found: dict[str, Any] = json.loads(json.dumps(described, allow_nan=False))
    return found


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_description_gives_the_same_intervals(names: tuple[str, ...]) -> None:
    intervals = fitted(drawn(60, 0, series=2), drawn(40, 1, series=2), names=names)
    described = description(intervals)
    assert description_problem(described) is None
    again = Intervals.of(described)
    assert again is not None
    outputs = np.random.default_rng(0).normal(size=(5, HORIZON, TARGETS)).astype(np.float32)
    inputs = np.random.default_rng(1).normal(size=(5, 8, 3)).astype(np.float32)
    one, other = (each.around(outputs, each.units(inputs)) for each in (intervals, again))
    assert list(one) == [80, 95]
    for percent in one:
        np.testing.assert_array_equal(one[percent], other[percent])
        low, high = one[percent]
        assert low.dtype == np.float64
        assert (low < outputs).all()
        assert (outputs < high).all()
    assert Intervals.of({"name": "series"}) is None
    assert Intervals.of({"name": "text", "intervals": None}) is None


def damaged(**changes: Any) -> dict[str, Any]:
    described = description(fitted(drawn(60, 0), drawn(40, 1)))
    for key, value in changes.items():
        if key in {"low", "high", "level"}:
            described["intervals"]["levels"][0][key] = value
        else:
            described["intervals"][key] = value
    return described


BAD_SHAPE = [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": "wide"}, "intervals.levels.0.low: Input should be a valid list"),
        ({"low": [[None, 1.0]]}, "intervals.levels.0.low.0.0: Input should be a valid number"),
        ({"level": 0}, "intervals.levels.0.level: Input should be greater than or equal to 1"),
        ({"level": 80.5}, "intervals.levels.0.level: Input should be a valid integer"),
        ({"levels": None}, "intervals.levels: Input should be a valid list"),
        ({"still_unit": [1e39, 1.0]}, "intervals.still_unit.0: Input should be less than"),
        ({"unit": 3}, "intervals.unit: Input should be a valid string"),
        ({"windows": -1}, "intervals.windows: Input should be greater"),
    ],
)
def test_damaged_types_are_one_clear_line(changes: dict[str, Any], words: str) -> None:
    problem = description_problem(damaged(**changes))
    assert problem is not None
    assert words in problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"low": BAD_SHAPE, "high": BAD_SHAPE},
            r"the 80 % interval has the shape \(2, 2\), horizon",
        ),
        ({"low": [[1.0], [1.0, 2.0]]}, "intervals is damaged"),
        ({"low": [[9e9, 9e9]] * HORIZON}, "the 80 % interval ends below its start"),
        ({"unit": "days"}, "intervals have the unit 'days'"),
        ({"still_unit": [1.0]}, r"the still_unit \[1.0\]"),
        ({"still_unit": [0.0, -1.0]}, r"the still_unit \[0.0, -1.0\]"),
        ({"levels": [{"low": []}]}, "intervals lacks 'high'"),
    ],
)
def test_damaged_values_are_one_clear_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"description is damaged: .*{words}"):
        Intervals.of(damaged(**changes))


def test_a_task_gives_the_windows_of_its_evaluation() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(150, 2))
    observed = generator.random((150, 2)) > 0.2
    values[~observed] = np.nan
    columns = Columns(
        names=("y", "c"),
        values=values,
        observed=observed,
        edges=np.array([0, 80, 150]),
        series=("a", "b"),
    )
    task = SeriesTask(columns, context=6, min_context=2, horizon=2, missing="indicator")
    (batch,) = task.evaluation("validation", 100, 15)
    found = task.forecasts("validation", 15, np.zeros(batch.targets.shape))
    np.testing.assert_allclose(found.targets, batch.targets, rtol=1e-6)
    assert batch.attention_mask is not None
    for window, (inputs, mask) in enumerate(zip(batch.inputs, batch.attention_mask, strict=True)):
        seen = inputs[mask > 0, 0]
        wanted = seen[~np.isnan(seen)].std() if (~np.isnan(seen)).any() else 0.0
        assert np.nan_to_num(found.deviations[window, 0]) == pytest.approx(wanted, rel=1e-5)
    assert set(found.series) == {0, 1}
    intervals = fitted(found, found, names=task.columns.series)
    # What a program that runs the model computes from its inputs is what the intervals were fitted with.
    units = intervals.units(batch.inputs, batch.attention_mask)
    assert units is not None
    np.testing.assert_array_equal(units, intervals.units_of(found.deviations))
