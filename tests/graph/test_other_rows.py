"""Timestep rows of checks: unlike the model's own, of every type, and never zeros by truncation."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.timestep_rows import random_rows, shuffled_rows
from loopedge.quantizer.noise import generated_batches, measure_noise
from tests.graph.test_passes import parse

LOOPS, D = 4, 8
TYPES = [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_]


@pytest.mark.parametrize("dtype", [*TYPES, ml_dtypes.bfloat16])
@pytest.mark.parametrize("make", [random_rows, shuffled_rows])
def test_rows_of_every_type_are_other_rows(make: object, dtype: type) -> None:
    table: NDArray[Any] = np.array([[0, 1], [1, 0], [0, 0], [1, 1]]).astype(dtype)
    for seed in range(8):
        made = make({"t": table}, np.random.default_rng(seed))["t"]  # type: ignore[operator]
        assert (made.dtype, made.shape) == (table.dtype, table.shape)
        assert not np.array_equal(made, table)
        if make is shuffled_rows or not np.issubdtype(dtype, np.floating):
            assert sorted(made.tolist()) == sorted(table.tolist())


def chosen(weights: NDArray[np.float32]) -> ir.Model:
    """x <- x + gate[t] * (x @ weights[which[t]]), all gates zero."""
    model = parse(
        f"""<ir_version: 9, opset_import: ["": 20]>
        g (float[batch, sequence, {D}] x) => (float[batch, sequence, {D}] y)
        <int64 n = {{{LOOPS}}}, bool go = {{1}}> {{
          y = Loop (n, go, x) <body = step (int64 i, bool c, float[batch, sequence, {D}] before)
            => (bool d, float[batch, sequence, {D}] after) {{
              d = Identity (c)
              which = Gather <axis = 0> (choice, i)
              gate = Gather <axis = 0> (gates, i)
              weight = Gather <axis = 0> (weights, which)
              product = MatMul (before, weight)
              gated = Mul (product, gate)
              after = Add (before, gated)
          }}>
        }}""",
        weights=weights,
        choice=np.arange(LOOPS),
        gates=np.zeros(LOOPS, np.float32),
    )
    for name in ("choice", "gates"):
        model.graph.initializers[name].name = f"timestep.{name}"
    metadata = ArtifactMetadata(
        version="0",
        form="loop",
        loops=LOOPS,
        trained_loops=LOOPS,
        trained_length=5,
        tables=["timestep.choice", "timestep.gates"],
    )
    write_metadata(metadata, model.metadata_props)
    return model


def test_a_wrong_weight_that_an_integer_row_chooses_is_seen(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(LOOPS, D, D)).astype(np.float32)
    wrong = weights.copy()
    wrong[-1] *= -1
    source = chosen(weights)
    inputs = generated_batches(source)
    same = measure_noise(source, chosen(weights), tmp_path, inputs=inputs)
    assert same.random_rows_db == 200
    seen = measure_noise(source, chosen(wrong), tmp_path, inputs=inputs)
    assert seen.sqnr_db == 200  # the gates of zero hide it
    assert seen.random_rows_db is not None
    assert seen.random_rows_db < 10
