"""Which start should models train from: the published one, that of docs/paper.md, or one that scales with the width?

The published start has weights of 0.02 and closed gates, as a module of width 768 has it; that of docs/paper.md has weights
of 0.125 = 1 / sqrt(64), inputs of 0.5 and open gates; the scaled one has 1 / sqrt(d_model) in place of 0.125. Each is
trained with timestep encoding on a series, on a target with jumps, on sorting and on edit distance, at widths of 64 and
128 and at the published width of 768 (few steps there), with two learning rates of which the validation split chooses.

Each run appends a line to OUTPUT/start.jsonl, and runs that stand there are not made again. About 25 minutes of one core.

    python benchmarks/pilot/start.py --quick
    python benchmarks/pilot/start.py --output benchmarks/results/pilot
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge
from loopedge.errors import DivergedError
from loopedge.study.runs.convergence import judge_convergence, least_gain
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Batch, Split, Task, generator_of
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.logs import metrics_path

SUNSPOTS = Path(__file__).parents[2] / "examples" / "data" / "sunspots.csv"
PUBLISHED, PAGE, SCALED = "published", "docs/paper.md", "scaled with the width"
STARTS = (PUBLISHED, PAGE, SCALED)
EVALUATIONS = 20
PATIENCES = (2, 3, 4, 5, 6, 8)


class JumpTask(Task):
    """Tell the level that belongs to the last of some numbers: six steps of random heights over their range."""

    name = "jumps"
    kind = "values"
    settings = ()
    steps, length = 6, 8

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.levels = np.random.default_rng(7).permutation(np.linspace(-1, 1, self.steps))

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` samples; the levels are the same for all seeds."""
        values = generator_of(self.seed, split, step).uniform(-2, 2, (size, self.length, 1))
        place = np.minimum(((values[:, -1, 0] / 4 + 0.5) * self.steps).astype(int), self.steps - 1)
        return Batch(inputs=values.astype(np.float32), targets=self.levels[place][:, None])

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a model that reads the last position."""
        return {
            "features": 1,
            "outputs": 1,
            "read": "last",
            "causal": True,
            "max_length": self.length,
        }


TASKS: dict[str, Callable[[int], Task]] = {
    "sunspots": lambda seed: SeriesTask.from_file(
        SUNSPOTS, targets=["sunspots"], time_column="month", context=24, horizon=6, seed=seed
    ),
    "jumps": lambda seed: JumpTask(seed=seed),
    "sorting": lambda seed: SortingTask(length=8, vocab=16, seed=seed),
    "edit distance": lambda seed: EditDistanceTask(length=5, letters=3, prefixes=True, seed=seed),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Runs of one width.

    Args:
        width: d_model.
        heads: Attention heads.
        tasks: Of `TASKS`, and the steps of each.
        loops: Loop counts.
        starts: Of `STARTS`: at a width of 64 the last two are the same.
        rates: Peak learning rates.
        seeds: How many.
        batch_size: Samples of a step.
        evaluations: How many a run has.
        samples: Most samples of an evaluation.
    """

    width: int
    heads: int
    tasks: dict[str, int]
    loops: tuple[int, ...]
    starts: tuple[str, ...] = STARTS
    rates: tuple[float, ...] = (1e-3, 2e-3)
    seeds: int = 1
    batch_size: int = 32
    evaluations: int = EVALUATIONS
    samples: int = 256


PARTS = (
    Part(
        width=768, heads=12, tasks={"sunspots": 40, "sorting": 40}, loops=(4,), rates=(2e-4, 1e-3), batch_size=8,
        evaluations=4, samples=64,
    ),
    Part(
        width=64, heads=4, tasks={"sunspots": 200, "jumps": 300, "sorting": 300},
        loops=(1, 4), starts=(PUBLISHED, SCALED),
    ),
    Part(width=128, heads=4, tasks={"sunspots": 160, "sorting": 200}, loops=(4,)),
    Part(
        width=64, heads=4, tasks={"edit distance": 300}, loops=(1, 4), starts=(PUBLISHED, SCALED),
    ),
)  # fmt: skip
QUICK = (Part(width=64, heads=4, tasks={"jumps": 100}, loops=(1, 4), starts=(PUBLISHED, SCALED)),)


def fields_of(start: str, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the model and the options of the training that are a start."""
    if start == PUBLISHED:
        return {"init_std": 0.02, "gate_init": 0.0, "positions": "learned"}, {"weight_decay": 0.01}
    std = 0.125 if start == PAGE else 1 / math.sqrt(width)
    model = {"init_std": std, "embedding_std": 0.5, "gate_init": 1.0, "positions": "rotary"}
    return model, {"weight_decay": 0.1}


def cells_of(part: Part) -> Iterator[dict[str, Any]]:
    """Yield what each run of a part is."""
    for seed in range(part.seeds):
        for task, steps in part.tasks.items():
            for loops in part.loops:
                for start in part.starts:
                    for rate in part.rates:
                        yield {
                            "width": part.width, "task": task, "steps": steps, "loops": loops,
                            "start": start, "rate": rate, "seed": seed,
                        }  # fmt: skip


def run_cell(part: Part, cell: dict[str, Any]) -> dict[str, Any]:
    """Train one model; return its line."""
    task = TASKS[cell["task"]](cell["seed"])
    model, training = fields_of(cell["start"], part.width)
    config = make_model_config(
        task, d_model=part.width, heads=part.heads, loops=cell["loops"], **model
    )
    options = make_train_config(
        steps=cell["steps"],
        batch_size=part.batch_size,
        lr=cell["rate"],
        seed=cell["seed"],
        evaluate_every=-(-cell["steps"] // part.evaluations),
        checkpoint_every=0,
        samples=part.samples,
        **training,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.pt"
        try:
            result = loopedge.train(task, config, options, target, threads=1)
        except DivergedError as error:
            return cell | {"diverged": error.message}
        lines = [json.loads(line) for line in metrics_path(target).read_text().splitlines()]
    metric = task.metric
    return cell | {
        "metric": metric,
        "higher_is_better": task.higher_is_better,
        "validation": result.validation[metric],
        "test": result.test[metric],
        "best_step": result.best_step,
        "curve": [round(float(line["validation"][metric] or math.nan), 6) for line in lines],
        "seconds": round(time.perf_counter() - started, 1),
    }


def chosen(lines: list[dict[str, Any]], **cell: Any) -> list[float]:
    """Return the test metric by seed, of the rate that is best on the validation split."""
    found = []
    matching = [x for x in lines if all(x[key] == value for key, value in cell.items())]
    for seed in sorted({line["seed"] for line in matching}):
        known = [x for x in matching if x["seed"] == seed and "test" in x]
        if known:
            sign = -1 if known[0]["higher_is_better"] else 1
            found.append(min(known, key=lambda x: sign * x["validation"])["test"])
    return found


def table(lines: list[dict[str, Any]]) -> str:
    """Return the table of all widths, tasks and loop counts."""
    heads = "".join(f" {start} |" for start in STARTS)
    rows = [
        "# The start of training",
        "",
        "Test metric, mean over the seeds; of two learning rates the one that is better on the validation split.",
        "With timestep encoding.",
        "",
        f"| width | task | metric | steps | loops | seeds |{heads}",
        "|---|---|---|---|---|---|" + "---|" * len(STARTS),
    ]
    kinds = {(x["width"], x["task"], x["steps"], x["loops"]): x for x in lines if "metric" in x}
    for (width, task, steps, loops), line in kinds.items():
        values = [
            chosen(lines, width=width, task=task, loops=loops, start=start) for start in STARTS
        ]
        shown = "".join(f" {np.mean(of):.4g} |" if of else " - |" for of in values)
        seeds = max(map(len, values))
        rows.append(f"| {width} | {task} | {line['metric']} | {steps} | {loops} | {seeds} |{shown}")
    lost = [line for line in lines if "diverged" in line]
    rows += ["", f"Diverged: {len(lost)} of {len(lines)} runs.", ""]
    return "\n".join([*rows, *patience_table(lines), *converged_table(lines)])


def patience_table(lines: list[dict[str, Any]]) -> list[str]:
    """Return what ending a run after so many evaluations without a better one would save and cost.

    The learning rate falls by the steps that the run was to make: one that ends early never sees the low ones.
    """
    curves = [upright(line) for line in lines if len(line.get("curve", [])) == EVALUATIONS]
    rows = [
        "## Ending early",
        "",
        f"{len(curves)} runs of {EVALUATIONS} evaluations, as their curves say: runs that a patience ends, mean share of all steps",
        "that they leave out, and how many of them lose their best model by it, with the mean loss of the validation metric.",
        "",
        "| patience | ends | leaves out | loses the best | mean loss of those |",
        "|---|---|---|---|---|",
    ]
    for patience in PATIENCES:
        ended = [(curve, at) for curve in curves if (at := end_of(curve, patience)) < EVALUATIONS]
        losses = [min(curve[:at]) / min(curve) - 1 for curve, at in ended]
        losing = [loss for loss in losses if loss > 0]
        saved = np.mean([1 - at / EVALUATIONS for _, at in ended]) if ended else 0.0
        cost = f"{np.mean(losing):.1%}" if losing else "-"
        rows.append(f"| {patience} | {len(ended)} | {saved:.0%} | {len(losing)} | {cost} |")
    return [*rows, ""]


def converged_table(lines: list[dict[str, Any]]) -> list[str]:
    """Return how many runs were still improving when they ended, as a pilot would say it."""
    judged: dict[tuple[str, str], list[bool | None]] = {}
    for line in lines:
        if len(line.get("curve", [])) != EVALUATIONS:
            continue
        steps, metric, higher = line["steps"], line["metric"], line["higher_is_better"]
        points = [
            {"step": steps * (place + 1) / EVALUATIONS, "validation": {metric: value}}
            for place, value in enumerate(line["curve"])
        ]
        least = least_gain({}, {metric: line["validation"]}, metric, higher_is_better=higher)
        found = judge_convergence(points, metric, higher_is_better=higher, least=least, steps=steps)
        judged.setdefault((line["task"], line["start"]), []).append(found.converged)
    rows = [
        "## Still improving at the end",
        "",
        "Runs that gained more than one percent of their own error over the last quarter of the steps.",
        "",
        "| task | start | runs | still improving |",
        "|---|---|---|---|",
    ]
    for (task, start), runs in judged.items():
        rows.append(f"| {task} | {start} | {len(runs)} | {runs.count(False)} |")
    return [*rows, ""]


def upright(line: dict[str, Any]) -> list[float]:
    """Return the errors of a run by evaluation: of a share what is missing to 1."""
    return [1 - value if line["higher_is_better"] else value for value in line["curve"]]


def end_of(curve: list[float], patience: int) -> int:
    """Return after how many evaluations a run with a patience ends."""
    best, stale = math.inf, 0
    for made, value in enumerate(curve, 1):
        best, stale = (value, 0) if value < best else (best, stale + 1)
        if stale >= patience:
            return made
    return len(curve)


def main() -> None:
    """Make the runs that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one task, 100 steps: a minute")
    parser.add_argument("--width", type=int, choices=[64, 128, 768], help="this width alone")
    parser.add_argument("--output", type=Path, help="folder of the lines and the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "start.jsonl"
        lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        for part in QUICK if options.quick else PARTS:
            if options.width not in {None, part.width}:
                continue
            for cell in cells_of(part):
                if any(all(x[key] == value for key, value in cell.items()) for x in lines):
                    continue
                lines.append(run_cell(part, cell))
                with path.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print({key: x for key, x in lines[-1].items() if key != "curve"}, flush=True)
        text = table(lines)
        (folder / "start.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
