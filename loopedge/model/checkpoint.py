"""Save and load ``model.pt``: a dictionary of plain tensors and a configuration, no code."""

import io
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError

from loopedge.errors import InputError
from loopedge.files import check_target
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.staging import staged_folder

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
    force: bool = False,
) -> None:
    """Write a model to ``path``, whole or not at all.

    Args:
        model: The model.
        path: Target, usually ``model.pt``.
        task: What the model was trained on: name, columns, horizon, metric; plain values only.
        companions: Texts that the exported model needs beside it, as `Task.companions` returns them.
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
    write_tensors(checkpoint, target)


def write_tensors(values: dict[str, Any], target: Path) -> None:
    """Write plain tensors and values with ``torch.save``, whole or not at all.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    # Through memory: given a path, PyTorch tells a full disk as a RuntimeError without a reason.
    buffer = io.BytesIO()
    torch.save(values, buffer)
    with staged_folder(target) as folder:
        (folder / target.name).write_bytes(buffer.getbuffer())


def load(path: str | Path) -> LoopedTransformer:
    """Read a model from ``path``, in evaluation mode.

    Raises:
        InputError: The file is missing, damaged, holds code, or is no loopedge checkpoint.
    """
    return model_from(load_checkpoint(path), path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check the dictionary of a ``model.pt``, with ``weights_only=True``.

    Raises:
        InputError: As `load`.
    """
    source = Path(path)
    if source.is_dir():
        raise InputError(f"{source} is a folder, a model.pt is needed")
    if not source.exists():
        raise InputError(f"{source} does not exist", hint="loopedge train --help")
    try:
        with warnings.catch_warnings():
            # A foreign pickle is told below, in one line.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or _starts_as_pickle(source):
            raise InputError(
                f"{source} holds pickled code, which is never run: only plain tensors are read",
                hint="save it with loopedge.save(model, path)",
            ) from error
        raise InputError(f"{source} is not a PyTorch checkpoint or is damaged") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, struct.error) as error:
        raise InputError(f"{source} is not a PyTorch checkpoint or is truncated") from error
    hint = "save it with loopedge.save(model, path)"
    if not isinstance(checkpoint, dict) or "loopedge" not in checkpoint:
        raise InputError(f"{source} is not a loopedge checkpoint: no key 'loopedge'", hint=hint)
    if checkpoint["loopedge"] != FORMAT:
        raise InputError(
            f"{source} has checkpoint format {checkpoint['loopedge']!r}, this version reads {FORMAT}",
            hint="pip install --upgrade loopedge",
        )
    missing = [key for key in ("config", "state_dict") if not isinstance(checkpoint.get(key), dict)]
    if missing:
        raise InputError(f"{source} lacks the keys {', '.join(missing)}", hint=hint)
    return cast("Checkpoint", checkpoint)


def _starts_as_pickle(source: Path) -> bool:
    with source.open("rb") as data:
        return data.read(1) == pickle.PROTO


def model_from(checkpoint: Checkpoint, source: str | Path = "checkpoint") -> LoopedTransformer:
    """Build the model that a checkpoint dictionary describes, in evaluation mode.

    Raises:
        InputError: The configuration is invalid, or tensors are missing, unknown or misshapen.
    """
    try:
        config = LoopedConfig.model_validate(checkpoint["config"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        raise InputError(f"{source}: configuration: {where}: {first['msg']}") from error
    model = LoopedTransformer(config)
    wanted, given = model.state_dict(), checkpoint["state_dict"]
    for name, value in wanted.items():
        if name not in given:
            raise InputError(f"{source}: tensor {name} is missing")
        if tuple(given[name].shape) != tuple(value.shape):
            raise InputError(
                f"{source}: tensor {name} has shape {tuple(given[name].shape)}, "
                f"the configuration asks for {tuple(value.shape)}"
            )
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise InputError(f"{source}: unknown tensor {unknown[0]}")
    model.load_state_dict(given)
    return model.eval()
