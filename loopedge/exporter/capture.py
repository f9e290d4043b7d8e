"""Capture prelude, core and coda once each with ``torch.onnx.export``.

The parts are captured without the exporter's optimizer, which would store transposed copies of
weights under new names; `loopedge.graph` folds what there is to fold afterwards.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from loopedge.errors import InputError
from loopedge.exporter.axes import TRACED_BATCH, Axes, AxisNames, resize
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple

__all__ = ["Parts", "capture_parts"]

HARMLESS = (
    r".*LeafSpec.*",
    r".*# The axis name: .* will not be used.*",
    r".*The exported program's dynamic shapes.*",
)
"""Warnings that torch.onnx.export gives for every capture; matched by text, only here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The three captured graphs; inputs and outputs are flat, in the order of the contract."""

    prelude: ir.Model
    core: ir.Model
    coda: ir.Model
    states: int
    row_names: tuple[str, ...]


class _Prelude(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensors, Tensors]:
        return cast("LoopedProtocol", self.model).prelude(*inputs)


class _Core(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        return cast("LoopedProtocol", self.model).core(state, context, row)


class _Coda(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Tensors, context: Tensors) -> Tensors:
        return cast("LoopedProtocol", self.model).coda(state, context)


def capture_parts(
    model: nn.Module, example: tuple[Tensor, ...], axes: Axes, *, opset: int
) -> Parts:
    """Capture the three parts of a model.

    Args:
        model: A module under the contract, in evaluation mode.
        example: Example inputs.
        axes: What `find_axes` found.
        opset: ONNX opset of the result.

    Returns:
        The captured graphs.

    Raises:
        InputError: torch.export cannot follow the user's code; the message names the line.
    """
    looped = cast("LoopedProtocol", model)
    inputs = tuple(
        resize(tensor, TRACED_BATCH, axes.traced_sequence, names)
        for tensor, names in zip(example, axes.inputs, strict=True)
    )
    with torch.no_grad():
        state, context = looped.prelude(*inputs)
        row = {name: values[0].clone() for name, values in looped.timestep_table(1).items()}
    state_shapes, context_shapes = _shapes(state, axes.state), _shapes(context, axes.context)
    prelude = _capture(
        "prelude",
        _Prelude(model),
        {"inputs": inputs},
        {"inputs": tuple(_dynamic(names) for names in axes.inputs)},
        opset,
    )
    core = _capture(
        "core",
        _Core(model),
        {"state": state, "context": context, "row": row},
        {"state": state_shapes, "context": context_shapes, "row": dict.fromkeys(row)},
        opset,
    )
    coda = _capture(
        "coda",
        _Coda(model),
        {"state": state, "context": context},
        {"state": state_shapes, "context": context_shapes},
        opset,
    )
    _check_dynamic("prelude", prelude, axes.inputs)
    for name, part in (("core", core), ("coda", coda)):
        _check_dynamic(name, part, axes.state + axes.context)
    return Parts(
        prelude=prelude,
        core=core,
        coda=coda,
        states=len(as_tuple(state)),
        row_names=tuple(row),
    )


def _dynamic(names: AxisNames) -> dict[int, Any]:
    return dict.fromkeys(names, Dim.AUTO)


def _shapes(tensors: Tensors, names: tuple[AxisNames, ...]) -> Any:
    shapes = tuple(_dynamic(axis_names) for axis_names in names)
    return shapes[0] if isinstance(tensors, Tensor) else shapes


def _capture(
    part: str, module: nn.Module, kwargs: Mapping[str, Any], dynamic_shapes: Any, opset: int
) -> ir.Model:
    # An empty tuple of context tensors has no dynamic shapes of its own.
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                (),
                kwargs=dict(kwargs),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                dynamic_shapes=dynamic_shapes,
                verbose=False,
            )
        except Exception as error:
            raise _explain(part, error) from error
    if program is None:
        raise InputError(f"torch.onnx.export gave no graph for the {part}")
    graph: ir.Model = program.model
    written = graph.opset_imports.get("")
    if written != opset:
        raise InputError(f"torch.onnx.export wrote opset {written} instead of {opset}")
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "torchvision is not installed"
    try:
        with warnings.catch_warnings():
            for text in HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        logger.setLevel(level)


def _explain(part: str, error: Exception) -> InputError:
    """Turn an exporter failure into one line that names the user's line of code."""
    cause = error
    while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    where = next((line for line in lines if line.startswith("File ")), "")
    return InputError(
        f"the {part} cannot be captured: {reason}" + (f" ({where})" if where else ""),
        hint="control flow and shapes must not depend on tensor values; see docs/export.md",
    )


def _check_dynamic(part: str, captured: ir.Model, axes: tuple[AxisNames, ...]) -> None:
    for value, names in zip(captured.graph.inputs, axes, strict=False):
        for axis, name in names.items():
            if value.shape is not None and isinstance(value.shape[axis], int):
                raise InputError(
                    f"the {part} fixes axis {axis} ({name}) of {value.name} to "
                    f"{value.shape[axis]}: its code reads that size as a Python number",
                    hint="use sizes taken from tensor.shape in the same call; see docs/export.md",
                )
