"""Gates folded into the scales of int8 products: the same outputs, an operator and a table less."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact, open_artifact
from loopedge.quantizer.activations.gates import fold_gates
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.schemes.static import quantize_static
from tests.parity.models import SEVEN_BITS, Sizes, make_inputs, make_model

Exporter = Callable[..., Path]
GATED = {"core/linear_3": "core/mul", "core/linear_5": "core/mul"}


def optimized(path: Path) -> list[str]:
    """Return the operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    ort.InferenceSession(path, options)
    return [node.op_type for node in ir.load(options.optimized_model_filepath).graph.all_nodes()]


def unfolded(source: Path) -> tuple[ir.Model, RangeTable]:
    model = open_artifact(source).clone()
    feeds = make_inputs(make_model("tokens"), Sizes(8, 12))[1]
    table = loopedge_calibration.collect(source, [feeds])
    quantize_static(model, table)
    return model, table


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_folding_changes_no_output(form: str, exported: Exporter, tmp_path: Path) -> None:
    model, _ = unfolded(exported("tokens", form=form))
    ir.save(model, tmp_path / "plain.onnx")
    before = [node.op_type for node in model.graph.all_nodes()]
    kinds = optimized(tmp_path / "plain.onnx")
    moved = fold_gates(model)
    ir.save(model, tmp_path / "folded.onnx")
    after = [node.op_type for node in model.graph.all_nodes()]
    assert list(moved) == list(GATED)
    times = 3 if form == "unrolled" else 1
    assert before.count("Gather") == after.count("Gather")
    assert after.count("MatMulInteger") == (2 if form == "loop" else 0)
    fused = optimized(tmp_path / "folded.onnx")
    assert fused.count("MatMulIntegerToFloat") == kinds.count("MatMulIntegerToFloat")
    assert kinds.count("Mul") - fused.count("Mul") == 2 * times
    assert not any(name.startswith("timestep.gate") for name in model.graph.initializers)
    assert model.graph.initializers["range.core/linear_3.gated_scale"].shape == (3, 32)
    assert "core_layers.0.attention.o.weight.scale" not in model.graph.initializers
    feeds = make_inputs(make_model("tokens"), Sizes(3, 16), seed=3)[1]
    plain, folded = (
        loopedge.Session(tmp_path / name).run(feeds)["logits"]
        for name in ("plain.onnx", "folded.onnx")
    )
    assert np.abs(folded - plain).max() <= 1e-5 * np.abs(plain).max()


def test_a_gate_that_hides_an_iteration_stays(exported: Exporter, tmp_path: Path) -> None:
    model, _ = unfolded(exported("tokens"))
    gate = model.graph.initializers["timestep.gate_mlp.0"]
    assert gate.const_value is not None
    rows = gate.const_value.numpy().copy()
    rows[1] = 0
    gate.const_value = ir.tensor(rows, name=gate.name)
    assert list(fold_gates(model)) == ["core/linear_3"]
    assert "timestep.gate_mlp.0" in model.graph.initializers


@pytest.mark.slow
def test_a_product_of_the_loop_has_one_weight_scale_or_standard_operators(
    exported: Exporter, tmp_path: Path
) -> None:
    """A MatMulIntegerToFloat whose weight scale changes by iteration is computed wrongly by OpenVINO."""
    feeds = make_inputs(make_model("tokens"), Sizes(8, 12))[1]
    ranges = loopedge_calibration.collect(exported("tokens"), [feeds])
    for memory, fused in (("balanced", 4), ("low", 6)):
        path = tmp_path / f"{memory}.onnx"
        loopedge.quantize(exported("tokens"), path, ranges=ranges, memory=memory, **SEVEN_BITS)
        core = [n for n in ir.load(path).graph.all_nodes() if (n.name or "").startswith("core/")]
        products = [node for node in core if node.op_type == "MatMulIntegerToFloat"]
        assert len(products) == fused
        for node in products:
            assert node.inputs[3] is not None
            assert node.inputs[3].const_value is not None


def test_products_of_standard_operators_are_gated_too(exported: Exporter, tmp_path: Path) -> None:
    source = exported("tokens")
    feeds = make_inputs(make_model("tokens"), Sizes(3, 16), seed=3)[1]
    table = loopedge_calibration.collect(
        source, [make_inputs(make_model("tokens"), Sizes(8, 12))[1]]
    )
    outputs, kinds = [], []
    for folds in (False, True):
        model = Artifact.open(source).float32_graph()
        quantize_static(model, table, ops="standard")
        assert list(fold_gates(model) if folds else GATED) == list(GATED)
        ir.save(model, tmp_path / f"{folds}.onnx")
        outputs.append(loopedge.Session(tmp_path / f"{folds}.onnx").run(feeds)["logits"])
        kinds.append([node.op_type for node in model.graph.all_nodes()])
    assert kinds[0].count("Mul") - kinds[1].count("Mul") == 2
    assert np.abs(outputs[1] - outputs[0]).max() <= 1e-5 * np.abs(outputs[0]).max()


@pytest.mark.slow
def test_biased_products_keep_their_gates(exported: Exporter) -> None:
    source = exported("series")
    feeds = make_inputs(make_model("series"), Sizes(8, 12))[1]
    for ops in ("microsoft", "standard"):
        model = Artifact.open(source).float32_graph()
        quantize_static(model, loopedge_calibration.collect(source, [feeds]), ops=ops)
        assert fold_gates(model) == {}


def test_what_the_gated_products_give_is_checked(exported: Exporter, tmp_path: Path) -> None:
    source, target = exported("tokens"), tmp_path / "q.onnx"
    feeds = make_inputs(make_model("tokens"), Sizes(8, 12))[1]
    table = loopedge_calibration.collect(source, [feeds])
    result = loopedge.quantize(source, target, ranges=table, data=[feeds], **SEVEN_BITS)
    assert set(GATED) <= set(result.sqnr_db_linears)
    assert min(result.sqnr_db_linears.values()) > 30
    tables = loopedge.inspect(target).metadata["tables"]
    assert tables == ["timestep.norm_attention.0", "timestep.norm_mlp.0"]
