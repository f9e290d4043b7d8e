"""Weights that stay on the disk: passes turn and round them without reading them, and they are written as if they had been read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.integer_weights.blocks import Blocks, quantize_blocks
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.graph.integer_weights.embedding_rows import find_embeddings, store_rows
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.passes.layout import fold_weight_layouts
from loopedge.graph.passes.storage import store_float16
from loopedge.graph.weights import linears

Array = npt.NDArray[np.float32]
ROWS, COLUMNS = 70, 48


class CountedRows:
    """Rows that count how often they are read."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.shape = values.shape
        self.reads = 0

    def chunks(self) -> Iterator[tuple[int, Array]]:
        self.reads += 1
        for start in range(0, len(self.values), 16):
            yield start, self.values[start : start + 16]


@pytest.fixture
def stored() -> dict[str, CountedRows]:
    generator = np.random.default_rng(0)
    return {
        "table": CountedRows(generator.standard_normal((ROWS, COLUMNS), dtype=np.float32)),
        "linear": CountedRows(generator.standard_normal((ROWS, COLUMNS), dtype=np.float32)),
    }


def graph_of(stored: dict[str, CountedRows]) -> ir.Model:
    """Return Gather of the table, then a linear that is stored (outputs, inputs)."""
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", 3]))
    weights = {}
    for name, rows in stored.items():
        tensor = LazyWeight(rows, name=name)
        weights[name] = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(rows.shape),
            const_value=tensor,
        )
    gather = ir.node("Gather", [weights["table"], ids], name="embedding")
    turn = ir.node("Transpose", [weights["linear"]], {"perm": [1, 0]}, name="turn")
    product = ir.node("MatMul", [gather.outputs[0], turn.outputs[0]], name="product")
    for node, width in ((gather, COLUMNS), (product, ROWS)):
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(["batch", 3, width])
    graph = ir.Graph(
        [ids],
        [product.outputs[0]],
        nodes=[gather, turn, product],
        initializers=list(weights.values()),
        opset_imports={"": 23},
        name="lazy",
    )
    fold_weight_layouts(model := ir.Model(graph, ir_version=11))
    return model


def values_of(model: ir.Model, name: str) -> npt.NDArray[np.generic]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize("narrow", [False, True])
def test_a_weight_is_read_once_when_it_is_written(
    narrow: bool, stored: dict[str, CountedRows], tmp_path: Path
) -> None:
    model = graph_of(stored)
    if narrow:
        assert store_float16(model) == ["table", "linear"]
    assert [rows.reads for rows in stored.values()] == [0, 0]
    write_artifact(model, tmp_path / "model.onnx", external_threshold_bytes=0)
    assert [rows.reads for rows in stored.values()] == [1, 1]
    written = open_artifact(tmp_path / "model.onnx")
    kind = np.float16 if narrow else np.float32
    assert np.array_equal(values_of(written, "table"), stored["table"].values.astype(kind))
    assert np.array_equal(values_of(written, "linear"), stored["linear"].values.T.astype(kind))


def test_one_that_float16_does_not_hold_stays(stored: dict[str, CountedRows]) -> None:
    model = graph_of(stored)
    table = model.graph.initializers["table"]
    table.const_value = LazyWeight(stored["table"], name="table", rounds=False)
    assert store_float16(model) == ["linear"]
    assert table.dtype == ir.DataType.FLOAT


@pytest.mark.parametrize("bits", [8, 4])
def test_packing_in_parts_is_packing_at_once(bits: int, stored: dict[str, CountedRows]) -> None:
    model = graph_of(stored)
    scheme, (item,) = BlockWeights(bits, 16), linears(model)
    (embedding,) = find_embeddings(model)
    scheme.store_weight(item.weight)
    store_rows(embedding)
    expected = quantize_blocks(stored["linear"].values, bits=bits, block_size=16)
    assert isinstance(expected, Blocks)
    assert np.array_equal(values_of(model, "linear"), expected.values)
    assert np.array_equal(values_of(model, "linear.scale"), expected.scales)
    rows, scales = quantize_weight(stored["table"].values, axis=0)
    assert np.array_equal(values_of(model, "table"), rows)
    assert np.array_equal(values_of(model, "table.scale"), scales[:, None])
    assert [source.reads for source in stored.values()] == [1, 1]
