"""How other tools write a model as ONNX: PyTorch's exporters, and that of transformers.

Runs in the environment of `requirements.txt`; it imports nothing of loopedge.
"""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.reroll.subjects import Subject, feeds_of

__all__ = ["EXPORTERS", "export"]


def export(exporter: str, subject: Subject, path: Path) -> Path:
    """Write a subject's model with an exporter and return the file.

    Raises:
        Exception: Whatever the exporter raises.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # packages warn as they are imported, too
        EXPORTERS[exporter](subject.model(), subject, path)
    return path


def _by_dynamo(model: nn.Module, subject: Subject, path: Path, *, optimize: bool = True) -> None:
    feeds = feeds_of(subject)
    shapes = {
        name: {i: torch.export.Dim.DYNAMIC for i, axis in enumerate(axes) if isinstance(axis, str)}
        for name, axes in subject.inputs.items()
    }
    program = torch.onnx.export(
        model,
        () if subject.by_keyword else tuple(feeds.values()),
        kwargs=feeds if subject.by_keyword else None,
        dynamo=True,
        optimize=optimize,
        dynamic_shapes=shapes if subject.by_keyword else tuple(shapes.values()),
        verbose=False,
    )
    assert program is not None
    program.save(path)


def _without_optimizer(model: nn.Module, subject: Subject, path: Path) -> None:
    _by_dynamo(model, subject, path, optimize=False)


def _by_torchscript(model: nn.Module, subject: Subject, path: Path) -> None:
    feeds = feeds_of(subject)
    if subject.transformers:  # it cannot write an object of named outputs
        config: Any = model.config
        config.return_dict = False
    torch.onnx.export(
        model,
        (feeds,) if subject.by_keyword else tuple(feeds.values()),
        path,
        dynamo=False,
        input_names=list(feeds),
        dynamic_axes={
            name: {i: axis for i, axis in enumerate(axes) if isinstance(axis, str)}
            for name, axes in subject.inputs.items()
        },
        opset_version=17,
    )


def _by_transformers(model: nn.Module, subject: Subject, path: Path) -> None:
    if not subject.transformers:
        raise NotImplementedError("transformers exports its own models alone")
    package: Any = importlib.import_module("transformers.exporters.exporter_onnx")
    exporter = package.OnnxExporter()
    exported = exporter.export(model, feeds_of(subject), config=package.OnnxConfig(dynamic=True))
    onnx_ir: Any = importlib.import_module("onnx_ir")
    onnx_ir.save(exported.program, path)


EXPORTERS: dict[str, Callable[[nn.Module, Subject, Path], None]] = {
    "dynamo": _by_dynamo,
    "dynamo unoptimized": _without_optimizer,
    "torchscript": _by_torchscript,
    "transformers": _by_transformers,
}
