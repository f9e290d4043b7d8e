"""Whose mean and deviation should scale a column: those of its training rows, or those of each window?

Four kinds of tables, drawn anew by every seed: series at levels of 1 and 40,000, of one level, a series that climbs out of
what training saw, and one whose level itself says what comes next (a tank that is filled and emptied between two marks).
Each trains a small looped model by column and by window, with the same weights at the start. Scores are on the test split: RMSE
of each series, and MASE, its mean absolute error by that of repeating the last season in the training part. A few minutes.

    python benchmarks/series/scaling.py
    python benchmarks/series/scaling.py --output benchmarks/results/series
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from loopedge.data.tables.columns import Columns
from loopedge.files.arrays import Array
from loopedge.model.checkpoint import load
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train
from loopedge.trainer.steps.objective import inputs_of, outputs_of

SEEDS = 3
CONTEXT, HORIZON, SEASON = 48, 12, 24
ROWS = 600
MODEL = {"d_model": 32, "heads": 4, "layers": 1, "loops": 3}
TRAINING = {"steps": 600, "batch_size": 32, "lr": 2e-3, "evaluate_every": 100, "samples": 512}

Generator = np.random.Generator
By = Literal["column", "window"]
WAYS: tuple[By, ...] = ("column", "window")


def day(draw: Generator, rows: int = ROWS) -> Array:
    """Return a day of 24 rows around a slow walk, with noise; it swings by one."""
    phase = draw.uniform(0, SEASON)
    wave = np.sin(2 * np.pi * (np.arange(rows) + phase) / SEASON)
    return wave + np.cumsum(0.05 * draw.normal(size=rows)) + 0.2 * draw.normal(size=rows)


def far_levels(draw: Generator) -> dict[str, Array]:
    """Return three series at 1 and three at 40,000, each swinging by a third of its level."""
    levels = {f"{level:,} ({number})": level for level in (1, 40_000) for number in (1, 2, 3)}
    return {name: level * (1 + day(draw) / 3) for name, level in levels.items()}


def one_level(draw: Generator) -> dict[str, Array]:
    """Return six series around one level."""
    return {f"series {number}": 100 + day(draw) for number in range(1, 7)}


def climbing(draw: Generator) -> dict[str, Array]:
    """Return one series that climbs by 20 swings: its test rows lie beyond all that training saw."""
    rows = 4 * ROWS
    return {"climbing": np.linspace(0, 20, rows) + day(draw, rows)}


def tank(draw: Generator) -> dict[str, Array]:
    """Return a level that rises to 100 and falls to 0, at a speed of its own each time: it turns at the marks."""
    values, at, speed = [], 0.0, 1.0
    for _ in range(4 * ROWS):
        at += speed
        if at >= 100 or at <= 0:
            at, speed = min(max(at, 0.0), 100.0), -np.sign(speed) * draw.uniform(0.7, 1.4)
        values.append(at)
    return {"tank": np.array(values) + 0.2 * draw.normal(size=len(values))}


TABLES: dict[str, Callable[[Generator], dict[str, Array]]] = {
    "levels of 1 and 40,000": far_levels,
    "one level": one_level,
    "climbing": climbing,
    "a tank between two marks": tank,
}


def task_of(series: dict[str, Array], by: By, seed: int) -> SeriesTask:
    """Return the forecast of one or several series."""
    values = np.concatenate(list(series.values()))[:, None]
    edges = np.cumsum([0, *map(len, series.values())])
    columns = Columns(
        names=("y",),
        values=values,
        observed=np.ones(values.shape, bool),
        edges=edges,
        series=tuple(series) if len(series) > 1 else (),
    )
    return SeriesTask(
        columns,
        context=CONTEXT,
        horizon=HORIZON,
        season=SEASON,
        group="series" if len(series) > 1 else None,
        scaling=by,
        seed=seed,
    )


@torch.no_grad()
def scores(task: SeriesTask, path: Path, series: dict[str, Array]) -> dict[str, dict[str, float]]:
    """Return RMSE and MASE of each series on the test split, by numpy from the raw values."""
    model = load(path)
    stops = task.stops["test"]
    outputs = np.concatenate(
        [
            outputs_of(model, inputs_of(task._cut(part), torch.device("cpu"))).numpy()
            for part in np.array_split(stops, 1 + len(stops) // 256)
        ]
    )[:, :, 0]
    numbers = task.columns.series_of(stops - 1)
    found = {}
    for number, (name, values) in enumerate(series.items()):
        own = numbers == number
        first = int(task.columns.bounds[number])
        wanted = values[(stops[own] - first)[:, None] + np.arange(HORIZON)]
        error = outputs[own].astype(np.float64) - wanted
        trained = values[: task.bounds[number]["train"].end]
        seasonal = np.abs(trained[SEASON:] - trained[:-SEASON]).mean()
        found[name] = {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mase": float(np.abs(error).mean() / seasonal),
        }
    return found


def measure(table: str, seeds: int) -> list[dict[str, Any]]:
    """Return the scores of each series of a table by column and by window, over the seeds."""
    found: dict[tuple[str, By], list[dict[str, float]]] = {}
    for seed in range(seeds):
        series = TABLES[table](np.random.default_rng([seed, 7]))
        for by in WAYS:
            task = task_of(series, by, seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.pt"
                config = make_train_config(seed=seed, **TRAINING)
                train(task, make_model_config(task, **MODEL), config, path)
                for name, score in scores(task, path, series).items():
                    found.setdefault((name, by), []).append(score)
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        row: dict[str, Any] = {"table": table, "series": name}
        for by in WAYS:
            for key in ("rmse", "mase"):
                each = [score[key] for score in found[name, by]]
                row[f"{by}_{key}"] = [float(f"{value:.4g}") for value in each]
        rows.append(row)
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown: the mean over the seeds, and the lowest and highest of them."""
    lines = [
        "# Scaled by column or by window",
        "",
        f"`benchmarks/series/scaling.py`: windows of {CONTEXT} rows, {HORIZON} ahead, d_model {MODEL['d_model']}, "
        f"{MODEL['loops']} loops, {TRAINING['steps']} steps, mean of {SEEDS} seeds (lowest to highest), test split.",
        "MASE below 1 beats repeating the last season of 24 rows.",
        "",
        "| table | series | RMSE, column | RMSE, window | MASE, column | MASE, window |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{np.mean(each):.4g} ({min(each):.4g} to {max(each):.4g})"
            for key in ("rmse", "mase")
            for each in (row[f"column_{key}"], row[f"window_{key}"])
        ]
        lines.append(f"| {row['table']} | {row['series']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all tables, print the report and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="Folder for scaling.json and scaling.md.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for table in TABLES for row in measure(table, options.seeds)]
    text = report(rows)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "scaling.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.output / "scaling.md").write_text(text)


if __name__ == "__main__":
    main()
