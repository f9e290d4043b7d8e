"""How long a training of each arm and loop count takes, found from a few steps before any run is made."""

import time
from collections.abc import Sequence

import torch

from loopedge.model.transformer import LoopedTransformer
from loopedge.study.design import Cell, Design
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.task import Task
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.steps.step import Stepper
from loopedge.trainer.threads import torch_threads
from loopedge.trainer.world import open_world

__all__ = ["training_seconds"]

Key = tuple[str, int]

EVALUATED = 128
"""Samples of the evaluation that is timed; more of them take as many times longer."""


def training_seconds(task: Task, setup: RunSetup) -> dict[Key, float]:
    """Return the seconds of a whole training by arm and loop count, its evaluations counted.

    The fewest and the most loops of each arm are measured, two steps each: what lies between grows with the loops.

    Args:
        task: Gives the batches.
        setup: What all runs share.
    """
    design = setup.design
    found: dict[Key, float] = {}
    for arm in design.arms:
        counts = [loops for other, loops in design.compared if other == arm]
        ends = sorted({min(counts), max(counts)}) if counts else []
        seconds = [_measure(task, arm, loops, setup) for loops in ends]
        found |= {(arm, loops): _between(ends, seconds, loops) for loops in counts}
    return found


def _between(ends: Sequence[int], seconds: Sequence[float], loops: int) -> float:
    """Return a value on the straight line through the ends."""
    if len(ends) == 1:
        return seconds[0]
    share = (loops - ends[0]) / (ends[1] - ends[0])
    return seconds[0] + share * (seconds[1] - seconds[0])


def _measure(task: Task, arm: str, loops: int, setup: RunSetup) -> float:
    design: Design = setup.design
    cell = Cell(arm=arm, loops=loops, seed=design.first_seed)
    config = design.train_config(cell).model_copy(update={"compile": False})  # it takes minutes
    with (
        torch_threads(setup.threads),
        open_world(design.device) as world,
        torch.random.fork_rng(devices=[]),
    ):
        model = LoopedTransformer(design.model_config(task, cell)).to(world.device)
        objective = Objective(
            kind=task.kind,
            teacher=None,
            weight=config.distill_weight,
            temperature=config.distill_temperature,
        )
        stepper = Stepper(task, model, config, objective, world)
        model.train()
        step = min(_timed_step(stepper, number) for number in range(2))
        started = time.perf_counter()
        evaluate(model, task, "validation", EVALUATED, world)
        evaluation = time.perf_counter() - started
    samples = min(config.samples, task.available("validation") or config.samples)
    evaluation *= max(1.0, samples / EVALUATED)
    evaluations = 2 + config.steps / config.evaluation_interval  # two at the end, of either split
    return config.steps * step + evaluations * evaluation


def _timed_step(stepper: Stepper, number: int) -> float:
    started = time.perf_counter()
    stepper.apply(number, stepper.compute(number))
    return time.perf_counter() - started
