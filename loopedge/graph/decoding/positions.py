"""Positions of a whole text become those of a chunk: what was made of 0, 1, 2, ... is made of where each token stands.

A graph makes tables of its positions, as rotary angles or rows of a learned table, of the length of its input. Their nodes are
written a second time over the flat positions of the chunk, (batch x sequence,), in the place of ``Range(0, length)`` and
``table[:length]``, and the result gets its batch axis back where it is read. Whatever nodes these are, the new ones are
computed for a few positions and compared with the rows of the old ones. Where they differ, rows are stored instead.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.chunk import Chunk
from loopedge.graph.decoding.length_values import LengthValues, Read, evaluate
from loopedge.graph.decoding.position_axes import agrees, position_axis
from loopedge.graph.decoding.tried_lengths import lengths_to_try, limits_among
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.shapes import known_shape

__all__ = ["PositionTables"]

Array = npt.NDArray[Any]

BATCH = 2
"""Batch rows of the sizes that are tried, so that a batch axis is not taken for that of the positions."""

MOST_STORED = 64 << 20
"""Bytes of rows that are stored where the nodes cannot be computed for single positions."""

ELEMENTWISE_READERS = frozenset(
    ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Where")
)

ROTARY_POSITIONS = 3
"""Where RotaryEmbedding reads positions."""

COUNTING = frozenset(("Add", "CumSum", "Expand", "Range", "Sub", "Where"))
"""Operators that may give 0, 1, 2, ..."""


class PositionTables:
    """Reads of what depends on positions, and what takes its place in a graph that decodes.

    Args:
        lengths: Of the graph; it is not changed before `replace`.
        context: Positions that the model takes at most; None: not known.
    """

    def __init__(self, lengths: LengthValues, context: int | None) -> None:
        self.lengths, self.context = lengths, context
        self.sizes = lengths_to_try(context)
        self._axis: dict[ir.Value, int] = {}
        self._whole: dict[ir.Value, Array] = {}
        self._flat: dict[ir.Value, ir.Value] = {}
        self._clones: dict[ir.Value, ir.Value] = {}
        self.nodes: list[ir.Node] = []
        self.replaced: dict[ir.Value, Array] = {}

    def to_replace(self, reads: Sequence[Read]) -> list[Read]:
        """Return the reads whose value differs from position to position.

        Raises:
            InputError: A value depends on the length in a way that a part of a text does not tell.
        """
        values = list(dict.fromkeys(read.value for read in reads))
        if not values:
            return []
        found = self._at_lengths(values, reads[0])
        for place, value in enumerate(values):
            reader = next(read.node for read in reads if read.value is value)
            arrays = [row[place] for row in found]
            axis = position_axis(arrays, self.sizes, value, reader)
            if axis is not None:
                self._axis[value], self._whole[value] = axis, arrays[-1]
        return [read for read in reads if read.value in self._axis]

    def _at_lengths(self, values: list[ir.Value], read: Read) -> list[list[Array]]:
        """Return values at several lengths, also behind numbers that may be where something begins."""
        limits = [abs(number) for number in limits_among(self.lengths, values).values()]
        reason: Exception | None = None
        for numbers in (limits, []):  # a number may be the end of a table
            self.sizes = lengths_to_try(self.context, numbers)
            try:
                return self.lengths.evaluate(values, [(BATCH, size) for size in self.sizes])
            except Exception as error:  # whatever ONNX Runtime says
                reason = error
        raise InputError(
            f"what {read.node.name} reads of the length of its input cannot be computed: "
            f"{(str(reason).splitlines() or ['no reason'])[0][:200]}"
        ) from reason

    def replace(self, reads: Sequence[Read], chunk: Chunk, model: ir.Model) -> None:
        """Let nodes read their values at the positions of the chunk, in place; new nodes are `nodes`.

        Raises:
            InputError: A reader is not known to treat positions alone.
        """
        made: dict[tuple[ir.Value, int], ir.Value] = {}
        for read in reads:
            rank = self._rank(read)
            key = read.value, rank
            if key not in made:
                made[key] = self._with_batch(read, rank, chunk, model)
                self.replaced[made[key]] = self._whole[read.value]
            read.node.replace_input_with(read.place, made[key])

    def _rank(self, read: Read) -> int:
        node, value = read.node, read.value
        whole = self._whole[value]
        if self._axis[value] == 1 and _reads_whole(read, whole):
            return whole.ndim
        shape = known_shape(node.outputs[0])
        if node.op_type not in ELEMENTWISE_READERS or node.domain:
            raise InputError(
                f"{node.name} ({node.op_type}) reads positions, {value.name}, in a way that is not known"
            )
        if shape is None:
            raise InputError(f"the shape of what {node.name} makes of positions is not known")
        return len(shape)

    def _with_batch(self, read: Read, rank: int, chunk: Chunk, model: ir.Model) -> ir.Value:
        """Return (batch, 1, ..., sequence, ...) of ``rank`` axes."""
        value = read.value
        axis, whole = self._axis[value], self._whole[value]
        behind = whole.shape[axis + 1 :]
        ahead = rank - 2 - len(behind)
        if ahead < 0 or any(size not in {1, BATCH} for size in whole.shape[:axis]):
            raise InputError(
                f"{read.node.name} reads positions of shape {whole.shape}, in which they do not lie along the sequence"
            )
        if value not in self._flat:
            self._flat[value] = self._at_positions(value, axis, chunk, model)
        prefix = f"chunk/{value.name}"
        ones = add_initializer(model.graph, f"chunk/ones.{ahead}", np.ones(ahead, np.int64))
        rest = add_initializer(
            model.graph, f"chunk/rest.{'x'.join(map(str, behind))}", np.array(behind, np.int64)
        )
        sizes = make_node(
            "Concat",
            [chunk.batch, ones, chunk.sequence, rest],
            f"{prefix}.sizes.{rank}",
            {"axis": 0},
        )
        sizes.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        shaped = make_node("Reshape", [self._flat[value], sizes.outputs[0]], f"{prefix}.{rank}")
        shaped.outputs[0].type = value.type
        shaped.outputs[0].shape = ir.Shape(["batch", *[1] * ahead, "sequence", *behind])
        self.nodes += [sizes, shaped]
        return shaped.outputs[0]

    def _at_positions(self, value: ir.Value, axis: int, chunk: Chunk, model: ir.Model) -> ir.Value:
        """Return a value computed for the flat positions of the chunk, or gathered from rows that are stored."""
        known = len(self.nodes)
        try:
            copy = self._clone(value, chunk, model)
            if self._agrees(copy, axis, value, chunk):
                return copy
        except InputError:
            raise
        except Exception:  # whatever ONNX Runtime says: the rows are stored then
            pass
        del self.nodes[known:]
        return self._stored_rows(value, axis, chunk, model)

    def _stored_rows(self, value: ir.Value, axis: int, chunk: Chunk, model: ir.Model) -> ir.Value:
        whole = self._whole[value]
        row_bytes = (
            whole.nbytes // whole.shape[axis] // (BATCH if BATCH in whole.shape[:axis] else 1)
        )
        if self.context is None or row_bytes * self.context > MOST_STORED:
            raise InputError(
                f"{value.name} cannot be computed for single positions, and its rows for "
                f"{self.context or 'any number of'} positions are too large to be stored"
            )
        ((rows,),) = self.lengths.evaluate([value], [(1, self.context)])
        stored = add_initializer(model.graph, f"chunk/{value.name}.rows", rows)
        node = make_node("Gather", [stored, chunk.flat], f"chunk/{value.name}", {"axis": axis})
        node.outputs[0].type = value.type
        self.nodes.append(node)
        return node.outputs[0]

    def _clone(self, value: ir.Value, chunk: Chunk, model: ir.Model) -> ir.Value:
        """Return the copy of a value that is computed for the positions of the chunk."""
        for node in self.lengths.nodes_of([value]):
            if node.outputs[0] in self._clones:
                continue
            made_here = any(output in self.lengths for output in node.outputs)
            if not made_here and node.graph is model.graph:
                continue  # a constant
            copies = self._clone_node(node, chunk, model)
            self._clones.update(zip(node.outputs, copies, strict=True))
        return self._clones[value]

    def _clone_node(self, node: ir.Node, chunk: Chunk, model: ir.Model) -> Sequence[ir.Value]:
        if self.lengths.asks_data(node):
            return [self._size(node, chunk, model)]
        counted = self._counted_from(node)
        if counted is not None:
            return [self._counted(node, counted, chunk, model)]
        table = self._first_rows(node)
        if table is not None:
            data, axis = table
            copy = make_node("Gather", [data, chunk.flat], f"chunk/{node.name}", {"axis": axis})
        else:
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if v is None else self._read_by_copy(v, model) for v in node.inputs],
                node.attributes.values(),
                num_outputs=len(node.outputs),
                name=f"chunk/{node.name}",
            )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type = f"chunk/{old.name}", old.type
        self.nodes.append(copy)
        return copy.outputs

    def _read_by_copy(self, value: ir.Value, model: ir.Model) -> ir.Value:
        """Return what the copy of a node reads; copies stand in the main graph, where constants of a body are not."""
        if value not in self._clones and value.graph is not model.graph:
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is not None:
                name = f"chunk/{value.name}.constant"
                self._clones[value] = add_initializer(model.graph, name, tensor.numpy())
        return self._clones.get(value, value)

    def _size(self, node: ir.Node, chunk: Chunk, model: ir.Model) -> ir.Value:
        """Return what a ``Shape`` gives for one row of all positions of the chunk."""
        tokens = make_node("Shape", [chunk.flat], f"chunk/{node.name}.tokens")
        parts: list[ir.Value | None] = []
        for place, dim in enumerate(self.lengths.asked_shape(node)):
            size = 1 if dim == "batch" else dim
            parts.append(
                tokens.outputs[0]
                if dim == "sequence"
                else add_initializer(
                    model.graph, f"chunk/{node.name}.{place}", np.array([size], np.int64)
                )
            )
        joined = make_node("Concat", parts, f"chunk/{node.name}", {"axis": 0})
        for new in (tokens, joined):
            new.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        self.nodes += [tokens, joined]
        return joined.outputs[0]

    def _counted_from(self, node: ir.Node) -> tuple[int, int, np.dtype[Any]] | None:
        """Return where a node counts positions from: ``Range(0, length)``, or a running sum of ones.

        Returns:
            The first number, the rank and the type of what it makes; None: it holds something else.
        """
        if node.domain or node.op_type not in COUNTING or len(node.outputs) != 1:
            return None
        try:
            found = self.lengths.evaluate([node.outputs[0]], [(BATCH, size) for size in self.sizes])
        except Exception:  # a part of another size
            return None
        first = found[0][0].reshape(-1)[:1].astype(np.int64)
        for (array,), size in zip(found, self.sizes, strict=True):
            if array.ndim == 0 or not first.size or array.shape[-1] != size:
                return None
            if any(rows not in {1, BATCH} for rows in array.shape[:-1]):
                return None
            if (array != np.arange(size) + first).any():
                return None
        return int(first[0]), found[0][0].ndim, found[0][0].dtype

    def _counted(
        self, node: ir.Node, counted: tuple[int, int, np.dtype[Any]], chunk: Chunk, model: ir.Model
    ) -> ir.Value:
        """Return the positions of the chunk, counted as a node counts those of a text: (1, ..., tokens)."""
        first, rank, dtype = counted
        value = chunk.flat
        if first:
            start = add_initializer(model.graph, f"chunk/from.{first}", np.array(first, np.int64))
            value = self._add(node, "Add", [value, start], "from")
        if dtype != np.int64:
            to = int(ir.DataType.from_numpy(dtype))
            value = self._add(node, "Cast", [value], "typed", {"to": to})
            value.type = ir.TensorType(ir.DataType(to))
        if rank > 1:
            sizes = np.array([*[1] * (rank - 1), -1], np.int64)
            row = add_initializer(model.graph, f"chunk/row.{rank}", sizes)
            typed = value.type
            value = self._add(node, "Reshape", [value, row], "row")
            value.type = typed
        return value

    def _add(
        self,
        node: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        word: str,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        made = make_node(op_type, inputs, f"chunk/{node.name}.{word}", attributes or {})
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        self.nodes.append(made)
        return made.outputs[0]

    def _first_rows(self, node: ir.Node) -> tuple[ir.Value, int] | None:
        """Return the stored table of which a node takes the first rows, as many as there are positions, and the axis."""
        if node.op_type != "Slice" or node.domain:
            return None
        data, bounds = node.inputs[0], [value for value in node.inputs[1:] if value is not None]
        if data is None or data in self.lengths:
            return None
        shape = known_shape(data)
        found = self.lengths.evaluate(bounds, [(1, size) for size in self.sizes[:3]])
        for size, given in zip(self.sizes, found, strict=False):
            start, end, *rest = (array.reshape(-1).tolist() for array in given)
            step = rest[1] if len(rest) > 1 else [1]
            if start != [0] or end != [size] or step != [1]:
                return None
        axes = found[0][2].reshape(-1).tolist() if len(bounds) > 2 else [0]
        return None if shape is None else (data, axes[0] % len(shape))

    def _agrees(self, copy: ir.Value, axis: int, value: ir.Value, chunk: Chunk) -> bool:
        """Tell whether the copy computes at single positions what the value holds there."""
        whole = self._whole[value]
        places = np.random.default_rng(0).permutation(whole.shape[axis])[:11].astype(np.int64)
        ((found,),) = evaluate(
            self.lengths.model,
            _needed(copy, chunk.flat),
            [copy],
            [{chunk.flat: places}],
        )
        expected = np.take(whole, places, axis=axis)
        if found.ndim != expected.ndim:
            return False
        for ahead in range(axis):  # one batch row is computed
            expected = (
                expected.take([0], axis=ahead) if expected.shape[ahead] == BATCH else expected
            )
        return found.shape == expected.shape and agrees(found, expected)


def _reads_whole(read: Read, whole: Array) -> bool:
    """Tell whether a node takes a value (batch, sequence, ...) as it is."""
    node = read.node
    if node.domain:
        return False
    if (
        node.op_type == "RotaryEmbedding"
    ):  # angles (batch, sequence, half), or rows of a table by positions
        return whole.ndim == (2 if read.place == ROTARY_POSITIONS else 3)
    joins = node.op_type == "Concat" and node.attributes.get_int("axis", 0) % whole.ndim > 1
    return whole.shape[0] == BATCH and (node.op_type == "Loop" or joins)


def _needed(end: ir.Value, start: ir.Value) -> list[ir.Node]:
    """Return the nodes that compute ``end`` of ``start`` and of constants, in order."""
    wanted: dict[ir.Node, None] = {}
    waiting = [(end, False)]
    while waiting:
        value, entered = waiting.pop()
        maker = value.producer()
        if maker is None or maker in wanted or value is start or value.const_value is not None:
            continue
        if entered:
            wanted[maker] = None
            continue
        waiting.append((value, True))
        waiting += [(item, False) for item in maker.inputs if item is not None]
    return list(wanted)
