"""Prediction intervals of forecasts by split conformal: how wide they are, and how often they held on the test split."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option

__all__ = [
    "LEVELS",
    "Coverage",
    "Forecasts",
    "Intervals",
    "Level",
    "fit_intervals",
    "window_deviations",
]

LEVELS = (80, 95)
"""Percent of the values that an interval should hold."""
FAILS = 0.1
"""An interval that holds so much less of the test split than it should is worth a warning."""
FEW_VALUES = 20
"""Test values of a series below which its coverage is not compared with that of others."""
LONG = 16
"""Rows of a window from which on its own deviation is a good unit for a single series too: coverage misses by a
quarter of what raw units miss by, and fewer rows make intervals much wider (benchmarks/series/coverage.py)."""
QUIET = 0.1
"""The unit of a window that never changes is what this share of the validation windows that do lie below."""

Unit = Literal["raw", "window"]
Sides = Literal["symmetric", "apart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """What a model forecast on the windows of a split, and what came.

    Args:
        outputs: (windows, horizon, targets) in raw units.
        targets: float64, of the same shape, NaN where nothing was observed.
        deviations: float64 (windows, targets): as `window_deviations` gives of what the model saw.
        series: int64 (windows,): the number of the series that each window belongs to.
        context: Table rows of a window.
    """

    outputs: Array
    targets: Array
    deviations: Array
    series: Array
    context: int

    @property
    def errors(self) -> Array:
        """Target minus forecast, float64."""
        errors: Array = self.targets - self.outputs.astype(np.float64)
        return errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How often an interval held what came, on the test split.

    Args:
        share: Of all test values; None where there are none, as in the next ones.
        width: Mean width per target, in raw units.
        step_share: Per horizon step and target.
        step_width: Mean width per horizon step and target, in raw units.
        worst_series: Name of the series in which it held least, of those with `FEW_VALUES` values; None: there
            are not several of them.
        worst_share: How often it held there.
    """

    share: float | None
    width: list[float | None]
    step_share: list[list[float | None]]
    step_width: list[list[float | None]]
    worst_series: str | None = None
    worst_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The interval of one level.

    Args:
        percent: What it should hold, in percent.
        low: float64 (horizon, targets): what is added to a forecast for its lower end, in units.
        high: For its upper end.
        coverage: Measured on the test split; None: not measured.
    """

    percent: int
    low: Array
    high: Array
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Intervals around the forecasts of a model.

    Args:
        unit: ``raw``: offsets are in raw units; ``window``: in units of each window's own, `window_deviations`.
        still: float64 (targets,): the unit of a window that never changes.
        windows: Validation windows that they were fitted on.
        levels: Those that there were enough windows for.
    """

    unit: Unit
    still: Array
    windows: int
    levels: tuple[Level, ...]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Intervals | None":
        """Read the intervals that a task's description holds; None where it holds none.

        Args:
            description: The key ``task`` of a ``model.pt`` or of a file's metadata.

        Raises:
            InputError: They are damaged.
        """
        found = description.get("intervals")
        if found is None:
            return None
        try:
            intervals = cls(
                unit=found["unit"],
                still=np.array(found["still_unit"], np.float64),
                windows=found["windows"],
                levels=tuple(map(_level_of, found["levels"])),
            )
        except KeyError as error:
            raise _damaged(f"intervals lacks {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise _damaged("intervals is damaged") from error
        intervals._check((description.get("horizon"), len(description.get("targets") or ())))
        return intervals

    def _check(self, shape: tuple[Any, int]) -> None:
        """Refuse what does not fit together."""
        for level in self.levels:
            for ends in (level.low, level.high):
                if ends.shape != shape:
                    raise _damaged(
                        f"the {level.percent} % interval has the shape {ends.shape}, horizon and targets are {shape}"
                    )
            if not (level.low <= level.high).all():
                raise _damaged(f"the {level.percent} % interval ends below its start")
        if self.unit not in {"raw", "window"}:
            raise _damaged(f"intervals have the unit {self.unit!r}, 'raw' or 'window' is needed")
        if self.still.shape != shape[1:] or not (self.still > 0).all():
            raise _damaged(
                f"intervals have the still_unit {self.still.tolist()}, {shape[1]} positive numbers are needed"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what `of` reads, under the keys of docs/training.md."""
        return {
            "unit": self.unit,
            "still_unit": self.still.tolist(),
            "windows": self.windows,
            "levels": [_level_json(level) for level in self.levels],
        }

    def units(self, inputs: Array, mask: Array | None = None) -> Array | None:
        """Return the unit of each window, float64 (batch, targets); None where offsets are in raw units.

        Args:
            inputs: (batch, context, columns), targets first, as the model takes them: raw units, NaN where a value
                is missing.
            mask: (batch, context), 1 = keep; None keeps all.
        """
        return self.units_of(window_deviations(inputs[:, :, : len(self.still)], mask))

    def units_of(self, deviations: Array) -> Array | None:
        """Return the unit of each window from its `window_deviations`, as `units`."""
        if self.unit == "raw":
            return None
        return np.where(np.isnan(deviations), self.still, deviations)

    def around(self, outputs: Array, units: Array | None = None) -> dict[int, tuple[Array, Array]]:
        """Return lower and upper ends around forecasts, by level in percent.

        Args:
            outputs: (batch, horizon, targets) in raw units.
            units: What `units` returned of the same windows.

        Returns:
            float64, of the shape of ``outputs``.
        """
        middle = outputs.astype(np.float64)
        each = 1.0 if units is None else units[:, None, :]
        return {
            level.percent: (middle + level.low * each, middle + level.high * each)
            for level in self.levels
        }


def window_deviations(inputs: Array, mask: Array | None = None) -> Array:
    """Return the standard deviation of each window's observed values, float64 (windows, targets).

    NaN where they are all the same, or none was observed.

    Args:
        inputs: (windows, context, targets) in raw units, NaN where nothing was observed.
        mask: (windows, context), 1 = keep; None keeps all.
    """
    known = ~np.isnan(inputs)
    if mask is not None:
        known &= np.asarray(mask).astype(bool)[:, :, None]
    values = inputs.astype(np.float64)
    count = np.maximum(1, known.sum(axis=1))
    mean = np.where(known, values, 0.0).sum(axis=1) / count
    centred = np.where(known, values - mean[:, None, :], 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=1) / count)
    highest = np.where(known, values, -np.inf).max(axis=1)
    return np.where(highest > np.where(known, values, np.inf).min(axis=1), deviation, np.nan)


def fit_intervals(
    validation: Forecasts,
    test: Forecasts,
    *,
    names: Sequence[str] = (),
    available: int = 0,
    unit: Unit | None = None,
    sides: Sides = "symmetric",
) -> tuple[Intervals | None, list[Finding]]:
    """Fit intervals on the errors of the validation split, and measure them on the test split.

    Split conformal (Papadopoulos et al. 2002; Lei et al. 2018, arXiv 1604.04173): of n errors of a target at a
    horizon step, the ceil((n + 1) p)-th smallest absolute one. Values that are exchangeable would lie inside with
    a probability of p at least. Windows that overlap are not: coverage is measured, not guaranteed.

    Args:
        validation: Forecasts of the best weights on the validation split.
        test: On the test split.
        names: Of the series, where there are several.
        available: Windows that the validation split has, more than were forecast where it was thinned.
        unit: Default: ``window`` of several series and of windows of `LONG` rows, else ``raw``.
        sides: ``symmetric``, or the lower and the upper errors ``apart``, half of what lies outside on each side.

    Returns:
        The intervals, None where there are too few windows for any; and what a person should know of them.
    """
    chosen: Unit = unit or ("window" if validation.context >= LONG or len(names) > 1 else "raw")
    targets = validation.targets.shape[2]
    still = np.ones(targets)
    if chosen == "window":
        still = _still_units(validation.deviations)
    empty = Intervals(unit=chosen, still=still, windows=len(validation.targets), levels=())
    units = empty.units_of(validation.deviations)
    errors = validation.errors if units is None else validation.errors / units[:, None, :]
    findings: list[Finding] = []
    levels: list[Level] = []
    for percent in LEVELS:
        ends = _ends(errors, percent, sides)
        if ends is None:
            findings.append(_too_few(errors, percent, sides, available))
            continue
        levels.append(Level(percent=percent, low=ends[0], high=ends[1]))
    if not levels:
        return None, findings
    measured = measure(replace(empty, levels=tuple(levels)), test, names)
    findings += _failures(measured)
    return measured, findings


def measure(intervals: Intervals, test: Forecasts, names: Sequence[str] = ()) -> Intervals:
    """Return intervals with their coverage of a split's values."""
    around = intervals.around(test.outputs, intervals.units_of(test.deviations))
    asked = ~np.isnan(test.targets)
    levels = []
    for level in intervals.levels:
        low, high = around[level.percent]
        inside = asked & (low <= test.targets) & (test.targets <= high)
        width = np.where(asked, high - low, 0.0)
        worst = _worst(inside, asked, test.series, names)
        coverage = Coverage(
            share=_ratio(inside.sum(), asked.sum()),
            width=_ratios(width.sum(axis=(0, 1)), asked.sum(axis=(0, 1))),
            step_share=[
                _ratios(*pair) for pair in zip(inside.sum(axis=0), asked.sum(axis=0), strict=True)
            ],
            step_width=[
                _ratios(*pair) for pair in zip(width.sum(axis=0), asked.sum(axis=0), strict=True)
            ],
            worst_series=None if worst is None else worst[0],
            worst_share=None if worst is None else worst[1],
        )
        levels.append(replace(level, coverage=coverage))
    return replace(intervals, levels=tuple(levels))


def needed(percent: int, sides: Sides = "symmetric") -> int:
    """Return the fewest errors that an interval can be fitted on: the n with ceil((n + 1) p) <= n."""
    return next(count for count in itertools.count(1) if _rank(count, percent, sides) <= count)


def _rank(count: int, percent: int, sides: Sides) -> int:
    """Return ceil((n + 1) p), in whole numbers; with the sides apart half of what lies outside is on each."""
    if sides == "symmetric":
        return -(-(count + 1) * percent // 100)
    return -(-(count + 1) * (100 + percent) // 200)


def _ends(errors: Array, percent: int, sides: Sides) -> tuple[Array, Array] | None:
    """Return lower and upper offsets (horizon, targets); None where there are too few errors."""
    counts = (~np.isnan(errors)).sum(axis=0)  # (horizon, targets)
    ranks = np.vectorize(_rank, otypes=[np.int64])(counts, percent, sides)
    if (ranks > counts).any():
        return None

    def at_rank(values: Array) -> Array:
        ordered = np.sort(values, axis=0)  # NaN comes last
        found: Array = np.take_along_axis(ordered, ranks[None] - 1, axis=0)[0]
        return found

    if sides == "symmetric":
        half = at_rank(np.abs(errors))
        return -half, half
    return -at_rank(-errors), at_rank(errors)


def _still_units(deviations: Array) -> Array:
    """Return the unit of a window that never changes, (targets,): a small one of those that do; 1 where none does."""
    moving = [column[np.isfinite(column)] for column in deviations.T]
    return np.array([np.quantile(column, QUIET) if len(column) else 1.0 for column in moving])


def _too_few(errors: Array, percent: int, sides: Sides, available: int) -> Finding:
    least, fewest = needed(percent, sides), int((~np.isnan(errors)).sum(axis=0).min())
    windows = "1 validation window is" if fewest == 1 else f"{fewest} validation windows are"
    thinned = len(errors) < least <= available
    return Finding(
        kind="interval",
        message=f"no {percent} % interval: {windows} too few, it needs {least}",
        hint=option("samples", least) if thinned else None,
    )


def _failures(intervals: Intervals) -> list[Finding]:
    """Say which intervals hold much less of the test split than they should."""
    said = []
    for level in intervals.levels:
        share = None if level.coverage is None else level.coverage.share
        if share is not None and share < level.percent / 100 - FAILS:
            message = (
                f"the {level.percent} % interval holds {share:.1%} of the test split: its values lie further from "
                "the forecasts than those of the validation split"
            )
            said.append(Finding(kind="interval", message=message))
    return said


def _worst(
    inside: Array, asked: Array, series: Array, names: Sequence[str]
) -> tuple[str, float] | None:
    """Return name and coverage of the series in which an interval held least."""
    if len(names) < 2:
        return None
    held = np.bincount(series, inside.sum(axis=(1, 2)), len(names))
    count = np.bincount(series, asked.sum(axis=(1, 2)), len(names))
    enough = np.flatnonzero(count >= FEW_VALUES)
    if len(enough) < 2:
        return None
    shares = held[enough] / count[enough]
    return names[enough[shares.argmin()]], float(shares.min())


def _level_json(level: Level) -> dict[str, Any]:
    coverage = level.coverage
    return {
        "level": level.percent,
        "low": level.low.tolist(),
        "high": level.high.tolist(),
        "coverage": None if coverage is None else coverage.share,
        "width": None if coverage is None else coverage.width,
        "step_coverage": None if coverage is None else coverage.step_share,
        "step_width": None if coverage is None else coverage.step_width,
        "worst_series": None if coverage is None else coverage.worst_series,
        "worst_coverage": None if coverage is None else coverage.worst_share,
    }


def _level_of(found: Mapping[str, Any]) -> Level:
    low, high = (np.array(found[end], np.float64) for end in ("low", "high"))
    return Level(percent=found["level"], low=low, high=high)


def _damaged(problem: str) -> InputError:
    return InputError(f"the task's description is damaged: {problem}")


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / int(whole) if whole else None


def _ratios(parts: Array, wholes: Array) -> list[float | None]:
    return [_ratio(*pair) for pair in zip(parts, wholes, strict=True)]
