"""Dynamic int8 in both forms: coverage, one copy of each weight, and the outputs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.errors import BudgetError, InputError, VerificationError
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.graph.weights import linears
from tests.parity.models import (
    FLIPS,
    FLIPS_DB,
    SEVEN_BITS,
    Sizes,
    make_inputs,
    make_model,
    noise_share,
)

Exporter = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_every_linear_of_the_core_becomes_int8(
    form: str, exported: Exporter, tmp_path: Path
) -> None:
    source = exported("series", form=form)
    result = loopedge.quantize(source, tmp_path / "int8.onnx")
    layers, loops, outer = 2, 3, 2  # input and head stand outside the core
    count = outer + 6 * layers * (loops if form == "unrolled" else 1)
    found, stored = result.matmuls, 2 * (4 * 32 * 32 + 2 * 32 * 128)
    assert (found["quantized"], found["total"], found["skipped"]) == (count, count, [])
    assert stored < found["bytes"] == found["total_bytes"] < 1.1 * stored  # a byte a weight
    graph = ir.load(tmp_path / "int8.onnx")
    assert linears(graph) == []
    kinds = [node.op_type for node in graph.graph.all_nodes()]
    assert kinds.count("DynamicQuantizeMatMul") == count
    assert json.loads(json.dumps(result.to_json()))["verified"] is True


def test_one_s8_per_channel_copy_replaces_each_weight(exported: Exporter, tmp_path: Path) -> None:
    source = ir.load(exported("tokens"))
    loopedge.quantize(exported("tokens"), tmp_path / "int8.onnx")
    stored = ir.load(tmp_path / "int8.onnx").graph.initializers
    for item in linears(source):
        name = item.weight.name or ""
        if item.index == 0:  # the tied table has a test of its own
            continue
        values, scale = stored[name].const_value, stored[f"{name}.scale"].const_value
        exact = item.weight.const_value
        assert values is not None
        assert scale is not None
        assert exact is not None
        assert values.dtype == ir.DataType.INT8
        assert scale.numpy().shape == (exact.numpy().shape[1],)
        error = np.abs(values.numpy() * scale.numpy() - exact.numpy())
        assert (error <= scale.numpy() * 0.5001).all()
    floats = [
        value.name
        for value in stored.values()
        if value.dtype == ir.DataType.FLOAT and value.shape is not None and len(value.shape) == 2
        if not (value.name or "").startswith("timestep.")
    ]
    assert sorted(name or "" for name in floats) == ["position.weight"]


@pytest.mark.slow
def test_both_forms_agree_and_the_error_is_reported_per_iteration(
    exported: Exporter, tmp_path: Path
) -> None:
    results, outputs = [], []
    _, feeds = make_inputs(make_model("tokens"), Sizes(2, 9))
    for form in ("loop", "unrolled"):
        path = tmp_path / f"{form}.onnx"
        results.append(loopedge.quantize(exported("tokens", form=form), path, **SEVEN_BITS))
        outputs.append(loopedge.Session(path, threads=1).run(feeds)["logits"])
    exact = loopedge.Session(exported("tokens"), threads=1).run(feeds)["logits"]
    assert noise_share(outputs[1], outputs[0], exact) < FLIPS
    assert len(results[0].sqnr_db_per_iteration) == 3
    assert results[0].sqnr_db_per_iteration == pytest.approx(
        results[1].sqnr_db_per_iteration, abs=FLIPS_DB
    )
    assert 25 < results[0].sqnr_db < 80
    assert results[0].weight_bytes < 0.5 * results[0].source_weight_bytes


def test_a_table_that_is_embedding_and_head_is_stored_once_as_int8(
    exported: Exporter, tmp_path: Path
) -> None:
    result = loopedge.quantize(exported("tokens"), tmp_path / "int8.onnx")
    assert (result.matmuls["quantized"], result.matmuls["skipped"]) == (7, [])
    assert result.matmuls == {
        **loopedge.inspect(tmp_path / "int8.onnx").to_json()["int8"],
        "skipped": [],
    }
    graph = ir.load(tmp_path / "int8.onnx")
    table = graph.graph.initializers["embedding.weight"]
    assert table.dtype == ir.DataType.INT8
    assert tuple(table.shape or ()) == (32, 50)
    readers = sorted(node.op_type for node in table.consumers())
    assert readers == ["DynamicQuantizeMatMul", "Gather"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
def test_the_loop_count_stays_selectable(exported: Exporter, tmp_path: Path) -> None:
    loopedge.quantize(exported("padded", dynamic_loops=True), tmp_path / "int8.onnx")
    reference = loopedge.Session(exported("padded", dynamic_loops=True))
    session = loopedge.Session(tmp_path / "int8.onnx")
    _, feeds = make_inputs(make_model("padded"), Sizes(2, 9))
    for loops in (1, 2, 3, 50):
        exact = reference.run(feeds, loops=loops)["logits"]
        given = session.run(feeds, loops=loops)["logits"]
        assert np.linalg.norm(exact - given) < 0.1 * np.linalg.norm(exact)


def test_a_wrong_weight_is_refused_and_leaves_nothing(
    exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(weight: Any, **options: Any) -> Any:
        values, scales = quantize_weight(weight, **options)
        return values[:, ::-1].copy(), scales

    monkeypatch.setattr("loopedge.graph.integer_weights.channels.quantize_weight", wrong)
    with pytest.raises(VerificationError, match="SQNR"):
        loopedge.quantize(exported("tokens"), tmp_path / "int8.onnx")
    assert list(tmp_path.iterdir()) == []


def test_budgets_and_bad_input(exported: Exporter, tmp_path: Path) -> None:
    source, target = exported("tokens"), tmp_path / "int8.onnx"
    with pytest.raises(VerificationError, match=r"at least 150\.0 dB"):
        loopedge.quantize(source, target, min_sqnr_db=150.0)
    with pytest.raises(InputError, match="scheme 'int3'"):
        loopedge.quantize(source, target, scheme="int3")
    with pytest.raises(InputError, match="is also a file of MODEL"):
        loopedge.quantize(source, source, force=True)
    assert list(tmp_path.iterdir()) == []
    loopedge.quantize(source, target)
    with pytest.raises(InputError, match="quantized already"):
        loopedge.quantize(target, tmp_path / "again.onnx")


@pytest.mark.slow
def test_a_core_that_stays_in_float_is_fatal(exported: Exporter, tmp_path: Path) -> None:
    """A weight that something else reads too cannot become int8: say so, and fail."""
    model = ir.load(exported("plain"))
    weight = model.graph.initializers["core_layers.0.mlp.up.weight"]
    copy = ir.node("Identity", [weight], name="spy")
    copy.outputs[0].name = "spy"
    copy.outputs[0].type, copy.outputs[0].shape = weight.type, weight.shape
    model.graph.append(copy)
    model.graph.outputs.append(copy.outputs[0])
    ir.save(model, tmp_path / "spied.onnx")
    with pytest.raises(BudgetError, match="5 of 6 linears"):
        loopedge.quantize(tmp_path / "spied.onnx", tmp_path / "int8.onnx")
    result = loopedge.quantize(tmp_path / "spied.onnx", tmp_path / "int8.onnx", min_coverage=0.5)
    assert "also read by Identity" in result.matmuls["skipped"][0]["reason"]


@pytest.mark.slow
def test_a_reduced_range_uses_seven_bits(exported: Exporter, tmp_path: Path) -> None:
    """Which of the two gives better outputs depends on the processor: without VNNI eight bits saturate."""
    loopedge.quantize(exported("tokens"), tmp_path / "whole.onnx")
    reduced = loopedge.quantize(exported("tokens"), tmp_path / "reduced.onnx", reduce_range=True)
    assert reduced.sqnr_db > 20
    for name in ("core_layers.0.mlp.up.weight", "embedding.weight"):
        scales = {}
        for file, limit in (("whole", 127), ("reduced", 63)):
            stored = ir.load(tmp_path / f"{file}.onnx").graph.initializers
            codes, scale = (stored[key].const_value for key in (name, f"{name}.scale"))
            assert codes is not None
            assert scale is not None
            assert np.abs(codes.numpy().astype(int)).max() == limit
            scales[file] = scale.numpy()
        np.testing.assert_allclose(63 * scales["reduced"], 127 * scales["whole"], rtol=1e-6)
