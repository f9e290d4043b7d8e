"""What a small language model may do that no cache of keys and values can stand for."""

import numpy as np

from tests.fuzz.language_graphs import BOOL, FLOAT, INT64, Graph, Size
from tests.fuzz.language_positions import LOW, Text

__all__ = ["fault_of_block", "mask_with_fault", "shifted"]

STATE: tuple[Size, ...] = ("batch", "sequence")


def shifted(graph: Graph, value: str) -> str:
    """Move (batch, sequence, width) by one position: token shift."""
    pads = graph.ints(0, 1, 0, 0, -1, 0)
    return graph.add("Pad", value, pads, graph.scalar(0.0), shape=graph.shape(value))


def fault_of_block(graph: Graph, text: Text, value: str, fault: str) -> str:
    """Let a state (batch, sequence, width) take in what another position holds, or how many there are."""
    mixed = _mixed(graph, text, value, fault)
    if fault in {"one over length", "log length", "sequence norm"}:
        return graph.binary("Mul", value, mixed)
    return graph.binary("Add", value, graph.binary("Mul", mixed, graph.scalar(0.5)))


def _mixed(graph: Graph, text: Text, value: str, fault: str) -> str:
    width = int(graph.shape(value)[-1])
    one: list[Size] = ["batch", 1, width]
    match fault:
        case "token shift":
            return shifted(graph, value)
        case "mean" | "maximum":
            operator = "ReduceMean" if fault == "mean" else "ReduceMax"
            return graph.add(operator, value, graph.ints(1), shape=one, keepdims=1)
        case "batch mean":
            shape: list[Size] = [1, "sequence", width]
            return graph.add("ReduceMean", value, graph.ints(0), shape=shape, keepdims=1)
        case "cumsum":
            total = graph.add("CumSum", value, graph.scalar(1, np.int64), shape=graph.shape(value))
            return graph.unary("Tanh", total)
        case "last read":
            return graph.part(value, 1, -1, 2**31 - 1, 1)
        case "first read":
            return graph.part(value, 1, 0, 1, 1)
        case "reversed":
            return graph.part(value, 1, -1, -(2**31), "sequence", step=-1)
        case "sequence softmax":
            return graph.unary("Softmax", value, axis=1)
        case "sequence norm":
            norm = graph.add("ReduceL2", value, graph.ints(1), shape=one, keepdims=1)
            return graph.unary("Reciprocal", norm)
        case "sorted":
            return _sorted(graph, text, value)
        case "mixed reshape":
            turned = graph.reshape(value, ["batch", width, "sequence"], 0, width, -1)
            return graph.transpose(turned, 0, 2, 1)
        case "convolution":
            return _convolution(graph, text, value, width)
        case "recurrent":
            return _recurrent(graph, text, value, width)
        case "one over length" | "log length":
            length = graph.add("Shape", value, shape=[1], kind=INT64, start=1, end=2)
            number = graph.add("Cast", length, shape=[1], to=FLOAT)
            return graph.unary("Reciprocal" if fault == "one over length" else "Log", number)
        case "from the end":
            return _from_the_end(graph, text, value, width)
    raise ValueError(fault)


def _sorted(graph: Graph, text: Text, value: str) -> str:
    count = graph.add("Shape", value, shape=[1], kind=INT64, start=1, end=2)
    found = graph.add_several("TopK", value, count, shapes=[graph.shape(value)] * 2, axis=1)
    graph.note(found[1], graph.shape(value), INT64)
    return found[0]


def _convolution(graph: Graph, text: Text, value: str, width: int) -> str:
    turned = graph.transpose(value, 0, 2, 1)
    kernel = text.generator.normal(size=(width, 1, 3)).astype(np.float32)
    shape = graph.shape(turned)
    mixed = graph.add("Conv", turned, graph.store(kernel), shape=shape, group=width, pads=[2, 0])
    return graph.transpose(mixed, 0, 2, 1)


def _recurrent(graph: Graph, text: Text, value: str, width: int) -> str:
    turned = graph.transpose(value, 1, 0, 2)
    weights = [
        graph.store((text.generator.normal(size=(1, 3 * width, width)) / 4).astype(np.float32))
        for _ in range(2)
    ]
    shape: list[Size] = ["sequence", 1, "batch", width]
    found = graph.add("GRU", turned, *weights, shape=shape, hidden_size=width)
    flat: list[Size] = ["sequence", "batch", width]
    squeezed = graph.add("Squeeze", found, graph.ints(1), shape=flat)
    return graph.transpose(squeezed, 1, 0, 2)


def _from_the_end(graph: Graph, text: Text, value: str, width: int) -> str:
    size = graph.add("Shape", value, shape=[1], kind=INT64, start=1, end=2)
    count = graph.add("Squeeze", size, graph.ints(0), shape=[], kind=INT64)
    zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
    steps = graph.add("Range", zero, count, one, shape=["sequence"], kind=INT64)
    back = graph.binary("Sub", count, graph.binary("Add", steps, one))
    table = text.drawn(text.spec.rows, width)
    return graph.add("Gather", table, back, shape=["sequence", width], axis=0)


def mask_with_fault(text: Text, fault: str) -> str:
    """Return a mask that is not causal, or not alone by positions."""
    graph = text.graph
    steps = text.steps()
    queries, keys = graph.unsqueeze(steps, 1), graph.unsqueeze(steps, 0)
    causal = graph.binary("GreaterOrEqual", queries, keys, BOOL)
    distance = graph.binary("Sub", queries, keys)

    def number(value: int) -> str:
        return graph.scalar(value, np.int64)

    def both(one: str, two: str) -> str:
        return graph.binary("And", one, two, BOOL)

    match fault:
        case "bidirectional":
            return graph.binary("Or", causal, graph.unary("Not", causal))
        case "prefix":
            early = graph.binary("Less", keys, number(3), BOOL)
            return graph.binary("Or", causal, early)
        case "strict":
            first = graph.binary("Less", queries, number(1), BOOL)
            before = graph.binary("Greater", queries, keys, BOOL)
            return both(causal, graph.binary("Or", before, first))
        case "dilated":
            rest = graph.binary("Mod", distance, number(2))
            return both(causal, graph.binary("Equal", rest, number(0), BOOL))
        case "local chunks":
            one, two = (graph.binary("Div", value, number(4)) for value in (queries, keys))
            return both(causal, graph.binary("Equal", one, two, BOOL))
        case "sinks":
            near = graph.binary("Less", distance, number(4), BOOL)
            early = graph.binary("Less", keys, number(2), BOOL)
            return both(causal, graph.binary("Or", near, early))
        case "later window":
            near = graph.binary("Less", distance, number(280), BOOL)
            short = graph.binary("Less", text.length(), number(300), BOOL)
            return both(causal, graph.binary("Or", near, short))
        case "alibi" | "per head":
            return _per_head(text, causal, distance, fault)
        case "by token" | "documents":
            return _by_content(text, causal, fault)
    raise ValueError(fault)


def _per_head(text: Text, causal: str, distance: str, fault: str) -> str:
    graph, heads = text.graph, text.spec.heads
    wide = graph.unsqueeze(distance, 0)
    if fault == "alibi":
        slopes = graph.store((-np.arange(1, heads + 1, dtype=np.float32) / 4)[:, None, None])
        added = graph.binary(
            "Mul", graph.add("Cast", wide, shape=graph.shape(wide), to=FLOAT), slopes
        )
        low = graph.scalar(LOW)
        found = graph.add("Where", causal, added, low, shape=graph.shape(added))
        return graph.unsqueeze(found, 0)
    widths = graph.store(np.arange(2, heads + 2, dtype=np.int64)[:, None, None])
    seen = graph.binary("And", graph.binary("Less", wide, widths, BOOL), causal)
    return graph.unsqueeze(seen, 0)


def _by_content(text: Text, causal: str, fault: str) -> str:
    graph, three = text.graph, text.graph.scalar(3, np.int64)
    if fault == "by token":
        known = graph.unsqueeze(graph.binary("Greater", text.ids, three, BOOL), 1)
        first = graph.binary("Less", text.steps(), graph.scalar(1, np.int64), BOOL)
        found = graph.binary("And", causal, graph.binary("Or", known, first))
        return graph.unsqueeze(found, 1)
    marks = graph.binary("Equal", text.ids, three, BOOL)
    ones = graph.add("Cast", marks, shape=STATE, kind=INT64, to=INT64)
    total = graph.add("CumSum", ones, graph.scalar(1, np.int64), shape=STATE, kind=INT64)
    same = graph.binary("Equal", graph.unsqueeze(total, 2), graph.unsqueeze(total, 1), BOOL)
    return graph.unsqueeze(graph.binary("And", same, causal), 1)
