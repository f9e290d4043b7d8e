"""Capture prelude, core and coda once each with ``torch.onnx.export``.

The parts are captured without the exporter's optimizer, which would store transposed copies of
weights under new names; `loopedge.graph` folds what there is to fold afterwards.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental import _config as symbolic_sizes

from loopedge.errors import InputError
from loopedge.exporter.capture.attention import lowered_attention
from loopedge.exporter.capture.axes import TRACED_BATCH, Axes, InnerAxes, resized
from loopedge.exporter.capture.capture_error import capture_error
from loopedge.exporter.capture.input_axes import AxisNames
from loopedge.exporter.capture.nested import InnerCall, mark, record
from loopedge.exporter.capture.shared_tables import shared_tables
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple, copied, timestep_table_of
from loopedge.model.inner import InnerBody

__all__ = ["WRAPPER_PREFIX", "InnerPart", "Parts", "capture_halt", "capture_parts", "traced_inputs"]

WRAPPER_PREFIX = "model."  # the attribute that holds the user's module in the captured wrappers
LARGEST_VECTOR, LARGEST_MATRIX = 64, 16
"""Values of a constant that may stand in the user's code; a larger one is a forgotten weight."""

HARMLESS = (
    r".*LeafSpec.*",
    r".*# The axis name: .* will not be used.*",
    r".*The exported program's dynamic shapes.*",
    r".*_flat_weights.* were assigned during export.*",  # recurrent cells of torch.nn
)
"""Warnings that torch.onnx.export gives for every capture; matched by text, only here."""

TALKATIVE = (
    "torch._export.non_strict_utils",  # "0/1 specialized": a size that the code fixes is refused below
    "torch.onnx._internal.exporter._registration",  # "torchvision is not installed"
    "torch.fx.experimental.symbolic_shapes",  # the graph so far, before a data-dependent error
)
"""Loggers whose warnings say nothing that an error does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPart:
    """The captured body of an inner loop: (state, context, one timestep row) -> state."""

    graph: ir.Model
    loops: int
    states: int
    contexts: int
    row_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The captured graphs; inputs and outputs are flat, in the order of the contract.

    ``inner`` are the bodies of inner loops, by the name of the marker that holds their place; ``fixed``
    says which sizes PyTorch took for constants, though some graphs run at others all the same.
    """

    prelude: ir.Model
    core: ir.Model
    coda: ir.Model
    states: int
    row_names: tuple[str, ...]
    inner: Mapping[str, InnerPart]
    fixed: tuple[str, ...] = ()


class _Prelude(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensors, Tensors]:
        return cast("LoopedProtocol", self.model).prelude(*inputs)


class _Core(nn.Module):
    """The core; ``marked`` puts markers in the place of its inner loops."""

    def __init__(self, model: nn.Module, *, marked: bool) -> None:
        super().__init__()
        self.model = model
        self.marked = marked

    def forward(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        core = cast("LoopedProtocol", self.model).core
        if not self.marked:
            return core(state, context, row)
        with mark(""):
            return core(state, context, row)


class _Inner(nn.Module):
    """The body of an inner loop; the module is there for its parameters."""

    def __init__(self, model: nn.Module, body: InnerBody, key: str) -> None:
        super().__init__()
        self.model = model
        self.body = body
        self.key = key

    def forward(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        with mark(f"{self.key}."):
            return self.body(state, context, row)


class _Coda(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Tensors, context: Tensors) -> Tensors:
        return cast("LoopedProtocol", self.model).coda(state, context)


def capture_parts(
    model: nn.Module,
    example: tuple[Tensor, ...],
    axes: Axes,
    *,
    opset: int,
    inner_loops: bool = False,
    weightless: bool = False,
) -> Parts:
    """Capture the three parts of a model, and the bodies of its inner loops.

    Args:
        model: A module under the contract, in evaluation mode.
        example: Example inputs.
        axes: What `find_axes` found.
        opset: ONNX opset of the result.
        inner_loops: Make a Loop of each inner loop instead of writing it out.
        weightless: The model's weights are stand-ins: nothing is computed with them, shapes are enough.

    Returns:
        The captured graphs.

    Raises:
        InputError: torch.export cannot follow the user's code; the message names the line.
    """
    inputs = traced_inputs(example, axes)
    first = _shapes_of_first_step if weightless else _first_step
    state, context, row, calls = first(cast("LoopedProtocol", model), inputs)
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
        _Core(model, marked=inner_loops),
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
    _check_reads_state(core, len(as_tuple(state)))
    return Parts(
        prelude=prelude,
        core=core,
        coda=coda,
        states=len(as_tuple(state)),
        row_names=tuple(row),
        inner=_capture_inner(model, calls, axes.inner, "", opset) if inner_loops else {},
        fixed=(
            *_fixed_sizes("prelude", prelude, axes.inputs),
            *_fixed_sizes("core", core, axes.state + axes.context),
            *_fixed_sizes("coda", coda, axes.state + axes.context),
        ),
    )


def _first_step(
    model: LoopedProtocol, inputs: tuple[Tensor, ...]
) -> tuple[Tensors, Tensors, dict[str, Tensor], list[InnerCall]]:
    """Return what the core reads in its first iteration: state, context and timestep row; and its inner loops."""
    with torch.no_grad():
        # Copies: torch.export takes one tensor in two places for one input.
        state, context = (copied(part) for part in model.prelude(*inputs))
        row = {name: values[0].clone() for name, values in timestep_table_of(model, 1).items()}
        with record() as calls:
            model.core(state, context, row)
    return state, context, row, calls


def _shapes_of_first_step(
    model: LoopedProtocol, inputs: tuple[Tensor, ...]
) -> tuple[Tensors, Tensors, dict[str, Tensor], list[InnerCall]]:
    """Return what `_first_step` returns as zeros of the same shapes: nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        state, context, row, calls = _first_step(model, inputs)
    return (
        _zeros(state),
        _zeros(context),
        {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in row.items()},
        [_zero_call(call) for call in calls],
    )


def _zero_call(call: InnerCall) -> InnerCall:
    return replace(
        call,
        state=_zeros(call.state),
        context=_zeros(call.context),
        table={
            name: torch.zeros(value.shape, dtype=value.dtype) for name, value in call.table.items()
        },
        children=[_zero_call(child) for child in call.children],
    )


def _zeros(tensors: Tensors) -> Tensors:
    if isinstance(tensors, Tensor):
        return torch.zeros(tensors.shape, dtype=tensors.dtype)
    return tuple(torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in tensors)


def _capture_inner(
    model: nn.Module,
    calls: Sequence[InnerCall],
    axes: Sequence[InnerAxes],
    prefix: str,
    opset: int,
) -> dict[str, InnerPart]:
    parts = {}
    for k, (call, names) in enumerate(zip(calls, axes, strict=True)):
        key, label = f"{prefix}{k}", f"inner loop {prefix}{k}"
        state, context = copied(call.state), copied(call.context)
        row = {name: values[0].clone() for name, values in call.table.items()}
        graph = _capture(
            label,
            _Inner(model, call.body, key),
            {"state": state, "context": context, "row": row},
            {
                "state": _shapes(state, names.state),
                "context": _shapes(context, names.context),
                "row": dict.fromkeys(row),
            },
            opset,
        )
        parts[key] = InnerPart(
            graph=graph,
            loops=call.loops,
            states=len(as_tuple(state)),
            contexts=len(as_tuple(context)),
            row_names=tuple(row),
        )
        parts |= _capture_inner(model, call.children, names.children, f"{key}.", opset)
    return parts


def capture_halt(
    halt: nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any], *, opset: int
) -> ir.Model:
    """Capture what says which batch rows are done.

    Args:
        halt: Its forward takes ``inputs`` by name and returns bool (batch,).
        inputs: Example tensors, or tuples of them.
        shapes: Names of their dynamic axes, in the same form.
        opset: ONNX opset of the result.

    Raises:
        InputError: torch.export cannot follow it.
    """
    dynamic = {
        name: _dynamic(names) if isinstance(names, dict) else tuple(map(_dynamic, names))
        for name, names in shapes.items()
    }
    return _capture(
        "halt", halt, {name: copied(value) for name, value in inputs.items()}, dynamic, opset
    )


def traced_inputs(example: tuple[Tensor, ...], axes: Axes) -> tuple[Tensor, ...]:
    """Return example inputs in the sizes that are traced."""
    return resized(example, axes.inputs, TRACED_BATCH, axes.traced_sequence)


def _dynamic(names: AxisNames) -> dict[int, Any]:
    return dict.fromkeys(names, Dim.AUTO)


def _shapes(tensors: Tensors, names: tuple[AxisNames, ...]) -> Any:
    shapes = tuple(_dynamic(axis_names) for axis_names in names)
    return shapes[0] if isinstance(tensors, Tensor) else shapes


def _capture(
    part: str, module: nn.Module, kwargs: Mapping[str, Any], dynamic_shapes: Any, opset: int
) -> ir.Model:
    # An empty tuple of context tensors has no dynamic shapes of its own.
    short = _has_free_size_below_two(kwargs, dynamic_shapes)
    with (
        _quiet(),
        lowered_attention(opset),
        symbolic_sizes.patch(backed_size_oblivious=short),  # type: ignore[attr-defined]
    ):
        try:
            exported = torch.export.export(
                module.eval(),
                (),
                kwargs=dict(kwargs),
                dynamic_shapes=dynamic_shapes,
                strict=False,
            )
        except Exception as error:
            raise capture_error(part, error) from error
        _check_constants(part, module, exported)
        try:
            with shared_tables():
                program = torch.onnx.export(
                    exported, dynamo=True, optimize=False, opset_version=opset, verbose=False
                )
        except Exception as error:
            raise capture_error(part, error) from error
    if program is None:
        raise InputError(f"torch.onnx.export gave no graph for the {part}")
    graph: ir.Model = program.model
    written = graph.opset_imports.get("")
    if written != opset:
        raise InputError(f"torch.onnx.export wrote opset {written} instead of {opset}")
    return graph


def _has_free_size_below_two(given: Any, names: Any) -> bool:
    """Tell whether a free axis is 0 or 1 long in what is traced: a model of two positions is traced at one.

    torch.export takes such a size for a constant, unless it may not look at sizes.
    """
    if names is None:
        return False
    if isinstance(given, Tensor):
        return any(given.shape[axis] < 2 for axis in names)
    if isinstance(given, Mapping):
        return any(_has_free_size_below_two(given[key], names[key]) for key in given)
    return any(map(_has_free_size_below_two, given, names))


def _check_constants(part: str, module: nn.Module, exported: torch.export.ExportedProgram) -> None:
    """Refuse a weight that the module does not hold: it would be stored without a name."""
    known = {value.data_ptr() for value in (*module.parameters(), *module.buffers())}
    for value in exported.constants.values():
        if not isinstance(value, Tensor) or value.data_ptr() in known:
            continue
        largest = LARGEST_VECTOR if value.dim() < 2 else LARGEST_MATRIX
        if value.requires_grad or value.numel() > largest:
            raise InputError(
                f"the {part} reads a tensor of shape {tuple(value.shape)} that is neither a "
                "parameter nor a buffer of the module",
                hint="assign it in __init__, or register_buffer(name, tensor)",
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what PyTorch prints about a capture off the user's screen; an error becomes one line."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            for text in HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_reads_state(core: ir.Model, states: int) -> None:
    """Refuse a core that makes the same state of every other: nothing would be looped."""
    pending, seen = list(core.graph.outputs), set(core.graph.outputs)
    while pending:
        maker = pending.pop().producer()
        read = [] if maker is None else [value for value in maker.inputs if value is not None]
        pending += [value for value in read if value not in seen]
        seen.update(read)
    if seen.isdisjoint(core.graph.inputs[:states]):
        raise InputError(
            "the core gives the same state whatever it is given: there is nothing to loop",
            hint="core(state, context, row) must read its state",
        )


def _fixed_sizes(part: str, captured: ir.Model, axes: tuple[AxisNames, ...]) -> list[str]:
    """Say which free axes PyTorch took for constants; it writes such a size as a symbol, 7 as '7'."""
    return [
        f"the {part} fixes axis {axis} ({name}) of {value.name} to {value.shape[axis]}: its code reads "
        "that size as a Python number"
        for value, names in zip(captured.graph.inputs, axes, strict=False)
        for axis, name in names.items()
        if value.shape is not None and str(value.shape[axis]).isdigit()
    ]
