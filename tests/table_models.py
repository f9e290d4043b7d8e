"""Models of tables that repeat what they see, so that a test can compute by hand what they answer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loopedge.graph.metadata import ArtifactMetadata, write_metadata

TASK: dict[str, Any] = {
    "name": "series",
    "targets": ["y"],
    "covariates": ["x"],
    "context": 4,
    "min_context": 4,
    "horizon": 2,
    "mean": [7.0, 8.0],
    "scale": [1e3, 1e3],
}
LABELS: dict[str, Any] = {
    "name": "series-labels",
    "covariates": ["y", "x"],
    "label": "busy",
    "classes": ["no", "yes, very"],
    "context": 4,
    "min_context": 4,
    "mean": [7.0, 8.0],
    "scale": [1e3, 1e3],
}


def repeating_model(path: Path, task: dict[str, Any], **known: Any) -> Path:
    """Write a model whose forecast is the last table rows of its targets, and whose logits are the last table row.

    It also gives back what it was fed: ``seen`` and, where windows may be short, ``kept``.
    """
    columns = len(task["mean"])
    labels = task["name"] == "series-labels"
    kind = TensorProto.DOUBLE if task.get("wide") else TensorProto.FLOAT
    mask = task["min_context"] < task["context"]
    steps = 1 if labels else task["horizon"]
    answers = len(task["classes"]) if labels else len(task["targets"])
    constants = {
        "starts": [-steps, 0],
        "ends": [2**31, answers],
        "axes": [1, 2],
        "first": [1],
    }
    nodes = [
        helper.make_node("Slice", ["inputs", "starts", "ends", "axes"], ["last"]),
        helper.make_node("Squeeze", ["last", "first"], ["logits"])
        if labels
        else helper.make_node("Identity", ["last"], ["outputs"]),
        helper.make_node("Identity", ["inputs"], ["seen"]),
    ]
    fed: list[str | int | None] = ["batch", "sequence", columns]
    inputs = [helper.make_tensor_value_info("inputs", kind, fed)]
    sizes: list[str | int | None] = ["batch", answers] if labels else ["batch", steps, answers]
    outputs = [
        helper.make_tensor_value_info("logits" if labels else "outputs", kind, sizes),
        helper.make_tensor_value_info("seen", kind, fed),
    ]
    if mask:
        places = ["batch", "sequence"]
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, places))
        outputs.append(helper.make_tensor_value_info("kept", TensorProto.INT64, places))
        nodes.append(helper.make_node("Identity", ["attention_mask"], ["kept"]))
    graph = helper.make_graph(
        nodes,
        "repeats",
        inputs,
        outputs,
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    fields = {
        "version": "0",
        "form": "unrolled",
        "loops": 1,
        "trained_loops": 1,
        "max_length": task["context"],
        "min_length": task["min_context"],
        "missing_values": task.get("missing") == "indicator",
        "task": task,
    }
    properties: dict[str, str] = {}
    write_metadata(ArtifactMetadata.model_validate(fields | known), properties)
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path
