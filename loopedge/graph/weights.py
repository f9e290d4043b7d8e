"""Find the weights of a graph: what is stored once, how often it is read, and by which linears."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.unrolling import CORE_NAME, LAST_PREFIX, find_core, trip_count
from loopedge.graph.metadata import read_metadata

__all__ = [
    "CAST_SUFFIX",
    "OWN_PREFIX",
    "RANGE_PREFIX",
    "TABLE_PREFIX",
    "Linear",
    "TiedWeight",
    "core_weights",
    "in_core",
    "in_last_iteration",
    "iteration_of",
    "linears",
    "loop_count",
    "loop_name",
    "loop_value_name",
    "other_products",
    "stored_weight",
    "tied_weights",
    "untied_bytes",
    "weight_bytes",
]

TABLE_PREFIX = "timestep."
"""Initializers under this prefix are timestep tables: they differ by iteration and tie nothing."""

RANGE_PREFIX = "range."
"""Initializers under this prefix are calibrated scales and zero points of activations."""

CAST_SUFFIX = ".float32"
"""A weight ``w`` that is stored in float16 is read through a Cast called ``w.float32``."""

OWN_PREFIX = "loopedge."
"""Initializers under this prefix are loop counts, flags and ones that the exporter adds."""

PRODUCTS = {
    *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Einsum"),
    *("Conv", "ConvTranspose", "GRU", "LSTM", "RNN"),
}
UNBOUNDED = 2**31  # such a trip count says: until the condition ends it
NO_WEIGHT = (TABLE_PREFIX, RANGE_PREFIX, OWN_PREFIX)
ITERATION = re.compile(rf"^{CORE_NAME}\.(\d+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedWeight:
    """A weight that is stored once and read ``uses`` times in one inference."""

    name: str
    uses: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A MatMul or Gemm with a stored float weight of two dimensions.

    ``index`` is the weight's place among the inputs: 1 for x @ W with W [in, out], 0 for the
    transposed product of a tied head, W [out, in] @ x^T.
    """

    node: ir.Node
    weight: ir.Value
    index: int


def is_weight(value: ir.Value) -> bool:
    """Tell a weight from shape constants, loop counts and timestep tables."""
    tensor, name = value.const_value, value.name or ""
    if tensor is None or name.startswith(NO_WEIGHT) or tensor.size < 2:
        return False
    return tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8


def stored_weight(value: ir.Value | None) -> ir.Value | None:
    """Return the weight that a node reads: the value itself, or what stands behind its Cast.

    A weight that is stored in float16 (`loopedge.graph.passes.storage`) is read through a Cast to float32.
    """
    if value is None or is_weight(value):
        return value
    cast = value.producer()
    if cast is None or cast.op_type != "Cast" or cast.domain:
        return None
    source = cast.inputs[0]
    narrow = source is not None and source.dtype == ir.DataType.FLOAT16 and is_weight(source)
    return source if narrow and value.dtype in {ir.DataType.FLOAT, None} else None


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the weights that a node computes with; the Cast that widens one does not."""
    if any(stored_weight(output) is not None for output in node.outputs):
        return
    for value in node.inputs:
        weight = stored_weight(value)
        if weight is not None:
            yield weight


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of all weights as stored: each once, without the timestep tables."""
    return sum(_bytes(value) for value in _initializers(model) if is_weight(value))


def linears(model: ir.Model) -> list[Linear]:
    """List the linears of the main graph and of every Loop body, in the order of the graph."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type not in {"MatMul", "Gemm"} or node.domain:
            continue
        for index in (1, 0):
            value = stored_weight(node.inputs[index]) or node.inputs[index]
            if value is None or value.const_value is None or len(value.const_value.shape) != 2:
                continue
            if value.const_value.dtype.is_floating_point():
                found.append(Linear(node, value, index))
                break
    return found


def other_products(model: ir.Model) -> list[ir.Node]:
    """List the products with a stored float weight that are no linears: int8 has no form of them.

    The weight may be stored with more than two dimensions, or computed from stored ones (gated,
    normalised, sliced).
    """
    known = {item.node for item in linears(model)}
    found: dict[ir.Value, bool | None] = {}
    return [
        node
        for node in model.graph.all_nodes()
        if node.op_type in PRODUCTS and node not in known
        if any(value is not None and _weight_made(value, found) for value in node.inputs)
    ]


def _weight_made(value: ir.Value, found: dict[ir.Value, bool | None]) -> bool | None:
    """Tell whether a value is made of constants, a float weight among them; None: it needs inputs."""
    waiting, begun = [value], set[ir.Value]()
    while waiting:  # no recursion: a graph may be deep
        current = waiting[-1]
        parts = [] if current.const_value is not None else _parts(current)
        missing = [part for part in parts if part not in found]
        if current in found:
            waiting.pop()
        elif missing and current not in begun:
            begun.add(current)
            waiting += missing
        else:
            found[current] = _weight_among(current, [found.get(part) for part in parts])
            waiting.pop()
    return found[value]


def _parts(value: ir.Value) -> list[ir.Value]:
    """Return what a value is made of; nothing where its node holds a body, or there is none."""
    maker = value.producer()
    if maker is None or any(
        attribute.type == ir.AttributeType.GRAPH for attribute in maker.attributes.values()
    ):
        return []
    return [part for part in maker.inputs if part is not None]


def _weight_among(value: ir.Value, parts: list[bool | None]) -> bool | None:
    if value.const_value is not None:
        floats = value.const_value.dtype.is_floating_point()
        return floats and len(value.const_value.shape) >= 2 and is_weight(value)
    return None if None in parts or not parts else any(parts)


def loop_count(model: ir.Model) -> int | None:
    """Return how often the core runs: the metadata's count, or a constant trip count."""
    metadata = read_metadata(model.metadata_props)
    if metadata.loops is not None:
        return metadata.loops
    loop = find_core(model)
    count = None if loop is None else trip_count(loop)
    return count if count is not None and 0 < count < UNBOUNDED else None


def iteration_of(node: ir.Node) -> int | None:
    """Return the iteration that a node of the unrolled form belongs to."""
    match = ITERATION.match(node.name or "")
    return int(match[1]) if match else None


def in_core(node: ir.Node, model: ir.Model) -> bool:
    """Tell whether a node runs once per iteration: it stands in a body, or is named for an iteration.

    A linear of the context alone is named ``core/...`` and stands in the main graph, run once.
    """
    return node.graph is not model.graph or iteration_of(node) is not None


def in_last_iteration(node: ir.Node) -> bool:
    """Tell whether a node of the loop form is of the last iteration, where that stands behind the Loop."""
    return (node.name or "").startswith(LAST_PREFIX)


def loop_name(node: ir.Node) -> str:
    """Return the name that a node has in the loop form: ``core.<t>/x`` is ``core/x``."""
    return loop_value_name(node, node.name or "")


def loop_value_name(node: ir.Node, name: str) -> str:
    """Return the name that a value of a node, or the node, has in the loop form."""
    t = iteration_of(node)
    return name if t is None else name.replace(f"{CORE_NAME}.{t}/", f"{CORE_NAME}/", 1)


def core_weights(model: ir.Model) -> dict[str, int]:
    """Return the weights that the core reads, each with the number of iterations that read it."""
    loop, count = find_core(model), loop_count(model)
    if loop is not None:
        body = loop.attributes["body"].as_graph()
        names = {value.name or "" for node in body.all_nodes() for value in _reads(node)}
        return dict.fromkeys(sorted(names), count or 1)
    iterations: dict[str, set[int]] = {}
    for node in model.graph.all_nodes():
        t = iteration_of(node)
        if t is not None:
            for value in _reads(node):
                iterations.setdefault(value.name or "", set()).add(t)
    return {name: len(seen) for name, seen in sorted(iterations.items())}


def tied_weights(model: ir.Model) -> list[TiedWeight]:
    """List the weights that are stored once and read more than once, largest first."""
    reads: dict[ir.Value, int] = {}
    for node, runs in _nodes_with_runs(model.graph, 1, _trips(model)):
        for value in _reads(node):
            reads[value] = reads.get(value, 0) + runs
    tied = [
        TiedWeight(name=value.name or "", uses=uses, bytes=_bytes(value))
        for value, uses in reads.items()
        if uses > 1
    ]
    return sorted(tied, key=lambda weight: (-weight.bytes, weight.name))


def _trips(model: ir.Model) -> int:
    """Return how often the body of the core's Loop runs."""
    count, metadata = loop_count(model) or 1, read_metadata(model.metadata_props)
    return count - 1 if metadata.last_rows is not None else count


def _nodes_with_runs(
    graph: ir.Graph, runs: int, trips: int | None
) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node with how often it runs in one inference.

    ``trips`` is the trip count of the Loops of ``graph``; None: each tells its own.
    """
    for node in graph:
        yield node, runs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inside = runs * (_constant_trips(node) if trips is None else trips)
                yield from _nodes_with_runs(attribute.as_graph(), inside, None)


def _constant_trips(node: ir.Node) -> int:
    count = trip_count(node) if node.op_type == "Loop" else None
    return count if count is not None and 0 < count < UNBOUNDED else 1


def untied_bytes(model: ir.Model) -> int:
    """Return what the weights would take if every iteration held its own copy of the core's."""
    stored = {value.name: value for value in _initializers(model)}
    extra = sum(
        (iterations - 1) * _bytes(stored[name])
        for name, iterations in core_weights(model).items()
        if name in stored
    )
    return weight_bytes(model) + extra


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.initializers.values()
    for graph in model.graph.subgraphs():
        yield from graph.initializers.values()


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.nbytes)
