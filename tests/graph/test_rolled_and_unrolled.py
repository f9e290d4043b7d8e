"""`roll` and `unroll` are inverse to each other: rolled, written out without its names, and rolled again."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from loopedge.graph.core.unrolling import unroll
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.rolling.rolling import Rolling, roll
from tests.graph.loop_graphs import Array, LoopSpec, as_ir, feeds_of, loop_model, run

SPECS = st.builds(  # each Loop has a weight of its own: two that share one may be rolled in several ways
    LoopSpec,
    iterations=st.integers(3, 5),
    states=st.integers(1, 3),
    stay=st.integers(0, 1),
    swap=st.booleans(),
    tables=st.integers(0, 2),
    context=st.booleans(),
    stacked=st.integers(0, 2),
    weights=st.sampled_from(["initializer", "constant"]),
    inner=st.sampled_from([0, 3]),
    reads=st.none() | st.integers(0, 3),
)
OF_SEVERAL_SHAPES = LoopSpec(iterations=3, states=3, context=True, weights="initializer", inner=3)
"""Its inner Loops, written out, add a scalar where an iteration adds a value of the context."""


def nameless(model: ir.Model) -> ir.Model:
    """Drop all names but those of inputs and outputs, in place."""
    ends = [*model.graph.inputs, *model.graph.outputs]
    for place, node in enumerate(model.graph.all_nodes()):
        node.name = None
        for output in node.outputs:
            if output not in ends:
                output.name = f"value.{place}.{output.index()}"
    for place, value in enumerate(list(model.graph.initializers.values())):
        if value not in ends:
            value.name = f"stored.{place}"
    return model


def computed(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    keep_names_apart(model)
    return run(ir.to_proto(model), feeds)


def sizes(rolling: Rolling) -> list[tuple[int, int, int]]:
    return [(loop.iterations, loop.nodes, loop.states) for loop in rolling.loops]


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@example(specs=[OF_SEVERAL_SHAPES], seed=25)
@given(specs=st.lists(SPECS, min_size=1, max_size=2), seed=st.integers(0, 99))
def test_a_graph_that_is_rolled_unrolled_and_rolled(specs: list[LoopSpec], seed: int) -> None:
    model = loop_model(*specs, seed=seed)
    feeds = feeds_of(model)
    expected, inner = run(model, feeds), any(spec.inner for spec in specs)
    flat = nameless(unroll(as_ir(model), inner=True))
    assert "Loop" not in {node.op_type for node in flat.graph.all_nodes()}
    once = roll(flat, inner=inner)
    assert once.loops or once.reasons
    assume(once.loops)  # a Loop that saves no node is not built
    twice = roll(nameless(unroll(once.model, inner=True)), inner=inner)
    for rolling in (once, twice):
        for name, array in computed(rolling.model, feeds).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)
    assert sizes(twice) == sizes(once)
    assert kinds(twice.model) == kinds(once.model)


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.all_nodes())
