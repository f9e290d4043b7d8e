"""The chunk of a text that a call computes: where each of its tokens stands in the text, and how long the text is.

A generate file takes ``lengths`` int32 (batch,): the valid tokens of each row after the call. A row had ``max(lengths - sequence, 0)``
before: rows of different lengths are padded on the right, and only where nothing stands before them.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node

__all__ = ["IDS_INPUT", "LENGTHS_INPUT", "LOGITS_OUTPUT", "Chunk", "add_chunk"]

IDS_INPUT, LENGTHS_INPUT, LOGITS_OUTPUT = "input_ids", "lengths", "logits"
"""What every generate file takes and gives beside its cache."""

PREFIX = "chunk/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Values that the nodes of a decoding graph read of the chunk.

    ``sizes`` int64 (2,) of the token ids; ``batch`` and ``sequence`` int64 (1,); ``past`` int64 (batch,): tokens before the
    chunk; ``flat`` int64 (batch x sequence,): positions, row after row; ``last_valid`` int64 (batch,): place in the chunk of
    each row's last valid token; ``before_last`` int32 (batch,): ``lengths - 1``; ``longest`` int32 (): of ``lengths``.
    """

    lengths: ir.Value
    batch: ir.Value
    sequence: ir.Value
    past: ir.Value
    flat: ir.Value
    last_valid: ir.Value
    before_last: ir.Value
    longest: ir.Value


def add_chunk(model: ir.Model, ids: ir.Value) -> tuple[Chunk, list[ir.Node]]:
    """Add the input ``lengths``, and return what is computed of it with its nodes, which stand in no graph yet."""
    graph = model.graph
    lengths = ir.Value(
        name=LENGTHS_INPUT, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"])
    )
    graph.inputs.append(lengths)
    nodes: list[ir.Node] = []

    def constant(name: str, data: object, dtype: type = np.int64) -> ir.Value:
        return add_initializer(graph, f"{PREFIX}{name}", np.array(data, dtype))

    def add(
        op_type: str,
        inputs: list[ir.Value | None],
        name: str,
        *,
        dtype: ir.DataType = ir.DataType.INT64,
        shape: list[int | str] | None = None,
        **attributes: int,
    ) -> ir.Value:
        node = make_node(op_type, inputs, f"{PREFIX}{name}", attributes)
        nodes.append(node)
        output = node.outputs[0]
        output.type = ir.TensorType(dtype)
        output.shape = None if shape is None else ir.Shape(shape)
        return output

    zero, one = constant("zero", 0), constant("one", 1)
    first, minus = constant("first", [0]), constant("minus", [-1])
    batch = add("Shape", [ids], "batch", shape=[1], start=0, end=1)
    sequence = add("Shape", [ids], "sequence", shape=[1], start=1, end=2)
    wide = add("Cast", [lengths], "lengths", shape=["batch"], to=int(ir.DataType.INT64))
    before = add("Sub", [wide, sequence], "before", shape=["batch"])
    past = add("Max", [before, zero], "past", shape=["batch"])
    count = add("Squeeze", [sequence, first], "count", shape=[])
    steps = add("Range", [zero, count, one], "steps", shape=["sequence"])
    rows = add("Unsqueeze", [past, constant("axis", [1])], "rows", shape=["batch", 1])
    places = add("Add", [rows, steps], "places", shape=["batch", "sequence"])
    flat = add("Reshape", [places, minus], "flat", shape=["tokens"])
    valid = add("Sub", [wide, past], "valid", shape=["batch"])
    last_valid = add("Sub", [valid, one], "last_valid", shape=["batch"])
    int32 = ir.DataType.INT32
    before_last = add(
        "Sub",
        [lengths, constant("one.int32", 1, np.int32)],
        "before_last",
        dtype=int32,
        shape=["batch"],
    )
    longest = add("ReduceMax", [lengths], "longest", dtype=int32, shape=[], keepdims=0)
    chunk = Chunk(
        lengths=lengths,
        batch=batch,
        sequence=sequence,
        past=past,
        flat=flat,
        last_valid=last_valid,
        before_last=before_last,
        longest=longest,
    )
    return chunk, nodes
