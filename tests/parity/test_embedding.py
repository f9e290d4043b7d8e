"""Embedding tables as int8 rows, under every scheme."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
import loopedge_calibration
from loopedge.errors import InputError
from loopedge.graph.integer_weights.embedding_rows import find_embeddings
from loopedge.graph.weights import weight_bytes
from tests.parity.models import Sizes, make_inputs, make_model

Exporter = Callable[..., Path]
SCHEMES = ("static", "dynamic", "weight-int8", "weight-int4")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_untied_embedding_becomes_int8_rows(
    scheme: str, form: str, exported: Exporter, tmp_path: Path
) -> None:
    source, path = exported("plain", form=form), tmp_path / "q.onnx"
    data = [make_inputs(make_model("plain"), Sizes(4, 12), seed=seed)[1] for seed in range(4)]
    ranges = loopedge_calibration.collect(source, data) if scheme == "static" else None
    result = loopedge.quantize(source, path, scheme=scheme, ranges=ranges)
    assert result.embeddings == {
        "quantized": 1,
        "total": 1,
        "bytes": 50 * 32,
        "total_bytes": 50 * 32,
        "skipped": [],
    }
    graph = ir.load(path).graph
    table, scale = (
        graph.initializers[f"embedding.weight{end}"].const_value for end in ("", ".scale")
    )
    assert table is not None
    assert scale is not None
    assert table.dtype == ir.DataType.INT8
    assert (table.numpy().shape, scale.numpy().shape) == ((50, 32), (50, 1))
    exact = ir.load(source).graph.initializers["embedding.weight"].const_value
    assert exact is not None
    error = np.abs(table.numpy() * scale.numpy() - exact.numpy())
    assert (error <= scale.numpy() * 0.5001).all()

    kept = loopedge.quantize(
        source, tmp_path / "k.onnx", scheme=scheme, ranges=ranges, keep=["embedding.weight"]
    )
    assert kept.embeddings == {
        "quantized": 0,
        "total": 1,
        "bytes": 0,
        "total_bytes": 4 * 50 * 32,
        "skipped": [{"name": "embedding.weight", "reason": "kept in float on request"}],
    }
    assert kept.weight_bytes - result.weight_bytes == 3 * 50 * 32 - 4 * 50
    assert result.matmuls == kept.matmuls
    assert result.sqnr_db > kept.sqnr_db - 2


@pytest.mark.slow
def test_a_kept_table_keeps_its_head(exported: Exporter, tmp_path: Path) -> None:
    result = loopedge.quantize(exported("tokens"), tmp_path / "q.onnx", keep=["embedding.weight"])
    assert [item["name"] for item in result.matmuls["skipped"]] == ["coda/linear"]
    assert [item["name"] for item in result.embeddings["skipped"]] == ["embedding.weight"]
    head = loopedge.quantize(exported("tokens"), tmp_path / "h.onnx", keep=["coda/linear"])
    assert head.embeddings["skipped"][0]["reason"] == "embedding.weight is also read by MatMul"
    with pytest.raises(InputError, match="no linear position"):
        loopedge.quantize(exported("tokens"), tmp_path / "p.onnx", keep=["position.weight"])


@pytest.mark.slow
def test_a_small_table_stays_float(tmp_path: Path) -> None:
    source = tmp_path / "small.onnx"
    loopedge.export(make_model("plain", vocab_size=20), source)
    result = loopedge.quantize(source, tmp_path / "q.onnx")
    assert result.embeddings["skipped"] == [
        {"name": "embedding.weight", "reason": "embedding.weight takes 2560 bytes, below 4096"}
    ]
    assert result.weight_bytes < weight_bytes(ir.load(source))


def test_only_what_is_gathered_by_ids_is_a_table() -> None:
    """Not by a running number, not by the iteration; ids may pass through a Cast."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21]>
        g (int64[B, S] ids, float[B, S] x) => (float[B, S, 64] y)
        <int64 zero = {0}, int64 one = {1}, int64 three = {3}, bool yes = {1}> {
          shape = Shape (ids)
          length = Gather (shape, one)
          places = Range (zero, length, one)
          position = Gather (positions, places)
          small = Cast <to = 6> (ids)
          word = Gather (words, small)
          start = Add (word, position)
          y = Loop (three, yes, start) <body = b (int64 t, bool go, float[B, S, 64] s)
              => (bool on, float[B, S, 64] after) {
            on = Identity (go)
            row = Gather (rows, t)
            after = Add (s, row)
          }>
        }"""
    )
    for name in ("positions", "words", "rows"):
        tensor = ir.tensor(np.ones((100, 64), np.float32), name=name)
        stored = ir.Value(name=name, const_value=tensor)
        for node in model.graph.all_nodes():
            for index, value in enumerate(node.inputs):
                if value is not None and value.name == name:
                    node.replace_input_with(index, stored)
        model.graph.register_initializer(stored)
    assert [table.weight.name for table in find_embeddings(model)] == ["words"]
