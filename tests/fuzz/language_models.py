"""Write small language models as graphs, as `tests.fuzz.language_specs` describes them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx

from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from tests.fuzz.language_faults import fault_of_block, mask_with_fault, shifted
from tests.fuzz.language_graphs import BOOL, INT64, Graph, Size
from tests.fuzz.language_positions import Text, add_mask, position_rows, rotary_tables, rotate
from tests.fuzz.language_specs import BLOCK_FAULTS, MASK_FAULTS, LanguageSpec

__all__ = ["OPSET", "VOCABULARY", "write_language_model"]

OPSET, VOCABULARY = 23, 23
ATTENTION_FAULTS = {
    "memory keys",
    "memory only",
    "shifted keys",
    "shifted values",
    "query of the last",
}


def write_language_model(spec: LanguageSpec) -> onnx.ModelProto:
    """Return a model: ``input_ids`` int64 (batch, sequence) to ``logits`` (batch, sequence, vocabulary)."""
    return _Writer(spec).write()


def _properties(spec: LanguageSpec) -> dict[str, str]:
    """Return what a file of loopedge says of itself; a run-time loop count stands there alone."""
    if not (spec.counted or spec.known):
        return {}
    form: Literal["loop"] = "loop"
    metadata = ArtifactMetadata(
        version="0",
        form=form,
        loops=spec.loops,
        trained_loops=spec.loops,
        dynamic_loops=spec.counted,
        max_length=spec.rows,
    )
    properties: dict[str, str] = {}
    write_metadata(metadata, properties)
    return properties


@dataclass(slots=True)
class _Context:
    """What the layers read of the graph around them."""

    masks: dict[int | None, str | None] = field(default_factory=dict)
    tables: dict[float, tuple[str, ...]] = field(default_factory=dict)
    rows: str | None = None
    values: str | None = None


class _Writer:
    def __init__(self, spec: LanguageSpec) -> None:
        self.spec, self.graph, self.context = spec, Graph(), _Context()
        both = ["batch", "sequence"]
        self.inputs = ["input_ids"]
        if spec.attention_mask:
            self.inputs.append("attention_mask")
        if spec.position_ids:
            self.inputs.append("position_ids")
        if spec.counted:
            self.inputs.append("loops")
        for name in self.inputs:
            self.graph.note(name, [] if name == "loops" else both, INT64)
        self.text = Text(self.graph, spec, "input_ids", set(self.inputs))

    def write(self) -> onnx.ModelProto:
        spec, graph = self.spec, self.graph
        embedding = self.text.drawn(VOCABULARY, spec.width)
        shape: list[Size] = ["batch", "sequence", spec.width]
        state = graph.add("Gather", embedding, "input_ids", shape=shape, axis=0)
        if spec.positions is not None:
            size = spec.width
            self.context.rows = position_rows(self.text, size)
            if spec.position_place == "start":
                state = graph.binary("Add", state, self.context.rows)
        self.context.values = graph.binary("Mul", state, graph.scalar(0.3))
        self.context = self._prepared(graph)
        for _ in range(spec.prelude):
            state = self._layer(graph, state, 0, "prelude")
        stacks = []
        for core in range(spec.cores):
            state, stacked = self._loop(state, core)
            stacks += stacked
        for stack in stacks:
            mean = graph.add("ReduceMean", stack, graph.ints(0), shape=shape, keepdims=0)
            state = graph.binary("Add", state, mean)
        for _ in range(spec.coda):
            state = self._layer(graph, state, 0, "coda")
        logits = self._head(self._norm(graph, state), embedding)
        logits = graph.add("Identity", logits, shape=graph.shape(logits))
        graph.nodes[-1].output[0] = graph.note("logits", graph.shape(logits))
        graph.made[-1] = "logits"
        graph.store_as_nodes(spec.nodes)
        return graph.model(self.inputs, ["logits"], OPSET, _properties(spec), spec.noted)

    def _prepared(self, graph: Graph) -> _Context:
        """Make masks and tables in a graph."""
        spec, known = self.spec, self.context
        text = Text(graph, spec, "input_ids", set(self.inputs), self.text.generator)
        made = _Context(rows=known.rows, values=known.values)
        for window in {None, *spec.windows}:
            if spec.fault in MASK_FAULTS:
                made.masks[window] = mask_with_fault(text, spec.fault)
            else:
                made.masks[window] = add_mask(text, window)
        if spec.rotary is not None:
            for base in spec.bases:
                made.tables[base] = rotary_tables(text, base)
        return made

    def _head(self, state: str, embedding: str) -> str:
        spec, graph = self.spec, self.graph
        head = (
            graph.transpose(embedding, 1, 0) if spec.tied else self._drawn(spec.width, VOCABULARY)
        )
        logits = graph.product(state, head)
        if spec.logit_scale is not None:
            logits = graph.binary("Mul", logits, graph.scalar(spec.logit_scale))
        return logits

    def _drawn(self, *shape: int) -> str:
        return self.text.drawn(*shape)

    def _loop(self, state: str, core: int) -> tuple[str, list[str]]:
        """Repeat the layers of a core; return the state after it, and its stacks."""
        spec, graph = self.spec, self.graph
        shape = graph.shape(state)
        body = Graph(graph.known, f"body{core}/")
        iteration = body.note(body.name("iteration"), [], INT64)
        condition = body.note(body.name("condition"), [], BOOL)
        initial = [state]
        if spec.second_state is not None:
            initial.append(self._second_state(state))
        before = [body.note(body.name("state"), shape) for _ in initial]
        outside = self.context
        if spec.inside:
            self.context = self._prepared(body)
        after = self._body(body, iteration, before)
        self.context = outside
        passed = body.add("Identity", condition, shape=[], kind=BOOL)
        stacked = [body.unary("Tanh", after[0])] if spec.stacked else []
        outputs = [passed, *after, *stacked]
        body.store_as_nodes(spec.nodes)
        proto = body.proto([iteration, condition, *before], outputs, f"core{core}", spec.noted)
        count = "loops" if spec.counted else graph.scalar(spec.loops, np.int64)
        shapes = [shape] * len(initial) + [["loops", *shape]] * len(stacked)
        true = graph.store(np.array(True))
        found = graph.add_several("Loop", count, true, *initial, shapes=shapes, body=proto)
        if spec.known or spec.counted:  # as loopedge calls them
            graph.nodes[-1].name = "core" if core == 0 else f"core{core + 1}"
        return found[0], found[len(initial) :]

    def _second_state(self, state: str) -> str:
        graph, kind = self.graph, self.spec.second_state
        if kind == "positions" and self.context.rows is not None:
            rows = self.context.rows
            sizes = graph.add("Shape", state, shape=[3], kind=INT64)
            return graph.add("Expand", rows, sizes, shape=graph.shape(state))
        if kind == "zeros":
            sizes = graph.add("Shape", state, shape=[3], kind=INT64)
            return graph.add("Expand", graph.scalar(0.0), sizes, shape=graph.shape(state))
        return graph.unary("Tanh", state)

    def _body(self, body: Graph, iteration: str, before: list[str]) -> list[str]:
        spec = self.spec
        state = before[0]
        if spec.position_place == "body" and self.context.rows is not None:
            state = body.binary("Add", state, self.context.rows)
        if len(before) > 1:
            state = body.binary("Add", state, body.binary("Mul", before[1], body.scalar(0.5)))
        if spec.timestep:
            table = self.graph.store(
                self.text.generator.normal(size=(8, spec.width)).astype(np.float32)
            )
            row = body.add("Gather", table, iteration, shape=[spec.width], axis=0)
            state = body.binary("Mul", state, row)
        state = self._inner(body, state) if spec.nested else self._layers(body, state)
        after = [state]
        if len(before) > 1:
            after.append(body.unary("Tanh", body.binary("Add", before[1], state)))
        return after

    def _layers(self, graph: Graph, state: str) -> str:
        for layer in range(self.spec.layers):
            state = self._layer(graph, state, layer, "core")
        return state

    def _inner(self, graph: Graph, state: str) -> str:
        """Repeat the layers in a Loop inside of an iteration."""
        shape = graph.shape(state)
        inner = Graph(graph.known, f"{graph.prefix}inner/")
        iteration = inner.note(inner.name("iteration"), [], INT64)
        condition = inner.note(inner.name("condition"), [], BOOL)
        before = inner.note(inner.name("state"), shape)
        after = inner.binary("Mul", self._layers(inner, before), inner.scalar(0.7))
        passed = inner.add("Identity", condition, shape=[], kind=BOOL)
        inner.store_as_nodes(self.spec.nodes)
        outputs = [passed, after]
        proto = inner.proto([iteration, condition, before], outputs, "inner", self.spec.noted)
        reads = (graph.scalar(self.spec.nested, np.int64), graph.store(np.array(True)), state)
        return graph.add("Loop", *reads, shape=shape, body=proto)

    def _layer(self, graph: Graph, state: str, layer: int, place: str) -> str:
        spec = self.spec
        fault = spec.fault if spec.fault_at == place and layer == 0 else None
        if fault in BLOCK_FAULTS and fault not in ATTENTION_FAULTS:
            state = fault_of_block(graph, self.text, state, str(fault))
            fault = None
        attended = self._attention(graph, self._norm(graph, state), layer, place, fault)
        state = graph.binary("Add", state, attended)
        wide = graph.product(self._norm(graph, state), self._drawn(spec.width, 2 * spec.width))
        wide = graph.binary("Mul", wide, graph.unary("Sigmoid", wide))
        return graph.binary(
            "Add", state, graph.product(wide, self._drawn(2 * spec.width, spec.width))
        )

    def _norm(self, graph: Graph, value: str, size: int | None = None) -> str:
        spec, width = self.spec, size or self.spec.width
        weight = self.graph.store(
            (1 + self.text.generator.normal(size=width) / 8).astype(np.float32)
        )
        match spec.norm:
            case "none" if size is None:
                return graph.binary("Mul", graph.unary("Tanh", value), weight)
            case "layer":
                return graph.unary_with("LayerNormalization", value, weight, axis=-1)
            case "operator":
                return graph.unary_with("RMSNormalization", value, weight, axis=-1)
        square = graph.binary("Mul", value, value)
        shape = [*graph.shape(value)[:-1], 1]
        mean = graph.add("ReduceMean", square, graph.ints(-1), shape=shape, keepdims=1)
        root = graph.unary("Sqrt", graph.binary("Add", mean, graph.scalar(1e-5)))
        return graph.binary("Mul", graph.binary("Div", value, root), weight)

    def _attention(
        self, graph: Graph, value: str, layer: int, place: str, fault: str | None
    ) -> str:
        spec = self.spec
        sources = dict.fromkeys(("query", "key", "value"), value)
        for part in ("key", "value"):
            if fault == f"shifted {part}s":
                sources[part] = shifted(graph, value)
        if spec.position_place == "queries" and self.context.rows is not None:
            sources["query"] = graph.binary("Add", sources["query"], self.context.rows)
            sources["key"] = graph.binary("Add", sources["key"], self.context.rows)
        heads = {"query": spec.heads, "key": spec.kv_heads, "value": spec.kv_heads}
        parts = {
            part: graph.product(source, self._drawn(spec.width, heads[part] * spec.head_size))
            for part, source in sources.items()
        }
        if spec.value_residual and spec.kv_heads == spec.heads and self.context.values:
            parts["value"] = graph.binary("Add", parts["value"], self.context.values)
        if fault == "query of the last":
            last = graph.part(parts["query"], 1, -1, 2**31 - 1, 1)
            sizes = graph.add("Shape", parts["query"], shape=[3], kind=INT64)
            parts["query"] = graph.add("Expand", last, sizes, shape=graph.shape(parts["query"]))
        whole = self._heads(graph, parts, heads, layer)
        window = spec.windows[layer % len(spec.windows)] if place == "core" else None
        if fault in {"memory keys", "memory only"}:
            self._add_memory(graph, whole, fault)
        found = self._attend(graph, whole, window, fault)
        if spec.gate:
            gate = graph.unary("Sigmoid", graph.product(value, self._drawn(spec.width, spec.width)))
            found = graph.binary("Mul", found, gate)
        return graph.product(found, self._drawn(spec.width, spec.width))

    def _heads(
        self, graph: Graph, parts: dict[str, str], heads: dict[str, int], layer: int
    ) -> dict[str, str]:
        """Split heads, norm and rotate them; (batch, heads, sequence, head size), or joined again where not ``split``."""
        spec = self.spec
        turned = spec.rotary is not None
        if not spec.split and not turned and not spec.query_norm:
            return parts
        found = {}
        tables = list(self.context.tables.values())
        for part, value in parts.items():
            shape: list[Size] = ["batch", "sequence", heads[part], spec.head_size]
            apart = graph.reshape(value, shape, 0, 0, heads[part], spec.head_size)
            if spec.query_norm and part != "value":
                apart = self._norm(graph, apart, spec.head_size)
            first = spec.rotary == "s1d"
            if turned and first and part != "value":
                apart = rotate(graph, spec, apart, tables[layer % len(tables)])
            if spec.split or (turned and not first):
                apart = graph.transpose(apart, 0, 2, 1, 3)
                if turned and not first and part != "value":
                    apart = rotate(graph, spec, apart, tables[layer % len(tables)])
                if spec.split:
                    found[part] = apart if part == "query" else self._repeated(graph, apart)
                    continue
                apart = graph.transpose(apart, 0, 2, 1, 3)
            width = heads[part] * spec.head_size
            found[part] = graph.reshape(apart, ["batch", "sequence", width], 0, 0, width)
        return found

    def _repeated(self, graph: Graph, value: str) -> str:
        """Repeat the heads of keys or values for the queries that share them."""
        spec = self.spec
        times, size = spec.heads // spec.kv_heads, spec.head_size
        shape: list[Size] = ["batch", spec.heads, "sequence", size]
        if times == 1 or spec.repeat == "native":
            return value
        if spec.repeat == "gather":
            places = graph.ints(*(head // times for head in range(spec.heads)))
            return graph.add("Gather", value, places, shape=shape, axis=1)
        apart = graph.unsqueeze(value, 2)
        wide: list[Size] = ["batch", spec.kv_heads, times, "sequence", size]
        if spec.repeat == "concat":
            spread = graph.concat(*[apart] * times, axis=2, size=times)
        elif spec.repeat == "tile":
            spread = graph.add("Tile", apart, graph.ints(1, 1, times, 1, 1), shape=wide)
        else:
            spread = graph.add("Expand", apart, graph.ints(1, 1, times, 1, 1), shape=wide)
        return graph.reshape(spread, shape, 0, spec.heads, -1, size)

    def _add_memory(self, graph: Graph, parts: dict[str, str], fault: str | None) -> None:
        for part in ("key", "value"):
            value = parts[part]
            shape = list(graph.shape(value))
            axis = 2 if len(shape) == 4 else 1
            rows = [
                int(size) if place not in {0, axis} else 5
                for place, size in enumerate(shape)
                if place
            ]
            memory = self._drawn(1, *rows)
            first = graph.add("Shape", value, shape=[1], kind=INT64, start=0, end=1)
            rest = graph.ints(*rows)
            sizes = graph.add("Concat", first, rest, shape=[len(shape)], kind=INT64, axis=0)
            wide = graph.add("Expand", memory, sizes, shape=["batch", *rows])
            joined = (
                wide
                if fault == "memory only"
                else graph.concat(wide, value, axis=axis, size="longer")
            )
            parts[part] = joined

    def _attend(
        self, graph: Graph, parts: dict[str, str], window: int | None, fault: str | None
    ) -> str:
        spec = self.spec
        mask = self.context.masks.get(window)
        if fault in {"memory keys", "memory only"}:
            mask = None
        attributes: dict[str, Any] = {}
        if mask is None and fault != "memory only":
            attributes["is_causal"] = 1
        if spec.scale is not None:
            attributes["scale"] = spec.scale
        if spec.softcap:
            attributes["softcap"] = spec.softcap
        query = parts["query"]
        if len(graph.shape(query)) == 3:
            attributes |= {"q_num_heads": spec.heads, "kv_num_heads": spec.kv_heads}
        reads = [query, parts["key"], parts["value"], *([] if mask is None else [mask])]
        found = graph.add("Attention", *reads, shape=graph.shape(query), **attributes)
        if len(graph.shape(query)) == 3:
            return found
        turned = graph.transpose(found, 0, 2, 1, 3)
        return graph.reshape(turned, ["batch", "sequence", spec.width], 0, 0, spec.width)
