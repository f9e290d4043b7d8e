"""Where a linear stands, told by a graph's own shape, in every form; no PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.core.names import CORE_NAME, iteration_prefix
from loopedge.quantizer.schemes.places import places_of
from loopedge.quantizer.schemes.rule import observed_by, treated_by_place

D = 8
FLOAT = ir.TensorType(ir.DataType.FLOAT)


class Drawing:
    """A graph in the making: `mul` adds a linear, `op` any node, both give the first output."""

    def __init__(self, features: int = D, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.x = ir.val("x", dtype=dtype, shape=ir.Shape(["batch", features]))
        self.nodes: list[ir.Node] = []
        self.stored: list[ir.Value] = []

    def weight(self, name: str, rows: int = D, columns: int = D) -> ir.Value:
        value = ir.val(
            f"{name}.weight",
            const_value=ir.tensor(np.ones((rows, columns), np.float32), name=f"{name}.weight"),
        )
        self.stored.append(value)
        return value

    def op(self, kind: str, name: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].type = f"{name}.out", FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def mul(self, name: str, source: ir.Value, weight: ir.Value | None = None) -> ir.Value:
        return self.op("MatMul", name, source, weight or self.weight(name))

    def model(self, *outputs: ir.Value) -> ir.Model:
        graph = ir.Graph(
            [self.x], outputs, nodes=self.nodes, initializers=self.stored, opset_imports={"": 23}
        )
        return ir.Model(graph, ir_version=11)


def looped(form: str, *, tie: bool = False) -> ir.Model:
    """Return prelude of two linears, core of one, coda of two behind a skip connection."""
    drawn = Drawing()
    mean = drawn.weight("mean")
    scaled = drawn.op("Sub", "prelude/scaled", drawn.x, mean)
    first = drawn.op("Gelu", "prelude/gelu", drawn.mul("prelude/first", scaled))
    state = drawn.mul("prelude/second", first)
    weight = drawn.stored[-1] if tie else drawn.weight("step")
    if form == "loop":
        number, before = ir.val("number", type=ir.TensorType(ir.DataType.INT64)), ir.val("before")
        carried = ir.val("carried", type=FLOAT)
        product = ir.node("MatMul", [carried, weight], name=f"{CORE_NAME}/step")
        added = ir.node("Add", [carried, product.outputs[0]], name=f"{CORE_NAME}/added")
        on = ir.node("Identity", [before], name=f"{CORE_NAME}/on")
        for node in (product, added):
            node.outputs[0].type, node.outputs[0].name = FLOAT, f"{node.name}.out"
        body = ir.Graph(
            [number, before, carried],
            [on.outputs[0], added.outputs[0]],
            nodes=[product, added, on],
            name="body",
        )
        trips = ir.val("trips", const_value=ir.tensor(np.array(3), name="trips"))
        true = ir.val("true", const_value=ir.tensor(np.array(True), name="true"))
        drawn.stored += [trips, true]
        state = drawn.op("Loop", CORE_NAME, trips, true, state, body=body)
    else:
        for t in range(3):
            prefix = iteration_prefix(t)
            state = drawn.op(
                "Add", f"{prefix}added", state, drawn.mul(f"{prefix}step", state, weight)
            )
    normed = drawn.op("RMSNormalization", "coda/norm", state, drawn.weight("norm", 1))
    hidden = drawn.mul("coda/first", normed)
    return drawn.model(drawn.op("Add", "coda/sum", drawn.mul("coda/last", hidden), mean))


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_places_of_a_looped_graph(form: str) -> None:
    core = {"core/step"} if form == "loop" else {f"core.{t}/step" for t in range(3)}
    assert places_of(looped(form)) == {
        "prelude/first": "inputs",
        "prelude/second": "unbounded",
        **dict.fromkeys(core, "core"),
        "coda/first": "between",
        "coda/last": "outputs",
    }


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_what_follows_raw_inputs_is_unbounded_up_to_a_norm(form: str) -> None:
    model = looped(form)
    first = next(node for node in model.graph if node.name == "prelude/gelu")
    normed = ir.node("LayerNormalization", [first.outputs[0]], name="prelude/norm")
    second = next(node for node in model.graph if node.name == "prelude/second")
    model.graph.insert_before(second, normed)
    second.replace_input_with(0, normed.outputs[0])
    assert places_of(model)["prelude/second"] == "between"


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_linears_that_share_a_weight_stand_together(form: str) -> None:
    assert places_of(looped(form, tie=True))["prelude/second"] == "core"


def test_without_a_core_the_linears_between_count_as_the_core() -> None:
    drawn = Drawing()
    hidden = drawn.mul("second", drawn.op("Relu", "relu", drawn.mul("first", drawn.x)))
    model = drawn.model(drawn.op("Softmax", "softmax", drawn.mul("third", hidden)))
    assert places_of(model) == {"first": "inputs", "second": "core", "third": "outputs"}


def test_norms_ids_and_sizes_are_no_raw_inputs() -> None:
    bounded = Drawing()
    normed = bounded.op("LayerNormalization", "norm", bounded.x, bounded.weight("scale", 1))
    hidden = bounded.mul("first", normed)
    assert places_of(bounded.model(bounded.mul("last", hidden)))["first"] == "core"
    ids = Drawing(dtype=ir.DataType.INT64)
    rows = ids.op("Gather", "embedding", ids.weight("table"), ids.x)
    hidden = ids.mul("first", rows)
    assert places_of(ids.model(ids.mul("last", hidden)))["first"] == "core"
    sized = Drawing()
    filled = sized.op("ConstantOfShape", "fill", sized.op("Shape", "size", sized.x))
    hidden = sized.mul("first", filled)
    assert places_of(sized.model(sized.mul("last", hidden)))["first"] == "core"


def test_every_way_of_views_and_sums_to_the_inputs_is_followed() -> None:
    drawn = Drawing()
    halves = [drawn.op(kind, kind, drawn.x) for kind in ("Identity", "Transpose", "Abs")]
    joined = drawn.op("Concat", "joined", *halves, axis=0)
    mean = drawn.op("ReduceMean", "mean", joined)
    hidden = drawn.mul("first", drawn.op("Div", "scaled", joined, mean))
    assert places_of(drawn.model(drawn.mul("last", hidden)))["first"] == "inputs"


def test_branches_are_followed_to_the_outputs() -> None:
    drawn = Drawing()
    hidden = drawn.mul("first", drawn.x)
    last = drawn.mul("last", hidden)
    branches = []
    for name in ("then", "else"):
        same = ir.node("Identity", [last], name=name)
        same.outputs[0].name = f"{name}.out"
        branches.append(ir.Graph([], same.outputs, nodes=[same], name=name))
    flag = ir.val("flag", const_value=ir.tensor(np.array(True), name="flag"))
    drawn.stored.append(flag)
    chosen = drawn.op("If", "if", flag, then_branch=branches[0], else_branch=branches[1])
    assert places_of(drawn.model(chosen))["last"] == "outputs"


def test_treatments_follow_places_and_sizes() -> None:
    def treatments(features: int, width: int, **options: str) -> dict[str, str]:
        drawn = Drawing(features)
        hidden = drawn.mul("first", drawn.x, drawn.weight("first", features, width))
        hidden = drawn.mul("second", hidden, drawn.weight("second", width, width))
        model = drawn.model(drawn.mul("third", hidden, drawn.weight("third", width, 4)))
        found = treated_by_place(model, **options)  # type: ignore[arg-type]
        return {name: item.treatment for name, item in found.items()}

    assert treatments(1, 64) == {"first": "float", "third": "weight-int8"}
    assert treatments(64, 64) == {"first": "weight-int8", "third": "weight-int8"}
    assert treatments(64, 64, large="dynamic") == {"first": "dynamic", "third": "dynamic"}
    assert treatments(64, 64, large="pairs") == {
        "first": "weight-int8"
    }  # the last has a range and a margin


def test_the_core_has_the_asked_method_and_what_stands_around_a_margin() -> None:
    found = observed_by(looped("loop"), "entropy", as_core={"coda/last"})
    asked = {name for name, by in found.items() if (by.method, by.margin) == ("entropy", 1.0)}
    assert asked == {"core/step", "coda/last"}
    others = {(by.method, by.margin) for name, by in found.items() if name not in asked}
    assert others == {("minmax", 1.25)}
