"""One place of one iteration changed, so that a loop is none any more, or one that must be cut short."""

import random
from collections.abc import Callable

import numpy as np

from tests.fuzz.tied_bodies import UNARY
from tests.fuzz.written_graphs import Node, Nodes

__all__ = ["change_one_place"]

BINARY = ("Add", "Mul", "Sub", "Max", "Min")
ORDERED = ("Sub",)
NUMBERS = ("alpha", "epsilon")


def change_one_place(nodes: Nodes, rng: random.Random, iterations: int) -> str | None:
    """Change one place of one iteration of the first loop, and say what was changed; None where nothing can be.

    Args:
        nodes: Is changed.
        rng: Draws the place.
        iterations: Of the loop.
    """
    live = nodes.live()
    ways = list(WAYS)
    rng.shuffle(ways)
    for way in ways:
        iteration = rng.randrange(iterations)
        body = [node for node in live if node.mark is not None and node.mark[:2] == (0, iteration)]
        rng.shuffle(body)
        for node in body:
            if way(nodes, node, rng):
                return f"{way.__name__.strip('_')} in iteration {iteration + 1}: {node.operator}"
    return None


def _other_operator(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    for group in (UNARY, BINARY):
        if node.operator in group and (group is UNARY or len(node.reads) == 2):
            node.operator = rng.choice([name for name in group if name != node.operator])
            return True
    return False


def _other_attribute(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    for name in NUMBERS:
        if name in node.attributes:
            node.attributes[name] *= 1.5
            return True
    return False


def _other_weight(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Change one number of a weight; it may be the smallest change that a float knows."""
    for place, read in enumerate(node.reads):
        array = nodes.stored.get(read)
        if array is not None and array.dtype == np.float32 and array.size > 1:
            copy = array.copy()
            element = tuple(rng.randrange(size) for size in copy.shape)
            copy[element] = copy[element] + 0.1
            node.reads[place] = nodes.store(copy)
            return True
    return False


def _turned_weight(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Read a square weight the other way round."""
    for place, read in enumerate(node.reads):
        array = nodes.stored.get(read)
        if node.operator == "MatMul" and array is not None and array.shape[0] == array.shape[-1]:
            node.reads[place] = nodes.store(array.T.copy())
            return True
    return False


def _older_link(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Read the same value of an older iteration, where the body reads a new one."""
    assert node.mark is not None
    iteration, place = node.mark[1:]
    if node.operator not in BINARY or iteration < 1:
        return False
    older = [
        other.writes[0]
        for other in nodes.all
        if other.mark is not None and other.mark[::2] == (0, place) and other.mark[1] < iteration
    ]
    if not older:
        return False
    index = nodes.all.index(node)
    added = Node("Add", [node.reads[0], rng.choice(older)], [nodes.fresh()], {})
    node.reads[0] = added.writes[0]
    nodes.all.insert(index, added)
    return True


def _outside_reader(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Let the graph give out a value of the iteration, as a number."""
    if node.operator not in (*UNARY, "Softmax"):
        return False
    axes = nodes.store(np.array([-1], np.int64))
    total = nodes.add("ReduceSum", node.writes[0], axes, keepdims=0)
    flat = nodes.add("Reshape", total, nodes.store(np.array([-1], np.int64)))
    mean = nodes.add("ReduceMean", flat, nodes.store(np.array([0], np.int64)), keepdims=1)
    nodes.output(mean, (1,))
    return True


def _removed(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    if node.operator not in UNARY or node.writes[0] in nodes.outputs:
        return False
    for other in nodes.all:
        other.reads = [node.reads[0] if read == node.writes[0] else read for read in other.reads]
    nodes.all.remove(node)
    return True


def _doubled(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Apply an operator twice."""
    if node.operator not in UNARY:
        return False
    index = nodes.all.index(node)
    nodes.all.insert(index, Node(node.operator, list(node.reads), [nodes.fresh()], {}))
    node.reads = list(nodes.all[index].writes)
    return True


def _swapped(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    if node.operator not in ORDERED or node.reads[0] == node.reads[1]:
        return False
    node.reads.reverse()
    return True


def _other_constant(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Change where a slice is cut, or the order of a permutation."""
    if node.operator not in {"Gather", "Clip"}:
        return False
    array = nodes.stored.get(node.reads[1])
    if array is None:
        return False
    changed = array[::-1].copy() if array.ndim else array / 2
    node.reads[1] = nodes.store(changed.astype(array.dtype))
    return True


def _crossed(nodes: Nodes, node: Node, rng: random.Random) -> bool:
    """Scale an operand by the mean of another value of the iteration."""
    assert node.mark is not None
    if node.operator not in BINARY:
        return False
    index = nodes.all.index(node)
    others = [
        other.writes[0]
        for other in nodes.all[:index]
        if other.mark is not None
        and other.mark[:2] == node.mark[:2]
        and other.operator in UNARY
        and other.writes[0] not in node.reads
    ]
    if not others:
        return False
    mean = Node("ReduceMean", [rng.choice(others)], [nodes.fresh()], {"keepdims": 0})
    scaled = Node("Mul", [node.reads[1], mean.writes[0]], [nodes.fresh()], {})
    node.reads[1] = scaled.writes[0]
    nodes.all[index:index] = [mean, scaled]
    return True


WAYS: tuple[Callable[[Nodes, Node, random.Random], bool], ...] = (
    _other_operator,
    _other_attribute,
    _other_weight,
    _turned_weight,
    _older_link,
    _outside_reader,
    _removed,
    _doubled,
    _swapped,
    _other_constant,
    _crossed,
)
