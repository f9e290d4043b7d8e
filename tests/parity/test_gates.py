"""Gates folded into the scales of int8 products: the same outputs, an operator and a table less."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
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


def unfolded(source: Path) -> tuple[ir.Model, RangeTable]:
    model = open_artifact(source).clone()
    feeds = make_inputs(make_model("tokens"), Sizes(8, 12))[1]
    table = loopedge_calibration.collect(source, [feeds])
    quantize_static(model, table)
    return model, table


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_folding_changes_no_output(form: str, exported: Exporter, tmp_path: Path) -> None:
    model, _ = unfolded(exported("tokens", form=form))
    ir.save(model, tmp_path / "plain.onnx")
    before = [node.op_type for node in model.graph.all_nodes()]
    moved = fold_gates(model)
    ir.save(model, tmp_path / "folded.onnx")
    after = [node.op_type for node in model.graph.all_nodes()]
    assert list(moved) == list(GATED)
    times = 3 if form == "unrolled" else 1
    assert before.count("Mul") - after.count("Mul") == 2 * times
    assert before.count("Gather") == after.count("Gather")
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


@pytest.mark.parametrize(("kind", "ops"), [("tokens", "standard"), ("series", "microsoft")])
def test_biased_and_standard_products_keep_their_gates(
    kind: str, ops: str, exported: Exporter
) -> None:
    source = exported(kind)
    table = loopedge_calibration.collect(source, [make_inputs(make_model(kind), Sizes(8, 12))[1]])
    model = Artifact.open(source).float32_graph()
    quantize_static(model, table, ops=ops)
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
