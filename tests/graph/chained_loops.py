"""A small transformer whose main graph holds several Loops, each with its own number of iterations, written by hand.

One is an artifact of loopedge, its Loops called ``core`` and ``core2``; one is of another tool, whose bodies use the same names
for their nodes and values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from loopedge.graph.metadata import ArtifactMetadata, write_metadata

__all__ = ["COUNTS", "LINEARS", "WIDTH", "X", "chained", "write_chained"]

Array = NDArray[Any]
WIDTH, HIDDEN, FEATURES = 32, 64, 5
COUNTS = (4, 3)
LINEARS = ("q", "k", "v", "o", "up", "down")
SHAPES = {"up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
X = np.random.default_rng(3).normal(size=(24, 7, FEATURES)).astype(np.float32)
STATE: list[str | int] = ["batch", "sequence", WIDTH]


def chained(
    counts: Sequence[int] = COUNTS,
    *,
    shared: bool = False,
    own: bool = True,
    count_input: bool = False,
    one_table: bool = False,
    outlier: float = 1.0,
    opset: int = 21,
) -> onnx.ModelProto:
    """Return a graph of Loops one behind the other.

    Args:
        counts: Iterations of each Loop.
        shared: All read the weights of the first.
        own: It is an artifact, with metadata and names of loopedge.
        count_input: The first count is an input ``n``.
        one_table: All read the table of the first.
        outlier: Factor of one channel in all tables.
        opset: Of the graph.
    """
    random = np.random.default_rng(0)
    stored: dict[str, Any] = {
        "enter": random.normal(size=(FEATURES, WIDTH)).astype(np.float32),
        "leave": random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 6,
        "go": np.array(True),
        "root": np.array(WIDTH**-0.5, np.float32),
    }
    nodes = [helper.make_node("MatMul", ["inputs", "enter"], ["state0"], "prelude/enter")]
    for place, count in enumerate(counts):
        core = ("core" if not place else f"core{place + 1}") if own else f"/layer.{place}/Loop"
        weights = {name: f"{name}{0 if shared else place}" for name in LINEARS}
        for name, stored_name in weights.items():
            shape = SHAPES.get(name, (WIDTH, WIDTH))
            drawn = random.normal(size=shape).astype(np.float32) / np.sqrt(shape[0])
            stored.setdefault(stored_name, drawn)
        table = f"{'timestep.' if own else 'rows.'}scale{0 if one_table else place}"
        rows = np.linspace(0.5, 2, count)[:, None] * random.uniform(0.5, 1.5, (count, WIDTH))
        rows[:, 3] *= outlier
        stored.setdefault(table, rows.astype(np.float32))
        stored[f"count{place}"] = np.array(count)
        body = _body(f"{core}/" if own else "", weights, table)
        trips = "n" if count_input and not place else f"count{place}"
        nodes.append(
            helper.make_node(
                "Loop", [trips, "go", f"state{place}"], [f"state{place + 1}"], core, body=body
            )
        )
    last = f"state{len(counts)}"
    stored |= {name: np.ones(WIDTH, np.float32) for name in ("ones", "final")}
    nodes += [
        helper.make_node("LayerNormalization", [last, "final"], ["normed"], "coda/norm"),
        helper.make_node("MatMul", ["normed", "leave"], ["outputs"], "coda/leave"),
    ]
    inputs = [_tensor("inputs", TensorProto.FLOAT, ["batch", "sequence", FEATURES])]
    if count_input:
        inputs.append(_tensor("n", TensorProto.INT64, []))
    graph = helper.make_graph(
        nodes,
        "chained",
        inputs,
        [_tensor("outputs", TensorProto.FLOAT, STATE)],
        [numpy_helper.from_array(_single(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if own:
        helper.set_model_props(model, _properties(counts, [n for n in stored if "timestep" in n]))
    return model


def write_chained(path: Path, counts: Sequence[int] = COUNTS, **options: Any) -> Path:
    """Write such a graph."""
    onnx.save(chained(counts, **options), path)
    return path


def _properties(counts: Sequence[int], tables: list[str]) -> dict[str, str]:
    names = ["core", *(f"core{place}" for place in range(2, len(counts) + 1))]
    metadata = ArtifactMetadata(
        version="0",
        form="loop",
        loops=counts[0],
        trained_loops=counts[0],
        cores=dict(zip(names, counts, strict=True)) if len(counts) > 1 else None,
        tables=tables,
    )
    found: dict[str, str] = {}
    write_metadata(metadata, found)
    return found


def _body(prefix: str, weights: Mapping[str, str], table: str) -> onnx.GraphProto:
    """Return attention and an MLP behind norms, of which the first is scaled by a row of the table."""
    made: list[onnx.NodeProto] = []

    def node(op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [prefix + name], prefix + name, **attributes))
        return prefix + name

    i, going, state = f"{prefix}i", f"{prefix}going", f"{prefix}state"
    go_on = node("Identity", [going], "on")
    row = node("Gather", [table, i], "row", axis=0)
    normed = node("Mul", [node("LayerNormalization", [state, "ones"], "norm"), row], "normed")
    q, k, v = (node("MatMul", [normed, weights[name]], name) for name in "qkv")
    turned = node("Transpose", [k], "turned", perm=[0, 2, 1])
    scores = node("MatMul", [q, turned], "scores")
    scaled = node("Mul", [scores, "root"], "scaled")
    read = node("MatMul", [node("Softmax", [scaled], "shares", axis=-1), v], "read")
    mixed = node("Add", [state, node("MatMul", [read, weights["o"]], "o")], "mixed")
    again = node("LayerNormalization", [mixed, "ones"], "again")
    up = node("Tanh", [node("MatMul", [again, weights["up"]], "up")], "active")
    following = node("Add", [mixed, node("MatMul", [up, weights["down"]], "down")], "next")
    return helper.make_graph(
        made,
        f"{prefix}body",
        [
            _tensor(i, TensorProto.INT64, []),
            _tensor(going, TensorProto.BOOL, []),
            _tensor(state, TensorProto.FLOAT, STATE),
        ],
        [_tensor(go_on, TensorProto.BOOL, []), _tensor(following, TensorProto.FLOAT, STATE)],
    )


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _tensor(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
