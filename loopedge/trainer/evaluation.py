"""Metrics of a model on a task's batches."""

import numpy as np
import torch
from torch import nn

from loopedge.tasks.metrics import Metrics, Tally, total
from loopedge.tasks.task import Array, Batch, Split, Task
from loopedge.trainer.quantization_aware.rounded_forward import Aware, rounded_weights
from loopedge.trainer.steps.objective import inputs_of, outputs_of
from loopedge.trainer.world import World

__all__ = ["Answers", "evaluate"]

BATCH_SIZE = 128


class Answers:
    """The outputs of a model on the samples of an evaluation, in their order."""

    def __init__(self) -> None:
        self._own: list[Array] = []

    def add(self, outputs: Array) -> None:
        """Keep what this process's rows of a batch gave; every process adds one array per batch."""
        self._own.append(outputs)

    def whole(self, world: World) -> Array:
        """Return the outputs of all processes, (samples, ...): every process has to call it."""
        gathered = world.gather(self._own)
        batches = []
        for parts in zip(*gathered, strict=True):
            batch = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
            for rank, part in enumerate(parts):  # as World.share dealt them
                batch[rank :: len(parts)] = part
            batches.append(batch)
        return np.concatenate(batches)


def evaluate(
    model: nn.Module,
    task: Task,
    split: Split,
    samples: int,
    world: World | None = None,
    *,
    aware: Aware | None = None,
    answers: Answers | None = None,
) -> Metrics:
    """Return the task's metrics on a split, in float32; the model's mode is left as it was.

    Args:
        model: A `LoopedTransformer`, sharded or not. Not its DDP wrapper: that one sends buffers before
            each forward pass, and hangs where one of the processes has no samples.
        task: Gives the samples and their score.
        split: Which part.
        samples: Most samples.
        world: The processes that share the samples; default: this one.
        aware: The weights are rounded so; None: they are not.
        answers: Keeps the outputs.
    """
    world = world or World(device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), rounded_weights(model, aware):
        tallies = (
            _tally(model, task, batch, world, answers)
            for batch in task.evaluation(split, BATCH_SIZE, samples)
        )
        summed = total(tally for tally in tallies if tally is not None)
    model.train(was_training)
    return task.metrics(world.sum_tally(summed))


def _tally(
    model: nn.Module, task: Task, batch: Batch, world: World, answers: Answers | None
) -> Tally | None:
    """Score this process's rows; where there are none it runs along, for weights may be shared."""
    own = world.share(batch)
    idle = not len(own.inputs)
    if idle and not world.is_sharded and answers is None:
        return None
    part = batch.rows(slice(0, 1)) if idle else own
    outputs = outputs_of(model, inputs_of(part, world.device)).cpu().numpy()
    if answers is not None:
        answers.add(outputs[:0] if idle else outputs)
    return None if idle else task.tally_batch(outputs, part)
