"""Small language models as graphs: token ids to logits, with an attention in a Loop that a cache may stand for.

`LanguageSpec` says how one is built, `write_language_model` builds it. `tests.fuzz.language_specs` draws specs.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FLOAT", "INT64", "Graph", "Size"]

Array = NDArray[Any]
Size = int | str
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@dataclass(slots=True)
class Known:
    """What is known of the values of a model: all graphs of it share this."""

    shapes: dict[str, tuple[int, tuple[Size, ...]]] = field(default_factory=dict)
    stored: dict[str, Array] = field(default_factory=dict)
    count: int = 0


class Graph:
    """A graph that grows node by node; a body reads the values of the graph around it.

    Args:
        known: Of the model; None: of a new one.
        prefix: Of the names of nodes.
    """

    def __init__(self, known: Known | None = None, prefix: str = "") -> None:
        self.known = Known() if known is None else known
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.made: list[str] = []

    def name(self, word: str) -> str:
        """Return a name that nothing has."""
        self.known.count += 1
        return f"{self.prefix}{word}.{self.known.count}"

    def shape(self, value: str) -> tuple[Size, ...]:
        """Return the shape of a value."""
        return self.known.shapes[value][1]

    def note(self, value: str, shape: Sequence[Size], kind: int = FLOAT) -> str:
        """Note type and shape of a value."""
        self.known.shapes[value] = (kind, tuple(shape))
        return value

    def store(self, array: Array, name: str | None = None) -> str:
        """Add an initializer."""
        name = name or f"weight.{self.known.count}"
        self.known.count += 1
        self.known.stored[name] = array
        kind = int(helper.np_dtype_to_tensor_dtype(array.dtype))
        return self.note(name, array.shape, kind)

    def ints(self, *values: int) -> str:
        """Add an initializer int64 (values,)."""
        return self.store(np.array(values, np.int64))

    def scalar(self, value: float, dtype: Any = np.float32) -> str:
        """Add an initializer ()."""
        return self.store(np.array(value, dtype))

    def add(
        self,
        operator: str,
        *reads: str,
        shape: Sequence[Size],
        kind: int = FLOAT,
        **attributes: Any,
    ) -> str:
        """Add a node with one output, and return that."""
        return self.add_several(operator, *reads, shapes=[shape], kind=kind, **attributes)[0]

    def add_several(
        self,
        operator: str,
        *reads: str,
        shapes: Sequence[Sequence[Size]],
        kind: int = FLOAT,
        **attributes: Any,
    ) -> list[str]:
        """Add a node, and return its outputs."""
        name = self.name(operator)
        outputs = [f"{name}:{place}" for place in range(len(shapes))]
        self.nodes.append(helper.make_node(operator, list(reads), outputs, name, **attributes))
        for output, shape in zip(outputs, shapes, strict=True):
            self.note(output, shape, kind)
        self.made += outputs
        return outputs

    def unary(self, operator: str, value: str, **attributes: Any) -> str:
        """Apply an operator to each element."""
        kind, shape = self.known.shapes[value]
        return self.add(operator, value, shape=shape, kind=kind, **attributes)

    def unary_with(self, operator: str, value: str, weight: str, **attributes: Any) -> str:
        """Apply an operator that takes a weight too."""
        return self.add(operator, value, weight, shape=self.shape(value), **attributes)

    def binary(self, operator: str, one: str, two: str, kind: int | None = None) -> str:
        """Apply an operator to the elements of two values."""
        shape = broadcast(self.shape(one), self.shape(two))
        found = self.known.shapes[one][0] if kind is None else kind
        return self.add(operator, one, two, shape=shape, kind=found)

    def product(self, value: str, weight: str) -> str:
        """Multiply with a matrix."""
        shape = (*self.shape(value)[:-1], self.shape(weight)[-1])
        return self.add("MatMul", value, weight, shape=shape)

    def reshape(self, value: str, shape: Sequence[Size], *sizes: int) -> str:
        """Reshape; ``sizes`` are what the node reads."""
        kind = self.known.shapes[value][0]
        return self.add("Reshape", value, self.ints(*sizes), shape=shape, kind=kind)

    def transpose(self, value: str, *perm: int) -> str:
        """Turn the axes."""
        kind, shape = self.known.shapes[value]
        turned = [shape[place] for place in perm]
        return self.add("Transpose", value, shape=turned, kind=kind, perm=list(perm))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """Add axes, counted from the front."""
        kind, shape = self.known.shapes[value]
        wide = list(shape)
        for axis in sorted(axes):
            wide.insert(axis, 1)
        return self.add("Unsqueeze", value, self.ints(*axes), shape=wide, kind=kind)

    def part(self, value: str, axis: int, start: int, end: int, size: Size, step: int = 1) -> str:
        """Slice along an axis."""
        kind, shape = self.known.shapes[value]
        cut = [size if place == axis else each for place, each in enumerate(shape)]
        bounds = (self.ints(start), self.ints(end), self.ints(axis), self.ints(step))
        return self.add("Slice", value, *bounds, shape=cut, kind=kind)

    def concat(self, *values: str, axis: int, size: Size) -> str:
        """Join along an axis, which then has ``size``."""
        kind, shape = self.known.shapes[values[0]]
        axis %= len(shape)
        joined = [size if place == axis else each for place, each in enumerate(shape)]
        return self.add("Concat", *values, shape=joined, kind=kind, axis=axis)

    def proto(
        self, inputs: Sequence[str], outputs: Sequence[str], name: str, noted: float = 1.0
    ) -> onnx.GraphProto:
        """Return the graph, without initializers; types and shapes of a share of its values are noted."""
        given = set(inputs) | set(outputs)
        rng = random.Random(name)
        return helper.make_graph(
            self.nodes,
            name,
            [self._info(value) for value in inputs],
            [self._info(value) for value in outputs],
            value_info=[
                self._info(value)
                for value in self.made
                if value not in given and rng.random() < noted
            ],
        )

    def store_as_nodes(self, share: float) -> None:
        """Let a share of the small constants that nodes read be nodes in front of them."""
        rng = random.Random(share)
        found: list[onnx.NodeProto] = []
        made: dict[str, str] = {}
        for node in self.nodes:
            for place, read in enumerate(node.input):
                array = self.known.stored.get(read)
                if array is None or array.size > 8 or (read not in made and rng.random() >= share):
                    continue
                if read not in made:
                    made[read] = self.name("constant")
                    tensor = numpy_helper.from_array(array, made[read])
                    found.append(helper.make_node("Constant", [], [made[read]], value=tensor))
                node.input[place] = made[read]
            found.append(node)
        self.nodes = found

    def model(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        opset: int,
        properties: dict[str, str],
        noted: float = 1.0,
    ) -> onnx.ModelProto:
        """Return the whole model."""
        graph = self.proto(inputs, outputs, "language", noted)
        read = set(_names_read(graph))
        graph.initializer.extend(
            numpy_helper.from_array(array, name)
            for name, array in self.known.stored.items()
            if name in read
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
        helper.set_model_props(model, properties)
        return model

    def _info(self, value: str) -> onnx.ValueInfoProto:
        kind, shape = self.known.shapes[value]
        return helper.make_tensor_value_info(value, kind, list(shape))


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _names_read(attribute.g)


def broadcast(one: Sequence[Size], two: Sequence[Size]) -> list[Size]:
    """Return the shape of an element-wise result."""
    rank = max(len(one), len(two))
    pairs = zip([1] * (rank - len(one)) + [*one], [1] * (rank - len(two)) + [*two], strict=True)
    return [right if left == 1 else left for left, right in pairs]
