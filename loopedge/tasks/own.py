"""A task of the user's own, from ``package.module:Class``, tried out before it trains."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.errors import InputError, LoopedgeError
from loopedge.tasks.metrics import IGNORED
from loopedge.tasks.task import HOMES, SPLITS, Array, Batch, Task
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
        raise InputError(f"{source} is neither a class nor a function: {type(found).__name__}")
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
    task.input_files = (*task.input_files, *_files_of(found, task))
    if task.name in HOMES:  # a description by that name would be rebuilt as another task
        raise InputError(
            f"{task.name} is the name of a task of loopedge's own", hint="name it otherwise"
        )
    return task


def _files_of(*objects: object) -> set[Path]:
    """Return the files of the user's code that objects come from."""
    modules = (sys.modules.get(getattr(one, "__module__", "")) for one in objects)
    files = (getattr(module, "__file__", None) for module in modules)
    return {Path(file) for file in files if file}


def check_task(task: Task) -> None:
    """Draw a batch of each split, twice, score it, and see that all fits what the task says.

    Raises:
        InputError: A method fails, a name, shape, type or class does not fit, or a batch changes with
            time.
    """
    _check_description(task)
    fields = _run(task, "model_fields")
    wanted = {"vocab_size", "features"} & {name for name in fields if fields[name] is not None}
    if len(wanted) != 1:
        raise InputError(f"{task.name}: model_fields must give one of vocab_size and features")
    for split in SPLITS:
        first, again = (_run(task, "batch", split, TRIED, 0) for _ in range(2))
        where = f"{task.name}: batch of {split}"
        _check_arrays(first, where)
        if not _equal(first, again):
            raise InputError(
                f"{where} differs from call to call: it must depend on seed, split and step alone",
                hint="loopedge.tasks.task.generator_of(self.seed, split, step)",
            )
        _check_inputs(first, fields, where)
        _check_targets(first, task, fields, where)
        _check_score(first, task, fields)
        if next(iter(_run(task, "evaluation", split, TRIED, TRIED)), None) is None:
            raise InputError(f"{task.name}: evaluation of {split} gives no batch")


def _check_description(task: Task) -> None:
    """Check what the checkpoint remembers: a name of its own, and plain values."""
    name = getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        raise InputError(f"{type(task).__name__} has no name", hint='name = "my-task"')
    for setting in task.settings:
        if not hasattr(task, setting):
            raise InputError(
                f"{name}: settings names {setting}, which is not an attribute of the task"
            )
    for method in ("describe", "companions"):
        returned = _run(task, method)
        try:
            json.dumps(returned)
        except TypeError as error:
            raise InputError(
                f"{name}: {method} holds more than plain values: {error}",
                hint="settings must be numbers, texts, lists or dictionaries; int(value), str(path)",
            ) from error


def _check_arrays(batch: Any, where: str) -> None:
    if not isinstance(batch, Batch):
        raise InputError(f"{where} is {type(batch).__name__}, a Batch is needed")
    for name in Batch.__dataclass_fields__:
        value = getattr(batch, name)
        optional = name not in {"inputs", "targets"} and value is None
        if not isinstance(value, np.ndarray) and not optional:
            raise InputError(f"{where}: {name} is {type(value).__name__}, an array is needed")


def _check_inputs(batch: Batch, fields: dict[str, Any], where: str) -> None:
    vocab, features = fields.get("vocab_size"), fields.get("features")
    inputs, mask = batch.inputs, batch.attention_mask
    length = inputs.shape[1] if inputs.ndim > 1 else 0
    shape = (TRIED, length) if vocab else (TRIED, length, int(features or 0))
    wide = bool(fields.get("wide", False))
    numbers = np.float64 if wide else np.float32
    _check_array("inputs", inputs, np.int64 if vocab else numbers, shape, where)
    if vocab and not ((inputs >= 0) & (inputs < vocab)).all():
        wrong = inputs.max() if inputs.max() >= vocab else inputs.min()
        raise InputError(f"{where}: token {wrong}, allowed are 0 to {vocab - 1}")
    if mask is not None:
        _check_array("attention_mask", mask, np.int64, (TRIED, length), where)
    if (mask is not None) != bool(fields.get("padding", False)):
        raise InputError(
            f"{where}: {'has an' if mask is not None else 'has no'} attention_mask, "
            f"model_fields says padding={bool(fields.get('padding', False))}"
        )


def _check_targets(batch: Batch, task: Task, fields: dict[str, Any], where: str) -> None:
    targets, outputs = batch.targets, _outputs(fields)
    shape = _output_shape(batch, fields)
    if task.kind == "values":
        kind = np.float64 if targets.dtype == np.float64 else np.float32
        _check_array("targets", targets, kind, shape, where)
        asked = ~np.isnan(targets)
    else:
        _check_array("targets", targets, np.int64, shape[:-1], where)
        asked = targets != IGNORED
        known = targets[asked]
        if known.size and not ((known >= 0) & (known < outputs)).all():
            wrong = known.max() if known.max() >= outputs else known.min()
            raise InputError(f"{where}: class {wrong}, allowed are 0 to {outputs - 1}")
    if not asked.any():
        raise InputError(f"{where}: nothing is asked, all targets are left out")
    for name in ("units", "scales"):
        given = getattr(batch, name)
        if given is not None:
            _check_array(name, given, np.float64, (TRIED, outputs), where)


def _check_score(batch: Batch, task: Task, fields: dict[str, Any]) -> None:
    """Score outputs of zeros, as an evaluation does."""
    outputs = np.zeros(_output_shape(batch, fields), np.float32)
    plain = type(task).tally_batch is Task.tally_batch  # an error names what the user wrote
    tally = ("tally", outputs, batch.targets) if plain else ("tally_batch", outputs, batch)
    returned = _run(task, "metrics", _run(task, *tally))
    if task.metric not in returned:
        raise InputError(
            f"{task.name}: metrics gives {', '.join(returned)}, metric says {task.metric!r}",
            hint=f'metric = "{next(iter(returned), "accuracy")}"',
        )


def _outputs(fields: dict[str, Any]) -> int:
    return int(fields.get("outputs") or fields.get("vocab_size") or fields.get("features") or 0)


def _output_shape(batch: Batch, fields: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of a model's output on a batch."""
    if fields.get("read", "all") == "all":
        return (*batch.inputs.shape[:2], _outputs(fields))
    horizon = fields.get("horizon")
    return (TRIED, *([horizon] if horizon else []), _outputs(fields))


def _check_array(
    name: str, array: Array, kind: type[np.generic], shape: tuple[int, ...], where: str
) -> None:
    if array.dtype != kind or array.shape != shape or 0 in shape:
        raise InputError(
            f"{where}: {name} are {array.dtype} {array.shape}, {np.dtype(kind)} {shape} is needed"
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
