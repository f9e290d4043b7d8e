"""How short may a trial of a learning rate be so that it chooses what the whole budget would choose?

Three rates are trained for an eighth, a quarter and all of the steps, each with a schedule of its own, as
`loopedge.study.runs.learning_rate` does. The table says which rate the validation split chooses at each share, and what that rate
reaches on the test split with the whole budget, against the rate that is best there: the regret, beside what another
seed alone changes. About 10 minutes of one core.

    python -m benchmarks.pilot.rates --quick
    python -m benchmarks.pilot.rates --output benchmarks/results/pilot
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge
from benchmarks.pilot.start import SCALED, TASKS, fields_of
from loopedge.trainer.config import make_model_config, make_train_config

WIDTH, HEADS = 64, 4
STEPS = {"sunspots": 240, "sorting": 240}
LOOPS, SEEDS = (1, 4), 2
SHARES = (1 / 8, 1 / 4, 1.0)
RATES = (1e-3, 2e-3, 4e-3)
"""What the pilot tried when this was measured; it tries 8e-3 too, as the highest won so often."""


def run_cell(task_name: str, loops: int, seed: int, rate: float, share: float) -> dict[str, Any]:
    """Train one model; return its line."""
    task = TASKS[task_name](seed)
    model, training = fields_of(SCALED, WIDTH)
    config = make_model_config(task, d_model=WIDTH, heads=HEADS, loops=loops, **model)
    steps = max(20, round(share * STEPS[task_name]))
    options = make_train_config(
        steps=steps, batch_size=32, lr=rate, seed=seed, evaluate_every=-(-steps // 8),
        checkpoint_every=0, samples=512, **training,
    )  # fmt: skip
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = loopedge.train(task, config, options, Path(folder) / "model.pt", threads=1)
    metric = task.metric
    return {
        "task": task_name, "loops": loops, "seed": seed, "rate": rate, "share": share, "steps": steps,
        "metric": metric, "higher_is_better": task.higher_is_better,
        "validation": result.validation[metric], "test": result.test[metric],
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def cells(*, quick: bool) -> list[tuple[str, int, int, float, float]]:
    """Return what each run is: task, loops, seed, rate and share."""
    return [
        (task, loops, seed, rate, share)
        for seed in range(1 if quick else SEEDS)
        for task in (["sorting"] if quick else STEPS)
        for loops in ((1,) if quick else LOOPS)
        for share in ((1 / 8, 1 / 4) if quick else SHARES)
        for rate in RATES
    ]


def table(lines: list[dict[str, Any]]) -> str:
    """Return what each share chooses, and what that costs."""
    rows = [
        "# Trials of learning rates",
        "",
        f"Width {WIDTH}, timestep encoding, rates {', '.join(f'{rate:g}' for rate in RATES)}. Regret: test metric with all steps of the",
        "rate that a share chooses on the validation split, against the rate that all steps choose there; positive is worse.",
        "",
        "| task | loops | seed | metric | chosen by 1/8 | by 1/4 | by all | regret of 1/8 | of 1/4 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = sorted({(x["task"], x["loops"], x["seed"]) for x in lines})
    spreads: dict[tuple[str, int], list[float]] = {}
    for task, loops, seed in groups:
        mine = [x for x in lines if (x["task"], x["loops"], x["seed"]) == (task, loops, seed)]
        if len(mine) < len(SHARES) * len(RATES):
            continue
        sign = -1 if mine[0]["higher_is_better"] else 1
        whole = {x["rate"]: x for x in mine if x["share"] == 1.0}
        chosen = [
            min((x for x in mine if x["share"] == share), key=lambda x: sign * x["validation"])[
                "rate"
            ]
            for share in SHARES
        ]
        best = whole[chosen[-1]]["test"]
        spreads.setdefault((task, loops), []).append(best)
        regrets = [sign * (whole[rate]["test"] - best) for rate in chosen[:-1]]
        shown = "".join(f" {rate:g} |" for rate in chosen) + "".join(
            f" {x:+.3g} |" for x in regrets
        )
        rows.append(f"| {task} | {loops} | {seed} | {mine[0]['metric']} |{shown}")
    twice = {key: values for key, values in spreads.items() if len(values) > 1}
    if twice:
        rows += ["", "Difference of two seeds with the rate that all steps choose:"]
    for (task, loops), values in twice.items():
        rows.append(f"- {task}, {loops} loops: {np.ptp(values):.3g}")
    return "\n".join([*rows, ""])


def main() -> None:
    """Make the runs that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs of one task, no table")
    parser.add_argument("--output", type=Path, help="folder of the lines and the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "rates.jsonl"
        lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        known = {(x["task"], x["loops"], x["seed"], x["rate"], x["share"]) for x in lines}
        for cell in cells(quick=options.quick):
            if cell not in known:
                lines.append(run_cell(*cell))
                with path.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(lines[-1], flush=True)
        if not options.quick:
            text = table(lines)
            (folder / "rates.md").write_text(text, encoding="utf-8")
            print(text)


if __name__ == "__main__":
    main()
