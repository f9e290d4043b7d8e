"""A file as exporters write it: one layer four times, each time with its own copy of the same weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["D", "write_tied"]

D = 16
RNG = np.random.default_rng(0)
W = (RNG.normal(size=(D, D)) / np.sqrt(D)).astype(np.float32)
B = (RNG.normal(size=D) / 10).astype(np.float32)
OTHERS = (RNG.normal(size=(4, D, D)) / np.sqrt(D)).astype(np.float32)


def write_tied(
    path: Path,
    *,
    operators: Sequence[str] = ("Tanh",) * 4,
    weights: Sequence[Any] = (W,) * 4,
    axes: Sequence[str | int] = ("batch", "sequence"),
    external: bool = False,
) -> Path:
    """Write ``x = x + operator(x @ W + B)``, once per operator.

    Args:
        path: Where to.
        operators: Of the iterations.
        weights: Of the iterations, each stored for itself.
        axes: Of the input, in front of its features.
        external: Weights stand in ``PATH.data``.
    """
    nodes, stored, state = [], [], "x"
    for t, (operator, weight) in enumerate(zip(operators, weights, strict=True)):
        stored += [numpy_helper.from_array(weight, f"w{t}"), numpy_helper.from_array(B, f"b{t}")]
        nodes += [
            helper.make_node("MatMul", [state, f"w{t}"], [f"product{t}"], name=f"linear{t}"),
            helper.make_node("Add", [f"product{t}", f"b{t}"], [f"sum{t}"]),
            helper.make_node(operator, [f"sum{t}"], [f"changed{t}"]),
            helper.make_node("Add", [f"changed{t}", state], [f"state{t}"]),
        ]
        state = f"state{t}"
    nodes.append(helper.make_node("Neg", [state], ["y"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*axes, D]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "tied", ports[:1], ports[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    beside = f"{path.name}.data" if external else None
    onnx.save(model, path, save_as_external_data=external, location=beside, size_threshold=64)
    return path
