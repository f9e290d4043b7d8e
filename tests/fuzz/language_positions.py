"""Positions in the graphs of small language models: learned rows, rotary tables, masks, in the ways exporters write them."""

import numpy as np

from tests.fuzz.language_graphs import BOOL, FLOAT, INT64, Graph, Size
from tests.fuzz.language_specs import LanguageSpec

__all__ = ["Text", "add_mask", "position_rows", "rotary_tables", "rotate"]

LOW = float(np.finfo(np.float32).min)


class Text:
    """The token ids of a graph, and what is computed of their sizes.

    Args:
        graph: In which it is computed.
        spec: Of the model.
        ids: int64 (batch, sequence).
        inputs: Of the model.
        generator: Draws weights.
    """

    def __init__(
        self,
        graph: Graph,
        spec: LanguageSpec,
        ids: str,
        inputs: set[str],
        generator: np.random.Generator | None = None,
    ) -> None:
        self.graph, self.spec, self.ids, self.inputs = graph, spec, ids, inputs
        self.generator = generator or np.random.default_rng(spec.seed)

    def drawn(self, *shape: int) -> str:
        """Store a weight of its own."""
        fan = shape[0] if len(shape) > 1 else 1
        return self.graph.store((self.generator.normal(size=shape) / fan**0.5).astype(np.float32))

    def length(self) -> str:
        """Return the number of positions, int64 ()."""
        graph = self.graph
        size = graph.add("Shape", self.ids, shape=[1], kind=INT64, start=1, end=2)
        return graph.add("Squeeze", size, graph.ints(0), shape=[], kind=INT64)

    def sizes(self) -> str:
        """Return batch and sequence, int64 (2,)."""
        return self.graph.add("Shape", self.ids, shape=[2], kind=INT64)

    def steps(self) -> str:
        """Return 0, 1, 2, ..., int64 (sequence,)."""
        graph = self.graph
        zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
        return graph.add("Range", zero, self.length(), one, shape=["sequence"], kind=INT64)

    def counted(self) -> str:
        """Return positions as a running sum of ones, int64 (batch, sequence)."""
        graph, both = self.graph, ["batch", "sequence"]
        if "attention_mask" in self.inputs:
            ones = "attention_mask"
        else:
            ones = graph.add(
                "Expand", graph.scalar(1, np.int64), self.sizes(), shape=both, kind=INT64
            )
        total = graph.add("CumSum", ones, graph.scalar(1, np.int64), shape=both, kind=INT64)
        return graph.binary("Sub", total, graph.scalar(1, np.int64))

    def places(self, *, expanded: bool = False) -> str:
        """Return positions, int64 (sequence,) or (batch, sequence)."""
        if "position_ids" in self.inputs:
            return "position_ids"
        steps, graph = self.steps(), self.graph
        fault = self.spec.fault
        if fault == "reversed positions":
            last = graph.binary("Sub", self.length(), graph.scalar(1, np.int64))
            steps = graph.binary("Sub", last, steps)
        if not expanded:
            return steps
        wide = graph.unsqueeze(steps, 0)
        return graph.add("Expand", wide, self.sizes(), shape=["batch", "sequence"], kind=INT64)


def position_rows(text: Text, width: int) -> str:
    """Return a row per position, float32 (sequence, width) or (batch, sequence, width)."""
    graph, spec, kind = text.graph, text.spec, text.spec.positions
    if kind == "sinusoidal":
        return sinusoids(text, width)
    table = text.drawn(spec.rows, width)
    if kind == "slice":
        end = graph.reshape(text.length(), [1], 1)
        reads = (table, graph.ints(0), end, graph.ints(0), graph.ints(1))
        return graph.add("Slice", *reads, shape=["sequence", width])
    places = _places_of(text, str(kind))
    shape = [*graph.shape(places), width]
    rows = graph.add("Gather", table, places, shape=shape, axis=0)
    if spec.fault == "scaled positions":
        length = graph.add("Cast", text.length(), shape=[], to=FLOAT)
        rows = graph.binary("Div", rows, length)
    return rows


def _places_of(text: Text, kind: str) -> str:
    graph = text.graph
    if kind.startswith("cumsum"):
        places = text.counted()
    else:
        places = text.places(expanded=kind == "expanded")
    if kind in {"offset", "cumsum offset"}:
        return graph.binary("Add", places, graph.scalar(2, np.int64))
    if kind == "clipped":
        return graph.binary("Min", places, graph.scalar(11, np.int64))
    if kind == "modulo":
        return graph.binary("Mod", places, graph.scalar(9, np.int64))
    return places


def sinusoids(text: Text, width: int) -> str:
    """Return sines and cosines of positions, float32 (sequence, width)."""
    graph = text.graph
    angles = _angles(text, width, 10_000.0)
    parts = [graph.unary(operator, angles) for operator in ("Sin", "Cos")]
    return graph.concat(*parts, axis=-1, size=width)


def _angles(text: Text, width: int, base: float) -> str:
    """Return positions times frequencies, float32 (sequence, width / 2), or with ``b1sd`` (batch, sequence, width / 2)."""
    graph, spec = text.graph, text.spec
    rates = (base ** (-np.arange(0, width, 2) / width)).astype(np.float32)
    places = text.places(expanded=spec.rotary == "b1sd")
    known = graph.add("Cast", places, shape=graph.shape(places), to=FLOAT)
    if spec.fault == "long base":  # another base for longer texts, as dynamic NTK has it
        limit = graph.scalar(300, np.int64)
        longer = graph.add("Greater", text.length(), limit, shape=[], kind=BOOL)
        other = graph.scalar(0.5)
        factor = graph.add("Where", longer, other, graph.scalar(1.0), shape=[])
        known = graph.binary("Mul", known, factor)
    rows = graph.unsqueeze(known, len(graph.shape(known)))
    if spec.rotary == "1sd" and graph.shape(known) == ("sequence",):  # as transformers writes it
        flat = graph.unsqueeze(known, 0)
        wide = graph.unsqueeze(flat, 0)  # (1, 1, sequence)
        column = graph.store(rates[None, :, None])
        found = graph.add("MatMul", column, wide, shape=[1, len(rates), "sequence"])
        turned = graph.transpose(found, 0, 2, 1)
        return graph.add("Squeeze", turned, graph.ints(0), shape=["sequence", len(rates)])
    return graph.binary("Mul", rows, graph.store(rates))


def rotary_tables(text: Text, base: float) -> tuple[str, ...]:
    """Return cosines and sines in the shape of the spec; behind them positions, where the operator takes these."""
    graph, spec = text.graph, text.spec
    size = spec.rotary_part or spec.head_size
    if spec.rotary_operator is not None:
        return _for_operator(text, base, size)
    width = size // 2 if spec.interleaved else size
    if spec.rotary_table and spec.rotary != "b1sd" and not spec.position_ids:
        cos, sin = (_stored_table(text, base, size, width, kind) for kind in (np.cos, np.sin))
    else:
        angles = _angles(text, size, base)
        if not spec.interleaved:
            angles = graph.concat(angles, angles, axis=-1, size=size)
        cos, sin = graph.unary("Cos", angles), graph.unary("Sin", angles)
        if spec.rotary_scale != 1.0:
            cos, sin = (graph.binary("Mul", v, graph.scalar(spec.rotary_scale)) for v in (cos, sin))
    return _laid_out(graph, cos, spec), _laid_out(graph, sin, spec)


def _for_operator(text: Text, base: float, size: int) -> tuple[str, ...]:
    """Return what RotaryEmbedding reads: angles (batch, sequence, half), or tables and positions (batch, sequence)."""
    graph, spec = text.graph, text.spec
    rates = base ** (-np.arange(0, size, 2) / size)
    if spec.rotary_operator == "positions":
        angles = np.arange(spec.rows)[:, None] * rates
        stored = [graph.store(kind(angles).astype(np.float32)) for kind in (np.cos, np.sin)]
        return (*stored, text.places(expanded=True))
    places = text.places(expanded=True)
    known = graph.add("Cast", places, shape=graph.shape(places), to=FLOAT)
    found = graph.binary("Mul", graph.unsqueeze(known, 2), graph.store(rates.astype(np.float32)))
    return graph.unary("Cos", found), graph.unary("Sin", found)


def _stored_table(text: Text, base: float, size: int, width: int, kind: np.ufunc) -> str:
    graph = text.graph
    rates = base ** (-np.arange(0, size, 2) / size)
    angles = np.arange(text.spec.rows)[:, None] * rates
    whole = kind(np.tile(angles, 2)[:, :width]).astype(np.float32) * np.float32(
        text.spec.rotary_scale
    )
    end = graph.reshape(text.length(), [1], 1)
    reads = (graph.store(whole), graph.ints(0), end, graph.ints(0))
    return graph.add("Slice", *reads, shape=["sequence", width])


def _laid_out(graph: Graph, table: str, spec: LanguageSpec) -> str:
    if len(graph.shape(table)) == 3:  # (batch, sequence, width), by positions with a batch axis
        return graph.unsqueeze(table, 2 if spec.rotary == "s1d" else 1)
    axes = {"sd": (), "1sd": (0,), "11sd": (0, 1), "s1d": (1,)}[str(spec.rotary)]
    return graph.unsqueeze(table, *axes) if axes else table


def rotate(graph: Graph, spec: LanguageSpec, value: str, tables: tuple[str, ...]) -> str:
    """Turn heads by their positions; shapes as `rotary_tables` with those of the heads."""
    if spec.rotary_operator is not None:
        attributes = {
            "interleaved": int(spec.interleaved),
            "rotary_embedding_dim": spec.rotary_part,
        }
        shape = graph.shape(value)
        return graph.add("RotaryEmbedding", value, *tables, shape=shape, **attributes)
    size, part, last = spec.head_size, spec.rotary_part, 3
    kept = ""
    if part and part < size:
        kept = graph.part(value, last, part, size, size - part)
        value = graph.part(value, last, 0, part, part)
    else:
        part = size
    cos, sin, *_ = tables
    turn = _interleaved if spec.interleaved else _halves
    turned = turn(graph, value, cos, sin, part)
    return graph.concat(turned, kept, axis=-1, size=size) if kept else turned


def _halves(graph: Graph, value: str, cos: str, sin: str, size: int) -> str:
    first = graph.part(value, 3, 0, size // 2, size // 2)
    second = graph.part(value, 3, size // 2, size, size // 2)
    other = graph.concat(graph.unary("Neg", second), first, axis=-1, size=size)
    one, two = graph.binary("Mul", value, cos), graph.binary("Mul", other, sin)
    return graph.binary("Add", one, two)


def _interleaved(graph: Graph, value: str, cos: str, sin: str, size: int) -> str:
    shape = graph.shape(value)
    first = graph.part(value, 3, 0, size, size // 2, step=2)
    second = graph.part(value, 3, 1, size, size // 2, step=2)
    made = []
    for one, two, operator in ((first, second, "Sub"), (second, first, "Add")):
        terms = graph.binary("Mul", one, cos), graph.binary("Mul", two, sin)
        made.append(graph.unsqueeze(graph.binary(operator, *terms), 4))
    pairs = graph.concat(*made, axis=4, size=2)
    heads: Size = shape[2] if isinstance(shape[2], int) else -1
    return graph.reshape(pairs, shape, 0, 0, heads if isinstance(heads, int) else -1, size)


def add_mask(text: Text, window: int | None) -> str | None:
    """Return the mask of an attention, (sequence, sequence) or (1, 1, sequence, sequence); None: the attribute."""
    graph, spec = text.graph, text.spec
    if spec.mask == "attribute" and window is None:
        return None
    fault = spec.fault
    if (
        spec.mask in {"ranges", "where", "least", "padding", "additive padding", "attribute"}
        or fault
    ):
        seen = _by_distance(text, window)
    elif spec.mask == "table":
        seen = _by_table(text, window)
    else:
        seen = _by_triangle(text, window)
    if spec.mask_rank == 4 or spec.mask in {"padding", "additive padding"}:
        seen = seen if len(graph.shape(seen)) == 4 else graph.unsqueeze(seen, 0, 1)
    if spec.mask == "padding":
        kept = graph.add("Cast", "attention_mask", shape=["batch", "sequence"], kind=BOOL, to=BOOL)
        seen = graph.binary("And", seen, graph.unsqueeze(kept, 1, 2))
    if spec.mask in {"where", "least", "triu", "additive padding"}:
        low = -np.inf if spec.mask in {"where", "triu"} else LOW
        added = graph.add(
            "Where", seen, graph.scalar(0.0), graph.scalar(low), shape=graph.shape(seen)
        )
        if spec.mask == "additive padding":
            kept = graph.add("Cast", "attention_mask", shape=["batch", "sequence"], to=FLOAT)
            gone = graph.binary("Sub", graph.scalar(1.0), graph.unsqueeze(kept, 1, 2))
            added = graph.binary("Add", added, graph.binary("Mul", gone, graph.scalar(-1e9)))
        return added
    return seen


def _by_distance(text: Text, window: int | None) -> str:
    graph = text.graph
    steps = text.steps()
    queries, keys = graph.unsqueeze(steps, 1), graph.unsqueeze(steps, 0)
    seen = graph.binary("GreaterOrEqual", queries, keys, BOOL)
    if window is not None:
        first = graph.binary("Sub", queries, graph.scalar(window, np.int64))
        seen = graph.binary("And", seen, graph.binary("Greater", keys, first, BOOL))
    return seen


def _by_triangle(text: Text, window: int | None) -> str:
    """Write a mask by Trilu, which takes no bool in older runtimes: of ones, then compared."""
    graph = text.graph
    one = text.length()
    sizes = graph.add("Concat", *[graph.reshape(one, [1], 1)] * 2, shape=[2], kind=INT64, axis=0)
    both: list[Size] = ["sequence", "sequence"]
    ones = graph.add("Expand", graph.scalar(1.0), sizes, shape=both)
    lower = graph.add("Trilu", ones, shape=both, upper=0)
    if window is not None:
        first = graph.scalar(1 - window, np.int64)
        lower = graph.add("Trilu", lower, first, shape=both, upper=1)
    return graph.add("Cast", lower, shape=both, kind=BOOL, to=BOOL)


def _by_table(text: Text, window: int | None) -> str:
    """Cut the mask out of a stored one, as GPT-2 has it."""
    graph, rows = text.graph, text.spec.rows
    distance = np.arange(rows)[:, None] - np.arange(rows)[None]
    whole = (distance >= 0) & (distance < (window or rows))
    end = graph.reshape(text.length(), [1], 1)
    zero = graph.ints(0)
    cut = graph.add(
        "Slice", graph.store(whole), zero, end, graph.ints(0), shape=["sequence", rows], kind=BOOL
    )
    return graph.add(
        "Slice", cut, zero, end, graph.ints(1), shape=["sequence", "sequence"], kind=BOOL
    )
