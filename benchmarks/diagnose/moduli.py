"""Do the moduli of continuity, read from data, foretell what loops or a timestep encoding are worth?

Xu and Sato (arXiv 2410.01405) bound what a looped model can approximate by three moduli of the target function: sequence,
contextual and token. Here each is estimated from data alone: a plain regression stands in for the function, and rows of a
window are replaced by those of another window, a *donor*: all rows (sequence), all but the last (contextual), the last alone
(token). Then small looped models are trained on the same series, and the moduli are compared with what they gained: by four
loops against one, and by a timestep encoding against constant gates. Other figures of `loopedge diagnose` are compared too.

Twelve synthetic series, the recipe of docs/paper.md at d=32, one thread: a quarter of an hour.

    python benchmarks/diagnose/moduli.py
    python benchmarks/diagnose/moduli.py --output benchmarks/results/diagnose
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from synthetic_targets import TARGETS, task_of

from loopedge.diagnosis.options import DiagnoseOptions
from loopedge.diagnosis.pipeline import find_rows
from loopedge.diagnosis.tables.jumps import measure_jumps
from loopedge.diagnosis.tables.lagged import lagged
from loopedge.files.arrays import Array
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

SEEDS = 2
CONTEXT = 32
LOOPS = 4
MODEL = {
    "d_model": 32,
    "heads": 4,
    "mlp_ratio": 2.0,
    "positions": "rotary",
    "init_std": 0.125,
    "embedding_std": 0.5,
    "gate_init": 1.0,
}
TRAINING = {"batch_size": 32, "lr": 2e-3, "weight_decay": 0.1, "samples": 512}
ARMS: dict[str, tuple[str, int]] = {
    "looped, 1 loop": ("none", 1),
    f"looped, {LOOPS} loops": ("none", LOOPS),
    f"constant gates, {LOOPS} loops": ("constant", LOOPS),
    f"timestep encoding, {LOOPS} loops": ("sinusoidal", LOOPS),
}
GAINS = {
    "loops": ("looped, 1 loop", f"looped, {LOOPS} loops"),
    "timestep": (f"constant gates, {LOOPS} loops", f"timestep encoding, {LOOPS} loops"),
}
"""A gain is the error of the first less that of the second, in deviations of the series."""
NEAREST = 20
"""Donors of a window are drawn among so many of the nearest ones."""
WINDOWS = 1000
RESAMPLINGS = 2000
CONFIDENCE = (2.5, 97.5)


def moduli(name: str, seed: int) -> dict[str, float]:
    """Return the three moduli of a target, and other figures, all from data alone.

    A modulus is the root mean square change of the regression's answer, in deviations of the target, when rows are replaced
    by those of a near window; ``far`` ones by those of any window.
    """
    task = task_of(name, seed, context=CONTEXT)
    fit = lagged(task, "train", lags=CONTEXT, most=3000, seed=seed)
    others = lagged(task, "validation", lags=CONTEXT, most=WINDOWS, seed=seed)
    trees = HistGradientBoostingRegressor(random_state=0, max_iter=150, max_leaf_nodes=15)
    trees.fit(fit.within(CONTEXT), fit.targets[:, 0])
    windows = others.within(CONTEXT)
    draw = np.random.default_rng([seed, 5])
    found: dict[str, float] = {}
    for reach, donors in (
        ("", windows[near(windows, draw)]),
        ("far ", windows[draw.permutation(len(windows))]),
    ):
        mixed = {
            "sequence": donors,
            "contextual": np.concatenate([donors[:, :-1], windows[:, -1:]], axis=1),
            "token": np.concatenate([windows[:, :-1], donors[:, -1:]], axis=1),
        }
        for modulus, changed in mixed.items():
            change = trees.predict(changed) - trees.predict(windows)
            found[f"{reach}{modulus} modulus"] = float(np.sqrt(np.square(change).mean()))
    searched, jumps = find_rows(task, DiagnoseOptions(seed=seed)), measure_jumps(task)
    assert searched is not None
    assert jumps is not None
    return found | {
        "explained share": max(searched[0].explained.values()),
        "look-back": float(searched[0].rows or 0),
        "share of changes in few steps": jumps.concentration,
    }


def near(windows: Array, draw: np.random.Generator) -> Array:
    """Return for each window one of its nearest others: int64 (windows,)."""
    squares = np.square(windows).sum(axis=1)
    distances = squares[:, None] + squares - 2 * windows @ windows.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :NEAREST]
    chosen: Array = nearest[np.arange(len(windows)), draw.integers(NEAREST, size=len(windows))]
    return chosen


def errors(name: str, seed: int, steps: int) -> dict[str, float]:
    """Train every arm and return its test RMSE in deviations of the series' training rows."""
    task = task_of(name, seed, context=CONTEXT)
    found = {}
    for arm, (timestep, loops) in ARMS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = make_train_config(seed=seed, steps=steps, evaluate_every=100, **TRAINING)
            model = make_model_config(task, **MODEL, timestep=timestep, loops=loops)
            result = train(task, model, config, Path(folder) / "model.pt")
        reached = result.test["rmse"]
        assert reached is not None
        found[arm] = reached / float(task.column_deviation[0])
    return found


def measure(name: str, seeds: int, steps: int) -> dict[str, Any]:
    """Return scores, errors and gains of a target, as means over the seeds, with each seed's gain."""
    scores = [moduli(name, seed) for seed in range(seeds)]
    trained = [errors(name, seed, steps) for seed in range(seeds)]
    gains = {
        gain: [each[first] - each[second] for each in trained]
        for gain, (first, second) in GAINS.items()
    }
    return {
        "target": name,
        "scores": {key: float(np.mean([each[key] for each in scores])) for key in scores[0]},
        "errors": {arm: float(np.mean([each[arm] for each in trained])) for arm in ARMS},
        "gains": gains,
    }


def correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return Spearman's rank correlation of every score with every gain over the targets, and its bootstrap interval."""
    found = []
    for score in rows[0]["scores"]:
        row: dict[str, Any] = {"score": score}
        for gain in GAINS:
            mine = np.array([each["scores"][score] for each in rows])
            theirs = np.array([np.mean(each["gains"][gain]) for each in rows])
            draw = np.random.default_rng(0)
            drawn = []
            for _ in range(RESAMPLINGS):
                chosen = draw.integers(len(rows), size=len(rows))
                if len(set(chosen.tolist())) > 2:
                    drawn.append(float(spearmanr(mine[chosen], theirs[chosen]).statistic))
            low, high = np.nanpercentile(drawn, CONFIDENCE).tolist()
            value = float(spearmanr(mine, theirs).statistic)
            row[gain] = {"correlation": value, "low": low, "high": high}
        found.append(row)
    return found


def report(result: dict[str, Any]) -> str:
    """Return both tables in Markdown."""
    rows, ranks = result["targets"], result["correlations"]
    lines = [
        "# Do moduli of continuity foretell what loops are worth?",
        "",
        f"`benchmarks/diagnose/moduli.py`: {len(rows)} synthetic series, {result['seeds']} seeds, d=32, {result['steps']} steps, "
        f"one loop against {LOOPS}, timestep encoding against constant gates at {LOOPS} loops.",
        "",
        "Spearman's rank correlation over the targets between a score of the data and the gain of training, with the 95 % interval of a",
        "bootstrap over the targets. A score that foretells a gain would have an interval well away from zero.",
        "",
        "| score, from data alone | with the gain of loops | with the gain of a timestep encoding |",
        "|---|---|---|",
    ]
    for row in ranks:
        cells = [
            f"{row[gain]['correlation']:+.2f} ({row[gain]['low']:+.2f} to {row[gain]['high']:+.2f})"
            for gain in GAINS
        ]
        lines.append(f"| {row['score']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Test RMSE in deviations of the series, means over the seeds; gains with the deviation of a seed.",
        "",
        "| target | "
        + " | ".join(ARMS)
        + " | gain of loops | gain of timestep | sequence | contextual | token |",
        "|---|" + "---|" * (len(ARMS) + 5),
    ]
    for row in rows:
        cells = [f"{row['errors'][arm]:.3f}" for arm in ARMS]
        for gain in GAINS:
            values = row["gains"][gain]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):+.3f}{spread}")
        cells += [
            f"{row['scores'][f'{name} modulus']:.2f}"
            for name in ("sequence", "contextual", "token")
        ]
        lines.append(f"| {row['target']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all targets, print the report and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="Folder for moduli.json and moduli.md.")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="Targets at the same time.")
    options = parser.parse_args()
    started, rows = time.perf_counter(), []
    with ProcessPoolExecutor(
        options.jobs, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        work = partial(measure, seeds=options.seeds, steps=options.steps)
        for row in pool.map(work, TARGETS):
            rows.append(row)
            print(f"{row['target']}: {time.perf_counter() - started:.0f} s", flush=True)
    result = {
        "seeds": options.seeds,
        "steps": options.steps,
        "correlations": correlations(rows),
        "targets": rows,
    }
    text = report(result)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "moduli.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.output / "moduli.md").write_text(text)


if __name__ == "__main__":
    main()
