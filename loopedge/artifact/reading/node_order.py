"""Put the nodes of a file into an order in which they can run.

ONNX asks writers for it. ONNX Runtime loads a file without it, and its converter to float16 writes such files.
"""

from collections.abc import Iterator

import onnx

__all__ = ["order_nodes"]


def order_nodes(graph: onnx.GraphProto) -> None:
    """Sort the nodes of a graph where one reads what a later one makes, in place; others keep their places.

    A graph that no order lets run stays as it is.
    """
    maker = {name: k for k, node in enumerate(graph.node) for name in node.output if name}
    before = [{maker[name] for name in _reads(node) if name in maker} for node in graph.node]
    if all(k > max(makers, default=-1) for k, makers in enumerate(before)):
        return
    order = _sorted(before)
    if len(order) == len(before):
        nodes = [graph.node[k] for k in order]
        copies = [onnx.NodeProto() for _ in nodes]
        for copy, node in zip(copies, nodes, strict=True):
            copy.CopyFrom(node)
        del graph.node[:]
        graph.node.extend(copies)


def _sorted(before: list[set[int]]) -> list[int]:
    """Return numbers so that each stands behind those it waits for, else as they were; fewer where they wait in a circle."""
    order: list[int] = []
    done: set[int] = set()
    for start in range(len(before)):
        waiting, entered = [start], set[int]()
        while waiting:
            k = waiting[-1]
            missing = [] if k in done else sorted(before[k] - done)
            if missing and k in entered:
                return order
            entered.add(k)
            if missing:
                waiting += reversed(missing)
                continue
            waiting.pop()
            if k not in done:
                done.add(k)
                order.append(k)
    return order


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its bodies may read of the graph around among them."""
    yield from node.input
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for body in bodies:
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from _reads(inner)
