"""What a value of a graph holds in every inference, as far as the graph alone says so.

Exporters compute trip counts and conditions: a Cast of a constant, the smaller of an input and a limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Formula", "constant_of", "formula_of"]

Array = npt.NDArray[Any]

MOST_NODES, MOST_BYTES = 64, 1 << 16
"""Of what computes a count: it is a handful of scalars."""

SCALAR_OPERATORS = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "Div", "Equal", "Floor", "Gather"),
        *(
            "Greater",
            "GreaterOrEqual",
            "Identity",
            "Less",
            "LessOrEqual",
            "Max",
            "Min",
            "Mul",
            "Neg",
        ),
        *("Not", "Or", "ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "Shape", "Size", "Slice"),
        *("Squeeze", "Sub", "Sum", "Unsqueeze", "Where", "Xor"),
    )
)
"""Operators that count, compare, or take a number out of an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """How a value is computed: ``nodes`` in order, ``constants`` that they read, ``open`` what the graph does not say."""

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    constants: Mapping[ir.Value, ir.TensorProtocol]
    open: tuple[ir.Value, ...]

    def evaluate(self, known: Mapping[ir.Value, Array], opsets: Mapping[str, int]) -> Array | None:
        """Return what the value holds; None where an open value is not known, or nothing can be computed.

        Args:
            known: What open values hold.
            opsets: Of the model.
        """
        if any(value not in known for value in self.open):
            return None
        arrays = {value: tensor.numpy() for value, tensor in self.constants.items()}
        arrays |= {value: known[value] for value in self.open}
        if not self.nodes:
            return arrays[self.value]
        try:
            return self._compute(arrays, opsets)
        except Exception:  # a graph of another tool that cannot be computed: then nothing is known
            return None

    def _compute(self, arrays: Mapping[ir.Value, Array], opsets: Mapping[str, int]) -> Array:
        import onnx
        from onnx.reference import ReferenceEvaluator  # slow to import, and few graphs need it

        made = [output for node in self.nodes for output in node.outputs]
        # Values of a body may have the names of values around it.
        names = {value: f"value.{place}" for place, value in enumerate([*arrays, *made])}
        protos = []
        for node in self.nodes:
            proto = ir.serde.serialize_node(node)
            proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
            proto.output[:] = [names[value] for value in node.outputs]
            protos.append(proto)
        graph = onnx.helper.make_graph(
            protos,
            "count",
            [onnx.ValueInfoProto(name=names[value]) for value in arrays],
            [onnx.ValueInfoProto(name=names[self.value])],
        )
        opset = onnx.helper.make_opsetid("", opsets.get("", 21))
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]))
        with np.errstate(all="ignore"):
            (array,) = evaluator.run(None, {names[value]: array for value, array in arrays.items()})
        return np.asarray(array)


def constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or a Constant; None for a default that a caller may overwrite."""
    if value.is_graph_input():
        return None
    maker = value.producer()
    if value.const_value is None and maker is not None and len(maker.attributes) != 1:
        return None
    return ir.convenience.get_const_tensor(value)


def formula_of(value: ir.Value) -> Formula | None:
    """Return how a value is computed; None where that takes more than `SCALAR_OPERATORS` on a few numbers."""
    nodes: dict[ir.Node, None] = {}
    constants: dict[ir.Value, ir.TensorProtocol] = {}
    unknown: dict[ir.Value, None] = {}
    waiting: list[tuple[ir.Value, Iterator[ir.Value]]] = []
    seen: set[ir.Value] = set()

    def enter(current: ir.Value) -> bool:
        """Note a value; False where it cannot be followed."""
        if current in seen:
            return True
        seen.add(current)
        tensor, maker = constant_of(current), current.producer()
        if tensor is not None:
            constants[current] = tensor
            return tensor.nbytes <= MOST_BYTES
        if maker is None:
            unknown[current] = None
            return True
        if maker.domain or maker.op_type not in SCALAR_OPERATORS:
            return False
        waiting.append((current, iter([each for each in maker.inputs if each is not None])))
        return len(seen) <= MOST_NODES

    if not enter(value):
        return None
    while waiting:
        current, sources = waiting[-1]
        source = next(sources, None)
        if source is None:
            waiting.pop()
            if (maker := current.producer()) is not None:
                nodes[maker] = None
        elif not enter(source):
            return None
    return Formula(value=value, nodes=tuple(nodes), constants=constants, open=tuple(unknown))
