"""Follow every stored weight of a graph to the products that read it.

A weight may stand in the main graph, in a body or in a Constant node; it may be handed to a body as a state, gathered by
the number of the iteration, turned, cut, scaled or made float again on its way. What reaches a product untouched by the
model's inputs is a weight there, whatever was done to it; what is looked up by ids is an activation.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.names import in_last_iteration
from loopedge.graph.operators import OPERANDS, WEIGHT_PLACES, Fact, having
from loopedge.graph.weights import stored_bytes

__all__ = ["WeightRead", "integer_bytes", "is_stored_integer", "weight_reads"]

SCALED_ALONG = having(Fact.ROUNDING) | {"GatherBlockQuantized"}
"""What stands behind their first input are scales, no weights."""

MOST_SCALES = 2
"""A weight in integers has at least twice as many values as scales: a block of four takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRead:
    """A product that reads a weight.

    ``weights`` are the stored tensors that its weight is made of, in the order in which they are stored.
    """

    node: ir.Node
    weights: tuple[ir.Value, ...]

    @property
    def in_integers(self) -> bool:
        """Whether what is stored are integers of at most 8 bits, but for scales."""
        integers = sum(_size(value) for value in self.weights if is_stored_integer(value))
        floats = sum(_size(value) for value in self.weights if not is_stored_integer(value))
        return integers > 0 and integers >= MOST_SCALES * floats


def weight_reads(model: ir.Model) -> list[WeightRead]:
    """List the products that read weights, those of bodies among them, in the order of the graph.

    Those of a last iteration that stands behind the Loop are those of the body again, and are not among them. A
    function that the model holds counts wherever it is called; its nodes are then those of a copy.
    """
    if model.functions:
        model = model.clone()
        common.InlinePass()(model)
    found = _Flow(model.graph).reads
    return [
        found[node]
        for node in model.graph.all_nodes()
        if node in found and not in_last_iteration(node)
    ]


def is_stored_integer(value: ir.Value) -> bool:
    """Tell a stored tensor of integers of at most 8 bits."""
    dtype = None if value.const_value is None else value.const_value.dtype
    return dtype is not None and dtype.is_integer() and dtype.bitwidth <= 8


def integer_bytes(reads: Iterable[WeightRead]) -> tuple[int, int]:
    """Return the bytes of the weights that products read, each once: those in integers, and all."""
    weights = dict.fromkeys(value for read in reads for value in read.weights)
    return (
        sum(stored_bytes(value) for value in weights if is_stored_integer(value)),
        sum(stored_bytes(value) for value in weights),
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """What a value is made of: stored weights, sizes of the inputs, or their values (then nothing else matters)."""

    weights: frozenset[ir.Value] = frozenset()
    sized: bool = False
    data: bool = False

    def joined(self, *others: "_Made") -> "_Made":
        parts = (self, *others)
        if any(part.data for part in parts):
            return DATA
        return _Made(
            frozenset().union(*(part.weights for part in parts)), any(part.sized for part in parts)
        )


NOTHING, DATA = _Made(), _Made(data=True)


class _Flow:
    """Walks a graph once in its order, a body until what it hands to itself has settled."""

    def __init__(self, graph: ir.Graph) -> None:
        self.reads: dict[ir.Node, WeightRead] = {}
        self._made: dict[ir.Value, _Made] = {}
        self._places: dict[ir.Value, int] = {}
        self._constants: dict[ir.Value, ir.Value] = {}
        self._walk(graph)

    def _walk(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type in having(Fact.REPEAT) and not node.domain:
                self._repeat(node)
            elif node.op_type in having(Fact.BRANCH) and not node.domain:
                self._branch(node)
            else:
                self._made.update(dict.fromkeys(node.outputs, self._outcome(node)))

    def _of(self, value: ir.Value | None) -> _Made:
        if value is None:
            return NOTHING
        if value in self._made:
            return self._made[value]
        return DATA if value.const_value is None else self._stored(value)

    def _stored(self, value: ir.Value) -> _Made:
        tensor = value.const_value
        if tensor is None or (len(tensor.shape) < 2 and tensor.size < 2):
            return NOTHING
        if not tensor.dtype.is_floating_point() and not is_stored_integer(value):
            return NOTHING
        self._places.setdefault(value, len(self._places))
        return _Made(frozenset({value}))

    def _outcome(self, node: ir.Node) -> _Made:
        name = node.op_type
        if name == "Constant" and not node.domain:
            return self._constant(node)
        inputs = [self._of(value) for value in node.inputs]
        if name in OPERANDS:
            return self._product(node, inputs)
        if name in having(Fact.RANDOM):
            return DATA
        if name in having(Fact.SIZE):
            return _Made(sized=inputs[0].data or inputs[0].sized)
        if name in having(Fact.PICK) and inputs[0].weights and _picks_matrices(node):
            return inputs[0]  # one of several matrices, whoever chooses it
        if name in SCALED_ALONG:
            rest = inputs[1:] if name in having(Fact.PICK) else []
            return inputs[0].joined(*(_Made(sized=each.sized, data=each.data) for each in rest))
        return NOTHING.joined(*inputs)

    def _constant(self, node: ir.Node) -> _Made:
        output = node.outputs[0]
        if output not in self._constants:
            tensor = ir.convenience.get_const_tensor(output)
            self._constants[output] = ir.Value(name=output.name, const_value=tensor)
        return self._stored(self._constants[output])

    def _product(self, node: ir.Node, inputs: list[_Made]) -> _Made:
        operands = [inputs[place] for place in _operands(node) if place < len(inputs)]
        if node.op_type in WEIGHT_PLACES:  # what else is multiplied stands for an activation
            operands = [made for made in operands if made.weights][:1]
        weights = frozenset[ir.Value]().union(*(made.weights for made in operands))
        self.reads.pop(node, None)
        if weights:
            ordered = tuple(sorted(weights, key=self._places.__getitem__))
            self.reads[node] = WeightRead(node=node, weights=ordered)
        made = NOTHING.joined(*inputs)
        return DATA if made.sized else made  # a product that has positions is an activation

    def _branch(self, node: ir.Node) -> None:
        ends: list[list[_Made]] = []
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                self._walk(attribute.as_graph())
                ends.append([self._of(value) for value in attribute.as_graph().outputs])
        for output, parts in zip(node.outputs, zip(*ends, strict=True), strict=True):
            self._made[output] = NOTHING.joined(*parts)

    def _repeat(self, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        outputs = list(body.outputs)
        if node.op_type == "Loop":
            states, scanned, inputs = list(node.inputs[2:]), [], list(body.inputs[2:])
            self._made.update(zip(body.inputs[:2], (NOTHING, DATA), strict=False))
            outputs = outputs[1:]
        else:
            count = node.attributes["num_scan_inputs"].as_int()
            states, scanned = list(node.inputs[:-count]), list(node.inputs[-count:])
            inputs = list(body.inputs)
        self._made.update(
            zip(inputs[len(states) :], (self._of(value) for value in scanned), strict=False)
        )
        before = [self._of(value) for value in states]
        while True:
            self._made.update(zip(inputs, before, strict=False))
            self._walk(body)
            after = [self._of(value) for value in outputs]
            joined = [one.joined(two) for one, two in zip(before, after, strict=False)]
            if joined == before:
                break
            before = joined
        self._made.update(zip(node.outputs, [*joined, *after[len(states) :]], strict=False))


def _operands(node: ir.Node) -> tuple[int, ...]:
    if node.op_type == "Attention" and node.domain:  # ONNX Runtime's own multiplies by its weight
        return (1,)
    return OPERANDS[node.op_type]


def _picks_matrices(node: ir.Node) -> bool:
    tensor = None if node.inputs[0] is None else node.inputs[0].const_value
    return tensor is not None and len(tensor.shape) > 2


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.size)
