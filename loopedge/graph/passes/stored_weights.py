"""Store what linears read as they read it: what only moves, casts or scales a weight is computed once.

Other tools write a weight behind Identity, Reshape, Cast, Slice, Concat, Mul by a constant and so on. Integers are made of
stored weights, so such a chain is folded into the weight, where the file does not grow by it.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.editing import initializer
from loopedge.graph.naming import free_name
from loopedge.graph.operators import LINEARS, WEIGHT_PLACES, Fact, having
from loopedge.graph.weight_reads import is_stored_integer
from loopedge.graph.weights import TABLE_PREFIX, stored_bytes

__all__ = ["drop_constant_states", "fold_weight_chains"]

FOLDED = (
    having(Fact.UNARY)
    | having(Fact.BROADCAST)
    | having(Fact.VIEW)
    | having(Fact.REDUCTION)
    | having(Fact.SIZE)
    | {
        "Concat",
        "Expand",
        "Gather",
        "Pad",
        "Slice",
        "Split",
        "Transpose",
        "ConstantOfShape",
        "Range",
    }
)
GROWTH_BYTES = 1024
"""A fold may take so many bytes more than it frees: gains and scales that something else reads too."""


def drop_constant_states(model: ir.Model) -> bool:
    """Let bodies of Loops read a constant that is handed on unchanged where it is stored, in place.

    Requires: nothing.

    Ensures: the Loops compute the same without those states.

    Returns:
        Whether anything changed.
    """
    changed = False
    for loop in loops_among(list(model.graph.all_nodes())):
        idle = [
            place
            for place, (first, after) in enumerate(zip(loop.initial, loop.after, strict=True))
            if first is not None
            and first.const_value is not None
            and _passed_on(after) is loop.before[place]
            and not loop.final[place].is_graph_output()  # it keeps its name
        ]
        if idle:
            _without_states(loop, idle)
            changed = True
    return changed


def _passed_on(value: ir.Value) -> ir.Value:
    while (maker := value.producer()) is not None and maker.op_type == "Identity":
        source = maker.inputs[0]
        if source is None:
            break
        value = source
    return value


def _without_states(loop: LoopView, idle: list[int]) -> None:
    """Put a Loop without some states in the place of another."""
    node, body, graph = loop.node, loop.body, loop.node.graph
    if graph is None:
        return
    for place in sorted(idle, reverse=True):
        first, before, after = loop.initial[place], loop.before[place], loop.after[place]
        del body.outputs[1 + place]
        while (copy := after.producer()) is not None and not after.uses():
            after = copy.inputs[0] or after
            body.remove(copy, safe=True)
        if first is not None:
            ir.convenience.replace_all_uses_with(before, first)
            ir.convenience.replace_all_uses_with(loop.final[place], first)
        del body.inputs[2 + place]
    stay = [place for place in range(len(node.outputs)) if place not in idle]
    narrow = ir.Node(
        "",
        "Loop",
        [value for place, value in enumerate(node.inputs) if place - 2 not in idle],
        node.attributes.values(),
        num_outputs=len(stay),
        name=node.name,
    )
    graph.insert_before(node, narrow)
    for place, new in zip(stay, narrow.outputs, strict=True):
        old = node.outputs[place]
        name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = name
    graph.remove(node)


def fold_weight_chains(model: ir.Model) -> bool:
    """Fold what makes the weights of linears of constants into stored weights, in place.

    A Transpose alone stays: `loopedge.graph.passes.layout` knows the ties.

    Requires: the constants are initializers of the main graph.

    Ensures: the same products of the same values; the weights do not take more bytes; chains that share a stored
    weight are folded all or none; what is folded stands once, however many products read it.

    Returns:
        Whether anything changed.
    """
    order = {node: place for place, node in enumerate(model.graph.all_nodes())}
    made_weights = (_chain_of(value, order) for value in _weights_made(model))
    chains = [chain for chain in made_weights if chain is not None]
    changed = False
    for group in _sharing_sources(chains):
        made = {node for chain in group for node in chain.nodes}
        ends = {chain.value for chain in group}
        freed = [
            source
            for source in dict.fromkeys(source for chain in group for source in chain.sources)
            if all(user in made for user in source.consumers()) and not source.is_graph_output()
        ]
        if any(_read_elsewhere(node, made, ends) for node in made):
            continue
        folded = {chain.value: chain.fold(model.opset_imports) for chain in group}
        widest = max((_value_bytes(source) for source in freed), default=8)
        distinct = {_identity(array): array for array in folded.values()}.values()
        taken = sum(array.size * min(array.itemsize, widest) for array in distinct)
        if taken - sum(map(stored_bytes, freed)) > GROWTH_BYTES:
            continue
        _replace(model.graph, group, folded, freed)
        changed = True
    return changed


def _identity(array: npt.NDArray[np.generic]) -> tuple[object, ...]:
    """Return what two arrays have in common that are stored once."""
    return str(array.dtype), array.shape, sha256(array.tobytes()).digest()


def _value_bytes(value: ir.Value) -> int:
    """Return the bytes of a number: a weight that is stored in halves is widened, not doubled."""
    tensor = value.const_value
    return 0 if tensor is None or tensor.size < 2 else int(tensor.nbytes // tensor.size)


class _Chain:
    """What makes a value of constants: the nodes in their order, and the stored tensors that they read."""

    def __init__(self, value: ir.Value, nodes: list[ir.Node]) -> None:
        self.value, self.nodes = value, nodes
        read = (source for node in nodes for source in node.inputs if source is not None)
        self.sources = [each for each in dict.fromkeys(read) if each.const_value is not None]

    def fold(self, opsets: dict[str, int]) -> npt.NDArray[np.generic]:
        """Return the value."""
        import onnx
        from onnx.reference import ReferenceEvaluator  # slow to import, and few files need it

        arrays = {
            source.name or "": source.const_value.numpy()
            for source in self.sources
            if source.const_value is not None
        }
        graph = onnx.helper.make_graph(
            [ir.serde.serialize_node(node) for node in self.nodes],
            "weight",
            [onnx.ValueInfoProto(name=name) for name in arrays],
            [onnx.ValueInfoProto(name=self.value.name or "")],
        )
        opset = onnx.helper.make_opsetid("", opsets.get("", 21))
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]))
        with np.errstate(all="ignore"):
            (array,) = evaluator.run(None, arrays)
        return np.ascontiguousarray(array)


def _weights_made(model: ir.Model) -> list[ir.Value]:
    """List what the linears multiply with where it is made by a node."""
    found = [
        node.inputs[place]
        for node in model.graph.all_nodes()
        if node.op_type in LINEARS and not node.domain
        for place in WEIGHT_PLACES[node.op_type]
    ]
    made = (value for value in found if value is not None and value.producer() is not None)
    return list(dict.fromkeys(made))


def _chain_of(value: ir.Value, order: Mapping[ir.Node, int]) -> _Chain | None:
    """Return what makes a value of constants.

    None where an input or an iteration does, where the weight is stored in integers, and for a Transpose alone.
    """
    nodes, waiting = set[ir.Node](), [value]
    while waiting:
        current = waiting.pop()
        if current.const_value is not None:
            table = (current.name or "").startswith(TABLE_PREFIX)
            if table or current.is_graph_input() or is_stored_integer(current):
                return None
            continue
        maker = current.producer()
        if maker is None or maker.domain or maker.op_type not in FOLDED:
            return None
        if maker not in nodes:
            nodes.add(maker)
            waiting += [source for source in maker.inputs if source is not None]
    chain = _Chain(value, sorted(nodes, key=order.__getitem__))
    turned = [node.op_type for node in nodes] == ["Transpose"]
    return chain if chain.sources and not (turned and _rank(chain.sources[0]) == 2) else None


def _rank(value: ir.Value) -> int:
    return 0 if value.const_value is None else len(value.const_value.shape)


def _sharing_sources(chains: Iterable[_Chain]) -> list[list[_Chain]]:
    """Group chains that read a stored tensor in common."""
    groups: list[tuple[set[ir.Value], list[_Chain]]] = []
    for chain in chains:
        sources, members, apart = set(chain.sources), [chain], []
        for group in groups:
            if group[0].isdisjoint(chain.sources):
                apart.append(group)
            else:
                sources, members = sources | group[0], [*group[1], *members]
        groups = [*apart, (sources, members)]
    return [members for _, members in groups]


def _read_elsewhere(node: ir.Node, made: set[ir.Node], ends: set[ir.Value]) -> bool:
    """Tell whether something besides the chains and their products reads what a node of a chain gives."""
    for value in node.outputs:
        users = set(value.consumers()) - made
        linears = all(user.op_type in LINEARS for user in users)
        if value.is_graph_output() or (users and (value not in ends or not linears)):
            return True
    return False


def _replace(
    graph: ir.Graph,
    group: list[_Chain],
    folded: dict[ir.Value, npt.NDArray[np.generic]],
    freed: list[ir.Value],
) -> None:
    """Let linears read the folded weights, each under the name of the largest tensor that it was made of."""
    stored: dict[tuple[object, ...], ir.Value] = {}
    for chain in group:
        array = folded[chain.value]
        key = _identity(array)
        if key not in stored:
            stored[key] = initializer(max(chain.sources, key=stored_bytes).name or "weight", array)
        ir.convenience.replace_all_uses_with(chain.value, stored[key])
    for node in dict.fromkeys(node for chain in group for node in reversed(chain.nodes)):
        if node.graph is not None and not any(value.uses() for value in node.outputs):
            node.graph.remove(node, safe=True)
    for source in freed:
        if not source.uses() and source.name is not None and source.name in graph.initializers:
            del graph.initializers[source.name]
    for value in stored.values():
        inputs = {each.name for each in graph.inputs}
        value.name = free_name(value.name or "", {*graph.initializers, *inputs})
        graph.register_initializer(value)
