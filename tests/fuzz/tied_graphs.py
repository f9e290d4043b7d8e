"""Random graphs whose loops are known: bodies written out once per iteration, the way exporters and optimizers leave them.

`draw_tied` draws such a graph by a name, the same each time. Weights are shared, copied or turned, commutative inputs
swapped at random, nodes shuffled, values renamed; `tests.fuzz.tied_changes` changes one place of one iteration.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.fuzz.tied_bodies import COMMUTATIVE, Body, Shape, Step, draw_body
from tests.fuzz.tied_changes import change_one_place
from tests.fuzz.written_graphs import Nodes, write_graph

__all__ = ["SIZES", "Chain", "TiedGraph", "draw_numbered", "draw_tied"]

Array = NDArray[Any]

SIZES: tuple[Mapping[str, int], ...] = ({"N": 1, "S": 3}, {"N": 3, "S": 5})
"""Two sets of sizes of the free axes."""
SHAPES: tuple[Shape, ...] = (("N", 8), ("N", "S", 8), ("N", "S", 8), ("N", 4, 5, 5), (2, 3, 8))
OPSETS = (18, 20, 21, 23)
ITERATIONS = (2, 3, 3, 4, 4, 5, 6, 8, 12, 24)


@dataclass(frozen=True, slots=True)
class Chain:
    """A loop as it was built.

    Args:
        iterations: Of the loop.
        may_differ: How many of them may stand outside for a good reason.
        steps: Of its body.
        recurs: As `tests.fuzz.tied_bodies.Body.recurs_in`.
    """

    iterations: int
    may_differ: int
    steps: int
    recurs: bool


@dataclass(frozen=True, slots=True)
class TiedGraph:
    """A graph, its loops, and the one place that was changed; None where none was."""

    name: str
    model: onnx.ModelProto
    chains: tuple[Chain, ...]
    change: str | None
    features: frozenset[str]

    def feeds(self, number: int) -> dict[str, Array]:
        """Draw inputs of the sizes of that number."""
        generator = np.random.default_rng(number)
        made = {}
        for value in self.model.graph.input:
            dims = value.type.tensor_type.shape.dim
            shape = [dim.dim_value or SIZES[number][dim.dim_param] for dim in dims]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            made[value.name] = generator.normal(size=shape).astype(dtype)
        return made


@dataclass(slots=True)
class Builder:
    """A graph that grows from its inputs to its outputs."""

    rng: random.Random
    shape: Shape
    nodes: Nodes = field(default_factory=Nodes)
    features: set[str] = field(default_factory=set)
    arrays: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.arrays = np.random.default_rng(self.rng.randrange(2**32))

    def drawn(self, *shape: int) -> str:
        """Store a weight of its own."""
        fan = shape[0] if len(shape) < 4 else int(np.prod(shape[1:]))
        return self.nodes.store((self.arrays.normal(size=shape) / fan**0.5).astype(np.float32))

    def linear(self, value: str) -> str:
        """Multiply with a weight of its own, over the features or the channels."""
        if len(self.shape) == 4:
            width = int(self.shape[1])
            return self.nodes.add("Conv", value, self.drawn(width, width, 1, 1))
        width = int(self.shape[-1])
        return self.nodes.add("MatMul", value, self.drawn(width, width))

    def before(self) -> str:
        """Return a value from before the loop: an input, or something computed of one."""
        known = [name for name, shape in self.nodes.inputs.items() if shape == self.shape]
        value = self.nodes.input(self.shape)
        if known and self.rng.random() < 0.3:
            del self.nodes.inputs[value]
            value = self.rng.choice(known)
        way = self.rng.random()
        if way < 0.3:
            return self.linear(value)
        return self.nodes.add("Sin", value) if way < 0.5 else value


def draw_tied(name: str, *, changed: bool = False, most_steps: int = 25) -> TiedGraph:
    """Draw a graph by its name.

    Args:
        name: The seed.
        changed: Change one place of one iteration.
        most_steps: Nodes of a body, about.
    """
    rng = random.Random(name)
    shape, opset = rng.choice(SHAPES), rng.choice(OPSETS)
    builder = Builder(rng, shape)
    writers: list[ChainWriter] = []
    states: list[str] = []
    for number in range(rng.choice((1, 1, 1, 2))):
        body = draw_body(rng, shape, opset, most_steps)
        writers.append(ChainWriter(builder, body, number, rng.choice(ITERATIONS)))
        states = writers[-1].write(states)
    for state in states if rng.random() < 0.6 else rng.sample(states, 1):
        builder.nodes.output(builder.linear(state) if rng.random() < 0.5 else state, shape)
    chains = [writer.chain() for writer in writers]
    change = change_one_place(builder.nodes, rng, chains[0].iterations) if changed else None
    narrow = opset > 18 and rng.random() < 0.12 and not _rounds(builder.nodes)
    if narrow:
        builder.features.add("float16")
    model = write_graph(builder.nodes, rng, opset, narrow=narrow)
    return TiedGraph(name, model, tuple(chains), change, frozenset(builder.features))


def _rounds(nodes: Nodes) -> bool:
    return any(node.operator == "DynamicQuantizeLinear" for node in nodes.all)


def draw_numbered(name: str) -> tuple[TiedGraph, dict[str, bool]]:
    """Draw the graph of ``SEED.NUMBER``, every second one changed, and choose how it is judged.

    Returns:
        The graph, and options of `tests.fuzz.rolled.judge_tied`.
    """
    number = int(name.rpartition(".")[2])
    how = {"command": number % 20 in {0, 1}, "inner": number % 6 in {2, 3}}
    return draw_tied(name, changed=number % 2 == 1), how


class ChainWriter:
    """Write the iterations of one body into a graph.

    Args:
        builder: The graph.
        body: What is repeated.
        number: Of the loop, which its nodes keep.
        iterations: How often.
    """

    def __init__(self, builder: Builder, body: Body, number: int, iterations: int) -> None:
        self.builder, self.nodes, self.rng = builder, builder.nodes, builder.rng
        self.body, self.number, self.iterations = body, number, iterations
        self.may_differ = 0
        self.known: dict[str, list[str]] = {}
        """By what a body reads: its value, or one per iteration."""
        self.kept: dict[str, Any] = {}

    def write(self, before: Sequence[str]) -> list[str]:
        """Write all iterations and return the last states.

        Args:
            before: States of the loop before this one.
        """
        body = self.body
        history = self._initial_states(before)
        self._prepare()
        if self.rng.random() < 0.15:
            history[0][-1] = self._read_before(history[0][-1])
        readers = self.rng.choice(("last", "last", "every", "middle"))
        for iteration in range(self.iterations):
            values = self._values(history, iteration)
            for place, step in enumerate(body.steps):
                self._write_step(step, place, iteration, values)
            for state, new in zip(history, body.nexts, strict=True):
                state.append(values.get(new, new))
        self._read_outside(history, readers)
        return [state[-1] for state in history]

    def chain(self) -> Chain:
        """Return what was written, as far as the outputs need it, no two iterations compute the same, and none is constant.

        A last iteration may need less than the others, and one that starts from the same as the one before merges with it.
        """
        live = self.nodes.live()
        merged, folded = self.nodes.merged(live), self.nodes.folded(live)
        needed: dict[int, dict[int, int]] = {iteration: {} for iteration in range(self.iterations)}
        for node in live:
            if node.mark is not None and node.mark[0] == self.number:
                known = node.writes[0] in folded
                needed[node.mark[1]][node.mark[2]] = -1 if known else merged[node.writes[0]]
        whole = set().union(*needed.values())
        same = {place: {row.get(place) for row in needed.values()} for place in whole}
        varying = {place for place, values in same.items() if len(values) > 1}
        lacking = 0
        seen: set[tuple[int, int | None]] = {(place, -1) for place in varying}
        for row in needed.values():
            values = {(place, row.get(place)) for place in varying}
            lacking += set(row) != whole or bool(values & seen)
            seen |= values
        may_differ = min(self.iterations, self.may_differ + lacking)
        return Chain(self.iterations, may_differ, len(whole), self.body.recurs_in(varying))

    def _initial_states(self, before: Sequence[str]) -> list[list[str]]:
        """Return for each state its value before the first iteration, and the one before that."""
        rng, started = self.rng, list(before)
        history: list[list[str]] = []
        for order in self.body.orders:
            way = rng.random()
            if started:
                first = started.pop(0)
            elif way < 0.15:
                first = self._zeros()
                self.builder.features.add("starts constant")
                self.may_differ = max(self.body.orders)
            elif history and way < 0.3:
                first = rng.choice(history)[-1]
            else:
                first = self.builder.before()
            older = first if order == 1 or rng.random() < 0.4 else self.builder.before()
            if order == 2:
                self.builder.features.add("second order")
            history.append([older, first])
        return history

    def _read_before(self, value: str) -> str:
        """Let the graph in front of the loop read a weight of the loop too."""
        shapes = {2: (int(self.body.shape[-1]),) * 2, 3: (int(self.body.shape[-1]),) * 2}
        square = [
            name
            for name, array in self.body.weights.items()
            if array.shape == shapes.get(len(self.body.shape))
        ]
        if not square or len(self.known[square[0]]) > 1:
            return value
        self.builder.features.add("read in front too")
        return self.nodes.add("Softsign", self.nodes.add("MatMul", value, self.known[square[0]][0]))

    def _zeros(self) -> str:
        """Return zeros of the states' shape, computed from an input or, where it is fixed, stored."""
        zeros = self.kept.get("zeros")
        if zeros is None:
            like = self.nodes.input(self.body.shape)
            shape = self.nodes.add("Shape", like)
            zeros = self.nodes.add("ConstantOfShape", shape)
            self.kept["zeros"] = zeros
        return str(zeros)

    def _prepare(self) -> None:
        """Make what iterations read from outside."""
        body, rng = self.body, self.rng
        for name, shape in body.contexts.items():
            is_mask = shape != body.shape
            self.known[name] = [self.nodes.input(shape) if is_mask else self.builder.before()]
        for name in sorted(body.stacks):
            self.builder.features.add("stack")
            self.known[name] = self._stack()
        for name, row in body.rows.items():
            rows = [0.5 + self.builder.arrays.normal(size=row) / 4 for _ in range(self.iterations)]
            self.known[name] = self._rows([array.astype(np.float32) for array in rows])
        for name, array in body.weights.items():
            self.known[name] = self._weights(name, array)
        for name, array in body.constants.items():
            self.known[name] = self._copies(array) if rng.random() < 0.4 else [self._store(array)]

    def _stack(self) -> list[str]:
        """Return another value per iteration, all of them known before the loop."""
        shape, count = self.body.shape, self.iterations
        way = self.rng.choice(("gather", "scaled", "weights", "inputs", "split"))
        if way == "gather":
            whole = self.nodes.input((shape[0], count, *shape[1:]))
            places = [self._store(np.array(place, np.int64)) for place in range(count)]
            return [self.nodes.add("Gather", whole, place, axis=1) for place in places]
        if way == "split":
            width = int(shape[-1])
            whole = self.nodes.input((*shape[:-1], count * width))
            sizes = self._store(np.full(count, width, np.int64))
            return self.nodes.add_several(count, "Split", whole, sizes, axis=-1)
        if way == "inputs":
            return [self.nodes.input(shape) for _ in range(count)]
        start = self.builder.before()
        if way == "weights":
            return [self.builder.linear(start) for _ in range(count)]
        scales = [self._store(np.array(1 / (place + 2), np.float32)) for place in range(count)]
        return [self.nodes.add("Mul", start, scale) for scale in scales]

    def _rows(self, rows: Sequence[Array]) -> list[str]:
        """Store constants that differ between iterations, or take them from a table."""
        if self.rng.random() < 0.5:
            return [self._store(row) for row in rows]
        table = self._store(np.stack(rows))
        places = [self._store(np.array(place, np.int64)) for place in range(len(rows))]
        return [self.nodes.add("Gather", table, place, axis=0) for place in places]

    def _weights(self, name: str, array: Array) -> list[str]:
        """Store a weight once or once per iteration, as it is, turned, or in integers."""
        ways = ["shared", "shared", "copies"]
        if array.ndim == 2:
            ways += ["turned", "turned copies", "mixed", "integers"]
        way = self.rng.choice(ways)
        self.builder.features.add(f"{way} weights")
        if way == "shared":
            return [self._store(array)]
        if way == "copies":
            return self._copies(array)
        if way == "integers":
            return self._integers(array)
        shared = self._store(array.T.copy())
        found = []
        for _ in range(self.iterations):
            stored = shared if way == "turned" else self._store(array.T.copy())
            if way == "mixed" and self.rng.random() < 0.5:
                found.append(self._store(array))
            else:
                found.append(self.nodes.add("Transpose", stored, perm=[1, 0]))
        return found

    def _integers(self, array: Array) -> list[str]:
        """Store a weight in eight bits; each iteration, or all together, widen it."""
        turned = self.rng.random() < 0.4
        scale = np.float32(np.abs(array).max() / 127)
        stored = self._store(np.round((array.T if turned else array) / scale).astype(np.int8))
        parameters = [self._store(np.array(scale)), self._store(np.array(0, np.int8))]
        found = []
        for _ in range(self.rng.choice((1, self.iterations))):
            value = self.nodes.add("DequantizeLinear", stored, *parameters)
            found.append(self.nodes.add("Transpose", value, perm=[1, 0]) if turned else value)
        return found

    def _copies(self, array: Array) -> list[str]:
        return [self._store(array.copy()) for _ in range(self.iterations)]

    def _store(self, array: Array) -> str:
        return self.nodes.store(array)

    def _values(self, history: Sequence[Sequence[str]], iteration: int) -> dict[str, str]:
        """Return what the names of a body mean in an iteration."""
        values = {name: found[iteration % len(found)] for name, found in self.known.items()}
        values[""] = ""  # an input that is left out
        for number, state in enumerate(history):
            values[f"state:{number}"] = state[-1]
            values[f"state:{number}@2"] = state[-2]
        return values

    def _write_step(self, step: Step, place: int, iteration: int, values: dict[str, str]) -> None:
        reads = [values[read] for read in step.reads]
        if step.operator in COMMUTATIVE:
            self.rng.shuffle(reads)
        count = len(step.writes)
        written = self.nodes.add_several(count, step.operator, *reads, **step.attributes)
        self.nodes.mark(written[0], (self.number, iteration, place))
        values.update(zip(step.writes, written, strict=True))

    def _read_outside(self, history: Sequence[Sequence[str]], readers: str) -> None:
        """Let the graph give out states of every iteration, or of one in the middle."""
        states, shape = history[0][2:], self.body.shape
        if readers == "middle":
            self.builder.features.add("read in the middle")
            middle = self.rng.choice(states)
            self.nodes.output(self.nodes.add("Neg", middle), shape)
        elif readers == "every":
            self.builder.features.add("read in every iteration")
            if self.rng.random() < 0.5:
                wide: Shape = (*shape[:-1], int(shape[-1]) * len(states))
                self.nodes.output(self.nodes.add("Concat", *states, axis=-1), wide)
                return
            for state in states:
                self.nodes.output(self.nodes.add("Abs", state), shape)
