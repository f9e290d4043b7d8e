"""The logits of each row's last valid token alone, and what only they need computed for no other position."""

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.chunk import Chunk
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.positions.position_inputs import position_inputs
from loopedge.graph.shapes import known_shape

__all__ = ["keep_last_valid"]

SEQUENCE_AXIS = 1


def keep_last_valid(model: ir.Model, logits: ir.Value, chunk: Chunk) -> None:
    """Let an output (batch, sequence, vocabulary) become (batch, 1, vocabulary), in place.

    The position is chosen as early as its nodes treat positions alone: behind the last attention.

    Raises:
        InputError: It has no such shape.
    """
    shape = known_shape(logits)
    if shape is None or len(shape) != 3:
        raise InputError(
            f"output {logits.name} has shape {shape}, (batch, sequence, vocabulary) is needed"
        )
    narrow, cuts = _narrow(logits)
    for value in narrow:
        if value not in cuts:
            _one_position(value, narrow[value])
    for value in cuts:
        users = [
            (node, place)
            for node, place in value.uses()
            if any(output in narrow and output not in cuts for output in node.outputs)
        ]
        last = _gather(model, value, narrow[value], chunk)
        for node, place in users:
            node.replace_input_with(place, last)
        if value is logits:
            model.graph.outputs[list(model.graph.outputs).index(value)] = last
            value.name, last.name = f"{value.name}.all", value.name


def _narrow(logits: ir.Value) -> tuple[dict[ir.Value, int], set[ir.Value]]:
    """Return values of which one position is enough, with the axis of their positions, and those that are made whole.

    The last ones are read for the others, and by what needs all positions.
    """
    cuts: set[ir.Value] = set()
    while True:
        narrow: dict[ir.Value, int] = {}
        waiting = [(logits, SEQUENCE_AXIS)]
        while waiting:
            value, axis = waiting.pop()
            if value in narrow:
                continue
            narrow[value] = axis
            maker = value.producer()
            axes = None if maker is None or value in cuts else _axes(maker, axis)
            if maker is None or axes is None:
                cuts.add(value)
                continue
            waiting += [
                (item, place)
                for item, place in zip(maker.inputs, axes, strict=True)
                if item is not None and place is not None
            ]
        whole = {
            value
            for value in narrow.keys() - cuts - {logits}
            if value.is_graph_output()
            or any(
                output not in narrow or output in cuts  # that one is made whole, of the whole value
                for node in value.consumers()
                for output in node.outputs
            )
        }
        # A position is chosen along the second axis: what has its positions along another one is made whole, and so is
        # what is made of it first.
        turned = {
            output
            for value in cuts & narrow.keys()
            if narrow[value] != SEQUENCE_AXIS
            for node in value.consumers()
            for output in node.outputs
            if output in narrow and output not in cuts
        }
        if not whole and not turned:
            return narrow, {
                value for value in cuts & narrow.keys() if narrow[value] == SEQUENCE_AXIS
            }
        cuts |= whole | turned


def _axes(node: ir.Node, axis: int) -> list[int | None] | None:
    """Return where positions lie in the inputs of a node that treats them alone, and that nothing else needs whole."""
    if (
        node.op_type in {"GroupQueryAttention", "Attention", "Scan", "Loop"}
        or len(node.outputs) > 1
    ):
        return None
    return position_inputs(node, axis)


def _one_position(value: ir.Value, axis: int) -> None:
    shape = known_shape(value)
    if (
        shape is not None and value.type is not None
    ):  # onnx-ir writes no shape without a type, and warns
        value.shape = ir.Shape([1 if place == axis else dim for place, dim in enumerate(shape)])


def _gather(model: ir.Model, value: ir.Value, axis: int, chunk: Chunk) -> ir.Value:
    """Return the last valid position of each row, in an axis of length 1."""
    if axis != SEQUENCE_AXIS:
        raise InputError(f"positions of {value.name} lie along axis {axis}, not {SEQUENCE_AXIS}")
    axes = add_initializer(model.graph, "chunk/last.axes", np.array([1, 2], np.int64))
    places = make_node("Unsqueeze", [chunk.last_valid, axes], f"coda/last/{value.name}.places")
    places.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    places.outputs[0].shape = ir.Shape(["batch", 1, 1])
    last = make_node(
        "GatherND", [value, places.outputs[0]], f"coda/last/{value.name}", {"batch_dims": 1}
    )
    shape = known_shape(value)
    last.outputs[0].type = value.type or model.graph.outputs[0].type
    last.outputs[0].shape = None if shape is None else ir.Shape([shape[0], 1, *shape[2:]])
    maker = value.producer()
    for new in (places, last):
        if maker is None or maker.graph is None:
            insert_before(next(iter(model.graph)), new)
        elif new is places:
            maker.graph.insert_after(maker, new)
        else:
            maker.graph.insert_after(places, new)
    return last.outputs[0]
