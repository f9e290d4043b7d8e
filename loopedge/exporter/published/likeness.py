"""Whether a graph is the one that was compared with PyTorch, but for its sizes."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import onnx_ir as ir

from loopedge.errors import VerificationError
from loopedge.graph.passes.norms import UNIT_SCALE_PREFIX

__all__ = ["check_likeness"]

SIZES = frozenset({"q_num_heads", "kv_num_heads", "num_heads", "scale", "K", "N", "block_size"})
"""Attributes that follow from widths."""

MOST_VALUES = 1 << 20
"""Of a scale that is looked at."""


def check_likeness(graph: ir.Model, checked: ir.Model) -> None:
    """Hold that two graphs are made of the same nodes, wired in the same way, with the same weights by name.

    Args:
        graph: Of the published sizes.
        checked: Of small widths, which agreed with PyTorch.

    Raises:
        VerificationError: The first node that differs is named.
    """
    ours, theirs = (list(_lines(each.graph, {}, count())) for each in (graph, checked))
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            raise VerificationError(
                f"the graph of the published sizes is another one than was compared with PyTorch: {one}, there {other}"
            )
    if len(ours) != len(theirs):
        raise VerificationError(
            f"the graph of the published sizes has {len(ours)} nodes, the one compared with PyTorch {len(theirs)}"
        )


def _lines(graph: ir.Graph, numbers: dict[ir.Value, str], counted: Iterator[int]) -> Iterator[str]:
    """Yield a line for each node: its operator, what it reads, its attributes; bodies after their node.

    Values are called by their place: PyTorch numbers them by what it folded on the way. A Cast that widens a stored weight,
    or rows of it, is passed over: which weights float16 holds depends on their values.
    """
    for value in graph.inputs:
        numbers[value] = f"%{next(counted)}"
    for node in graph:
        if _widens(node):
            numbers[node.outputs[0]] = _read(node.inputs[0], numbers)
            continue
        bodies, said = [], []
        for name, attribute in sorted(node.attributes.items()):
            if attribute.type == ir.AttributeType.GRAPH:
                bodies.append(attribute.as_graph())
            elif attribute.type == ir.AttributeType.TENSOR or name in SIZES:
                said.append(name)
            elif name == "epsilon":
                said.append(_epsilon(node, attribute.as_float()))
            else:
                said.append(f"{name}={attribute.value}")
        reads = ", ".join(_read(value, numbers) for value in node.inputs)
        yield f"{node.op_type}({reads}) {' '.join(said)}".strip()
        for body in bodies:
            yield from _lines(body, numbers, counted)
            yield f"gives {', '.join(_read(value, numbers) for value in body.outputs)}"
        for value in node.outputs:
            numbers[value] = f"%{next(counted)}"


def _widens(node: ir.Node) -> bool:
    source = node.inputs[0] if node.op_type == "Cast" else None
    if source is None:
        return False
    gather = source.producer()
    table = gather.inputs[0] if gather is not None and gather.op_type == "Gather" else None
    return any(
        value is not None and value.const_value is not None and value.dtype == ir.DataType.FLOAT16
        for value in (source, table)
    )


def _epsilon(node: ir.Node, epsilon: float) -> str:
    """Return what is added to a mean of squares; where the norm is Euclidean, what is added to their sum.

    A norm x / sqrt(sum x^2 + epsilon) stands in a graph as one by the mean, with the scale 1 / sqrt(width).
    """
    scale = node.inputs[1] if len(node.inputs) > 1 else None
    constant = None if scale is None else scale.const_value
    if constant is None or constant.size > MOST_VALUES:
        return f"epsilon={epsilon:.6g}"
    values = constant.numpy().ravel()
    euclidean = values.size > 1 and np.allclose(values, values.size**-0.5, rtol=1e-6, atol=0)
    return f"epsilon/width={epsilon * values.size:.6g}" if euclidean else f"epsilon={epsilon:.6g}"


def _read(value: ir.Value | None, numbers: dict[ir.Value, str]) -> str:
    """Return what a value is called; of constants that hold sizes or are named for their size, that they do."""
    if value is None:
        return "-"
    if value in numbers:
        return numbers[value]
    if (value.name or "").startswith(UNIT_SCALE_PREFIX):
        return "ones"
    if value.const_value is not None and value.const_value.dtype.is_integer():
        return "sizes" if value.const_value.size > 1 else "a number"
    name = value.name or ""
    if value.const_value is not None and "/" in name:  # a parameter is called without one
        return f"a constant of {len(value.const_value.shape)} axes"
    return name
