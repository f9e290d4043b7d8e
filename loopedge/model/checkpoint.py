"""Save and load ``model.pt``: a dictionary of plain tensors and a configuration, no code."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError

from loopedge.errors import InputError
from loopedge.files.json_text import plain_problem
from loopedge.files.staging import staged_folder
from loopedge.files.targets import check_target
from loopedge.files.validation import validation_problem
from loopedge.model.config import LoopedConfig
from loopedge.model.tensor_file import check_tensors, read_saved
from loopedge.model.transformer import LoopedTransformer

__all__ = ["Checkpoint", "load", "load_checkpoint", "save", "write_tensors"]

FORMAT = 1
Checkpoint = dict[str, Any]
"""``{"loopedge": 1, "config": {...}, "state_dict": {...}, "task": {...}, "companions": {...}}``."""


def save(
    model: LoopedTransformer,
    path: str | Path,
    *,
    task: dict[str, Any] | None = None,
    companions: Mapping[str, str] | None = None,
    quantization_aware: str | None = None,
    force: bool = False,
) -> None:
    """Write a model to ``path``, whole or not at all.

    Args:
        model: The model.
        path: Target, usually ``model.pt``.
        task: What the model was trained on: name, columns, horizon, metric; plain values only.
        companions: Texts that the exported model needs beside it, as `Task.companions` returns them.
        quantization_aware: The number format that its weights were rounded to while it was trained.
        force: Replace an existing file.

    Raises:
        InputError: The target exists or cannot be written.
    """
    target = Path(path)
    check_target(target, force=force)
    checkpoint: Checkpoint = {
        "loopedge": FORMAT,
        "config": model.config.model_dump(),
        "state_dict": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "task": task or {},
        "companions": dict(companions or {}),
    }
    if quantization_aware is not None:
        checkpoint["quantization_aware"] = quantization_aware
    write_tensors(checkpoint, target)


def write_tensors(values: dict[str, Any], target: Path) -> None:
    """Write plain tensors and values with ``torch.save``, whole or not at all.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    # Through memory: given a path, PyTorch reports a full disk as a RuntimeError without a reason.
    buffer = io.BytesIO()
    torch.save(values, buffer)
    with staged_folder(target) as folder:
        (folder / target.name).write_bytes(buffer.getbuffer())


def load(path: str | Path) -> LoopedTransformer:
    """Read a model from ``path``, in evaluation mode.

    Raises:
        InputError: The file is missing, damaged, holds code, or is not a loopedge checkpoint.
    """
    return model_from(load_checkpoint(path), path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check the dictionary of a ``model.pt``, with ``weights_only=True``.

    Raises:
        InputError: As `load`.
    """
    source, hint = Path(path), "save it with loopedge.save(model, path)"
    checkpoint = read_saved(
        source, needed="a PyTorch checkpoint", hint="loopedge train --help", code_hint=hint
    )
    if not isinstance(checkpoint, dict) or "loopedge" not in checkpoint:
        raise InputError(f"{source} is not a loopedge checkpoint: no key 'loopedge'", hint=hint)
    written = checkpoint["loopedge"]
    if type(written) is not int or written != FORMAT:
        shown = written if type(written) is int else type(written).__name__
        raise InputError(
            f"{source} has checkpoint format {shown}, this version reads {FORMAT}",
            hint="take a newer loopedge: git pull in its clone, then install again",
        )
    missing = [key for key in ("config", "state_dict") if not isinstance(checkpoint.get(key), dict)]
    if missing:
        raise InputError(f"{source} lacks the keys {', '.join(missing)}", hint=hint)
    check_tensors(checkpoint["state_dict"], source)
    _check_plain(checkpoint, source)
    return cast("Checkpoint", checkpoint)


def _check_plain(checkpoint: dict[str, Any], source: Path) -> None:
    """Refuse a configuration, a task or companions that are not plain values of the right kind."""
    for key in ("config", "task", "companions"):
        value = checkpoint.get(key) or {}
        if not isinstance(value, dict):
            raise InputError(f"{source}: {key} is {type(value).__name__}, a dictionary is needed")
        problem = plain_problem(value)
        if problem is not None:
            raise InputError(f"{source}: {key} cannot be used: {problem}")
    for name, text in (checkpoint.get("companions") or {}).items():
        if not isinstance(text, str):
            raise InputError(
                f"{source}: companion {name!r} is {type(text).__name__}, text is needed"
            )


def model_from(checkpoint: Checkpoint, source: str | Path = "checkpoint") -> LoopedTransformer:
    """Build the model that a checkpoint dictionary describes, in evaluation mode.

    Raises:
        InputError: The configuration is invalid, or tensors are missing, unknown or misshapen.
    """
    try:
        config = LoopedConfig.model_validate(checkpoint["config"])
    except ValidationError as error:
        problem = validation_problem(error)
        raise InputError(f"{source}: configuration: {problem}") from error
    # Without memory first: a configuration is a few bytes, and may ask for any number of them.
    given = checkpoint["state_dict"]
    _check_layers(config, given, source)
    with torch.device("meta"):
        wanted = LoopedTransformer(config).state_dict()
    for name, value in wanted.items():
        if name not in given:
            raise InputError(f"{source}: tensor {name} is missing")
        if given[name].is_floating_point() is not value.is_floating_point():
            raise InputError(
                f"{source}: tensor {name} is {given[name].dtype}, {value.dtype} is needed"
            )
        if tuple(given[name].shape) != tuple(value.shape):
            raise InputError(
                f"{source}: tensor {name} has shape {tuple(given[name].shape)}, "
                f"the configuration asks for {tuple(value.shape)}"
            )
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise InputError(f"{source}: unknown tensor {unknown[0]}")
    model = LoopedTransformer(config)
    model.load_state_dict(given)
    return model.eval()


def _check_layers(config: LoopedConfig, given: Mapping[str, Any], source: str | Path) -> None:
    """Refuse more layers than there are tensors: even without memory each takes its time to build."""
    if config.layers > len(given):
        raise InputError(
            f"{source}: the configuration asks for {config.layers} layers, the file holds {len(given)} "
            "tensors"
        )
