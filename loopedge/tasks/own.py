"""A task of the user's own, from ``package.module:Class``, tried out before it trains."""

import inspect
from typing import Any

import numpy as np

from loopedge.errors import InputError, LoopedgeError
from loopedge.tasks.task import SPLITS, Array, Batch, Task
from loopedge.user_code import import_object, reason_of

__all__ = ["check_task", "load_task"]

TRIED = 4
"""Samples of each split that a task is tried with."""


def load_task(source: str, *, seed: int = 0) -> Task:
    """Import a task, from the current folder too, build it, and try it out.

    Args:
        source: ``package.module:name`` of a subclass of `Task`, or of a function that returns one.
        seed: Is handed to it where it takes a ``seed``.

    Returns:
        The task.

    Raises:
        InputError: It cannot be imported or built, or `check_task` refuses it.
    """
    found = import_object(source)
    if not callable(found):
        raise InputError(f"{source} is no class and no function: {type(found).__name__}")
    try:
        takes_seed = "seed" in inspect.signature(found).parameters
        task = found(seed=seed) if takes_seed else found()
    except LoopedgeError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise InputError(
            f"{source} failed: {reason_of(error)}", hint="all arguments but seed need a default"
        ) from error
    if not isinstance(task, Task):
        raise InputError(
            f"{source} gives {type(task).__name__}, a loopedge.Task is needed",
            hint="derive the class from loopedge.Task; docs/tasks.md",
        )
    check_task(task)
    return task


def check_task(task: Task) -> None:
    """Draw a batch of each split, twice, and see that it fits what the task says of the model.

    Raises:
        InputError: A method fails, a shape or type does not fit, or a batch changes with time.
    """
    fields = _run(task, "model_fields")
    wanted = {"vocab_size", "features"} & {name for name in fields if fields[name] is not None}
    if len(wanted) != 1:
        raise InputError(f"{task.name}: model_fields must give one of vocab_size and features")
    for split in SPLITS:
        first, again = (_run(task, "batch", split, TRIED, 0) for _ in range(2))
        if not isinstance(first, Batch):
            raise InputError(f"{task.name}: batch gives {type(first).__name__}, not a Batch")
        where = f"{task.name}: batch of {split}"
        if not _equal(first, again):
            raise InputError(
                f"{where} differs from call to call: it must depend on seed, split and step alone",
                hint="loopedge.tasks.task.generator_of(self.seed, split, step)",
            )
        _check_inputs(first, fields, where)
        _check_targets(first, task, where)


def _check_inputs(batch: Batch, fields: dict[str, Any], where: str) -> None:
    vocab, features = fields.get("vocab_size"), fields.get("features")
    inputs = batch.inputs
    kind, shape = (
        (np.int64, (TRIED, "sequence")) if vocab else (np.float32, (TRIED, "sequence", features))
    )
    fits = inputs.dtype == kind and inputs.ndim == len(shape) and len(inputs) == TRIED
    if not fits or (features and inputs.shape[-1] != features):
        raise InputError(
            f"{where}: inputs are {inputs.dtype} {inputs.shape}, "
            f"{np.dtype(kind)} ({', '.join(map(str, shape))}) is needed"
        )
    if vocab and not ((inputs >= 0) & (inputs < vocab)).all():
        raise InputError(
            f"{where}: token {inputs.max() if inputs.max() >= vocab else inputs.min()}, "
            f"allowed are 0 to {vocab - 1}"
        )
    mask = batch.attention_mask
    if mask is not None and (mask.shape != inputs.shape[:2] or mask.dtype != np.int64):
        raise InputError(
            f"{where}: attention_mask is {mask.dtype} {mask.shape}, int64 {inputs.shape[:2]} is needed"
        )
    if (mask is not None) != bool(fields.get("padding", False)):
        raise InputError(
            f"{where}: {'has an' if mask is not None else 'has no'} attention_mask, "
            f"model_fields says padding={bool(fields.get('padding', False))}"
        )


def _check_targets(batch: Batch, task: Task, where: str) -> None:
    targets = batch.targets
    wanted = np.int64 if task.kind == "classes" else np.float32
    if targets.dtype != wanted or len(targets) != TRIED:
        raise InputError(
            f"{where}: targets are {targets.dtype} {targets.shape}, "
            f"{np.dtype(wanted)} of {TRIED} samples is needed for kind {task.kind!r}"
        )


def _equal(first: Batch, again: Any) -> bool:
    pairs: list[tuple[Array | None, Array | None]] = [
        (getattr(first, name), getattr(again, name)) for name in Batch.__dataclass_fields__
    ]
    return all(
        one is other is None or (one is not None and other is not None and _same(one, other))
        for one, other in pairs
    )


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _run(task: Task, method: str, *arguments: Any) -> Any:
    try:
        return getattr(task, method)(*arguments)
    except LoopedgeError:
        raise
    except Exception as error:  # user code may raise anything
        raise InputError(f"{task.name}: {method} failed: {reason_of(error)}") from error
