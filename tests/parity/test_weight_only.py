"""Weights alone in blocks, in both forms: coverage, one packed copy, the optimized graph, the outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact
from loopedge.errors import BudgetError, InputError, VerificationError
from loopedge.graph.integer_weights import block_weights
from loopedge.graph.integer_weights.blocks import Blocks, quantize_blocks
from loopedge.graph.weights import linears, weight_bytes
from tests.parity.models import (
    FLIPS,
    SEVEN_BITS,
    Sizes,
    make_inputs,
    make_model,
    noise_share,
    slow_but,
)

Exporter = Callable[..., Path]
BITS = {"weight-int8": 8, "weight-int4": 4, "weight-int2": 2}
FLOORS = {"weight-int8": (30.0, 30.0), "weight-int4": (12.0, 14.0), "weight-int2": (3.0, 3.0)}
"""dB of the outputs and of each linear: small random models."""


def optimized(path: Path, tmp_path: Path) -> ir.Model:
    """Return the graph that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options)
    return ir.load(tmp_path / "optimized.onnx")


def count(model: ir.Model, kind: str) -> int:
    return sum(node.op_type == kind for node in model.graph.all_nodes())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
@pytest.mark.parametrize("scheme", BITS)
@pytest.mark.parametrize("kind", slow_but("tokens"))
def test_every_kind_of_model_is_quantized_and_close(
    kind: str, scheme: str, exported: Exporter, tmp_path: Path
) -> None:
    source = exported(kind, dynamic_loops=True)
    result = loopedge.quantize(source, tmp_path / "q.onnx", scheme=scheme)
    assert result.scheme == scheme
    outputs_db, linears_db = FLOORS[scheme]
    assert result.sqnr_db > outputs_db
    assert min(result.sqnr_db_linears.values()) > linears_db
    skipped = [item["name"] for item in result.matmuls["skipped"]]
    assert skipped == (["prelude/MatMul_2"] if kind == "series" else [])  # two inputs
    session = loopedge.Session(tmp_path / "q.onnx")
    _, feeds = make_inputs(make_model(kind), Sizes(3, 7))
    for loops in (1, 3, 50):
        given = session.run(feeds, loops=loops)[session.output_names[0]]
        assert np.isfinite(given).all()


@pytest.mark.long
@pytest.mark.parametrize("scheme", BITS)
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_one_packed_copy_that_all_products_read(
    form: str, scheme: str, exported: Exporter, tmp_path: Path
) -> None:
    source = exported("series", form=form, last_rows=False)
    result = loopedge.quantize(source, tmp_path / "q.onnx", scheme=scheme)
    core = 6 * 2 * (3 if form == "unrolled" else 1)
    assert result.matmuls["quantized"] == core + 1
    written = ir.load(tmp_path / "q.onnx")
    assert [item.weight.name for item in linears(written)] == ["input.weight"]
    assert count(written, "MatMulNBits") == core + 1
    inspection = loopedge.inspect(tmp_path / "q.onnx").to_json()
    assert inspection["int8"].items() <= result.matmuls.items()
    assert (inspection["int8"]["quantized"], inspection["int8"]["total"]) == (core + 1, core + 2)
    assert result.weight_bytes == inspection["weight_bytes"]

    bits, exact = BITS[scheme], ir.load(source).graph.initializers
    assert (
        sum(value.dtype == ir.DataType.UINT8 for value in written.graph.initializers.values()) == 13
    )
    for name in ("core_layers.1.mlp.down.weight", "core_layers.0.attention.q.weight"):
        stored, scale = (
            written.graph.initializers[key].const_value for key in (name, f"{name}.scale")
        )
        original = exact[name].const_value
        assert stored is not None
        assert scale is not None
        assert original is not None
        inputs, outputs = original.numpy().shape
        size = min(block_weights.DEFAULT_BLOCK[bits], inputs)
        blocks = inputs // size
        assert stored.numpy().shape == (outputs, blocks, size * bits // 8)
        assert stored.nbytes == inputs * outputs * bits // 8
        assert scale.numpy().shape == (outputs, blocks)
        packed = Blocks(stored.numpy(), scale.numpy(), bits, inputs)
        error = np.linalg.norm(packed.floats().T - original.numpy())
        assert error < {8: 0.01, 4: 0.12, 2: 0.6}[bits] * np.linalg.norm(original.numpy())
        readers = written.graph.initializers[name].consumers()
        assert len(readers) == (3 if form == "unrolled" else 1)


@pytest.mark.long
@pytest.mark.parametrize("scheme", BITS)
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_onnxruntime_keeps_the_products_and_the_one_copy(
    form: str, scheme: str, exported: Exporter, tmp_path: Path
) -> None:
    loopedge.quantize(exported("tokens", form=form), tmp_path / "q.onnx", scheme=scheme)
    found = optimized(tmp_path / "q.onnx", tmp_path)
    inside = [node for node in found.graph.all_nodes() if node.graph is not found.graph]
    products = [node for node in inside or found.graph if node.op_type == "MatMulNBits"]
    assert len(products) == (6 if inside else 19)
    assert count(found, "MatMulNBits") == (7 if inside else 19)
    assert count(found, "MatMul") == count(found, "DequantizeLinear") == 0
    packed = [value for value in _initializers(found) if value.dtype == ir.DataType.UINT8]
    assert len(packed) == 7
    assert {node.inputs[1] for node in products} <= set(packed)


def _initializers(model: ir.Model) -> list[ir.Value]:
    graphs = [model.graph, *model.graph.subgraphs()]
    return [value for graph in graphs for value in graph.initializers.values()]


@pytest.mark.long
@pytest.mark.parametrize("scheme", BITS)
def test_both_forms_agree(scheme: str, exported: Exporter, tmp_path: Path) -> None:
    _, feeds = make_inputs(make_model("tokens"), Sizes(2, 9))
    outputs = []
    for form in ("loop", "unrolled"):
        path = tmp_path / f"{form}.onnx"
        loopedge.quantize(exported("tokens", form=form), path, scheme=scheme)
        outputs.append(loopedge.Session(path, threads=1).run(feeds)["logits"])
    exact = loopedge.Session(exported("tokens"), threads=1).run(feeds)["logits"]
    assert noise_share(outputs[1], outputs[0], exact) < FLIPS  # it rounds what it reads to int8


@pytest.mark.long
@pytest.mark.parametrize("d_model", [32, 40])
@pytest.mark.parametrize("scheme", BITS)
def test_a_table_that_is_embedding_and_head_is_one_packed_copy(
    scheme: str, d_model: int, tmp_path: Path
) -> None:
    """Also where the rows do not fill their blocks: 40 values in three blocks of 16."""
    source, path = tmp_path / "float.onnx", tmp_path / "q.onnx"
    loopedge.export(make_model("tokens", d_model=d_model), source)
    result = loopedge.quantize(source, path, scheme=scheme, block_size=32, min_sqnr_db=3)
    assert (result.embeddings["quantized"], result.embeddings["total"]) == (1, 1)
    graph = ir.load(path).graph
    table = graph.initializers["embedding.weight"]
    readers = sorted(node.op_type for node in table.consumers())
    assert readers == ["GatherBlockQuantized", "MatMulNBits"]
    stored, scale = table.const_value, graph.initializers["embedding.weight.scale"].const_value
    assert stored is not None
    assert scale is not None
    packed = Blocks(stored.numpy(), scale.numpy(), BITS[scheme], d_model)
    assert packed.floats().shape == (50, d_model)

    # What the embedding gives is the table that the head multiplies with.
    model = ir.load(path)
    rows = next(node for node in model.graph if (node.name or "").startswith("prelude/add"))
    gathered = next(value for value in rows.inputs if "slice" not in ((value and value.name) or ""))
    assert gathered is not None
    model.graph.outputs.append(gathered)
    ir.save(model, tmp_path / "probed.onnx")
    ids = np.array([[0, 49, 7], [7, 1, 2]])
    given = ort.InferenceSession(str(tmp_path / "probed.onnx")).run(None, {"input_ids": ids})[1]
    assert np.allclose(given, packed.floats()[ids], atol=1e-6)


@pytest.mark.long
def test_bytes_of_the_file(tmp_path: Path) -> None:
    source = tmp_path / "float.onnx"
    loopedge.export(make_model("tokens", d_model=128, vocab_size=512), source)
    exact = weight_bytes(ir.load(source))
    whole = 12 * 128 * 128 + 512 * 128  # values that are packed
    for scheme, bits in BITS.items():
        result = loopedge.quantize(source, tmp_path / f"{scheme}.onnx", scheme=scheme)
        scales = 4 * whole // block_weights.DEFAULT_BLOCK[bits]
        assert result.weight_bytes == exact - 4 * whole + whole * bits // 8 + scales
        stored, whole_file = (
            sum(file.stat().st_size for file in Artifact.open(path).files)
            for path in (tmp_path / f"{scheme}.onnx", source)
        )
        assert stored < {8: 0.30, 4: 0.20, 2: 0.15}[bits] * whole_file


@pytest.mark.long
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_single_linears_by_their_weight_alone(
    form: str, exported: Exporter, tmp_path: Path
) -> None:
    """Beside static linears, whose smoothing has changed the weight first; beside dynamic ones."""
    data = [make_inputs(make_model("tokens"), Sizes(4, 12), seed=seed)[1] for seed in range(6)]
    source = exported("tokens", form=form)
    ranges = loopedge_calibration.collect(source, data)
    assert ranges.tensors["core/linear_5"].smoothing is None
    assert ranges.tensors["core/linear_4"].smoothing is not None
    for names in (["core/linear_5"], ["core/linear_4", "core/linear_1"], ["coda/linear"]):
        result = loopedge.quantize(
            source,
            tmp_path / "q.onnx",
            ranges=ranges,
            data=data[:2],
            weight_only=names,
            force=True,
            **SEVEN_BITS,
        )
        each = 3 if form == "unrolled" else 1
        # The head is weight-only anyway, for the place where it stands.
        expected = sum(each for name in names if name.startswith("core")) + 1
        assert len(result.weight_only) == expected
        assert result.matmuls["skipped"] == []
        assert result.sqnr_db > 28
        written = ir.load(tmp_path / "q.onnx")
        assert count(written, "MatMulNBits") == expected
        integers = ("MatMulIntegerToFloat", "MatMulInteger")  # the second where a gate is folded in
        assert sum(count(written, name) for name in integers) == 6 * each + 1 - expected
    four = loopedge.quantize(source, tmp_path / "4.onnx", scheme="weight-int4")
    mixed = loopedge.quantize(
        source, tmp_path / "m.onnx", scheme="weight-int4", weight_only=["coda/linear"]
    )
    assert mixed.sqnr_db > four.sqnr_db
    assert mixed.weight_bytes > four.weight_bytes
    first = "core/linear" if form == "loop" else "core.0/linear"  # one iteration's name, all go
    dynamic = loopedge.quantize(source, tmp_path / "d.onnx", weight_only=[first])
    assert len(dynamic.weight_only) == (3 if form == "unrolled" else 1)
    assert dynamic.matmuls["skipped"] == []


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["halves", "rows", "scales"])
def test_a_wrong_packing_is_refused(
    wrong: str, exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floor of four bits is low: one wrong weight, the up-projection's, must still show."""

    def packed(rows: Any, *, bits: int, block_size: int) -> Blocks:
        right = quantize_blocks(rows, bits=bits, block_size=block_size)
        values: np.ndarray[Any, Any] = right.values
        scales = right.scales
        if rows.shape != (128, 32):
            return right
        if wrong == "halves":
            values = (values >> 4) | (values << 4)
        elif wrong == "rows":
            values = np.ascontiguousarray(values[::-1])
        else:
            scales = np.roll(scales, 1, axis=0)
        return Blocks(values, scales, bits, right.inputs)

    monkeypatch.setattr(block_weights, "quantize_blocks", packed)
    with pytest.raises(VerificationError, match="SQNR"):
        loopedge.quantize(exported("series"), tmp_path / "q.onnx", scheme="weight-int4")
    assert list(tmp_path.iterdir()) == []


def test_options_that_weights_alone_cannot_take(exported: Exporter, tmp_path: Path) -> None:
    source, target = exported("tokens"), tmp_path / "q.onnx"
    data = [make_inputs(make_model("tokens"), Sizes(4, 12), seed=seed)[1] for seed in range(2)]
    ranges = loopedge_calibration.collect(source, data)
    options: list[tuple[dict[str, Any], str]] = [
        ({"scheme": "weight-int8", "ranges": ranges}, "takes and gives no ranges"),
        ({"scheme": "weight-int8", "reduce_range": True}, "seven bits"),
        ({"scheme": "weight-int4", "ops": "standard"}, "no standard form"),
        ({"scheme": "dynamic", "weight_only": ["core/linear"], "ops": "standard"}, "no standard"),
        ({"scheme": "weight-int4", "block_size": 48}, "block size 48"),
        ({"scheme": "dynamic", "block_size": 32}, "has no blocks"),
        ({"scheme": "dynamic", "weight_only": ["core/nothing"]}, "no linear core/nothing"),
        (
            {"scheme": "dynamic", "weight_only": ["core/linear"], "keep": ["core/linear"]},
            "choose one",
        ),
    ]
    for given, words in options:
        with pytest.raises(InputError, match=words):
            loopedge.quantize(source, target, **given)
    with pytest.raises(InputError, match="takes and gives no ranges"):
        loopedge.quantize(source, target, scheme="weight-int8", save_ranges=tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_data_is_only_looked_at_where_weights_are_rounded_to_nearest(
    exported: Exporter, tmp_path: Path
) -> None:
    ids = np.random.default_rng(0).integers(0, 50, (8, 12))
    np.savez(tmp_path / "x.npz", input_ids=ids)
    results = [
        loopedge.quantize(
            exported("tokens"),
            tmp_path / "q.onnx",
            scheme="weight-int8",
            data=data,
            rounding="nearest",
            force=True,
        )
        for data in (None, tmp_path / "x.npz")
    ]
    assert results[0].sqnr_db != results[1].sqnr_db
    assert results[1].samples is None
    assert results[0].weight_bytes == results[1].weight_bytes


@pytest.mark.long
def test_keep_and_coverage(exported: Exporter, tmp_path: Path) -> None:
    source, path = exported("tokens"), tmp_path / "q.onnx"
    kept = loopedge.quantize(source, path, scheme="weight-int4", keep=["core/linear_5"])
    assert kept.matmuls["skipped"] == [
        {"name": "core/linear_5", "reason": "kept in float on request"}
    ]
    with pytest.raises(InputError, match="quantized already"):
        loopedge.quantize(path, tmp_path / "again.onnx", scheme="weight-int8")
    narrow = tmp_path / "narrow.onnx"
    loopedge.export(make_model("tokens", d_model=4, heads=1), narrow)
    with pytest.raises(BudgetError, match="it would grow"):
        loopedge.quantize(narrow, tmp_path / "n.onnx", scheme="weight-int8")


def test_the_untied_twin_of_a_packed_model(exported: Exporter, tmp_path: Path) -> None:
    from loopedge.graph.core.untied import untie

    loopedge.quantize(exported("tokens"), tmp_path / "q.onnx", scheme="weight-int8")
    twin = untie(ir.load(tmp_path / "q.onnx"))
    ir.save(twin, tmp_path / "twin.onnx")
    _, feeds = make_inputs(make_model("tokens"), Sizes(2, 9))
    exact, given = (
        loopedge.Session(tmp_path / f"{name}.onnx").run(feeds)["logits"] for name in ("q", "twin")
    )
    assert np.linalg.norm(exact - given) < 0.05 * np.linalg.norm(exact)
    assert weight_bytes(twin) > 2 * weight_bytes(ir.load(tmp_path / "q.onnx"))


@pytest.mark.slow
def test_a_linear_that_would_grow_is_not_reported_as_stored(
    exported: Exporter, tmp_path: Path
) -> None:
    result = loopedge.quantize(
        exported("series"),
        tmp_path / "q.onnx",
        weight_only=["prelude/MatMul_2", "core/MatMul_3"],
    )
    assert result.weight_only == ["core/MatMul_3"]
    assert [item["name"] for item in result.matmuls["skipped"]] == ["prelude/MatMul_2"]
