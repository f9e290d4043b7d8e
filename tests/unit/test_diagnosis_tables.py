"""What `diagnose` finds in series, against series whose order, season, drift and jumps are known."""

from typing import Any

import numpy as np
import pytest

from loopedge.diagnosis.options import DiagnoseOptions
from loopedge.diagnosis.pipeline import diagnose, find_rows
from loopedge.diagnosis.tables.drift import advise_scaling, measure_drift
from loopedge.diagnosis.tables.forecastability import advise_horizon, measure_forecastability
from loopedge.diagnosis.tables.jumps import advise_jumps, measure_jumps
from loopedge.diagnosis.tables.look_back import advise_context
from loopedge.diagnosis.tables.season import advise_season, measure_season
from tests.unit.series_of import autoregression, forecast_of, labels_of

pytest.importorskip("sklearn", reason="boosting needs the extra 'pilot'")

FEW = DiagnoseOptions(windows=800, look_back=16)


@pytest.mark.parametrize("weights", [{3: 0.9}, {1: 0.2, 7: 0.75}])
def test_the_order_of_an_autoregression_is_its_look_back(weights: dict[int, float]) -> None:
    task = forecast_of(autoregression(weights, 1500), context=2)
    searched = find_rows(task, FEW)
    assert searched is not None
    look_back, held = searched
    assert look_back.rows == max(weights)
    (advice,) = advise_context(look_back)
    assert advice.option == f"context={max(weights)}"
    found = measure_forecastability(held, look_back)
    # Of an autoregression R2 at the first step is 1 less the noise by the variance, here of the validation rows.
    values = task.columns.values[1050:1275, 0]
    assert found.steps[0].r2 == pytest.approx(1 - 1 / values.var(), abs=0.12)


def test_noise_has_no_look_back_and_is_called_noise() -> None:
    task = forecast_of(np.random.default_rng(3).normal(size=1500), context=8)
    searched = find_rows(task, FEW)
    assert searched is not None
    assert searched[0].rows is None
    assert advise_context(searched[0]) == []
    found = measure_forecastability(searched[1], searched[0])
    assert found.noise > 0.95
    (advice,) = advise_horizon(found, searched[0])
    assert "noise" in advice.message


def test_a_context_much_longer_than_needed_may_be_shorter() -> None:
    task = forecast_of(autoregression({2: 0.9}, 1500), context=16)
    searched = find_rows(task, FEW)
    assert searched is not None
    assert searched[0].rows == 2
    options = [advice.option for advice in advise_context(searched[0])]
    assert options == [f"context={searched[0].enough}"]
    assert 2 <= (searched[0].enough or 0) <= 8


def test_the_rows_of_a_label_are_looked_back_at_too() -> None:
    draw = np.random.default_rng(4)
    values = draw.normal(size=900)
    labels = ["up" if row >= 2 and values[row - 2] > 0 else "down" for row in range(900)]
    searched = find_rows(labels_of(values, labels, context=6), FEW)
    assert searched is not None
    assert searched[0].rows == 3  # the last row, and two before it


def test_too_few_windows_say_nothing() -> None:
    assert find_rows(forecast_of(np.arange(40.0) % 5, context=4), FEW) is None


def wave(period: float, rows: int = 600, noise: float = 0.2) -> Any:
    draw = np.random.default_rng(1)
    return np.sin(2 * np.pi * np.arange(rows) / period) + noise * draw.normal(size=rows)


def test_a_sine_of_24_rows_is_a_season_of_24() -> None:
    found = measure_season(forecast_of(wave(24)))
    assert (found.period, found.found_in, found.used) == (24, "values", 24)
    # Half is the variance of the sine, 0.04 that of the noise.
    assert found.strength == pytest.approx(0.5 / 0.54, abs=0.03)
    assert found.seasons == pytest.approx(0.7 * 600 / 24)


def test_a_season_on_a_steep_trend_is_found_in_the_changes() -> None:
    task = forecast_of(wave(12, noise=0.05) + np.arange(600) * 0.2)
    found = measure_season(task)
    assert (found.period, found.found_in, found.used) == (12, "changes", None)
    assert found.strength > 0.9
    options = [advice.option for advice in advise_season(found, context=8)]
    assert options == ["season=12", "context=12"]


def test_several_days_are_named_by_one() -> None:
    draw = np.random.default_rng(2)
    day = np.resize([0.0] * 7 + [1.0] * 10 + [0.5] * 7, 4000)
    values = day / day.std() + draw.normal(size=4000)
    found = measure_season(forecast_of(values))
    assert (found.period, found.used) == (24, 24)
    # Half of the variance is the day's; its first six waves, of twelve, hold nearly all of that.
    assert found.strength == pytest.approx(0.5, abs=0.05)


def test_noise_has_no_season() -> None:
    found = measure_season(forecast_of(np.random.default_rng(8).normal(size=600)))
    assert found.period is None
    assert advise_season(found, context=8) == []


def test_a_level_that_moves_is_measured_in_deviations_of_training() -> None:
    draw = np.random.default_rng(2)
    values = draw.normal(size=1000)
    values[850:] += 5
    task = forecast_of(values)
    found = measure_drift(task)
    assert found is not None
    trained, tested = values[:700], values[850:]
    assert found.level == pytest.approx((tested.mean() - trained.mean()) / trained.std())
    assert found.outside == pytest.approx(
        ((tested > trained.max()) | (tested < trained.min())).mean()
    )
    assert [advice.option for advice in advise_scaling(found, scaled_by="column")] == [
        'scaling="window"'
    ]
    assert advise_scaling(found, scaled_by="window") == []


def test_a_series_that_stays_does_not_drift() -> None:
    found = measure_drift(forecast_of(np.random.default_rng(2).normal(size=1000)))
    assert found is not None
    assert advise_scaling(found, scaled_by="column") == []


def test_a_swing_that_grows_is_said() -> None:
    values = np.random.default_rng(6).normal(size=1000)
    values[850:] *= 3
    found = measure_drift(forecast_of(values))
    assert found is not None
    assert found.swing == pytest.approx(3, rel=0.2)
    assert any("swings" in advice.message for advice in advise_scaling(found, scaled_by="column"))


def test_the_median_series_of_several_drifts() -> None:
    values = np.random.default_rng(6).normal(size=(3, 400))
    values[1:, 340:] += 9
    found = measure_drift(forecast_of(values))
    assert found is not None
    assert found.level > 5


def test_steps_that_jump_hold_the_changes() -> None:
    values = np.repeat(np.arange(8) % 2, 125) * 10.0  # seven jumps in 1,000 rows
    found = measure_jumps(forecast_of(values))
    assert found is not None
    assert found.concentration == 1
    assert found.still == pytest.approx(1 - 5 / 699)  # training holds five of them
    assert found.largest == pytest.approx(10 / values[:700].std())
    (advice,) = advise_jumps(found)
    assert "jumps" in advice.message


def test_normal_changes_do_not_jump() -> None:
    found = measure_jumps(forecast_of(np.random.default_rng(5).normal(size=4000).cumsum()))
    assert found is not None
    assert found.concentration == pytest.approx(0.08, abs=0.03)
    assert advise_jumps(found) == []


def test_what_never_changes_has_no_jumps_and_no_drift() -> None:
    task = forecast_of(np.full(200, 3.0))
    assert measure_jumps(task) is None
    assert measure_drift(task) is None
    assert measure_season(task).period is None


def test_what_never_changes_is_not_called_noise() -> None:
    found = diagnose(forecast_of(np.full(200, 3.0)), FEW)
    assert [one for one in found.advice if one.kind == "forecastability"] == []
