"""Runs of a pilot that were never made: their results by arm, loop count and seed."""

from collections.abc import Mapping, Sequence
from typing import Any

from loopedge.baselines.scores import BaselineScores
from loopedge.study.design import Cell, Design, make_design
from loopedge.study.judging.judgement import Judgement, Runs, judge_runs
from loopedge.study.options import PilotOptions
from loopedge.tasks.generated.sorting import SortingTask

TASK = SortingTask(length=4, vocab=6)
MODEL, TRAIN = {"d_model": 16, "heads": 2}, {"steps": 4, "batch_size": 4}
Values = Mapping[tuple[str, int], Sequence[float | None]]


def cells_of(values: Values, metric: str = "rmse", validation: Values | None = None) -> list[Any]:
    """Return results of runs by arm and loops; None stands for a run that diverged.

    Args:
        values: Of the test split, by seed.
        metric: Its name.
        validation: Default: as on the test split.
    """
    cells = []
    for (arm, loops), scores in values.items():
        for seed, score in enumerate(scores):
            seen = score if validation is None else validation[arm, loops][seed]
            cell: dict[str, Any] = {
                "name": Cell(arm=arm, loops=loops, seed=seed).name,
                "arm": arm,
                "loops": loops,
                "seed": seed,
                "gradient_norm_max": 2.0,
            }
            if score is None:
                cell |= {"status": "diverged", "reason": "loss nan"}
            else:
                cell |= {
                    "status": "done",
                    "test": {metric: score},
                    "validation": {metric: seen},
                    "int8": {metric: score},
                    "int8_reason": None,
                    "parameters": 100 * (loops if arm == "untied" else 1),
                    "stability": {"relative_update": [0.5] * loops},
                    "train_seconds": 10.0,
                }
            cells.append(cell)
    return cells


def designed(**keywords: Any) -> Design:
    """Return a design of a small sorting task."""
    return make_design(TASK, PilotOptions(model=MODEL, train=TRAIN, **keywords))


def runs_of(
    values: Values,
    *,
    validation: Values | None = None,
    baseline: float | Sequence[float] | None = 10.0,
    higher_is_better: bool = False,
    **fields: Any,
) -> Runs:
    """Return runs of these test values, and a baseline ``naive`` of its value, or of one for each seed."""
    seeds = len(next(iter(values.values())))
    design = designed(
        arms=tuple(dict.fromkeys(arm for arm, _ in values)),
        loops=sorted({loops for _, loops in values}),
        seeds=seeds,
    )
    each = [baseline] * seeds if isinstance(baseline, float | int) else baseline or ()
    naive = {
        f"s{seed}": [BaselineScores(name="naive", test={"rmse": value})]
        for seed, value in enumerate(each)
    }
    return Runs(
        design=design,
        cells=cells_of(values, validation=validation),
        metric="rmse",
        higher_is_better=higher_is_better,
        baselines=naive,
        **fields,
    )


def judged(values: Values, *, margin: str | float = 0.2, **fields: Any) -> Judgement:
    """Return what runs of these values say."""
    return judge_runs(runs_of(values, **fields), margin=margin)
