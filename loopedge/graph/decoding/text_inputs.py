"""Inputs of a language model: the token ids, and what else a whole text without padding holds for each of its tokens."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.attention.attentions import HINT
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["BESIDE_IDS", "fill_in", "held_beside", "token_ids"]

HELD = {"attention_mask": 1, "token_type_ids": 0}
"""Inputs beside the token ids, int64 or float (batch, sequence), and what they hold in a text without padding."""

POSITION_IDS = "position_ids"
"""Another one: 0, 1, 2, ..."""

BESIDE_IDS = frozenset((*HELD, POSITION_IDS))


def held_beside(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    """Return what an input (batch, sequence) beside the ids holds in texts without padding; None: it is none of those."""
    if name == POSITION_IDS:
        return np.broadcast_to(np.arange(shape[1]), shape).astype(dtype)
    held = HELD.get(name)
    return None if held is None else np.full(shape, held, dtype)


def token_ids(model: ir.Model) -> ir.Value:
    """Return the input that holds token ids, (batch, sequence).

    Raises:
        InputError: There is none, or more than one, or its size is fixed.
    """
    found = [
        value
        for value in model.graph.inputs
        if value.dtype in {ir.DataType.INT64, ir.DataType.INT32}
        and value.name not in BESIDE_IDS
        and not chooses_loops(value)
        and value.shape is not None
        and len(value.shape) == 2
    ]
    if len(found) != 1:
        inputs = ", ".join(str(value.name) for value in model.graph.inputs)
        raise InputError(
            f"token ids (batch, sequence) are needed, the inputs are {inputs}", hint=HINT
        )
    if any(isinstance(dim, int) for dim in found[0].shape or ()):
        raise InputError(
            f"input {found[0].name} has a fixed size, {found[0].shape}: a chunk of a text has another",
            hint="export with free batch and sequence axes",
        )
    return found[0]


def fill_in(model: ir.Model, ids: ir.Value) -> list[ir.Node]:
    """Let inputs beside the token ids hold what they hold in a text without padding.

    Returns:
        Nodes that make it, for the start of the graph.

    Raises:
        InputError: An input is another one.
    """
    nodes: list[ir.Node] = []
    noise = read_metadata(model.metadata_props).random_inputs
    for value in [value for value in model.graph.inputs if value is not ids]:
        along = (known_shape(value) or ())[:2] == known_shape(ids)
        if chooses_loops(value) or (value.name in noise and along):
            continue  # noise of a position goes with its token
        known = value.name in BESIDE_IDS and value.dtype is not None
        if not known or known_shape(value) != known_shape(ids):
            raise InputError(
                f"input {value.name} is neither token ids nor a mask of padding", hint=HINT
            )
        made = _held(model, value, ids)
        ir.convenience.replace_all_uses_with(value, made[-1].outputs[0])
        model.graph.inputs.remove(value)
        nodes += made
    return nodes


def _held(model: ir.Model, value: ir.Value, ids: ir.Value) -> list[ir.Node]:
    """Return nodes that make what an input holds; the last one gives it."""
    graph, name = model.graph, f"prelude/{value.name}"
    assert value.dtype is not None
    sizes = make_node("Shape", [ids], f"{name}.sizes")
    sizes.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    nodes = [sizes]
    if value.name == POSITION_IDS:
        zero, one = (
            add_initializer(graph, f"{name}.{number}", np.array(number)) for number in (0, 1)
        )
        length = make_node("Gather", [sizes.outputs[0], one], f"{name}.length", {"axis": 0})
        steps = make_node("Range", [zero, length.outputs[0], one], f"{name}.steps")
        held = make_node("Cast", [steps.outputs[0]], f"{name}.held", {"to": int(value.dtype)})
        for node in (length, steps):
            node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        held.outputs[0].type = value.type
        nodes += [length, steps, held]
        source = held.outputs[0]
    else:
        number = np.array(HELD[str(value.name)], value.dtype.numpy())
        source = add_initializer(graph, f"{name}.held", number)
    wide = make_node("Expand", [source, sizes.outputs[0]], name)
    wide.outputs[0].type, wide.outputs[0].shape = value.type, value.shape
    return [*nodes, wide]
