"""Small graphs, written out by hand, each with one thing that makes a loop hard to find or easy to get wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from loopedge.graph.rolling.node_facts import commutes
from loopedge.graph.rolling.rolled_loop import RolledLoop
from loopedge.graph.rolling.rolling import Rolling, roll
from tests.graph.loop_graphs import as_ir, run

D = 6
SHAPE = ("batch", "sequence", D)
SIZES = ({"batch": 1, "sequence": 3}, {"batch": 3, "sequence": 2})

Array = NDArray[Any]


class Writer:
    """Writes a graph out, node by node."""

    def __init__(self, opset: int = 20, ir_version: int = 9) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(0)

    def input(
        self, name: str, shape: Sequence[str | int] = SHAPE, kind: int = TensorProto.FLOAT
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, shape: Sequence[str | int] = SHAPE) -> None:
        self.outputs.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))

    def store(self, array: Array) -> str:
        name = f"stored{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        drawn = self._random.normal(size=shape or (D, D)) / np.sqrt(D)
        return self.store(drawn.astype(np.float32))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        number = len(self.nodes)
        outputs = [f"v{number}.{k}" for k in range(count)]
        made = helper.make_node(operator, inputs, outputs, f"n{number}", **attributes)
        self.nodes.append(made)
        return outputs

    def step(self, state: str, weight: str, operator: str = "Tanh") -> str:
        """Apply ``state + operator(state @ weight)``."""
        return self.node("Add", self.node(operator, self.node("MatMul", state, weight)), state)

    def steps(self, state: str, weight: str, operators: Sequence[str]) -> list[str]:
        """Return the state after each step."""
        return [state := self.step(state, weight, operator) for operator in operators]

    def model(self, *outputs: str) -> onnx.ModelProto:
        for value in outputs:
            self.output(value)
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.stored)
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version)


def rolled(model: onnx.ModelProto, *, inner: bool = False) -> Rolling:
    """Roll a graph; what comes out is valid, has its inputs and outputs, and computes the same."""
    rolling = roll(as_ir(model), inner=inner)
    written = ir.to_proto(rolling.model)
    onnx.checker.check_model(written, full_check=True)
    stored = {tensor.name for tensor in model.graph.initializer}
    taken = [value for value in model.graph.input if value.name not in stored]
    assert [value.SerializeToString() for value in taken] == [
        value.SerializeToString() for value in written.graph.input
    ]
    assert list(model.graph.output) == list(written.graph.output)
    for sizes in SIZES:
        feeds = {value.name: drawn(value, sizes) for value in taken}
        found = run(written, feeds)
        for name, array in run(model, feeds).items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    return rolling


def drawn(value: onnx.ValueInfoProto, sizes: dict[str, int]) -> Array:
    dims = value.type.tensor_type.shape.dim
    shape = [dim.dim_value or sizes[dim.dim_param] for dim in dims]
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def only_loop(rolling: Rolling) -> RolledLoop:
    (loop,) = rolling.loops
    return loop


# ---- states ----


def test_two_states_start_from_one_zero() -> None:
    graph = Writer()
    x = graph.input("x")
    first, second = graph.weight(), graph.weight()
    low = high = graph.node("Sub", x, x)
    for _ in range(5):
        low = graph.node("Tanh", graph.node("MatMul", graph.node("Add", high, low), first))
        high = graph.step(graph.node("Add", low, x), second, "Sigmoid")
    loop = only_loop(rolled(graph.model(low, high)))
    assert (loop.iterations, loop.states, loop.context) == (5, 2, 1)


def test_the_last_iteration_leaves_out_what_nothing_reads() -> None:
    graph = Writer()
    x, memory = graph.input("x"), graph.input("memory")
    weight, bias = graph.weight(), [graph.weight(D) for _ in range(8)]
    state = x
    for t in range(9):
        state = graph.step(graph.node("Add", state, memory), weight)
        if t < 8:
            memory = graph.node("Sin", graph.node("Add", graph.node("Mul", memory, state), bias[t]))
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.states, loop.tables) == (9, 2, 1)


def test_a_recurrence_of_second_order_has_two_states() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    before, state = x, graph.node("Sin", x)
    for _ in range(6):
        product = graph.node("MatMul", state, weight)
        before, state = state, graph.node("Tanh", graph.node("Add", product, before))
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.states) == (6, 2)


def test_a_state_may_be_larger_behind_the_first_iteration() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    state = graph.weight(1, 1, D)
    for _ in range(6):
        state = graph.node("Add", graph.node("Tanh", graph.node("MatMul", state, weight)), x)
    assert only_loop(rolled(graph.model(state))).iterations == 5


def test_a_state_may_grow() -> None:
    graph = Writer()
    x, weight, axis = graph.input("x"), graph.weight(), graph.store(np.array([1]))
    state = memory = x
    for _ in range(5):
        memory = graph.node("Concat", memory, graph.node("MatMul", state, weight), axis=1)
        state = graph.node("Add", state, graph.node("ReduceMean", memory, axis))
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.states) == (5, 2)


# ---- what differs between iterations ----


@pytest.mark.parametrize("shape", [(), (D,), (1, 1, D)])
def test_constants_become_a_table(shape: tuple[int, ...]) -> None:
    graph = Writer()
    state, weight = graph.input("x"), graph.weight()
    for t in range(5):
        row = graph.store(np.full(shape, t / 10, np.float32))
        state = graph.step(graph.node("Add", state, row), weight)
    assert only_loop(rolled(graph.model(state))).tables == 1


@pytest.mark.parametrize("opset", [9, 11, 13, 20])
def test_values_from_before_the_loop_become_a_stack(opset: int) -> None:
    graph = Writer(opset, 4)
    state, weight = graph.input("x"), graph.weight()
    for number in range(5):
        state = graph.step(graph.node("Add", state, graph.input(f"turn{number}")), weight)
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.tables, loop.context) == (5, 1, 0)


def test_inputs_that_commute_may_be_swapped() -> None:
    graph = Writer()
    state, weight, bias = graph.input("x"), graph.weight(), graph.weight(D)
    for t in range(6):
        product = graph.node("MatMul", state, weight)
        moved = graph.node("Add", *((product, bias) if t % 2 else (bias, product)))
        changed = graph.node("Tanh", moved)
        state = graph.node("Mul", *((changed, state) if t % 3 else (state, changed)))
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.states, loop.tables) == (6, 1, 0)


def test_rows_that_layers_share_by_chance_are_no_tie() -> None:
    graph = Writer()
    state, ones = graph.input("x"), graph.store(np.ones(D, np.float32))
    for _ in range(5):
        state = graph.step(graph.node("Mul", state, ones), graph.weight())
    assert rolled(graph.model(state)).loops == []


def test_copies_may_have_outputs_that_others_leave_out() -> None:
    graph = Writer()
    state, weight, scale = graph.input("x"), graph.weight(), graph.weight(D)
    for t in range(5):
        normed, *mean = graph.several(
            2 if t == 2 else 1, "LayerNormalization", state, scale, axis=-1
        )
        if mean:
            graph.output(graph.node("Neg", *mean), ["batch", "sequence", 1])
        state = graph.node("Add", graph.node("MatMul", normed, weight), state)
    loop = only_loop(rolled(graph.model(state)))
    assert (loop.iterations, loop.stacked) == (5, 1)


# ---- iterations that stay outside ----


def test_a_first_iteration_that_differs_stands_in_front() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    states = graph.steps(x, weight, ("Sigmoid", *["Tanh"] * 5))
    loop = only_loop(rolled(graph.model(states[-1])))
    assert (loop.iterations, loop.states, loop.stacked) == (5, 1, 0)
    assert (loop.peeled_first or "").endswith("5 x Tanh, 1 x Sigmoid in iteration 1")
    assert loop.peeled_last is None


def test_a_last_iteration_that_differs_stands_behind() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    states = graph.steps(x, weight, (*["Tanh"] * 5, "Sigmoid"))
    loop = only_loop(rolled(graph.model(states[-1])))
    assert (loop.iterations, loop.states, loop.stacked) == (5, 1, 0)
    assert (loop.peeled_last or "").endswith("has no copy in the last iteration")
    assert loop.peeled_first is None


def test_a_first_and_a_last_one_stand_outside() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    states = graph.steps(x, weight, ("Sigmoid", *["Tanh"] * 4, "Sigmoid"))
    loop = only_loop(rolled(graph.model(states[-1])))
    assert (loop.iterations, loop.states, loop.stacked) == (4, 1, 0)
    assert "Sigmoid in iteration 1" in (loop.peeled_first or "")
    assert "in the last iteration" in (loop.peeled_last or "")


def test_two_loops_in_sequence_share_a_weight() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    between = graph.node("Softmax", graph.steps(x, weight, ["Tanh"] * 5)[-1], axis=-1)
    rolling = rolled(graph.model(graph.steps(between, weight, ["Sigmoid"] * 4)[-1]))
    assert [(loop.name, loop.iterations) for loop in rolling.loops] == [("core", 5), ("core2", 4)]
    # Neither stands outside of the other: both are Loops.
    assert {(loop.peeled_first, loop.peeled_last) for loop in rolling.loops} == {(None, None)}


# ---- what the graph around reads ----


def test_the_last_value_is_the_last_state() -> None:
    graph = Writer()
    states = graph.steps(graph.input("x"), graph.weight(), ["Tanh"] * 5)
    assert only_loop(rolled(graph.model(states[-1]))).stacked == 0


def test_every_value_is_stacked() -> None:
    graph = Writer()
    states = graph.steps(graph.input("x"), graph.weight(), ["Tanh"] * 5)
    loop = only_loop(rolled(graph.model(*states, graph.node("Neg", states[1]))))
    assert (loop.iterations, loop.stacked) == (5, 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_values_that_are_stacked_in_the_source_are_the_stack_of_the_loop(axis: int) -> None:
    graph = Writer()
    x, weight, axes = graph.input("x"), graph.weight(), graph.store(np.array([axis]))
    states = graph.steps(x, weight, ["Tanh"] * 5)
    raised = [graph.node("Unsqueeze", graph.node("Neg", state), axes) for state in states]
    shape: list[str | int] = ["batch", "sequence", D]
    shape.insert(axis, 5)
    graph.output(graph.node("Concat", *raised, axis=axis), shape)
    rolling = rolled(graph.model())
    assert only_loop(rolling).stacked == 1
    operators = [node.op_type for node in rolling.model.graph.all_nodes()]
    assert {"Unsqueeze", "Concat"}.isdisjoint(operators)
    assert operators.count("Gather") == 0


def test_a_value_may_be_an_output_twice_and_read_inside() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    states = graph.steps(x, weight, ["Tanh"] * 5)
    rolled(graph.model(states[-1], states[1], states[-1], x))


def test_a_branch_outside_reads_iterations() -> None:
    graph = Writer()
    x, weight = graph.input("x"), graph.weight()
    states = graph.steps(x, weight, ["Tanh"] * 5)
    chosen = graph.node(
        "If",
        graph.node("Cast", graph.node("ReduceMax", x, keepdims=0), to=TensorProto.BOOL),
        then_branch=branch("Neg", states[1]),
        else_branch=branch("Sin", states[-1]),
    )
    assert only_loop(rolled(graph.model(chosen))).iterations == 5


def branch(operator: str, value: str) -> onnx.GraphProto:
    """Return a body that applies an operator to a value of the graph around."""
    made = helper.make_tensor_value_info(f"{value}.{operator}", TensorProto.FLOAT, None)
    node = helper.make_node(operator, [value], [made.name])
    return helper.make_graph([node], operator, [], [made])


# ---- what is refused, and files of old ----


def test_control_flow_in_an_iteration_is_named() -> None:
    graph = Writer()
    state, weight = graph.input("x"), graph.weight()
    choice = graph.input("choice", (), TensorProto.BOOL)
    for _ in range(4):
        product = graph.node("MatMul", state, weight)
        state = graph.node(
            "If", choice, then_branch=branch("Tanh", product), else_branch=branch("Sin", product)
        )
    rolling = rolled(graph.model(state))
    assert rolling.loops == []
    assert "control flow is not rolled" in rolling.reasons[0]


def test_reasons_name_no_loop_that_has_no_name_yet() -> None:
    graph = Writer()
    state, shared = graph.input("x"), graph.weight()
    for operator in ("Tanh", "Sigmoid"):
        state = graph.steps(state, graph.weight(), [operator] * 5)[-1]
        state = graph.node("MatMul", state, shared)
    rolling = rolled(graph.model(state))
    assert [loop.iterations for loop in rolling.loops] == [5, 5]
    (reason,) = rolling.reasons
    assert "another Loop stands in an iteration: control flow is not rolled" in reason


def test_an_old_file_that_lists_its_weights_among_its_inputs() -> None:
    graph = Writer(12, 3)
    state, weight = graph.input("x"), graph.weight()
    graph.input(weight, (D, D))
    states = graph.steps(state, weight, ["Tanh"] * 5)
    assert only_loop(rolled(graph.model(states[-1]))).iterations == 5


def test_a_foreign_operator_that_is_called_add_does_not_commute() -> None:
    operator = ir.node("Add", [ir.val("a"), ir.val("b")], domain="com.example")
    assert not commutes(operator)
    assert commutes(ir.node("Add", [ir.val("a"), ir.val("b")]))
