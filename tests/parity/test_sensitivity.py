"""The emulated graph is exact with its switches off, rounds as the int8 graph does with them on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.quantizer.emulation import ROUNDED_INPUT, emulate
from loopedge.quantizer.recipe import Recipe
from loopedge_calibration.sensitivity import measure_sensitivity
from tests.parity.models import Sizes, make_inputs, make_model, seven_bits

pytestmark = pytest.mark.slow

Exporter = Callable[..., Path]
LOOPS = 3


def make_recipe(source: Path, scheme: str, feeds: dict[str, NDArray[Any]]) -> Recipe:
    bits = seven_bits(scheme)
    if scheme != "static":
        return Recipe(scheme=scheme, **bits)
    # Every linear has a range: MatMulNBits, which the last one would be, rounds what it reads by itself.
    table = loopedge_calibration.collect(source, [feeds], as_core=["all"])
    return Recipe(scheme=scheme, table=table, as_core=("all",), **bits)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-int4"])
@pytest.mark.parametrize("kind", ["tokens", "series"])
def test_switches(kind: str, scheme: str, form: str, exported: Exporter, tmp_path: Path) -> None:
    source = exported(kind, form=form, last_rows=False)
    model = make_model(kind)
    feeds = make_inputs(model, Sizes(4, 12))[1]
    (output,) = model.output_names
    recipe = make_recipe(source, scheme, feeds)
    graph, names = emulate(
        open_artifact(source),
        loops=LOOPS,
        activations=recipe.activations,
        round_weight=recipe.round_weight,
        others=recipe.others(open_artifact(source)),
    )
    ir.save(graph, tmp_path / "emulated.onnx")
    emulated = loopedge.Session(tmp_path / "emulated.onnx")
    off, on = np.zeros((2, len(names), LOOPS), np.bool_)
    on |= True
    exact = loopedge.Session(source).run(feeds)[output]
    assert np.abs(emulated.run({**feeds, ROUNDED_INPUT: off})[output] - exact).max() <= 1e-5 * (
        np.abs(exact).max()
    )
    loopedge.quantize(
        source,
        tmp_path / "q.onnx",
        scheme=scheme,
        ranges=recipe.table,
        as_core=recipe.as_core,
        data=[feeds],
        min_sqnr_db=0,
        reduce_range=recipe.reduce_range,
        rounding="nearest" if scheme.startswith("weight") else None,  # as what emulates it rounds
    )
    int8 = loopedge.Session(tmp_path / "q.onnx").run(feeds)[output]
    given = emulated.run({**feeds, ROUNDED_INPUT: on})[output]
    noise = np.linalg.norm(int8 - exact)
    assert noise > 1e-4 * np.linalg.norm(exact)
    # MatMulNBits also rounds what it reads; the others differ by flips of single roundings.
    assert np.linalg.norm(given - int8) < 0.6 * noise


def test_each_switch_is_of_its_linear_and_iteration(exported: Exporter) -> None:
    """A gate that is zero in one iteration hides what that iteration's linear rounds."""
    model = ir.load(exported("tokens"))
    gate = model.graph.initializers["timestep.gate_mlp.0"]
    assert gate.const_value is not None
    rows = gate.const_value.numpy().copy()
    rows[1] = 0
    gate.const_value = ir.tensor(rows, name=gate.name)
    feeds = make_inputs(make_model("tokens"), Sizes(4, 12))[1]
    found = {
        item.name: item
        for item in measure_sensitivity(model, Recipe(scheme="dynamic"), [feeds], threads=1)
    }
    assert list(found) == sorted(found, key=lambda name: -found[name].error)
    for name in ("core/linear_4", "core/linear_5"):
        zero, one, two = found[name].per_iteration
        assert one == 0
        assert min(zero, two) > 0
        assert found[name].error <= zero + two + 1e-6
    assert all(error > 0 for error in found["core/linear"].per_iteration)
    assert found["coda/linear"].per_iteration == []
    few = measure_sensitivity(model, Recipe(scheme="dynamic"), [feeds], detailed=2, threads=1)
    assert [bool(item.per_iteration) for item in few[2:]] == [False] * 5
