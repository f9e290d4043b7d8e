"""Compute an MLP in chunks of its hidden channels, so that the hidden activations are small.

Between its linears an MLP is four times as wide as the state, or more: those activations are the largest
of a transformer block, before and after the nonlinearity. In chunks as wide as the state they take no more
than attention does, and stay in the caches: less memory, and less time (benchmarks/export/activations.py).
"""

from dataclasses import dataclass, field

import onnx_ir as ir

from loopedge.graph.operators import ELEMENTWISE, Fact, having
from loopedge.graph.split.branches import (
    Branch,
    Cut,
    same_graph_linear,
    split_branches,
    stored_matrix,
)

__all__ = ["LEAST_BYTES", "LEAST_WIDTH", "split_hidden"]

LEAST_WIDTH = 256
"""Of a chunk; narrower products take more time than the caches save (docs/memory.md)."""

LEAST_BYTES = 2**19
"""Of the hidden activations at the expected length; smaller ones are in the caches as they are."""

MULTIPLE = 16
"""Of the channels in a chunk: what the kernels compute at once."""

EXPECTED_LENGTH = 128
"""Where a model does not tell the length that it was trained with."""

BETWEEN_LINEARS = ELEMENTWISE - having(Fact.VIEW)
"""What may stand between the linears of an MLP: it mixes no channels, and is not there to move them."""


def split_hidden(
    model: ir.Model,
    *,
    length: int | None = None,
    least_width: int = LEAST_WIDTH,
    least_bytes: int = LEAST_BYTES,
) -> dict[str, int]:
    """Split the MLPs of a graph over their hidden channels, in place.

    An MLP is one linear or several (gated: GLU, SwiGLU, one linear whose outputs are halved), biases and
    elementwise operators, and the linear that reads the result. Layers inside and outside of the core
    are split alike. Weights that something else reads, and hidden values that do, leave an MLP whole.

    Requires: float weights [in, out] as initializers of the main graph (`fold_weight_layouts`).

    Ensures: every weight is stored once: its parts take its place.

    Args:
        model: A float graph.
        length: Positions that an inference is expected to have; default: 128.
        least_width: Channels that a chunk has at least; a chunk is as wide as the MLP's input otherwise.
        least_bytes: An MLP whose hidden activations take less at that length stays whole.

    Returns:
        The initializers that were split, by name, with the number of their parts.
    """
    found = []
    for node in model.graph.all_nodes():
        weight = stored_matrix(model, node)
        mlp = None if weight is None else _match(model, node, weight)
        if mlp is None or 4 * mlp.hidden * (length or EXPECTED_LENGTH) < least_bytes:
            continue
        parts = _count(mlp.hidden, max(mlp.inputs, least_width))
        if parts > 1:
            found.append(mlp.branch(parts))
    return split_branches(model, found)


def _count(hidden: int, width: int) -> int:
    """Return the most parts that are equal, at least so wide, and a multiple of `MULTIPLE`."""
    for parts in range(hidden // width, 1, -1):
        if hidden % parts == 0 and hidden // parts % MULTIPLE == 0:
            return parts
    return 1


@dataclass(slots=True)
class _Mlp:
    """The nodes before the last linear of an MLP, as they are found from its end."""

    down: ir.Node
    hidden: int
    cuts: dict[ir.Value, Cut]
    nodes: set[ir.Node] = field(default_factory=set)
    ups: set[ir.Node] = field(default_factory=set)
    halved: dict[ir.Node, int] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Channels of what the first linear reads."""
        weight = next(iter(self.ups)).inputs[1]
        return 0 if weight is None or weight.shape is None else int(weight.shape.numpy()[0])

    def cut(self, value: ir.Value, how: Cut) -> bool:
        """Note how an initializer is split; False where it is split in another way already."""
        return self.cuts.setdefault(value, how) == how

    def branch(self, parts: int) -> Branch:
        graph = self.down.graph
        nodes = () if graph is None else tuple(node for node in graph if node in self.nodes)
        return Branch(
            down=self.down,
            nodes=nodes,
            cuts=self.cuts,
            parts=parts,
            attributes={node: {"num_outputs": count} for node, count in self.halved.items()},
        )


def _match(model: ir.Model, down: ir.Node, weight: ir.Value) -> _Mlp | None:
    """Find the MLP that a linear ends; None where it ends none."""
    hidden = int(weight.const_value.shape.numpy()[0]) if weight.const_value is not None else 0
    mlp = _Mlp(down, hidden, {weight: Cut(axis=0)})
    waiting: list[tuple[ir.Value | None, int]] = [(down.inputs[0], 1)]
    while waiting:
        value, blocks = waiting.pop()
        node = None if value is None else value.producer()
        if node is None or node.graph is not down.graph:
            return None
        if node in mlp.nodes:
            continue
        mlp.nodes.add(node)
        sources = _sources(model, mlp, node, blocks)
        if sources is None:
            return None
        waiting += sources
    return mlp if _is_closed(mlp) else None


def _sources(
    model: ir.Model, mlp: _Mlp, node: ir.Node, blocks: int
) -> list[tuple[ir.Value | None, int]] | None:
    """Return what a node of an MLP reads of it, with the blocks that it holds; None: it is not an MLP."""
    if same_graph_linear(model, node, mlp.down.graph):
        first, width = stored_matrix(model, node), blocks * mlp.hidden
        if first is None or first.shape is None or first.shape[1] != width:
            return None
        mlp.ups.add(node)
        return [] if mlp.cut(first, Cut(axis=1, blocks=blocks)) else None
    if node.op_type == "Split" and not node.domain:
        if blocks > 1 or not _halves_channels(node, mlp.hidden) or len(node.inputs) > 1:
            return None
        mlp.halved[node] = len(node.outputs)
        return [(node.inputs[0], len(node.outputs))]
    if node.op_type not in BETWEEN_LINEARS or node.domain or len(node.outputs) != 1:
        return None
    found: list[tuple[ir.Value | None, int]] = []
    for value in node.inputs:
        if value is None or (value.const_value is not None and value.const_value.size == 1):
            continue
        if value.const_value is None:
            found.append((value, blocks))
            continue
        array = value.const_value
        vector = array.size == int(array.shape.numpy()[-1]) == blocks * mlp.hidden
        stored = model.graph.initializers.get(value.name or "") is value
        last = len(array.shape) - 1
        if not vector or not stored or not mlp.cut(value, Cut(axis=last, blocks=blocks)):
            return None
    return found


def _halves_channels(node: ir.Node, hidden: int) -> bool:
    """Tell whether a Split cuts the last axis into blocks of the hidden width."""
    shapes = [output.shape for output in node.outputs]
    axis, source = node.attributes.get("axis"), node.inputs[0]
    if source is None or source.shape is None or axis is None:
        return False
    rank = len(source.shape)
    same = all(shape is not None and shape[-1] == hidden for shape in shapes)
    return same and axis.as_int() in {-1, rank - 1} and source.shape[-1] == len(shapes) * hidden


def _is_closed(mlp: _Mlp) -> bool:
    """Tell whether nothing but the MLP reads what stands between its linears."""
    if not mlp.ups or mlp.nodes == mlp.ups:
        return False
    inside = {*mlp.nodes, mlp.down}
    for node in mlp.nodes:
        for output in node.outputs:
            if output.is_graph_output() or not set(output.consumers()) <= inside:
                return False
    return all(
        source is not None and source.producer() not in mlp.nodes
        for source in (node.inputs[0] for node in mlp.ups)
    )
