"""Generate files written by hand: a Scan with a cache, or its iterations written out, and a forward in numpy.

Tiny language models with random weights, in the layout of what ``loopedge to-generate`` writes. No torch is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loopedge.artifact.companions import companion_contents, describe_companions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["BYTES_TASK", "GenerateModel", "write_generate_file"]

HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 8
WIDTH = HEADS * HEAD_SIZE
BYTES_TASK = {"name": "text", "tokenizer": "bytes", "vocab_size": 256}
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int4": TensorProto.UINT8,
}


@dataclass(kw_only=True)
class GenerateModel:
    """A looped language model: an attention layer before the loop, one in it, one behind it, as asked for.

    Args:
        loops: Iterations that the file runs unless somebody chooses.
        max_loops: Rows of its timestep table.
        context: Rows of its position table.
        vocab: Size of the vocabulary.
        form: ``scan``, or ``unrolled``: the iterations written out.
        cache: ``per-loop`` or, unrolled alone, ``last-loop``.
        cache_type: Of the cache; float16 makes all of the attention float16.
        places: Where attention layers stand.
        window: Of the attention of the core.
        spoiled: An id whose embedding is NaN.
        end_ids: Of the metadata.
        properties: Other metadata.
    """

    loops: int = 3
    max_loops: int = 4
    context: int | None = 48
    vocab: int = 256
    form: Literal["scan", "unrolled"] = "scan"
    cache: Literal["per-loop", "last-loop"] = "per-loop"
    cache_type: Literal["float32", "float16", "int8", "int4"] = "float32"
    places: tuple[str, ...] = ("core",)
    window: int | None = None
    spoiled: int | None = None
    end_ids: tuple[int, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    weights: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(self.seed)

        def draw(*shape: int, scale: float = 0.2) -> Array:
            return (drawn.standard_normal(shape) * scale).astype(np.float32)

        weights = {
            "table": draw(self.vocab, WIDTH, scale=1.0),
            "steps": draw(self.max_loops, WIDTH),
        }
        weights["places"] = draw(64 if self.context is None else self.context, WIDTH)
        for place in ("prelude", "core", "coda"):
            for name, width in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                weights[f"{place}.{name}"] = draw(WIDTH, width * HEAD_SIZE)
            weights[f"{place}.o"] = draw(WIDTH, WIDTH)
        weights["head"] = weights["table"].T.copy()
        if self.spoiled is not None:
            weights["table"][self.spoiled] = np.nan
        self.weights = weights

    def logits(self, ids: Sequence[int], loops: int | None = None) -> Array:
        """Return the logits of every position, float32 (sequence, vocabulary), computed without a cache."""
        state = self.weights["table"][list(ids)] + self.weights["places"][: len(ids)]
        if "prelude" in self.places:
            state = self._layer("prelude", state)
        for t in range(loops or self.loops):
            state = self._layer("core", state + self.weights["steps"][t])
        if "coda" in self.places:
            state = self._layer("coda", state)
        logits: Array = state @ self.weights["head"]
        return logits

    def greedy(self, ids: Sequence[int], count: int, loops: int | None = None) -> list[int]:
        """Return the most likely tokens, one after the other, each by a full computation."""
        text = list(ids)
        for _ in range(count):
            text.append(int(self.logits(text, loops)[-1].argmax()))
        return text[len(ids) :]

    def _layer(self, place: str, state: Array) -> Array:
        length = len(state)
        queries = (state @ self.weights[f"{place}.q"]).reshape(length, HEADS, HEAD_SIZE)
        keys = (state @ self.weights[f"{place}.k"]).reshape(length, KV_HEADS, HEAD_SIZE)
        values = (state @ self.weights[f"{place}.v"]).reshape(length, KV_HEADS, HEAD_SIZE)
        keys, values = (np.repeat(x, HEADS // KV_HEADS, axis=1) for x in (keys, values))
        scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(HEAD_SIZE)
        ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
        hidden = ahead > 0
        if place == "core" and self.window is not None:
            hidden |= ahead < -self.window
        scores = np.where(hidden, -np.inf, scores)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, values).reshape(length, WIDTH)
        new: Array = np.tanh(state + mixed @ self.weights[f"{place}.o"])
        return new

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says of itself, without the ``loopedge.`` before each name."""
        slots = [
            {
                "name": f"{place}.0",
                "loops": self.loops if place == "core" else None,
                "kv_heads": KV_HEADS,
                "head_size": HEAD_SIZE,
                "window": self.window if place == "core" else None,
            }
            for place in self.places
        ]
        return {
            "version": "0.1.0",
            "form": self.form,
            "loops": self.loops,
            "trained_loops": self.loops,
            "max_loops": self.max_loops if self.form == "scan" else self.loops,
            "max_length": self.context,
            "logits": "last",
            "task": BYTES_TASK if self.vocab == 256 else {},
            "generate": {
                "cache": self.cache,
                "cache_type": self.cache_type,
                "context": self.context,
                "vocab_size": self.vocab,
                "slots": slots,
                "end_ids": list(self.end_ids),
            },
            **self.properties,
        }


def write_generate_file(
    model: GenerateModel, path: Path, companions: Mapping[str, str] | None = None
) -> Path:
    """Write the file of a model, and companions beside it; return its path."""
    properties = model.metadata
    if companions:
        found = describe_companions(companions, path)
        properties["companions"] = {name: each.model_dump() for name, each in found.items()}
        for name, content in companion_contents(companions, path).items():
            (path.parent / name).write_bytes(content)
    proto = _Graph(model).proto()
    for name, value in properties.items():
        if value is not None:
            entry = proto.metadata_props.add()
            entry.key, entry.value = f"loopedge.{name}", json.dumps(value)
    onnx.save(proto, path)
    return path


class _Graph:
    """The graph of a model, as it is put together."""

    def __init__(self, model: GenerateModel) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("batch", "sequence")),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ("batch",)),
        ]
        self.outputs = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 1, model.vocab))
        ]
        half = model.cache_type == "float16"
        self.constants = {
            name: value.astype(np.float16) if half and "." in name else value
            for name, value in model.weights.items()
        }
        self.constants |= {
            "one": np.array([1], np.int64),
            "zero": np.array([0], np.int64),
            "start": np.array(0, np.int64),
            "step": np.array(1, np.int64),
            "one32": np.array(1, np.int32),
            "scale": np.array([0.04 if model.cache_type == "int8" else 0.6], np.float32),
        }

    def proto(self) -> onnx.ModelProto:
        model = self.model
        self._head()
        state = "state"
        if "prelude" in model.places:
            state = self._outer("prelude", state, "prelude.0", "prelude.0")
        state = self._scan(state) if model.form == "scan" else self._written_out(state)
        if "coda" in model.places:
            state = self._outer("coda", state, "coda.0", "coda.0")
        self._tail(state)
        bodies = [node.attribute[0].g for node in self.nodes if node.op_type == "Scan"]
        everywhere = [*self.nodes, *(node for body in bodies for node in body.node)]
        read = {name for node in everywhere for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "generate",
            self.inputs,
            self.outputs,
            [
                numpy_helper.from_array(value, name)
                for name, value in self.constants.items()
                if name in read
            ],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _head(self) -> None:
        self._add("Shape", ["input_ids"], "length_", start=1, end=2)
        self._add("Squeeze", ["length_", "zero"], "length")
        self._add("Cast", ["lengths"], "lengths64", to=TensorProto.INT64)
        self._add("Sub", ["lengths64", "length_"], "past_")
        self._add("Max", ["past_", "zero"], "past")
        self._add("Range", ["start", "length", "step"], "offsets")
        self._add("Unsqueeze", ["past", "one"], "past_column")
        self._add("Add", ["offsets", "past_column"], "positions")
        self._add("Gather", ["table", "input_ids"], "embedded")
        self._add("Gather", ["places", "positions"], "placed")
        self._add("Add", ["embedded", "placed"], "state")
        self._add("Sub", ["lengths", "one32"], "lasts")
        self._add("ReduceMax", ["lengths"], "total", keepdims=0)

    def _tail(self, state: str) -> None:
        self._add("Sub", ["lengths64", "past"], "valid")
        self._add("Sub", ["valid", "one"], "last")
        self._add("Unsqueeze", ["last", "one"], "index")
        self._add("GatherND", [state, "index"], "picked", batch_dims=1)
        self._add("Unsqueeze", ["picked", "one"], "row")
        self._add("MatMul", ["row", "head"], "logits")

    def _layer(
        self, place: str, state: str, pasts: Sequence[str], presents: Sequence[str], tag: str
    ) -> tuple[list[onnx.NodeProto], str]:
        """Return the nodes of a layer and its output."""
        model = self.model
        half = model.cache_type == "float16"
        nodes, source = [], state
        if half:
            source = f"{tag}.half"
            nodes.append(helper.make_node("Cast", [state], [source], to=TensorProto.FLOAT16))
        nodes += [
            helper.make_node("MatMul", [source, f"{place}.{name}"], [f"{tag}.{name}"])
            for name in "qkv"
        ]
        inputs = [f"{tag}.{name}" for name in "qkv"] + [*pasts, "lasts", "total"]
        attributes: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": KV_HEADS}
        if model.cache_type in {"int8", "int4"}:
            inputs += [""] * 5 + ["scale", "scale"]
            attributes["k_quant_type"] = attributes["v_quant_type"] = "PER_TENSOR"
            attributes["kv_cache_bit_width"] = 8 if model.cache_type == "int8" else 4
        if place == "core" and model.window is not None:
            attributes["local_window_size"] = model.window + 1  # the position itself counts
        mixed = [f"{tag}.mixed", *presents]
        nodes.append(
            helper.make_node(
                "GroupQueryAttention", inputs, mixed, domain="com.microsoft", **attributes
            )
        )
        nodes.append(helper.make_node("MatMul", [mixed[0], f"{place}.o"], [f"{tag}.out"]))
        out = f"{tag}.out"
        if half:
            nodes.append(helper.make_node("Cast", [out], [f"{tag}.wide"], to=TensorProto.FLOAT))
            out = f"{tag}.wide"
        nodes.append(helper.make_node("Add", [state, out], [f"{tag}.sum"]))
        nodes.append(helper.make_node("Tanh", [f"{tag}.sum"], [f"{tag}.new"]))
        return nodes, f"{tag}.new"

    def _slot(
        self, name: str, present: str, *, loops: str | None, declare: bool = True
    ) -> list[list[str]]:
        size = HEAD_SIZE // 2 if self.model.cache_type == "int4" else HEAD_SIZE
        shape: tuple[str | int, ...] = ("batch", KV_HEADS, "max_length", size)
        if loops is not None:
            shape = (loops, *shape)
        dtype = TYPES[self.model.cache_type]
        names = []
        for side in ("key", "value"):
            if declare:
                self.inputs.append(
                    helper.make_tensor_value_info(f"past.{name}.{side}", dtype, shape)
                )
            self.outputs.append(
                helper.make_tensor_value_info(f"present.{present}.{side}", dtype, shape)
            )
            names.append([f"past.{name}.{side}", f"present.{present}.{side}"])
        return names

    def _outer(
        self, place: str, state: str, name: str, present: str, *, declare: bool = True
    ) -> str:
        ports = self._slot(name, present, loops=None, declare=declare)
        pasts, presents = ([port[side] for port in ports] for side in (0, 1))
        nodes, new = self._layer(place, state, pasts, presents, f"at.{present}")
        self.nodes += nodes
        return new

    def _written_out(self, state: str) -> str:
        shared = self.model.cache == "last-loop"
        for t in range(self.model.loops):
            self.constants[f"t{t}"] = np.array(t, np.int64)
            self._add("Gather", ["steps", f"t{t}"], f"row{t}")
            state = self._add("Add", [state, f"row{t}"], f"timed{t}")
            name = "core.0" if shared else f"core.{t}.0"
            state = self._outer("core", state, name, f"core.{t}.0", declare=t == 0 or not shared)
        return state

    def _scan(self, state: str) -> str:
        """Add a Scan over the slices of the cache; the iteration number and the state are carried."""
        ports = self._slot("core.0", "core.0", loops="loops")
        size = HEAD_SIZE // 2 if self.model.cache_type == "int4" else HEAD_SIZE
        dtype = TYPES[self.model.cache_type]
        cached = ("batch", KV_HEADS, "max_length", size)
        nodes = [
            helper.make_node("Gather", ["steps", "t"], ["row"]),
            helper.make_node("Add", ["x", "row"], ["timed"]),
        ]
        layer, new = self._layer("core", "timed", ["k", "v"], ["k.new", "v.new"], "body")
        nodes += [*layer, helper.make_node("Add", ["t", "step"], ["t.new"])]
        shape = ("batch", "sequence", WIDTH)
        body = helper.make_graph(
            nodes,
            "body",
            [
                helper.make_tensor_value_info("t", TensorProto.INT64, ()),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
                helper.make_tensor_value_info("k", dtype, cached),
                helper.make_tensor_value_info("v", dtype, cached),
            ],
            [
                helper.make_tensor_value_info("t.new", TensorProto.INT64, ()),
                helper.make_tensor_value_info(new, TensorProto.FLOAT, shape),
                helper.make_tensor_value_info("k.new", dtype, cached),
                helper.make_tensor_value_info("v.new", dtype, cached),
            ],
        )
        self.nodes.append(
            helper.make_node(
                "Scan",
                ["start", state, *(port[0] for port in ports)],
                ["t.end", "looped", *(port[1] for port in ports)],
                name="core",
                body=body,
                num_scan_inputs=2,
            )
        )
        return "looped"
