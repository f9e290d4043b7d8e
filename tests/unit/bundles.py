"""Bundles for tests, made of models that are written by hand; and the loader for Python as bundles hold it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import loopedge
from loopedge.packager.vectors.checking import client_module
from tests.table_models import TASK, repeating_model

if TYPE_CHECKING:
    from loopedge.packager.result import PackageResult

__all__ = ["FIXTURES", "SHORT", "array_of", "client", "package", "short_model", "tiny"]

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHORT = TASK | {"min_context": 2}
"""A table whose windows may be short: they are padded with the means 7 and 8."""

client: Any = client_module()


def short_model(folder: Path, **known: Any) -> Path:
    """Write a model of a table that gives back what it was fed, ``seen`` and ``kept``."""
    return repeating_model(folder / "short.onnx", SHORT, **known)


def tiny(folder: Path, *, dynamic: bool = False) -> Path:
    """Copy a committed model: token ids in, logits out, three loops."""
    name = "tiny_dynamic.onnx" if dynamic else "tiny.onnx"
    return Path(shutil.copy(FIXTURES / name, folder))


def package(model: Path, *clients: str, **options: Any) -> PackageResult:
    """Package a model into ``bundle`` beside it."""
    target = options.pop("path", model.parent / "bundle")
    return loopedge.package(model, target, clients=clients or ("python",), **options)


def array_of(folder: Path, described: Any) -> Any:
    """Return an array of a vector, read by hand."""
    flat = np.fromfile(folder / described.file, np.dtype(described.dtype).newbyteorder("<"))
    return flat.reshape(described.shape)
