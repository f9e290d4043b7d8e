"""Files that ONNX Runtime's optimizers leave as they are: found, marked, and opened without them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.deployment.optimizers import nothing_to_optimize
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.metadata import read_metadata
from loopedge.graph.passes.half import compute_in_float16

OFF, ON = (getattr(ort.GraphOptimizationLevel, f"ORT_{name}_ALL") for name in ("DISABLE", "ENABLE"))


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a model that is wide enough for its head to be read in place."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=512, heads=8, loops=2, vocab_size=1024, max_length=128, timestep="learned"
    )
    model = loopedge.LoopedTransformer(config).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("timestep."):
            torch.nn.init.normal_(parameter, 0.3, 0.3)  # no gate is zero
    path = tmp_path_factory.mktemp("low") / "model.onnx"
    loopedge.export(model, path, memory="low")
    return path


def is_marked(path: Path) -> bool:
    metadata = read_metadata(open_artifact(path).metadata_props)
    assert not metadata.foreign
    return metadata.optimized


def level(path: Path, **options: Any) -> Any:
    session = loopedge.Session(path, threads=1, **options)
    return session.session.get_session_options().graph_optimization_level


def write(path: Path, *nodes: onnx.NodeProto) -> Path:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).ravel())
    rows = helper.make_tensor("first", TensorProto.INT64, [], [0])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    ends[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4]))
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], [weight, rows])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_a_graph_with_nothing_to_fuse(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]))
    assert nothing_to_optimize(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_a_row_that_is_read_at_a_constant_place_costs_nothing(tmp_path: Path) -> None:
    row = helper.make_node("Gather", ["w", "first"], ["row"])
    path = write(tmp_path / "m.onnx", row, helper.make_node("Add", ["x", "row"], ["y"]))
    assert nothing_to_optimize(path)


def test_a_graph_that_would_be_fused(tmp_path: Path) -> None:
    turned = helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0])
    doubled = helper.make_node("Add", ["x", "x"], ["doubled"])
    again = helper.make_node("Transpose", ["doubled"], ["back"], perm=[1, 0])
    product = helper.make_node("MatMul", ["back", "turned"], ["y"])
    assert not nothing_to_optimize(write(tmp_path / "m.onnx", turned, doubled, again, product))


@pytest.mark.slow
def test_a_marked_file_is_opened_without_optimizers(low: Path) -> None:
    assert is_marked(low)
    assert level(low) == OFF
    assert level(low, memory="balanced") == ON
    feeds = generate_inputs(open_artifact(low), batch=2, sequence=16)
    plain, packed = (
        loopedge.Session(low, threads=1, memory=memory).run(feeds)["logits"]
        for memory in ("low", "balanced")
    )
    np.testing.assert_allclose(plain, packed, atol=1e-5)


@pytest.mark.slow
def test_what_is_made_of_it_is_looked_at_again(low: Path, tmp_path: Path) -> None:
    for changed in (unroll(open_artifact(low)), compute_in_float16(open_artifact(low))):
        metadata = read_metadata(changed.metadata_props)
        assert not metadata.foreign
        assert not metadata.optimized
    samples = [{"input_ids": np.arange(64).reshape(2, 32)}]
    ranges = loopedge_calibration.collect(low, samples, threads=1)
    for memory, marked in (("low", True), ("balanced", False)):
        target = tmp_path / f"{memory}.onnx"
        loopedge.quantize(low, target, ranges=ranges, data=samples, threads=1, memory=memory)
        assert is_marked(target) == marked


@pytest.mark.slow
@pytest.mark.parametrize("choice", [{"memory": "balanced"}, {"memory": "low", "opset": 18}])
def test_a_file_that_needs_them_keeps_them(tmp_path: Path, choice: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(d_model=16, heads=2, loops=2, vocab_size=16, max_length=8)
    path = tmp_path / "m.onnx"
    loopedge.export(loopedge.LoopedTransformer(config).eval(), path, **choice)
    assert not is_marked(path)
    assert level(path) == ON
