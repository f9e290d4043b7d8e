"""The plain baselines of each block: fitted once where blocks share their samples, and kept in the folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.baselines.fair import fair_baselines, fixed_evaluation
from loopedge.baselines.scores import BaselineScores
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.options import option
from loopedge.study.design import Cell
from loopedge.study.runs.blocks import BlockTasks
from loopedge.tasks.metrics import Tally, metric_value
from loopedge.tasks.task import SPLITS, Split, Task
from loopedge.units import score_text

__all__ = ["fit_baselines"]

SCORES, TALLIES = "scores.json", "samples"


def fit_baselines(
    tasks: BlockTasks,
    blocks: Sequence[Cell],
    folder: Path,
    samples: int,
    add_note: Callable[[str], None],
) -> dict[str, list[BaselineScores]]:
    """Return the baselines of each block; those that are in the folder are read.

    Args:
        tasks: Of the blocks.
        blocks: A run of each.
        folder: Of the pilot.
        samples: Most samples of an evaluation, as those of the models.
        add_note: Takes a line before they are fitted, and one with the best.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        InputError: What was kept is damaged.
    """
    shared = fixed_evaluation(tasks.whole(blocks[0].seed)) if blocks else False
    known: dict[str, list[BaselineScores]] = {}
    for block in blocks:
        name = _name(block, shared=shared)
        if name not in known:
            place = folder / "baselines" / name
            known[name] = _read(place) or _fit(tasks.of(block), place, samples, add_note)
    return {block.block: known[_name(block, shared=shared)] for block in blocks}


def _name(block: Cell, *, shared: bool) -> str:
    """Return the folder of a block's baselines: that of its origin alone where no seed changes the samples."""
    if not shared:
        return block.block
    return "all" if block.origin is None else f"o{block.origin}"


def _fit(
    task: Task, place: Path, samples: int, add_note: Callable[[str], None]
) -> list[BaselineScores]:
    add_note(f"fitting the baselines{'' if place.name == 'all' else f' of {place.name}'}")
    found = fair_baselines(task, samples)
    place.mkdir(parents=True, exist_ok=True)
    for number, scores in enumerate(found):
        arrays = {
            f"{split}.{name}": values
            for split, tally in scores.tallies.items()
            for name, values in tally.items()
        }
        if arrays:
            with (place / f"{TALLIES}{number}.npz").open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
    # Last: where it stands, all others do.
    write_text_atomic(place / SCORES, dump_json([scores.to_json() for scores in found]) + "\n")
    finished = [scores for scores in found if scores.reason is None and not scores.upper_bound]
    if finished:
        sign = 1 if task.higher_is_better else -1
        best = max(finished, key=lambda one: sign * metric_value(one.test, task.metric))
        value = score_text(best.test[task.metric])
        add_note(f"{len(found)} baselines, best on test: {best.name}, {task.metric} {value}")
    return found


def _read(place: Path) -> list[BaselineScores] | None:
    path = place / SCORES
    if not path.exists():
        return None
    hint = f"rm -r {place}, then again with {option('resume')}: they are fitted anew"
    stored = read_json(path, needed="the scores of baselines", hint=hint)
    return [
        BaselineScores(**scores, tallies=_read_tallies(place / f"{TALLIES}{number}.npz"))
        for number, scores in enumerate(stored)
    ]


def _read_tallies(path: Path) -> dict[Split, Tally]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        found: dict[Split, dict[str, Any]] = {split: {} for split in SPLITS}
        for key in arrays.files:
            split, _, name = key.partition(".")
            found[split][name] = arrays[key]
    return {split: tally for split, tally in found.items() if tally}
