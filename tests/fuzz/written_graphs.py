"""Nodes by plain names, and how they become a file: renamed, shuffled, constants here and there."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.tied_bodies import COMMUTATIVE

__all__ = ["Node", "Nodes", "write_graph"]

Array = NDArray[Any]
Shape = tuple[int | str, ...]

IR_VERSIONS = {18: 8, 20: 9, 21: 10, 23: 11}
NAMES = ("core", "core/state.0", "core2", "iteration", "core.1/0", "keep_going", "loops")
"""What loopedge may call its own values."""


@dataclass(slots=True)
class Node:
    """One node; ``mark`` is its loop, its iteration and its place in the body."""

    operator: str
    reads: list[str]
    writes: list[str]
    attributes: dict[str, Any]
    mark: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Nodes:
    """A graph without its spelling."""

    all: list[Node] = field(default_factory=list)
    stored: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    count: int = 0

    def fresh(self) -> str:
        """Return a name that no value has."""
        self.count += 1
        return f"v{self.count}"

    def input(self, shape: Shape) -> str:
        """Add an input, float32."""
        name = self.fresh()
        self.inputs[name] = shape
        return name

    def store(self, array: Array) -> str:
        """Add a constant."""
        name = self.fresh()
        self.stored[name] = array
        return name

    def add(self, operator: str, *reads: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        return self.add_several(1, operator, *reads, **attributes)[0]

    def add_several(self, count: int, operator: str, *reads: str, **attributes: Any) -> list[str]:
        """Add a node and return its outputs."""
        writes = [self.fresh() for _ in range(count)]
        self.all.append(Node(operator, list(reads), list(writes), attributes))
        return writes

    def mark(self, value: str, mark: tuple[int, int, int]) -> None:
        """Say to which iteration the newest node belongs."""
        assert value in self.all[-1].writes
        self.all[-1].mark = mark

    def output(self, value: str, shape: Shape) -> None:
        """Let the graph give a value out, through an Identity where it is an input or given out already."""
        if value in self.inputs or value in self.outputs:
            value = self.add("Identity", value)
        self.outputs[value] = shape

    def live(self) -> list[Node]:
        """Return the nodes that an output needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.all):
            if needed.intersection(node.writes):
                needed.update(node.reads)
                kept.append(node)
        return kept[::-1]

    def folded(self, nodes: Sequence[Node]) -> set[str]:
        """Return the values that depend on stored ones alone, and on sizes that are fixed."""
        fixed = {
            name for name, shape in self.inputs.items() if all(isinstance(d, int) for d in shape)
        }
        found = set(self.stored)
        for node in nodes:
            reads = set(node.reads) - found
            if not reads or (node.operator == "Shape" and reads <= fixed):
                found.update(node.writes)
        return found

    def merged(self, nodes: Sequence[Node]) -> dict[str, int]:
        """Return for each value a number, the same for values that are computed alike from the same."""
        keys: dict[Any, int] = {}
        found = {
            name: keys.setdefault((array.shape, array.dtype.str, array.tobytes()), len(keys))
            for name, array in self.stored.items()
        }
        for node in nodes:
            reads = [found.get(read, read) for read in node.reads]
            if node.operator in COMMUTATIVE:
                reads.sort(key=str)
            made = (node.operator, str(sorted(node.attributes.items())), *reads)
            for place, value in enumerate(node.writes):
                found[value] = keys.setdefault((made, place), len(keys))
        return found


def write_graph(
    nodes: Nodes, rng: random.Random, opset: int, *, narrow: bool = False
) -> onnx.ModelProto:
    """Spell a graph: other names, another order, some Identities, some constants as nodes, types noted or not.

    Args:
        nodes: The graph.
        rng: Draws the spelling.
        opset: Of its operators.
        narrow: Compute in float16.
    """
    kind = TensorProto.FLOAT16 if narrow else TensorProto.FLOAT
    kept = nodes.live() if rng.random() < 0.7 else list(nodes.all)
    kept = _with_identities(nodes, kept, rng)
    used = {read for node in kept for read in node.reads} | set(nodes.outputs)
    names = _names(nodes, kept, rng)
    names[""] = ""
    protos = []
    for number, node in enumerate(_shuffled(kept, rng)):
        label = rng.choice(("", f"node_{number}", f"/layer.{number}/{node.operator}"))
        protos.append(_node(node, names, label, kind))
    stored = {name: array for name, array in nodes.stored.items() if name in used}
    constants, initializers = [], []
    for name, array in stored.items():
        narrowed = narrow and array.dtype == np.float32
        tensor = numpy_helper.from_array(
            array.astype(np.float16) if narrowed else array, names[name]
        )
        if array.size < 64 and rng.random() < 0.3:
            constants.append(helper.make_node("Constant", [], [names[name]], value=tensor))
        else:
            initializers.append(tensor)
    graph = helper.make_graph(
        [*constants, *protos],
        rng.choice(("main_graph", "core", "")) or "g",
        [_port(names[name], shape, kind) for name, shape in nodes.inputs.items() if name in used],
        [_port(names[name], shape, kind) for name, shape in nodes.outputs.items()],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=IR_VERSIONS[opset], producer_name="tied"
    )
    return onnx.shape_inference.infer_shapes(model) if rng.random() < 0.4 else model


def _port(name: str, shape: Shape, kind: int) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _node(node: Node, names: Mapping[str, str], label: str, kind: int) -> Any:
    reads, writes = ([names[name] for name in part] for part in (node.reads, node.writes))
    attributes = dict(node.attributes)
    if node.operator == "ConstantOfShape":
        attributes["value"] = helper.make_tensor("", kind, [1], [0.0])
    return helper.make_node(node.operator, reads, writes, name=label, **attributes)


def _names(nodes: Nodes, kept: Sequence[Node], rng: random.Random) -> dict[str, str]:
    """Return new names: random ones, those of an exporter, or some that loopedge itself uses."""
    values = [*nodes.inputs, *nodes.stored, *(value for node in kept for value in node.writes)]
    style = rng.choice(("random", "random", "exporter", "own"))
    names = {value: f"t{number}" for number, value in enumerate(rng.sample(values, len(values)))}
    if style == "exporter":
        names |= {node.writes[0]: f"{node.operator}_{names[node.writes[0]]}" for node in kept}
    if style == "own":
        names |= dict(zip(rng.sample(values, min(len(values), len(NAMES))), NAMES, strict=False))
    return names


def _with_identities(nodes: Nodes, kept: Sequence[Node], rng: random.Random) -> list[Node]:
    """Put an Identity before some of the reads."""
    if rng.random() < 0.5:
        return list(kept)
    made = []
    for node in kept:
        reads = list(node.reads)
        for place, read in enumerate(reads):
            if read and rng.random() < 0.05:
                reads[place] = nodes.fresh()
                made.append(Node("Identity", [read], [reads[place]], {}))
        made.append(Node(node.operator, reads, node.writes, node.attributes, node.mark))
    return made


def _shuffled(kept: Sequence[Node], rng: random.Random) -> Iterator[Node]:
    """Yield the nodes in a random order in which each follows what it reads."""
    made = {value for node in kept for value in node.writes}
    readers: dict[str, list[int]] = {}
    missing = []
    for place, node in enumerate(kept):
        waits = {read for read in node.reads if read in made}
        missing.append(len(waits))
        for read in waits:
            readers.setdefault(read, []).append(place)
    if rng.random() < 0.3:
        yield from kept
        return
    ready = [place for place, count in enumerate(missing) if count == 0]
    while ready:
        place = ready.pop(rng.randrange(len(ready)))
        yield kept[place]
        for value in kept[place].writes:
            for reader in readers.get(value, ()):
                missing[reader] -= 1
                if missing[reader] == 0:
                    ready.append(reader)
