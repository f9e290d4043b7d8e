"""Names that passes make up: a name that stands for something else is left alone."""

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from loopedge.graph.editing import add_initializer, initializer, insert_before, make_node
from loopedge.graph.naming import keep_names_apart
from tests.graph.test_passes import evaluate, parse

SCALAR = np.array(0, np.int64)


def graph_with(name: str, array: NDArray[np.generic]) -> ir.Graph:
    graph = ir.Graph([], [], nodes=[], name="g")
    graph.register_initializer(initializer(name, array))
    return graph


def test_an_initializer_of_the_same_value_is_taken_again() -> None:
    graph = graph_with("zero", SCALAR)
    assert add_initializer(graph, "zero", SCALAR.copy()) is graph.initializers["zero"]
    assert len(graph.initializers) == 1


@pytest.mark.parametrize(
    "other",
    [
        np.array([0], np.int64),
        np.array(1, np.int64),
        np.array(0, np.int32),
        np.array(0, np.float64),
    ],
    ids=["shape", "value", "type", "kind"],
)
def test_one_of_another_value_stays_and_the_new_one_is_numbered(other: NDArray[np.generic]) -> None:
    graph = graph_with("zero", SCALAR)
    made = add_initializer(graph, "zero", other)
    assert made.name == "zero.1"
    assert add_initializer(graph, "zero", other) is made
    kept = graph.initializers["zero"].const_value
    assert kept is not None
    assert (kept.dtype, kept.numpy().shape) == (ir.DataType.INT64, ())


def test_zeros_of_another_sign_are_another_value() -> None:
    graph = graph_with("zero", np.array(0.0, np.float32))
    assert add_initializer(graph, "zero", np.array(-0.0, np.float32)).name == "zero.1"


def test_what_a_caller_may_overwrite_is_no_constant() -> None:
    graph = graph_with("zero", SCALAR)
    graph.inputs.append(graph.initializers["zero"])
    assert add_initializer(graph, "zero", SCALAR).name == "zero.1"


def test_made_up_names_make_way_in_every_graph() -> None:
    """In memory values are themselves, in a file they are their names: what is written computes the same."""
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        g (float[N] x, float[N] free) => (float[N] y) <int64 n = {2}, bool go = {1}> {
          z = Loop (n, go, x) <body = step (int64 i, bool c, float[N] before)
            => (bool d, float[N] after) {
              d = Identity (c)
              two = Add (before, before)
              after = Add (two, free)
          }>
          y = Identity (z)
        }"""
    )
    loop = next(node for node in model.graph if node.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    inner = next(node for node in body if node.outputs[0].name == "after")
    # Names that stand for a value of the body, for an input, and for an output.
    for name, array in (("two", 10.0), ("free", 100.0), ("y", 1000.0)):
        added = add_initializer(model.graph, name, np.array([array], np.float32))
        made = make_node("Add", [inner.inputs[1], added], "step")
        made.outputs[0].name = name
        insert_before(inner, made)
        inner.replace_input_with(1, made.outputs[0])
    assert keep_names_apart(model)
    assert not keep_names_apart(model)
    x, free = np.array([1.0, 2.0], np.float32), np.array([0.5, 0.25], np.float32)
    once = 2 * x + free + 1110
    given = evaluate(ir.from_proto(ir.to_proto(model)), x=x, free=free)
    assert np.allclose(given["y"], 2 * once + free + 1110)
    assert [value.name for value in model.graph.inputs] == ["x", "free"]
    nodes = [node.name for node in model.graph.all_nodes() if node.name]
    assert len(nodes) == len(set(nodes))


def test_branches_beside_each_other_may_use_the_same_names() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        g (float[N] x, bool which) => (float[N] y) {
          y = If (which) <
            then_branch = one () => (float[N] out) { out = Neg (x) },
            else_branch = two () => (float[N] out) { out = Abs (x) }
          >
        }"""
    )
    assert not keep_names_apart(model)
