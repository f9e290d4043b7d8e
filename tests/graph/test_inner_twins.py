"""Twins of a core that holds a Loop of its own: unrolled outside, untied inside as well."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from loopedge.graph.core.ties import tied_weights, untied_bytes
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.weights import weight_bytes
from loopedge.profiler.dissection.iterations import iteration_times
from tests.graph.test_passes import TABLE, WEIGHT, X, evaluate, literal
from tests.unit.test_iterations import kernel, run

LOOPS, INNER = 3, 2


def nested_model() -> ir.Model:
    """Twice in every iteration: state <- (state @ weight) * table[t]."""
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y)
        <int64 count = {{{LOOPS}}}, int64 times = {{{INNER}}}, bool always = {{1}},
         {literal("weight", WEIGHT)}, {literal("table", TABLE)}> {{
          y = Loop <body = core (int64 t, bool go, float[B, S, 4] state)
              => (bool still, float[B, S, 4] next) {{
            still = Identity (go)
            row = Gather <axis = 0> (table, t)
            next = Loop <body = deep (int64 i, bool on, float[B, S, 4] old)
                => (bool further, float[B, S, 4] new) {{
              further = Identity (on)
              product = MatMul (old, weight)
              new = Mul (product, row)
            }}> (times, always, state)
          }}> (count, always, x)
        }}"""
    )
    loop = next(node for node in model.graph if node.op_type == "Loop")
    for node in loop.attributes["body"].as_graph().all_nodes():
        node.name = f"core/{node.op_type}"
        node.outputs[0].name = f"core/{node.outputs[0].name}"
    loop.name = "core"
    model.graph.initializers["table"].name = "timestep.table"
    metadata = ArtifactMetadata(version="0", form="loop", loops=LOOPS, trained_loops=LOOPS)
    write_metadata(metadata, model.metadata_props)
    return model


def expected() -> NDArray[Any]:
    state = X
    for t in range(LOOPS):
        for _ in range(INNER):
            state = (state @ WEIGHT) * TABLE[t]
    return state


@pytest.mark.parametrize(("rewrite", "tolerance"), [(unroll, 1e-5), (untie, 1e-4)])
def test_twins_keep_the_values(rewrite: Callable[[ir.Model], ir.Model], tolerance: float) -> None:
    twin = rewrite(nested_model())
    assert [node.op_type for node in twin.graph].count("Loop") == LOOPS
    given, reference = evaluate(twin, x=X)["y"], expected()
    assert np.abs(given - reference).max() < tolerance * np.abs(reference).max()


def test_unrolling_stores_the_weight_of_the_inner_loop_once() -> None:
    unrolled = unroll(nested_model())
    assert view_core(unrolled).weights == {"weight": LOOPS}
    assert weight_bytes(unrolled) == WEIGHT.nbytes


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_a_weight_of_the_inner_loop_is_read_in_each_of_its_iterations(form: str) -> None:
    model = nested_model() if form == "loop" else unroll(nested_model())
    assert {weight.name: weight.uses for weight in tied_weights(model)} == {"weight": LOOPS * INNER}


def test_the_untied_twin_has_a_copy_in_the_inner_loop_of_every_iteration() -> None:
    twin = untie(nested_model())
    assert view_core(twin).weights == {f"weight.{t}": 1 for t in range(LOOPS)}
    assert weight_bytes(twin) == untied_bytes(nested_model()) == LOOPS * WEIGHT.nbytes


def test_inner_loops_of_an_unrolled_graph_belong_to_its_iterations() -> None:
    events = [
        kernel("Loop", 0, 30, "core.0/Loop", index=0),
        kernel("MatMul", 1, 10, "core.0/MatMul"),
        kernel("MatMul", 15, 10, "core.0/MatMul"),
        kernel("Loop", 40, 50, "core.1/Loop", index=1),
        kernel("MatMul", 41, 20, "core.1/MatMul"),
        kernel("MatMul", 65, 20, "core.1/MatMul"),
        run(0, 100),
    ]
    found = iteration_times(events)
    assert [one.iteration for one in found] == [0, 1]
    assert [one.ops["MatMul"] for one in found] == pytest.approx([0.020, 0.040])
