"""Values that depend on the sizes of the inputs alone: positions, masks, shapes. They can be computed without data.

A graph that decodes sees a chunk of a text. What its nodes make of the *number* of positions, as a table of positions or a
mask, was meant for the whole text; what they make of sizes for shapes is right for a chunk too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from loopedge.graph.operators import Fact, having
from loopedge.graph.shapes import known_shape

__all__ = ["LengthValues", "Read", "bodies_of", "evaluate"]

Array = npt.NDArray[Any]

BATCH_AXIS, SEQUENCE_AXIS = 0, 1
RANDOM = having(Fact.RANDOM)

SIZE_INPUTS: Mapping[str, Sequence[int]] = {
    "Expand": (1,),
    "Loop": (0, 1),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that say how large something is, by operator; those of reductions say along which axes."""


MOST_NUMBERS = 16
"""Values of an array that is taken for single numbers; a larger one is a table."""


@dataclass(frozen=True, slots=True)
class Read:
    """A place where a node that computes with data reads a value that depends on sizes alone."""

    node: ir.Node
    place: int
    value: ir.Value


class LengthValues:
    """Which values of a graph depend on the sizes of its inputs alone, and what they hold.

    Unchecked: after a change of the graph, make another one.

    Args:
        model: A graph whose token ids are called (batch, sequence).
        ids: Its token ids, int64 (batch, sequence).
    """

    def __init__(self, model: ir.Model, ids: ir.Value) -> None:
        self.model, self.ids = model, ids
        self._by_length: set[ir.Value] = set()
        self._data: set[ir.Value] = set(model.graph.inputs)
        self._visit(model.graph)

    def __contains__(self, value: ir.Value | None) -> bool:
        """Tell whether a value depends on sizes, and on nothing else."""
        return value in self._by_length

    def is_constant(self, value: ir.Value) -> bool:
        """Tell whether a value depends on no input, not even on its sizes."""
        return value not in self._by_length and value not in self._data

    @property
    def nodes(self) -> list[ir.Node]:
        """Nodes that make values of sizes alone, in the order of the graph."""
        return [
            node
            for node in self.model.graph.all_nodes()
            if node.outputs and node.outputs[0] in self._by_length
        ]

    def _visit(self, graph: ir.Graph) -> None:
        for node in graph:
            inner = list(bodies_of(node))
            for body in inner:
                self._data.update(body.inputs)
                self._visit(body)
            read = [value for value in node.inputs if value is not None]
            if inner or node.op_type in RANDOM or any(value in self._data for value in read):
                kind = self._data
                if node.op_type in {"Shape", "Size"} and not node.domain:
                    kind = self._by_length
            elif any(value in self._by_length for value in read):
                kind = self._by_length
            else:
                continue
            kind.update(node.outputs)

    @cached_property
    def content_reads(self) -> list[Read]:
        """Where nodes that compute with data read such values as content, not as sizes."""
        return [
            Read(node, place, value)
            for node in self.model.graph.all_nodes()
            if node.outputs and node.outputs[0] not in self._by_length
            for place, value in enumerate(node.inputs)
            if value is not None and value in self._by_length
            if place not in SIZE_INPUTS.get(node.op_type, ())
            if not (node.op_type.startswith("Reduce") and place == 1)
        ]

    def nodes_of(self, values: Iterable[ir.Value]) -> list[ir.Node]:
        """Return the nodes that compute values, in an order in which they can run.

        They depend on sizes alone, but for ``Shape``, which asks a value that holds data.
        """
        found: dict[ir.Node, None] = {}
        waiting = [(value, False) for value in reversed(list(values))]
        while waiting:
            value, entered = waiting.pop()
            maker = value.producer()
            if maker is None or maker in found or value.const_value is not None:
                continue
            if entered:
                found[maker] = None
                continue
            waiting.append((value, True))
            if not self.asks_data(maker):
                waiting += [(item, False) for item in maker.inputs if item is not None]
        return list(found)

    def asks_data(self, node: ir.Node) -> bool:
        """Tell whether a node asks for the size of a value that holds data."""
        source = node.inputs[0] if node.inputs else None
        return node.op_type in {"Shape", "Size"} and source is not None and source in self._data

    def asked_shape(self, node: ir.Node) -> list[int | str]:
        """Return the shape that a ``Shape`` of data gives: sizes, ``batch`` and ``sequence``.

        Raises:
            ValueError: The graph does not know it.
        """
        source = node.inputs[0]
        named = dict(zip(self._axes, ("batch", "sequence"), strict=True))
        shape = known_shape(source)
        if shape is None:
            raise ValueError(f"the shape of {None if source is None else source.name} is not known")
        rank = len(shape)
        start = node.attributes.get_int("start", 0)
        end = node.attributes.get_int("end", rank)
        dims = shape[slice(start, end)]
        if node.op_type == "Size" or any(not isinstance(d, int) and d not in named for d in dims):
            raise ValueError(f"{node.name} asks for a size that is not known: {shape}")
        return [dim if isinstance(dim, int) else named[dim] for dim in dims]

    @property
    def _axes(self) -> tuple[str | int | None, str | int | None]:
        shape = known_shape(self.ids) or (None, None)
        return shape[BATCH_AXIS], shape[SEQUENCE_AXIS]

    def evaluate(
        self,
        values: Sequence[ir.Value],
        sizes: Sequence[tuple[int, int]],
        instead: Mapping[ir.Value, Array] | None = None,
    ) -> list[list[Array]]:
        """Return what values hold, for each (batch, sequence).

        Args:
            values: That depend on sizes alone, or are constant.
            sizes: Batch rows and positions.
            instead: What constants shall hold instead of what they hold.

        Raises:
            ValueError: A size is asked for that is not known.
            Exception: ONNX Runtime cannot compute them.
        """
        nodes = self.nodes_of(values)
        asked = {node.outputs[0]: self.asked_shape(node) for node in nodes if self.asks_data(node)}
        others = instead or {}
        kept = [
            node for node in nodes if not self.asks_data(node) and node.outputs[0] not in others
        ]
        feeds = []
        for batch, sequence in sizes:
            known = {"batch": batch, "sequence": sequence}
            feeds.append(
                {
                    value: np.array([known.get(str(dim), dim) for dim in dims], np.int64)
                    for value, dims in asked.items()
                }
                | dict(others)
            )
        return evaluate(self.model, kept, values, feeds)


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that a node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def evaluate(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    ends: Sequence[ir.Value],
    feeds: Sequence[Mapping[ir.Value, Array]],
) -> list[list[Array]]:
    """Compute values of a graph with ONNX Runtime, without its optimizers.

    Args:
        model: Whose versions of operators count.
        nodes: In an order in which they can run; values of bodies may have the names of values around.
        ends: What they make, or what is stored or fed.
        feeds: What values that no node makes hold, for each computation.

    Raises:
        Exception: ONNX Runtime cannot load or run them.
    """
    import onnxruntime as ort

    made = {output for node in nodes for output in node.outputs}
    read = dict.fromkeys(
        value
        for values in (*(node.inputs for node in nodes), ends)
        for value in values
        if value is not None and value not in made
    )
    names = {value: f"value.{place}" for place, value in enumerate([*read, *made])}
    fed = set(feeds[0]) if feeds else set()
    stored = {value: tensor for value in read if value not in fed and (tensor := _stored(value))}
    protos = []
    for node in nodes:
        proto = ir.serde.serialize_node(node)
        proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
        proto.output[:] = [names[value] for value in node.outputs]
        protos.append(proto)
    ends_of_graph = []
    for place, end in enumerate(ends):  # a value may be asked for twice, and an input is no output
        protos.append(onnx.helper.make_node("Identity", [names[end]], [f"end.{place}"]))
        ends_of_graph.append(onnx.ValueInfoProto(name=f"end.{place}"))
    known = [*stored.items(), *((value, ir.tensor(array)) for value, array in _first(feeds))]
    graph = onnx.helper.make_graph(
        protos,
        "values",
        [
            onnx.helper.make_tensor_value_info(
                names[value],
                int(tensor.dtype),
                list(tensor.shape.numpy()) if value in stored else [None] * len(tensor.shape),
            )
            for value, tensor in known
        ],
        ends_of_graph,
    )
    opsets = [onnx.helper.make_opsetid(*item) for item in model.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    constants = {names[value]: tensor.numpy() for value, tensor in stored.items()}
    taken = {node.name for node in session.get_inputs()}
    found = []
    for feed in feeds or [{}]:
        arrays = constants | {
            names[value]: array for value, array in feed.items() if value in names
        }
        given = {name: array for name, array in arrays.items() if name in taken}
        found.append([np.asarray(array) for array in session.run(None, given)])
    return found


def _first(feeds: Sequence[Mapping[ir.Value, Array]]) -> Iterator[tuple[ir.Value, Array]]:
    yield from (feeds[0].items() if feeds else ())


def _stored(value: ir.Value) -> ir.TensorProtocol | None:
    return None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
