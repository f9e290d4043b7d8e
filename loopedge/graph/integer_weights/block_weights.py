"""Linears whose weights alone are stored in blocks of 8, 4 or 2 bits: activations stay float in the graph.

Each linear becomes one ``com.microsoft.MatMulNBits`` of accuracy level 4: its kernel rounds what it reads
to eight bits by itself, block by block, and multiplies in integers. The packed weight stands once in the
main graph under its name, uint8 (out, blocks, bytes per block), beside ``<name>.scale``.
"""

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.integer_weights.blocks import (
    FAST_SIZES,
    Blocks,
    best_block_size,
    pack_rows,
    quantize_blocks,
)
from loopedge.graph.integer_weights.rounded_weights import RoundedWeights
from loopedge.graph.integer_weights.tied_table import TiedTable
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.graph.weights import Linear
from loopedge.options import option

__all__ = ["DEFAULT_BLOCK", "BlockWeights", "would_grow"]

DEFAULT_BLOCK = {8: 128, 4: 32, 2: 32}
"""Block size by bits: benchmarks/int8/weight_only.py."""

ACCURACY_LEVEL = 4
"""Activations rounded to eight bits: float ones (level 1) take up to 140 times as long."""


def would_grow(inputs: int, *, bits: int, largest: int) -> bool:
    """Tell whether a row of so few inputs takes more bytes in blocks, of at most ``largest`` values, than in floats."""
    size = best_block_size(inputs, bits=bits, largest=largest)
    return -(-inputs // size) * (size * bits // 8 + 4) >= 4 * inputs


class BlockWeights:
    """Stores weights in blocks and multiplies with them.

    Args:
        bits: 8, 4 or 2.
        block_size: Most values that share a scale; a weight of fewer inputs takes smaller blocks.
        rounded: Weights whose blocks were chosen already; the others are rounded to nearest.
    """

    def __init__(
        self,
        bits: int,
        block_size: int | None = None,
        *,
        rounded: RoundedWeights | None = None,
    ) -> None:
        self.bits = bits
        self.block_size = DEFAULT_BLOCK[bits] if block_size is None else block_size
        known = FAST_SIZES[bits]
        if self.block_size not in known:
            raise InputError(
                f"block size {self.block_size} is not known{'' if bits > 2 else ' of two bits'}, "
                f"known are {', '.join(map(str, known))}",
                hint=option("block_size", DEFAULT_BLOCK[bits]),
            )
        self._rounded = rounded or {}
        self._inputs: dict[ir.Value, int] = {}
        self._scales: dict[ir.Value, ir.Value] = {}

    @property
    def reason_for_float_rows(self) -> str | None:
        """Leave rows that are matrices: the kernel would unpack each into floats before it multiplies."""
        return "rows that are matrices have no packed form"

    @property
    def limit(self) -> int:
        """Largest magnitude of a stored weight."""
        return (1 << (self.bits - 1)) - 1

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Refuse: `reason_for_float_rows`."""
        raise ValueError(f"{node.name} has no packed form")

    def reason_for_float(self, weight: ir.Value, inputs_axis: int) -> str | None:
        """Refuse a weight of so few inputs that the filled blocks would take more than its floats."""
        if weight.shape is None:
            return f"{weight.name} is of unknown shape"
        inputs = weight.shape.numpy()[inputs_axis]
        if not would_grow(inputs, bits=self.bits, largest=self.block_size):
            return None
        few = f"{inputs} input{'' if inputs == 1 else 's'}"
        return f"{weight.name} has {few}, packed in blocks it would grow"

    def store_weight(self, weight: ir.Value) -> None:
        """Replace a stored weight [in, out] by its packed form, under its name."""
        tensor = weight.const_value
        if isinstance(tensor, LazyWeight) and tensor.is_turned:
            self._store_chunks(weight, tensor)
        elif tensor is not None:
            self._store(weight, tensor.numpy().T)

    def store_table(self, table: TiedTable) -> Linear:
        """Pack the rows of a table that is both embedding and head; return the head."""
        weight, graph = table.weight, table.weight.graph
        if graph is None or weight.const_value is None:
            raise ValueError(f"{weight.name} is not a stored table")
        if isinstance(weight.const_value, LazyWeight) and not weight.const_value.is_turned:
            self._store_chunks(weight, weight.const_value)
        else:
            self._store(weight, weight.const_value.numpy())
        for gather in table.gathers:
            self._replace_gather(gather, weight, graph)
        return table.untransposed()

    def replace_linear(self, item: Linear) -> None:
        """Put MatMulNBits in the place of a linear whose weight is packed."""
        node, weight = item.node, item.weight
        if weight.shape is None:
            return
        outputs, _, blob = weight.shape.numpy()
        attributes = {
            "K": self._inputs[weight],
            "N": outputs,
            "bits": self.bits,
            "block_size": blob * 8 // self.bits,
            "accuracy_level": ACCURACY_LEVEL,
        }
        inputs = [node.inputs[0], weight, self._scales[weight]]
        name = node.name or "MatMulNBits"
        replace_node(node, [make_node("MatMulNBits", inputs, name, attributes, domain=MICROSOFT)])

    def _store_chunks(self, weight: ir.Value, tensor: LazyWeight) -> None:
        """Pack a weight whose rows stand on the disk, a part of them at a time."""
        outputs, inputs = tensor.source.shape
        size = best_block_size(inputs, bits=self.bits, largest=self.block_size)
        chunks = tensor.source.chunks()
        self._put(weight, pack_rows(chunks, outputs, inputs, bits=self.bits, block_size=size))

    def _store(self, weight: ir.Value, rows: np.ndarray) -> None:
        chosen = self._rounded.get(weight.name or "")
        if isinstance(chosen, Blocks) and chosen.bits == self.bits:
            self._put(weight, chosen.of_shape(rows.shape))
            return
        size = best_block_size(rows.shape[1], bits=self.bits, largest=self.block_size)
        self._put(weight, quantize_blocks(rows, bits=self.bits, block_size=size))

    def _put(self, weight: ir.Value, packed: Blocks) -> None:
        graph, name = weight.graph, weight.name or ""
        if graph is None:
            return
        self._inputs[weight] = packed.inputs
        weight.const_value = ir.tensor(packed.values, name=name)
        weight.type = ir.TensorType(ir.DataType.UINT8)
        weight.shape = ir.Shape(packed.values.shape)
        self._scales[weight] = add_initializer(graph, f"{name}.scale", packed.scales)

    def _replace_gather(self, gather: ir.Node, weight: ir.Value, graph: ir.Graph) -> None:
        """Gather rows of the packed table: the head's blocks are rows too, one copy serves both."""
        name, ids = gather.name or "embedding", gather.inputs[1]
        if ids is None or ids.shape is None or weight.shape is None:
            raise ValueError(f"{name} gathers by ids of unknown rank")
        _, blocks, blob = weight.shape.numpy()
        size, inputs = blob * 8 // self.bits, self._inputs[weight]
        # GatherBlockQuantized wants a scale of its table's rank, MatMulNBits refuses one.
        last = add_initializer(graph, "loopedge.last_axis", np.array([-1], np.int64))
        scale = self._scales[weight]
        lifted = make_node("Unsqueeze", [scale, last], f"{name}.scale")
        lifted.outputs[0].type = scale.type
        attributes = {"bits": self.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 2}
        rows = make_node(
            "GatherBlockQuantized",
            [weight, ids, lifted.outputs[0]],
            f"{name}.rows",
            attributes,
            domain=MICROSOFT,
        )
        flat = add_initializer(
            graph,
            f"loopedge.{name}.shape",
            np.array([0] * len(ids.shape) + [blocks * size], np.int64),
        )
        floats = make_node("Reshape", [rows.outputs[0], flat], f"{name}.flat")
        made = [lifted, rows, floats]
        if blocks * size != inputs:
            start = add_initializer(graph, "loopedge.zero", np.array([0], np.int64))
            end = add_initializer(graph, f"loopedge.{name}.width", np.array([inputs], np.int64))
            made.append(make_node("Slice", [floats.outputs[0], start, end, last], f"{name}.cut"))
        replace_node(gather, made)
