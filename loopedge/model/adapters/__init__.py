"""Looped models of other packages under the contract: one file per model type.

A file is called as the ``model_type`` of a ``config.json`` (``-`` as ``_``), or as the package that
defines the class, and holds ``adapt(model, **options)`` and ``load(folder, config)``; adding a file
adds a model.
"""

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from loopedge.errors import InputError
from loopedge.model.contract import LoopedModule
from loopedge.model.folder import CONTRACT_HINT, read_config
from loopedge.model.published.types import PUBLISHED

__all__ = ["adapt", "load_pretrained", "supported", "unsupported"]


def adapt(model: nn.Module, **options: Any) -> LoopedModule | None:
    """Bring a model of another package under the contract, without copying its weights.

    Args:
        model: In float32; it is put into evaluation mode.
        options: What the adapter takes; see docs/adapters.md.

    Returns:
        The adapter, in evaluation mode; None where there is none for this model, or it is a `LoopedModule` itself.

    Raises:
        InputError: There is an adapter, but not for this class, configuration or type of numbers.
    """
    if isinstance(model, LoopedModule):
        return None
    config = getattr(model, "config", None)
    for name in (getattr(config, "model_type", None), type(model).__module__.split(".")[0]):
        adapter = _find(name) if isinstance(name, str) else None
        if adapter is not None:
            _check_float32(model)
            return cast("LoopedModule", adapter.adapt(model, **options).eval())
    return None


def load_pretrained(folder: str | Path) -> LoopedModule:
    """Build a model of another package from its folder, and bring it under the contract.

    Only ``config.json`` and weights are read: nothing is downloaded, no code in the folder is run.

    Args:
        folder: As ``save_pretrained`` wrote it; for tiny-recursive-model see docs/adapters.md.

    Returns:
        The adapter, in evaluation mode.

    Raises:
        InputError: A file is missing or damaged, or the model type or class has no adapter.
        MissingExtraError: The package that defines the model is not installed.
    """
    source = Path(folder)
    config = read_config(source)
    adapter = _find(config["model_type"])
    if adapter is None:
        raise unsupported(f"model_type {config['model_type']!r} of {source}")
    model = cast("LoopedModule", adapter.load(source, config).eval())
    stored = config.get("dtype") or config.get("torch_dtype")
    if stored in {"float16", "bfloat16"}:
        model.notes = (f"the folder's weights are {stored}, they are exported as float32",)
    return model


def supported() -> list[str]:
    """Return the model types that have an adapter, as their files are called."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def unsupported(what: str) -> InputError:
    """Return the error that says there is no adapter for ``what``, and what to do instead."""
    return InputError(
        f"{what} has no adapter, there are: {', '.join(supported())}; "
        f"folders of published models: {', '.join(PUBLISHED)}",
        hint=CONTRACT_HINT,
    )


def _find(name: str) -> ModuleType | None:
    file = name.replace("-", "_").lower()
    if file not in supported():
        return None
    return importlib.import_module(f"{__name__}.{file}")


def _check_float32(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise InputError(f"{name} is {kind}, float32 is needed", hint="model.float()")
