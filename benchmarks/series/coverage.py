"""How often do prediction intervals by split conformal hold what came, on series of known kinds?

Each process is drawn anew by every seed. What forecasts needs no training: the last value or the last season, whichever
errs less on the validation split; so the figures are of the intervals, and take seconds. Compared are the units that
errors are measured in (raw, each window's deviation, each series' scale of MASE, which a program that runs the model does
not know of a new series) and the sides (symmetric, or the lower and upper errors apart). A minute.

    python benchmarks/series/coverage.py
    python benchmarks/series/coverage.py --output benchmarks/results/series
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.files.arrays import Array
from loopedge.tasks.intervals import LEVELS, Coverage, Forecasts, fit_intervals
from loopedge.tasks.series import SeriesTask

SEEDS = 30
CONTEXT, HORIZON, SEASON = 48, 12, 24
CONTEXTS, FEWER_SEEDS = (4, 8, 16, 48), 10
ROWS, SEVERAL, SHORT = 3000, 12, 500
SAMPLES = 1024
BURN_IN = 200

Generator = np.random.Generator
Unit = Literal["raw", "window", "mase"]
Sides = Literal["symmetric", "apart"]
KEPT = ("window", "symmetric")
"""What loopedge fits."""


def autoregressive(draw: Generator, noise: Array | None = None, rows: int = ROWS) -> Array:
    """Return an AR(1) of 0.8, of normal noise unless another is given."""
    steps = draw.normal(size=rows + BURN_IN) if noise is None else noise
    values = np.zeros(len(steps))
    for row in range(1, len(steps)):
        values[row] = 0.8 * values[row - 1] + steps[row]
    return values[-rows:]


def seasonal(draw: Generator, rows: int = ROWS) -> Array:
    """Return a day of 24 rows around a slow walk, with noise."""
    day = 3 * np.sin(2 * np.pi * np.arange(rows) / SEASON)
    return day + np.cumsum(0.02 * draw.normal(size=rows)) + draw.normal(size=rows)


def heteroscedastic(draw: Generator) -> Array:
    """Return an AR(1) whose noise comes in calm and wild spells (GARCH(1, 1))."""
    rows = ROWS + BURN_IN
    variance, noise = 1.0, np.zeros(rows)
    for row, normal in enumerate(draw.normal(size=rows)):
        noise[row] = np.sqrt(variance) * normal
        variance = 0.05 + 0.25 * noise[row] ** 2 + 0.7 * variance
    return autoregressive(draw, noise)


def heavy_tails(draw: Generator) -> Array:
    """Return an AR(1) of noise with two and a half degrees of freedom."""
    return autoregressive(draw, draw.standard_t(2.5, size=ROWS + BURN_IN))


def skewed(draw: Generator) -> Array:
    """Return an AR(1) of log-normal noise: small losses, rare large gains."""
    return autoregressive(draw, draw.lognormal(sigma=1.0, size=ROWS + BURN_IN))


def drifting(draw: Generator) -> Array:
    """Return a seasonal series whose level climbs and whose swing grows: 4 times as large at the end."""
    grows = np.linspace(1, 4, ROWS)
    return grows * seasonal(draw) + 20 * grows**2


def changing(draw: Generator) -> Array:
    """Return a seasonal series whose noise is 3 times as large in the test split."""
    values = seasonal(draw)
    last = ROWS - ROWS * 15 // 100
    values[last:] += np.sqrt(8.0) * draw.normal(size=ROWS - last)
    return values


def several_levels(draw: Generator) -> list[Array]:
    """Return series whose levels and swings lie between 1 and 40,000."""
    levels = np.geomspace(1, 40_000, SEVERAL)
    return [level * (5 + seasonal(draw, SHORT)) for level in levels]


def several_noises(draw: Generator) -> list[Array]:
    """Return series of one level, some calm and some ten times as noisy."""
    sizes = np.geomspace(1, 10, SEVERAL)
    day = 3 * np.sin(2 * np.pi * np.arange(SHORT) / SEASON)
    return [20 + day + size * autoregressive(draw, rows=SHORT) for size in sizes]


def intermittent(draw: Generator) -> list[Array]:
    """Return sales of slow articles: zero on most days."""
    rates = np.geomspace(0.03, 1.0, SEVERAL)
    return [draw.poisson(rate, SHORT) * draw.geometric(0.5, SHORT) for rate in rates]


ONE: dict[str, Callable[[Generator], Array]] = {
    "autoregressive": autoregressive,
    "seasonal": seasonal,
    "calm and wild spells": heteroscedastic,
    "heavy tails": heavy_tails,
    "skewed": skewed,
    "climbing, swing grows": drifting,
    "noise 3 times as large in test": changing,
}
SEVERAL_SERIES: dict[str, Callable[[Generator], list[Array]]] = {
    "levels of 1 to 40,000": several_levels,
    "calm and noisy ones": several_noises,
    "slow sales": intermittent,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one way to fit gave on a process, over the seeds."""

    process: str
    unit: Unit
    sides: Sides
    level: int
    coverage: float
    least: float
    most: float
    first_step: float
    last_step: float
    worst_series: float | None
    width: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name in self.__dataclass_fields__
            for value in [getattr(self, name)]
        }


def task_of(series: list[Array], context: int) -> SeriesTask:
    """Return the forecast of one or several series."""
    values = np.concatenate(series).astype(np.float64)[:, None]
    edges = np.concatenate([[0], np.cumsum([len(each) for each in series])]).astype(np.int64)
    several = len(series) > 1
    columns = Columns(
        names=("y",),
        values=values,
        observed=np.ones(values.shape, bool),
        edges=edges if several else None,
        series=tuple(f"series {i + 1}" for i in range(len(series))) if several else (),
    )
    return SeriesTask(columns, context=context, horizon=HORIZON, season=SEASON)


def forecasts(task: SeriesTask) -> tuple[Forecasts, Forecasts]:
    """Return validation and test forecasts of the last value or the last season, as the validation split has it."""
    found = {}
    for split in ("validation", "test"):
        stops = task.evaluated_stops(split, SAMPLES)
        ahead = np.arange(HORIZON)
        for name, rows in (
            ("last", np.broadcast_to(stops[:, None] - 1, (len(stops), HORIZON))),
            ("season", stops[:, None] + ahead - SEASON * (ahead // SEASON + 1)),
        ):
            found[name, split] = task.forecasts(split, SAMPLES, task.columns.values[rows])
    best = min(
        ("last", "season"), key=lambda name: np.square(found[name, "validation"].errors).mean()
    )
    return found[best, "validation"], found[best, "test"]


def measured(
    task: SeriesTask, parts: tuple[Forecasts, Forecasts], unit: Unit, sides: Sides
) -> Iterator[tuple[int, Coverage]]:
    """Yield each level's coverage of the test split."""
    names = task.columns.series
    scale = 1.0
    if unit == "mase":  # the same as raw units of series that were divided by their scales
        scales = task.mase_scale.values
        parts = (divided(parts[0], scales), divided(parts[1], scales))
        scale = float(np.mean(scales))
    intervals, _ = fit_intervals(
        *parts, names=names, unit="window" if unit == "window" else "raw", sides=sides
    )
    for level in () if intervals is None else intervals.levels:
        if level.coverage is not None:
            width = level.coverage.width[0]
            yield (
                level.percent,
                replace(level.coverage, width=[None if width is None else width * scale]),
            )


def divided(found: Forecasts, scales: Array) -> Forecasts:
    """Return forecasts in units of each series' scale."""
    own = scales[found.series][:, None, :]
    return replace(
        found,
        outputs=found.outputs / own,
        targets=found.targets / own,
        deviations=found.deviations / own[:, 0],
    )


def rows_of(
    process: str, draw: Callable[[Generator], Any], seeds: int, context: int = CONTEXT
) -> Iterator[Row]:
    """Yield a row per way and level."""
    several = process in SEVERAL_SERIES
    units: tuple[Unit, ...] = ("raw", "window", "mase") if several else ("raw", "window")
    kinds: tuple[Sides, ...] = ("symmetric", "apart")
    found: dict[tuple[Unit, Sides, int], list[Coverage]] = {}
    for seed in range(seeds):
        drawn = draw(np.random.default_rng(seed))
        task = task_of(drawn if several else [drawn], context)
        parts = forecasts(task)
        for unit in units:
            for sides in kinds:
                for level, coverage in measured(task, parts, unit, sides):
                    found.setdefault((unit, sides, level), []).append(coverage)
    for (unit, sides, level), coverages in found.items():
        shares = [share for each in coverages if (share := each.share) is not None]
        worst = [share for each in coverages if (share := each.worst_share) is not None]
        steps = np.array([each.step_share for each in coverages], np.float64)[:, :, 0].mean(axis=0)
        yield Row(
            process=process,
            unit=unit,
            sides=sides,
            level=level,
            coverage=float(np.mean(shares)),
            least=min(shares),
            most=max(shares),
            first_step=float(steps[0]),
            last_step=float(steps[-1]),
            worst_series=float(np.mean(worst)) if worst else None,
            width=float(
                np.mean([width for each in coverages if (width := each.width[0]) is not None])
            ),
        )


def table(rows: list[Row], level: int) -> str:
    """Return the rows of a level as Markdown; what loopedge fits is bold, widths are relative to it."""
    lines = [
        f"**{level} %**",
        "",
        "| process | unit | sides | coverage | over the seeds | step 1 | step 12 | worst series | width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    own = {row.process: row.width for row in rows if row.level == level and kept(row)}
    for row in rows:
        if row.level != level:
            continue
        mark = "**" if kept(row) else ""
        worst = "" if row.worst_series is None else f"{row.worst_series:.1%}"
        lines.append(
            f"| {row.process} | {row.unit} | {row.sides} | {mark}{row.coverage:.1%}{mark} | {row.least:.1%} to {row.most:.1%} "
            f"| {row.first_step:.1%} | {row.last_step:.1%} | {worst} | {row.width / own[row.process]:.2f} |"
        )
    return "\n".join(lines)


def context_table(seeds: int) -> str:
    """Return by context how far coverage misses the level, and how wide intervals are against raw ones."""
    lines = [
        f"**One series, by the rows of a window** ({seeds} seeds; symmetric; without the process that changes in test)",
        "",
        "| context | misses 80 %: raw | window | misses 95 %: raw | window | width at 80 % | width at 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for context in CONTEXTS:
        missed: dict[tuple[str, int], list[float]] = {}
        widths: dict[int, list[float]] = {}
        for process, draw in ONE.items():
            if draw is changing:
                continue
            rows = [
                row for row in rows_of(process, draw, seeds, context) if row.sides == "symmetric"
            ]
            for row in rows:
                share = row.level / 100
                missed.setdefault((row.unit, row.level), []).append(abs(row.coverage - share))
            for level in LEVELS:
                width = {row.unit: row.width for row in rows if row.level == level}
                widths.setdefault(level, []).append(width["window"] / width["raw"])
        points = [
            f"{np.mean(missed[unit, level]):.1%}" for level in LEVELS for unit in ("raw", "window")
        ]
        ratios = [f"{np.mean(widths[level]):.2f}" for level in LEVELS]
        lines.append(f"| {context} | {' | '.join([*points, *ratios])} |")
    return "\n".join(lines)


def kept(row: Row) -> bool:
    """Tell whether a row is of what loopedge fits."""
    return (row.unit, row.sides) == KEPT


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="Folder for the results.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    rows = [
        row
        for process, draw in (ONE | SEVERAL_SERIES).items()
        for row in rows_of(process, draw, options.seeds)
    ]
    text = (
        f"Coverage of the test split by intervals fitted on the validation split; context {CONTEXT}, horizon {HORIZON}, "
        f"at most {SAMPLES} windows of each; {options.seeds} seeds. One series has {ROWS:,} rows; of several there are "
        f"{SEVERAL} of {SHORT}. Bold is what loopedge fits; widths are relative to it. The worst series is the mean over the "
        "seeds of the least coverage of a series. `mase` needs to know the series, `window` only its last rows.\n\n"
        + "\n\n".join([*(table(rows, level) for level in LEVELS), context_table(FEWER_SEEDS)])
        + "\n"
    )
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "coverage.md").write_text(
            f"# Coverage of prediction intervals\n\n`python benchmarks/series/coverage.py --output benchmarks/results/series`\n\n{text}",
            encoding="utf-8",
        )
        values = {"seeds": options.seeds, "rows": [row.to_json() for row in rows]}
        (options.output / "coverage.json").write_text(
            json.dumps(values, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
