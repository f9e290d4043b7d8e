"""The paper's finding in the small: more loops help, and a timestep encoding helps where a plain loop stalls.

Three arms with one recipe (`studies.py`): looped, looped with gates that are equal in every iteration, looped with
timestep encoding; over loop counts and seeds. Two studies have the plain loop as it was published beside them. Each run appends a line to OUTPUT/STUDY.jsonl, and runs that stand there
are not made again; the tables and curves are drawn from those lines.

    python benchmarks/paper/run.py                       # edit distance, one seed: about 3 minutes
    python benchmarks/paper/run.py --all --output benchmarks/results/paper   # hours on one core
"""

import argparse
import json
import tempfile
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from published_loop import train_published
from studies import STUDIES, Study
from tables import write_tables

import loopedge
from loopedge.errors import DivergedError
from loopedge.trainer.config import make_model_config, make_train_config

SEEDS, FIRST_SEED = 3, 10
"""The recipe was chosen on seeds below 10."""


def cell_of(study: Study, arm: str, loops: int, seed: int) -> dict[str, Any]:
    """Train one model; return its line."""
    task = study.task(seed)
    config = make_model_config(task, **study.model_fields(arm, loops))
    options = make_train_config(**study.train_fields(seed))
    line: dict[str, Any] = {"arm": arm, "loops": loops, "seed": seed, "metric": task.metric}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.pt"
        try:
            if study.arms[arm].published:
                result = train_published(task, config, options, target)
            else:
                result = loopedge.train(task, config, options, target, threads=1).to_json()
        except DivergedError as error:
            return line | {"diverged": error.message}
    kept = ("test", "train_loss", "stability", "parameters", "best_step", "steps")
    return (
        line
        | {name: result[name] for name in kept}
        | {
            "baselines": task.baselines("test", options.samples),
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


def run_study(
    study: Study, path: Path, seeds: int, arms: Container[str] | None = None
) -> list[dict[str, Any]]:
    """Make the runs that are missing, seed by seed, of some arms or of all; return all lines."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(line["arm"], line["loops"], line["seed"]) for line in lines}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for loops in study.loops:
            for arm in study.arms:
                if (arm, loops, seed) in done or (arms is not None and arm not in arms):
                    continue
                line = cell_of(study, arm, loops, seed)
                lines.append(line)
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                scored = line.get("diverged") or line["test"]
                print(f"{study.title}: {arm}, {loops} loops, seed {seed}: {scored}", flush=True)
    return lines


def main() -> None:
    """Run the studies that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=STUDIES, action="append", help="repeatable")
    parser.add_argument("--all", action="store_true", help="every study")
    parser.add_argument("--arm", action="append", help="this arm alone; repeatable")
    parser.add_argument("--seeds", type=int, help="default: 3 with --output, else 1")
    parser.add_argument("--output", type=Path, help="folder of the lines, tables and curves")
    options = parser.parse_args()
    names = list(STUDIES) if options.all else options.study or ["edit-distance"]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = options.seeds or (SEEDS if options.output else 1)
        found = {
            name: run_study(STUDIES[name], folder / f"{name}.jsonl", seeds, options.arm)
            for name in names
        }
        print(write_tables(found, folder))


if __name__ == "__main__":
    main()
