"""Count the operations and bytes of an inference from the shapes in ONNX Runtime's trace."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from loopedge.graph.operators import CONTROL_FLOW, PRODUCTS, Fact, having
from loopedge.profiler.dissection.trace import Event, Kernel, counted_runs, kernels_of

__all__ = ["Work", "count_work"]

FLOAT_PRODUCTS = having(Fact.MATMUL | Fact.FLOAT)
INT8_PRODUCTS = having(Fact.MATMUL | Fact.INT8)
BLOCK_PRODUCTS = having(Fact.MATMUL | Fact.BLOCKS)
UNCOUNTED = (
    having(Fact.RECURRENT) | having(Fact.EXPERTS) | {"ConvTranspose", "DeformConv", "QAttention"}
)
"""Products that are not counted; they are named."""

ATTENTIONS = having(Fact.ATTENTION) - UNCOUNTED
CONVOLUTIONS = having(Fact.CONVOLUTION) - UNCOUNTED
VIEWS = having(Fact.VIEW) | having(Fact.SIZE) | CONTROL_FLOW
"""Nodes that move nothing, or whose bodies' nodes are counted."""

ROWS = having(Fact.PICK)
"""Nodes that read of their input as much as they write."""

SIZES = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int64": 8, "int32": 4}
"""Bytes of an element by its name in the trace; any other has one."""

Shape = Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of one inference: floating-point and integer operations of its products, bytes that its nodes move.

    A multiplication and an addition are two operations. ``uncounted`` are the operators of products
    that are in neither.
    """

    float_operations: float
    int8_operations: float
    moved_bytes: float
    uncounted: list[str]


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: Shape

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * SIZES.get(self.dtype, 1)


def count_work(events: Iterable[Event], graph: ir.Model, *, skip_runs: int = 0) -> Work:
    """Count what an inference computes and moves.

    Products count: MatMul and Gemm in all their forms, attention (in full, causal or not), Conv, Einsum
    of two operands. Small elementwise work (norms, activations, softmax, quantizing) does not.

    Bytes: every node reads its activations and writes its outputs, a product reads its weight once per
    use. A product's packed weight is not in the trace; its size follows from the shapes.

    Args:
        events: Of the trace.
        graph: The model; equations, kernels and bits are read from it by the names of nodes.
        skip_runs: Runs at the start that were a warm-up.
    """
    listed = list(events)
    runs = counted_runs(listed, skip_runs=skip_runs)
    nodes = {node.name: node for node in graph.graph.all_nodes() if node.name}
    floats = integers = moved = 0.0
    uncounted = set()
    for kernel in kernels_of(listed, runs):
        inputs, outputs = (_tensors(kernel, f"{side}_type_shape") for side in ("input", "output"))
        if not outputs:
            continue
        operations, weight_bytes = _product(kernel, nodes.get(kernel.node), inputs, outputs)
        if _is_int8(kernel.op, nodes.get(kernel.node)):
            integers += operations
        else:
            floats += operations
        if kernel.op in UNCOUNTED or (operations == 0 and _is_product(kernel.op)):
            uncounted.add(kernel.op)
        moved += weight_bytes + _moved(kernel, inputs, outputs, weighted=weight_bytes > 0)
    count = len(runs) or 1
    return Work(
        float_operations=floats / count,
        int8_operations=integers / count,
        moved_bytes=moved / count,
        uncounted=sorted(uncounted),
    )


def _tensors(kernel: Kernel, side: str) -> list[_Tensor]:
    return [
        _Tensor(dtype, shape)
        for tensor in kernel.args.get(side, [])
        for dtype, shape in tensor.items()
    ]


def _is_int8(op: str, node: ir.Node | None) -> bool:
    """Tell integer products; those of blocks round their activations where they are allowed to."""
    if op in BLOCK_PRODUCTS:
        return node is not None and node.attributes.get_int("accuracy_level", 0) == 4
    return op in having(Fact.INT8)


def _is_product(op: str) -> bool:
    return op in PRODUCTS - UNCOUNTED


def _moved(
    kernel: Kernel, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], *, weighted: bool
) -> int:
    """Return the bytes of activations that a node reads and writes."""
    if kernel.op in VIEWS:
        return 0
    written = sum(tensor.nbytes for tensor in outputs)
    if kernel.op in ROWS:
        return 2 * written
    read = inputs[:1] if weighted else inputs
    return written + sum(tensor.nbytes for tensor in read)


def _product(
    kernel: Kernel, node: ir.Node | None, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]
) -> tuple[float, float]:
    """Return the operations of a node, and the bytes of its weight that is none of its inputs."""
    if not inputs or not outputs[0].shape:
        return 0, 0
    if kernel.op in FLOAT_PRODUCTS | INT8_PRODUCTS | BLOCK_PRODUCTS:
        return _matmul(kernel, node, inputs, outputs[0])
    if kernel.op in ATTENTIONS:
        return _attention(inputs, outputs), 0
    if kernel.op in CONVOLUTIONS:
        return _convolution(inputs, outputs[0], node)
    if kernel.op == "Einsum" and node is not None:
        return _einsum(node, inputs), 0
    return 0, 0


def _matmul(
    kernel: Kernel, node: ir.Node | None, inputs: Sequence[_Tensor], output: _Tensor
) -> tuple[float, float]:
    left = inputs[0]
    inner = _inner_axis(left.shape, output.shape)
    columns = output.shape[-1]
    both_shapes_known = len(inputs) > 1 and len(inputs[1].shape) > 1 and kernel.op in FLOAT_PRODUCTS
    if both_shapes_known:
        return 2.0 * output.size * inner, 0
    if kernel.op in BLOCK_PRODUCTS:
        bits = node.attributes.get_int("bits", 4) if node is not None else 4
        return 2.0 * output.size * inner, inner * columns * bits / 8
    size = 1 if kernel.op in INT8_PRODUCTS else SIZES.get(left.dtype, 1)
    return 2.0 * output.size * inner, inner * columns * size


def _inner_axis(left: Shape, output: Shape) -> int:
    """Return the axis that is summed: the last of the left side, or the one before where it is turned."""
    if len(left) < 2 or len(output) < 2 or left[-2] == output[-2]:
        return left[-1]
    if left[-1] == output[-2]:
        return left[-2]
    return left[-1]  # leading axes are folded into rows


def _attention(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> float:
    """Count queries x keys and weights x values; with a cache, all positions that are in it.

    Shapes: (batch, sequence, heads * width) or (batch, heads, sequence, width).
    """
    query, result = inputs[0].shape, outputs[0].shape
    if len(query) not in {3, 4} or len(result) not in {3, 4}:
        return 0
    key = inputs[1].shape if len(inputs) > 1 else query
    # A cache that is written (batch, heads, positions, width) holds the past ones too.
    cached = [tensor.shape[-2] for tensor in outputs[1:3] if len(tensor.shape) == 4]
    positions = max([key[-2] if len(key) in {3, 4} else query[-2], *cached])
    if len(inputs) > 2 and len(key) == 2:  # com.microsoft.Attention: one weight makes all three
        width = result[-1]
        projection = 2.0 * prod(query) * key[-1]
        return projection + 4.0 * query[0] * query[1] * query[1] * width
    return 2.0 * positions * (prod(query) + prod(result))


def _convolution(
    inputs: Sequence[_Tensor], output: _Tensor, node: ir.Node | None
) -> tuple[float, float]:
    weight: Shape | None = None
    if node is not None and len(node.inputs) > 1:
        stored = node.inputs[3 if node.op_type == "QLinearConv" else 1]
        known = stored.shape if stored is not None else None
        if known is not None and known.is_static():
            weight = known.numpy()
    if weight is None:
        shapes = [tensor.shape for tensor in inputs[1:] if len(tensor.shape) == len(output.shape)]
        weight = shapes[0] if shapes else None
    if weight is None:
        return 0, 0
    # weight [out, in / groups, *kernel]
    weight_bytes = 0 if len(inputs) > 1 else prod(weight) * SIZES.get(inputs[0].dtype, 1)
    return 2.0 * output.size * prod(weight[1:]), weight_bytes


def _einsum(node: ir.Node, inputs: Sequence[_Tensor]) -> float:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) != 2 or len(inputs) != 2 or "." in equation:
        return 0
    axes: dict[str, int] = {}
    for term, tensor in zip(terms, inputs, strict=True):
        axes |= dict(zip(term, tensor.shape, strict=True))
    return 2.0 * prod(axes.values())
