"""Random bodies of a loop: steps over states, weights, rows, contexts and what stands before the loop.

A body is a template that `tests.fuzz.tied_graphs` writes out once per iteration. What a step reads is a text: ``state:0``
(of the previous iteration; ``state:0@2`` of the one before), ``weight:a``, ``row:a`` (a constant of its own in every
iteration), ``context:a`` (the same value in all), ``stack:a`` (another value from before the loop in every iteration),
``constant:a``, or the name of an earlier step's output.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMMUTATIVE", "UNARY", "Body", "Shape", "Step", "draw_body"]

Array = NDArray[Any]
Shape = tuple[int | str, ...]

UNARY = ("Tanh", "Sigmoid", "Relu", "Neg", "Softplus", "Erf", "Sin", "Cos", "Abs", "Softsign")
COMMUTATIVE = ("Add", "Mul", "Max", "Min", "Sum", "Mean")


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a body."""

    operator: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(slots=True)
class Body:
    """A template of one iteration, and what it needs from outside.

    Args:
        shape: Of the states, free axes by their name.
        opset: That its operators belong to.
    """

    shape: Shape
    opset: int
    steps: list[Step] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    contexts: dict[str, Shape] = field(default_factory=dict)
    stacks: set[str] = field(default_factory=set)
    orders: list[int] = field(default_factory=list)
    nexts: list[str] = field(default_factory=list)
    needed: dict[str, set[str]] = field(default_factory=dict)
    """By value, the states that it depends on."""

    def recurs_in(self, needed: Collection[int]) -> bool:
        """Tell whether a product of one iteration reads what the same product of the iteration before gave, by way of states.

        Where it does not, the uses of each weight stand side by side, and nothing says in which order they came.

        Args:
            needed: Places of the steps that the graph needs.
        """
        for place, step in enumerate(self.steps):
            if place not in needed or not self._reads_matrix(step):
                continue
            behind = set(step.writes)
            for later in self.steps[place + 1 :]:
                if behind.intersection(later.reads):
                    behind.update(later.writes)
            changed = {f"state:{number}" for number, new in enumerate(self.nexts) if new in behind}
            if changed & self.needed[step.writes[0]]:
                return True
        return False

    def _reads_matrix(self, step: Step) -> bool:
        found = [self.weights[read] for read in step.reads if read in self.weights]
        return any(sum(size > 1 for size in array.shape) > 1 for array in found)


class Draft:
    """A body under construction; one call adds one step.

    Args:
        body: Is filled.
        rng: Draws what is left open.
    """

    def __init__(self, body: Body, rng: random.Random) -> None:
        self.body, self.rng = body, rng
        self.scope, self.count = "", 0
        self.arrays = np.random.default_rng(rng.randrange(2**32))

    @property
    def width(self) -> int:
        """Features: of the last axis, or of the channels of an image."""
        size = self.body.shape[1 if len(self.body.shape) == 4 else -1]
        assert isinstance(size, int)
        return size

    def add(self, operator: str, *reads: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a step and return what it writes; of several outputs the first."""
        number = len(self.body.steps)
        writes = tuple(f"{number}.{place}" for place in range(outputs))
        self.body.steps.append(Step(operator, reads, writes, attributes))
        found = {read for read in reads if read.startswith("state:")}
        for read in reads:
            found |= self.body.needed.get(read, set())
        for write in writes:
            self.body.needed[write] = found
        return writes[0]

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """Return a weight; in an inner loop that of its first iteration."""
        name, self.count = f"weight:{self.scope}{self.count}", self.count + 1
        fan = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        if name not in self.body.weights:
            drawn = self.arrays.normal(size=shape) * gain / np.sqrt(max(1, fan))
            self.body.weights[name] = drawn.astype(np.float32)
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Return a constant that every iteration reads."""
        name = f"constant:{len(self.body.constants)}"
        self.body.constants[name] = np.array(value, dtype)
        return name

    def row(self) -> str:
        """Return a constant that differs between iterations."""
        name = f"row:{len(self.body.rows)}"
        wide = (self.width, 1, 1) if len(self.body.shape) == 4 else (self.width,)
        self.body.rows[name] = self.rng.choice(((), (1,), wide, wide))
        return name

    def stack(self) -> str:
        """Return a value from before the loop that differs between iterations."""
        name = f"stack:{len(self.body.stacks)}"
        self.body.stacks.add(name)
        return name

    def context(self, shape: Shape | None = None) -> str:
        """Return a value from before the loop that all iterations read."""
        name = f"context:{len(self.body.contexts)}"
        self.body.contexts[name] = shape or self.body.shape
        return name


def draw_body(rng: random.Random, shape: Shape, opset: int, most_steps: int = 25) -> Body:
    """Draw a body of one to four states; every step is read by a state."""
    body = Body(shape=shape, opset=opset)
    draft = Draft(body, rng)
    states = rng.choice((1, 1, 1, 2, 2, 3, 4))
    body.orders = [rng.choice((1, 1, 1, 1, 2)) for _ in range(states)]
    pool = [f"state:{number}" for number in range(states)]
    pool += [f"state:{number}@2" for number, order in enumerate(body.orders) if order == 2]
    waiting = list(pool)
    kinds = KINDS[len(shape)]
    goal = rng.randint(3, most_steps)
    waiting_for_weight: Sequence[Kind] = WEIGHTED[len(shape)]
    for kind in waiting_for_weight:
        _grow(draft, kind, pool, waiting)
    while len(body.steps) < goal:
        if rng.random() < 0.06 and len(body.steps) + 6 < most_steps:
            _grow(draft, _inner_loop, pool, waiting)
        else:
            _grow(draft, rng.choice(kinds), pool, waiting)
    _close(draft, states, waiting)
    return body


def _grow(draft: Draft, kind: "Kind", pool: list[str], waiting: list[str]) -> None:
    """Add what a kind adds to a value, most often one that nothing reads yet."""
    x = draft.rng.choice(waiting if waiting and draft.rng.random() < 0.7 else pool)
    before = len(draft.body.steps)
    y = kind(draft, x, pool)
    read = {read for step in draft.body.steps[before:] for read in step.reads}
    waiting[:] = [value for value in waiting if value not in read]
    pool.append(y)
    waiting.append(y)


def _close(draft: Draft, states: int, waiting: list[str]) -> None:
    """Make the new states of what nothing reads yet; each depends on a state, and stays bounded."""
    body, rng = draft.body, draft.rng
    needing = [value for value in waiting if body.needed.get(value)]
    free = [value for value in waiting if not body.needed.get(value)]
    parts: list[list[str]] = [[] for _ in range(states)]
    for place, value in enumerate(needing):
        parts[place % states].append(value)
    for place, part in enumerate(parts):
        if not part:
            part.append(f"state:{(place + 1) % states}")
    parts[0] += free
    for part in parts:
        total = part[0]
        for value in part[1:]:
            total = draft.add("Add", *rng.sample((total, value), 2))
        if rng.random() < 0.4:
            mixed = draft.add("Mul", total, draft.constant(0.5))
            total = draft.add("Add", mixed, "state:0")
        body.nexts.append(draft.add(rng.choice(("Tanh", "Sin", "Softsign")), total))


def _unary(draft: Draft, x: str, pool: list[str]) -> str:
    if draft.rng.random() < 0.3:
        operator = draft.rng.choice(("LeakyRelu", "Elu"))
        return draft.add(operator, x, alpha=draft.rng.choice((0.1, 0.2)))
    names = (*UNARY, "Gelu") if draft.body.opset >= 20 else UNARY
    return draft.add(draft.rng.choice(names), x)


def _binary(draft: Draft, x: str, pool: list[str]) -> str:
    other = draft.rng.choice(pool)
    if draft.rng.random() < 0.35:
        return draft.add("Sub", *draft.rng.sample((x, other), 2))
    return draft.add(draft.rng.choice(COMMUTATIVE), x, other)


def _divide(draft: Draft, x: str, pool: list[str]) -> str:
    positive = draft.add("Abs", draft.rng.choice(pool))
    return draft.add("Div", x, draft.add("Add", positive, draft.constant(1.0)))


def _clip(draft: Draft, x: str, pool: list[str]) -> str:
    least = "" if draft.rng.random() < 0.2 else draft.constant(-0.7)
    return draft.add("Clip", x, least, draft.constant(0.8))


def _row(draft: Draft, x: str, pool: list[str]) -> str:
    return draft.add(draft.rng.choice(("Add", "Mul")), x, draft.row())


def _context(draft: Draft, x: str, pool: list[str]) -> str:
    known = [name for name, shape in draft.body.contexts.items() if shape == draft.body.shape]
    value = draft.rng.choice(known) if known and draft.rng.random() < 0.5 else draft.context()
    if draft.rng.random() < 0.3:  # is the same in all iterations too
        value = draft.add("Sigmoid", value)
    return draft.add(draft.rng.choice(("Add", "Mul", "Sub")), x, value)


def _stack(draft: Draft, x: str, pool: list[str]) -> str:
    return draft.add(draft.rng.choice(("Add", "Mul", "Sub")), x, draft.stack())


def _where(draft: Draft, x: str, pool: list[str]) -> str:
    if draft.rng.random() < 0.5:
        mask = draft.context((*draft.body.shape[:-1], 1))
        chosen = draft.add("Greater", mask, draft.constant(0.1))
        return draft.add("Where", chosen, x, draft.rng.choice(pool))
    positive = draft.add("Greater", x, draft.constant(0.0))
    return draft.add("Where", positive, x, draft.add("Mul", x, draft.constant(0.1)))


def _linear(draft: Draft, x: str, pool: list[str]) -> str:
    width = draft.width
    inner = draft.rng.choice((width, width, 2 * width))
    y = draft.add("MatMul", x, draft.weight(width, inner))
    if draft.rng.random() < 0.6:
        y = draft.add("Add", y, draft.weight(inner, gain=0.1))
    if inner != width:
        y = draft.add("MatMul", draft.add("Tanh", y), draft.weight(inner, width))
    return y


def _gemm(draft: Draft, x: str, pool: list[str]) -> str:
    bias = [draft.weight(draft.width, gain=0.1)] if draft.rng.random() < 0.7 else []
    alpha = draft.rng.choice((1.0, 0.5))
    transposed = draft.rng.randrange(2)
    weight = draft.weight(draft.width, draft.width)
    return draft.add("Gemm", x, weight, *bias, alpha=alpha, transB=transposed)


def _integer_linear(draft: Draft, x: str, pool: list[str]) -> str:
    """Write what dynamic quantization writes."""
    width, number = draft.width, len(draft.body.steps)
    draft.add("DynamicQuantizeLinear", x, outputs=3)
    weight = draft.constant(draft.arrays.integers(-100, 100, (width, width)), np.int8)
    zero = draft.constant(0, np.int8)
    product = draft.add("MatMulInteger", f"{number}.0", weight, f"{number}.2", zero)
    scale = draft.add("Mul", f"{number}.1", draft.constant(0.01 / width))
    return draft.add("Mul", draft.add("Cast", product, to=1), scale)


def _norm(draft: Draft, x: str, pool: list[str]) -> str:
    axis, epsilon = -1, draft.rng.choice((1e-5, 1e-3))
    if draft.rng.random() < 0.5:
        scale = draft.weight(draft.width)
        if draft.body.opset >= 23 and draft.rng.random() < 0.5:
            return draft.add("RMSNormalization", x, scale, axis=axis, epsilon=epsilon)
        bias = draft.weight(draft.width, gain=0.1)
        return draft.add("LayerNormalization", x, scale, bias, axis=axis, epsilon=epsilon)
    axes = draft.constant([axis], np.int64)
    centred = draft.add("Sub", x, draft.add("ReduceMean", x, axes, keepdims=1))
    square = draft.add("Mul", centred, centred)
    variance = draft.add("ReduceMean", square, axes, keepdims=1)
    deviation = draft.add("Sqrt", draft.add("Add", variance, draft.constant(0.01)))
    return draft.add("Div", centred, deviation)


def _softmax(draft: Draft, x: str, pool: list[str]) -> str:
    return draft.add("Softmax", x, axis=draft.rng.choice((-1, 1)))


def _reduce(draft: Draft, x: str, pool: list[str]) -> str:
    operator = draft.rng.choice(("ReduceMean", "ReduceMax", "ReduceMin"))
    axes = draft.constant([-1], np.int64)
    return draft.add("Sub", x, draft.add(operator, x, axes, keepdims=1))


def _gate(draft: Draft, x: str, pool: list[str]) -> str:
    """Halve the features, and join them again."""
    number = len(draft.body.steps)
    sizes = draft.constant([draft.width // 2] * 2, np.int64)
    draft.add("Split", x, sizes, outputs=2, axis=-1)
    first, second = f"{number}.0", f"{number}.1"
    gated = draft.add("Mul", first, draft.add("Sigmoid", second))
    return draft.add("Concat", *draft.rng.sample((gated, second), 2), axis=-1)


def _rotate(draft: Draft, x: str, pool: list[str]) -> str:
    width, axes = draft.width, draft.constant([-1], np.int64)
    cut = draft.rng.randrange(1, width)
    zero, middle = draft.constant([0], np.int64), draft.constant([cut], np.int64)
    last = draft.add("Slice", x, middle, draft.constant([2**31], np.int64), axes)
    first = draft.add("Slice", x, zero, middle, axes)
    return draft.add("Concat", draft.add("Neg", last), first, axis=-1)


def _join(draft: Draft, x: str, pool: list[str]) -> str:
    joined = draft.add("Concat", x, draft.rng.choice(pool), axis=-1)
    return draft.add("MatMul", joined, draft.weight(2 * draft.width, draft.width))


def _permute(draft: Draft, x: str, pool: list[str]) -> str:
    order = draft.rng.sample(range(draft.width), draft.width)
    return draft.add("Gather", x, draft.constant(order, np.int64), axis=-1)


def _heads(draft: Draft, x: str, pool: list[str]) -> str:
    """Attend over the positions, as exporters write it."""
    half = draft.width // 2
    split = draft.constant([0, 0, 2, half], np.int64)
    parts = []
    for _ in range(3):
        linear = draft.add("MatMul", x, draft.weight(draft.width, draft.width))
        parts.append(draft.add("Transpose", draft.add("Reshape", linear, split), perm=[0, 2, 1, 3]))
    keys = draft.add("Transpose", parts[1], perm=[0, 1, 3, 2])
    scores = draft.add("MatMul", draft.add("Mul", parts[0], draft.constant(half**-0.5)), keys)
    mixed = draft.add("MatMul", draft.add("Softmax", scores, axis=-1), parts[2])
    back = draft.add("Transpose", mixed, perm=[0, 2, 1, 3])
    return draft.add("Reshape", back, draft.constant([0, 0, draft.width], np.int64))


def _by_its_shape(draft: Draft, x: str, pool: list[str]) -> str:
    """Flatten and restore, the sizes computed from the value."""
    whole = draft.add("Shape", x)
    flat = draft.add("Reshape", x, draft.constant([-1, draft.width], np.int64))
    y = draft.add("MatMul", flat, draft.weight(draft.width, draft.width))
    return draft.add("Reshape", y, whole)


def _there_and_back(draft: Draft, x: str, pool: list[str]) -> str:
    rank = len(draft.body.shape)
    perm = [0, *reversed(range(1, rank))]
    turned = draft.add("Tanh", draft.add("Transpose", x, perm=perm))
    if draft.rng.random() < 0.5:
        axes = draft.constant([0], np.int64)
        turned = draft.add("Squeeze", draft.add("Unsqueeze", turned, axes), axes)
    return draft.add("Transpose", turned, perm=perm)


def _convolution(draft: Draft, x: str, pool: list[str]) -> str:
    width, rng = draft.width, draft.rng
    kernel = rng.choice((1, 3, 3))
    group = rng.choice((1, 1, width))
    bias = [draft.weight(width, gain=0.1)] if rng.random() < 0.6 else []
    weight = draft.weight(width, width // group, kernel, kernel)
    return draft.add("Conv", x, weight, *bias, group=group, pads=[kernel // 2] * 4)


def _full_convolution(draft: Draft, x: str, pool: list[str]) -> str:
    weight = draft.weight(draft.width, draft.width, 3, 3)
    return draft.add("Conv", x, weight, pads=[1] * 4)


def _image_norm(draft: Draft, x: str, pool: list[str]) -> str:
    scale, bias = draft.weight(draft.width), draft.weight(draft.width, gain=0.1)
    if draft.rng.random() < 0.5:
        return draft.add("InstanceNormalization", x, scale, bias, epsilon=1e-3)
    mean = draft.constant(draft.arrays.normal(size=draft.width) / 10)
    variance = draft.constant(0.5 + draft.arrays.random(draft.width))
    return draft.add("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-3)


def _pool(draft: Draft, x: str, pool: list[str]) -> str:
    operator = draft.rng.choice(("AveragePool", "MaxPool"))
    return draft.add(operator, x, kernel_shape=[3, 3], pads=[1] * 4)


def _channel_gate(draft: Draft, x: str, pool: list[str]) -> str:
    mean = draft.add("GlobalAveragePool", x)
    weight = draft.weight(draft.width, draft.width, 1, 1)
    return draft.add("Mul", x, draft.add("Sigmoid", draft.add("Conv", mean, weight)))


def _join_channels(draft: Draft, x: str, pool: list[str]) -> str:
    joined = draft.add("Concat", x, draft.rng.choice(pool), axis=1)
    return draft.add("Conv", joined, draft.weight(draft.width, 2 * draft.width, 1, 1))


def _inner_loop(draft: Draft, x: str, pool: list[str]) -> str:
    """Apply the same steps two or three times, with the same weights."""
    outer, count, seed = draft.scope, draft.count, draft.rng.randrange(2**32)
    if outer:
        return _unary(draft, x, pool)
    rng, repeats = draft.rng, draft.rng.choice((2, 3))
    kinds = [WEIGHTED[len(draft.body.shape)][0], _unary]
    for _ in range(repeats):
        draft.rng, draft.scope, draft.count = random.Random(seed), f"inner{seed}.", 0
        for kind in kinds:
            x = kind(draft, x, [x])
    draft.rng, draft.scope, draft.count = rng, outer, count
    return x


Kind = Callable[[Draft, str, list[str]], str]
ANY: tuple[Kind, ...] = (
    *(_unary, _unary, _binary, _binary, _divide, _clip, _row, _context, _stack, _where),
    _there_and_back,
)
FLAT: tuple[Kind, ...] = (
    *(_linear, _norm, _softmax, _reduce, _gate, _rotate, _join, _permute, _integer_linear),
    _by_its_shape,
)
KINDS: dict[int, tuple[Kind, ...]] = {
    2: (*ANY, *FLAT, _gemm, _gemm),
    3: (*ANY, *FLAT, _heads),
    4: (
        *(*ANY, _convolution, _convolution, _image_norm, _pool, _channel_gate, _join_channels),
        _softmax,
    ),
}
"""What grows a body, by the rank of its states."""
WEIGHTED: dict[int, tuple[Kind, ...]] = {2: (_linear,), 3: (_linear,), 4: (_full_convolution,)}
"""What every body has: by its weights it is found."""
