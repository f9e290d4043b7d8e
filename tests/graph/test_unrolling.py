"""Loops of other tools written out: the same outputs, each weight once, or a reason why not."""

import re
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from loopedge.errors import InputError
from loopedge.graph.core.unrolling import Unrolling, unroll, unroll_loops
from loopedge.graph.core.view import view_cores
from loopedge.graph.editing import structure
from loopedge.graph.metadata import ArtifactMetadata, read_metadata, write_metadata
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.weights import weight_bytes
from tests.graph.loop_graphs import (
    COUNT,
    Array,
    D,
    LoopSpec,
    as_ir,
    evaluate,
    feeds_of,
    loop_model,
    run,
    tensor,
)

Changer = Callable[[onnx.ModelProto], None]

SHAPE: list[str | int] = ["batch", "sequence", D]


def assert_close(given_output: Array, expected: Array) -> None:
    np.testing.assert_allclose(given_output, expected, rtol=1e-4, atol=1e-5)


def written_out(
    model: onnx.ModelProto, loops: int | None = None, *, inner: bool = False, count: int = 3
) -> Unrolling:
    """Unroll a graph, and hold that ONNX Runtime and `onnx.reference` compute the same of both."""
    source = as_ir(model)
    before = structure(source)
    found = unroll_loops(source, loops, inner=inner)
    assert structure(source) == before, "the source was changed"
    keep_names_apart(found.model)
    feeds = feeds_of(model, loops or count)
    expected, proto = run(model, feeds), ir.to_proto(found.model)
    onnx.checker.check_model(proto, full_check=True)
    given_outputs = run(proto, feeds)
    assert list(given_outputs) == list(expected)
    for name, array in expected.items():
        assert_close(given_outputs[name], array)
    if "Loop" not in operators(found.model):
        for name, array in evaluate(found.model, feeds).items():
            assert_close(array, expected[name])
    return found


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def edited(model: onnx.ModelProto) -> tuple[onnx.GraphProto, onnx.NodeProto, onnx.GraphProto]:
    """Return the graph, its first Loop and the body of that, to be changed."""
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    return model.graph, loop, body


def test_nodes_are_called_by_core_and_iteration() -> None:
    model = loop_model(LoopSpec(iterations=2), LoopSpec(iterations=3), LoopSpec(iterations=1))
    found = written_out(model)
    assert [(loop.name, loop.core, loop.iterations) for loop in found.loops] == [
        ("loop0", "core", 2),
        ("loop1", "core2", 3),
        ("loop2", "core3", 1),
    ]
    products = [node.name for node in found.model.graph if node.op_type == "MatMul"]
    assert products == [
        *("core.0/product", "core.1/product"),
        *("core2.0/product", "core2.1/product", "core2.2/product"),
        "core3.0/product",
    ]
    assert [core.name for core in view_cores(found.model)] == ["core", "core2", "core3"]


def test_nodes_that_are_called_so_already_get_another_name() -> None:
    model = loop_model(LoopSpec())
    model.graph.node.append(helper.make_node("Neg", ["x"], ["core.0/n"], "core.0/product"))
    model.graph.output.append(tensor("core.0/n", TensorProto.FLOAT, SHAPE))
    names = [node.name for node in written_out(model).model.graph]
    assert "model.core.0/product" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("place", ["initializer", "constant"])
@pytest.mark.parametrize("inner", [0, 2])
def test_what_a_body_stores_is_stored_once(place: str, inner: int) -> None:
    spec = LoopSpec(iterations=4, weights=place, inner=inner)  # type: ignore[arg-type]
    model = loop_model(spec, spec)
    found = written_out(model)
    weights = [name for name in found.model.graph.initializers if name.startswith("own.weight")]
    assert weights == ["own.weight", "own.weight.1"]
    assert weight_bytes(found.model) == 2 * 4 * D * D
    assert not [graph for graph in found.model.graph.subgraphs() if graph.initializers]
    assert "Constant" not in operators(found.model)


def test_tables_are_read_with_a_constant_index() -> None:
    found = written_out(loop_model(LoopSpec(iterations=3, tables=2)))
    gathers = [node for node in found.model.graph if node.op_type == "Gather"]
    places = [node.inputs[1].const_value.numpy().item() for node in gathers]  # type: ignore[union-attr]
    assert places == [0, 0, 1, 1, 2, 2]
    assert {node.inputs[0].name for node in gathers if node.inputs[0]} == {
        "loop0.table0",
        "loop0.table1",
    }


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_stacks_are_put_together(opset: int) -> None:
    found = written_out(loop_model(LoopSpec(iterations=3, stacked=2, number=True), opset=opset))
    counted = operators(found.model)
    assert (counted.count("Unsqueeze"), counted.count("Concat")) == (9, 3)
    names = {node.name for node in found.model.graph if node.op_type == "Concat"}
    assert names == {"core/stack.1", "core/stack.2", "core/stack.3"}


@pytest.mark.parametrize("reads", [0, 1, 2, 3])
def test_a_single_entry_of_a_stack_is_read_itself(reads: int) -> None:
    model = loop_model(LoopSpec(iterations=4, stacked=1, reads=reads))
    del model.graph.output[-1]  # then nothing reads the stack as a whole
    found = written_out(model)
    assert {"Gather", "Concat", "Unsqueeze"}.isdisjoint(operators(found.model))


def test_an_entry_past_the_last_is_left_to_the_runtime() -> None:
    model = loop_model(LoopSpec(iterations=3, stacked=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "past"))
    model.graph.node.append(helper.make_node("Gather", ["loop0.stack0", "past"], ["y"]))
    model.graph.output.append(tensor("y", TensorProto.FLOAT, SHAPE))
    assert "Gather" in operators(unroll(as_ir(model)))


@pytest.mark.parametrize("condition", ["passed", "absent", "true", "cast"])
def test_conditions_that_are_always_true(condition: str) -> None:
    found = written_out(loop_model(LoopSpec(condition=condition)))  # type: ignore[arg-type]
    assert sorted(set(operators(found.model))) == ["Add", "MatMul", "Tanh"]


@pytest.mark.parametrize("stay", [1, 2])
def test_states_that_stay_and_change_places(stay: int) -> None:
    written_out(loop_model(LoopSpec(iterations=3, states=3, stay=stay, swap=True)))


def test_a_state_that_no_node_of_the_body_touches() -> None:
    model = loop_model(LoopSpec(states=2))
    _, _, body = edited(model)
    body.output[2].name = "s1"  # its input itself
    written_out(model)


def test_one_value_for_two_states() -> None:
    model = loop_model(LoopSpec(states=2, iterations=1))
    _, _, body = edited(model)
    nodes = [node for node in body.node if node.output[0] != "s1.next"]
    nodes.append(helper.make_node("Identity", ["s0.next"], ["s1.next"]))
    del body.node[:]
    body.node.extend(nodes)
    found = written_out(model)
    assert [value.name for value in found.model.graph.outputs] == ["loop0.final0", "loop0.final1"]


@pytest.mark.parametrize("named", [["loop0.final0", "", "loop0.final2", ""], ["loop0.final0"]])
def test_outputs_that_nothing_reads(named: list[str]) -> None:
    """ONNX Runtime loads no Loop that leaves an output out: what it gives of the whole is compared."""
    model = loop_model(LoopSpec(states=3, stacked=1))
    feeds = feeds_of(model)
    expected = run(model, feeds)
    _, loop, _ = edited(model)
    kept = [output for output in model.graph.output if output.name in named]
    del loop.output[:]
    loop.output.extend(named)
    del model.graph.output[:]
    model.graph.output.extend(kept)
    found = unroll(as_ir(model))
    assert "Concat" not in operators(found)
    for name, array in run(ir.to_proto(found), feeds).items():
        assert_close(array, expected[name])


def test_values_of_the_graph_around_are_captured() -> None:
    written_out(loop_model(LoopSpec(), LoopSpec(context=True, inner=2), LoopSpec(context=True)))


def test_inner_loops_stay_unless_they_are_asked_for() -> None:
    model = loop_model(LoopSpec(iterations=2, inner=3))
    left = written_out(model)
    assert (left.inner, left.inner_left) == (0, 2)
    assert operators(left.model).count("Loop") == 2
    flat = written_out(model, inner=True)
    assert (flat.inner, flat.inner_left) == (2, 0)
    names = [node.name for node in flat.model.graph if "deep.product" in (node.name or "")]
    assert names == [f"core.{t}/inside.{j}/deep.product" for t in range(2) for j in range(3)]


def test_a_loop_in_a_branch_in_an_iteration() -> None:
    model = loop_model(LoopSpec(iterations=2, inner=2, weights="initializer"))
    graph, _, body = edited(model)
    inside = next(node for node in body.node if node.op_type == "Loop")
    shown = tensor("deep", TensorProto.FLOAT, SHAPE)
    other = helper.make_node("Identity", ["s0"], ["deep"])
    branch = helper.make_node(
        "If",
        ["go"],
        ["deep"],
        "branch",
        then_branch=helper.make_graph([inside], "then", [], [shown]),
        else_branch=helper.make_graph([other], "else", [], [shown]),
    )
    nodes = [branch if node.op_type == "Loop" else node for node in body.node]
    del body.node[:]
    body.node.extend(nodes)
    assert graph.name
    left = written_out(model)
    assert left.inner_left == 2
    assert "Loop" not in operators(written_out(model, inner=True).model)


def test_a_count_that_an_input_holds() -> None:
    model = loop_model(LoopSpec(counted=True, tables=1), LoopSpec(iterations=2))
    with pytest.raises(InputError, match=f"the loop count is an input of the graph, {COUNT}"):
        unroll(as_ir(model))
    found = written_out(model, 4)
    assert found.fixed == {COUNT: 4}
    assert [loop.iterations for loop in found.loops] == [4, 2]
    assert [value.name for value in found.model.graph.inputs] == ["x"]


def test_a_count_that_is_clamped() -> None:
    model = loop_model(LoopSpec(counted=True))
    graph, loop, _ = edited(model)
    graph.initializer.append(numpy_helper.from_array(np.array(3), "most"))
    graph.node.insert(0, helper.make_node("Min", [COUNT, "most"], ["least"]))
    loop.input[0] = "least"
    assert written_out(model, 2).loops[0].iterations == 2
    with pytest.raises(InputError, match="Loop loop0 runs 3 iterations; 5 were asked for"):
        unroll(as_ir(model), 5)


def test_a_count_that_is_read_elsewhere_too() -> None:
    model = loop_model(LoopSpec(counted=True))
    model.graph.node.append(helper.make_node("Cast", [COUNT], ["count"], to=TensorProto.FLOAT))
    model.graph.output.append(tensor("count", TensorProto.FLOAT, []))
    found = written_out(model, 2)
    assert [value.name for value in found.model.graph.inputs] == ["x"]


def test_a_count_with_a_default() -> None:
    model = loop_model(LoopSpec(counted=True))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2), COUNT))
    source = as_ir(model)
    assert unroll_loops(source).loops[0].iterations == 2
    found = written_out(model, 3)
    assert found.loops[0].iterations == 3
    assert COUNT not in found.model.graph.initializers


def test_a_count_that_is_computed_of_constants() -> None:
    model = loop_model(LoopSpec())
    graph, loop, _ = edited(model)
    graph.node.insert(0, helper.make_node("Shape", ["weight"], ["sizes"]))
    graph.node.insert(1, helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0))
    loop.input[0] = "largest"
    assert written_out(model).loops[0].iterations == D


def test_a_loop_in_a_function() -> None:
    model = loop_model(LoopSpec(context=False))
    graph, _, _ = edited(model)
    names = [tensor.name for tensor in graph.initializer]
    function = helper.make_function(
        "own", "Looped", ["x", *names], ["loop0.final0"], list(graph.node), list(model.opset_import)
    )
    del graph.node[:]
    graph.node.append(
        helper.make_node("Looped", ["x", *names], ["loop0.final0"], "call", domain="own")
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert "Loop" not in operators(written_out(model).model)


def test_a_state_that_grows() -> None:
    """Its axis has one name in the body, and another size in each iteration."""
    growing: list[str | int] = ["batch", "grown", D]
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Concat", ["s", "s"], ["joined"], axis=1),
        helper.make_node("Tanh", ["joined"], ["wide"]),
        helper.make_node("Neg", ["wide"], ["next"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [
            tensor("i", TensorProto.INT64, []),
            tensor("go", TensorProto.BOOL, []),
            tensor("s", TensorProto.FLOAT, growing),
        ],
        [tensor("on", TensorProto.BOOL, []), tensor("next", TensorProto.FLOAT, growing)],
        value_info=[tensor("wide", TensorProto.FLOAT, growing)],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], "loop", body=body)
    graph = helper.make_graph(
        [loop],
        "other",
        [tensor("x", TensorProto.FLOAT, ["batch", "sequence", D])],
        [tensor("y", TensorProto.FLOAT, ["batch", None, D])],
        [numpy_helper.from_array(np.array(3), "n")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=8)
    found = written_out(model)
    shapes = [output.shape for node in found.model.graph for output in node.outputs if output.shape]
    assert "grown" not in str(shapes)
    assert "batch" in str(shapes)


def cored(*counts: int) -> ir.Model:
    """Return a graph of several cores, as `loopedge.reroll` writes one."""
    model = as_ir(loop_model(*(LoopSpec(iterations=count) for count in counts)))
    for place, node in enumerate(model.graph):
        node.name = f"core{place + 1}" if place else "core"
        for inside in node.attributes["body"].as_graph():
            inside.name = f"{node.name}/{inside.name}"
    cores = {node.name or "": count for node, count in zip(model.graph, counts, strict=True)}
    metadata = ArtifactMetadata(
        version="0", form="loop", loops=counts[0], trained_loops=counts[0], cores=cores
    )
    write_metadata(metadata, model.metadata_props)
    return model


def test_the_metadata_of_several_cores() -> None:
    unrolled = unroll(cored(3, 2))
    metadata = read_metadata(unrolled.metadata_props)
    assert (metadata.form, metadata.loops, metadata.cores) == (
        "unrolled",
        3,
        {"core": 3, "core2": 2},
    )
    names = [node.name for node in unrolled.graph if node.op_type == "MatMul"]
    assert names == [*(f"core.{t}/product" for t in range(3)), "core2.0/product", "core2.1/product"]


def test_a_graph_that_is_unrolled_already() -> None:
    with pytest.raises(InputError, match="the graph is unrolled already"):
        unroll(unroll(cored(3, 2)))


def test_inner_loops_of_a_graph_that_is_unrolled_already() -> None:
    model = as_ir(loop_model(LoopSpec(inner=2)))
    model.graph[0].name = "core"
    metadata = ArtifactMetadata(version="0", form="loop", loops=3, trained_loops=3)
    write_metadata(metadata, model.metadata_props)
    unrolled = unroll(model)
    with pytest.raises(
        InputError, match="unrolled already, apart from the Loops inside"
    ) as refused:
        unroll(unrolled)
    assert refused.value.hint == 'inner="unrolled"'
    found = unroll_loops(unrolled, inner=True)
    assert (found.inner, found.inner_left) == (3, 0)
    assert read_metadata(found.model.metadata_props).loops == 3


def computed_condition(model: onnx.ModelProto) -> None:
    """Let the values of a state end the Loop."""
    graph, _, body = edited(model)
    nodes = [node for node in body.node if "go.next" not in node.output]
    nodes += [
        helper.make_node("ReduceSum", ["s0.next"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "limit"], ["go.next"]),
    ]
    del body.node[:]
    body.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array(1e9, np.float32), "limit"))


def number_condition(model: onnx.ModelProto) -> None:
    """Let the number of the iteration end the Loop."""
    graph, _, body = edited(model)
    body.node.remove(next(node for node in body.node if "go.next" in node.output))
    body.node.append(helper.make_node("Less", ["i", "limit"], ["go.next"]))
    graph.initializer.append(numpy_helper.from_array(np.array(1), "limit"))


def start_computed(model: onnx.ModelProto) -> None:
    graph, loop, _ = edited(model)
    graph.node.insert(0, helper.make_node("ReduceSum", ["x"], ["all"], keepdims=0))
    graph.node.insert(1, helper.make_node("Cast", ["all"], ["start"], to=TensorProto.BOOL))
    loop.input[1] = "start"


def stored(name: str, value: int | bool) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value), name)


def start_false(model: onnx.ModelProto) -> None:
    graph, loop, _ = edited(model)
    graph.initializer.append(stored("never", False))
    loop.input[1] = "never"


def data_count(model: onnx.ModelProto) -> None:
    graph, loop, _ = edited(model)
    graph.node.insert(0, helper.make_node("Shape", ["x"], ["sizes"], start=0, end=1))
    loop.input[0] = "sizes"


def no_count(model: onnx.ModelProto) -> None:
    _, loop, _ = edited(model)
    loop.input[0] = ""


def counting(count: int) -> Changer:
    def change(model: onnx.ModelProto) -> None:
        graph, loop, _ = edited(model)
        graph.initializer.append(stored("other", count))
        loop.input[0] = "other"

    return change


def no_state(model: onnx.ModelProto) -> None:
    _, loop, _ = edited(model)
    loop.input[2] = ""


def no_loop(model: onnx.ModelProto) -> None:
    graph, loop, _ = edited(model)
    graph.node.append(helper.make_node("Tanh", ["x"], [loop.output[0]]))
    graph.node.remove(loop)


def no_state_in_the_body(model: onnx.ModelProto) -> None:
    _, _, body = edited(model)
    del body.output[1]


REFUSED: list[tuple[Changer, str]] = [
    (computed_condition, "a condition can end Loop loop0"),
    (number_condition, "a condition can end Loop loop0"),
    (start_computed, "whether Loop loop0 runs at all is known only when the graph runs"),
    (start_false, "Loop loop0 never runs: its condition is false"),
    (data_count, "the loop count is known only when the graph runs: Loop loop0"),
    (no_count, "the loop count is known only when the graph runs: Loop loop0"),
    (counting(0), "Loop loop0 runs 0 iterations, 1 to 65,536 can be written out"),
    (counting(-1), "Loop loop0 runs -1 iterations, 1 to 65,536"),
    (counting(65_537), "Loop loop0 runs 65,537 iterations, 1 to 65,536"),
    (counting(60_000), "60000 loops written out have 240,000 nodes, at most 100,000"),
    (no_state, "carries an optional state that is not given"),
    (
        no_state_in_the_body,
        "Loop loop0 has 1 states and 1 outputs, its body 3 inputs and 1 outputs",
    ),
    (no_loop, "the graph holds no Loop that could be unrolled"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_what_cannot_be_written_out_is_refused_with_the_reason(
    change: Changer, reason: str
) -> None:
    model = loop_model(LoopSpec())
    change(model)
    with pytest.raises(InputError, match=re.escape(reason)):
        unroll(as_ir(model))


def test_an_inner_loop_that_ends_early_stays_or_is_refused() -> None:
    model = loop_model(LoopSpec(inner=2))
    _, _, body = edited(model)
    inside = next(node for node in body.node if node.op_type == "Loop")
    deep = inside.attribute[0].g
    deep.node.remove(next(node for node in deep.node if "on.next" in node.output))
    deep.node.append(helper.make_node("Less", ["j", "i"], ["on.next"]))
    assert written_out(model).inner_left == 3
    with pytest.raises(InputError, match=r"a condition can end Loop core\.0/inside"):
        unroll(as_ir(model), inner=True)


def test_a_constant_count_is_no_other() -> None:
    model = loop_model(LoopSpec(iterations=2), LoopSpec(iterations=3))
    assert len(written_out(model, 3).loops) == 2
    with pytest.raises(InputError, match="Loop loop0 runs 2 iterations, Loop loop1 runs 3 iter"):
        unroll(as_ir(model), 5)


SPECS = st.builds(
    LoopSpec,
    iterations=st.integers(1, 4),
    states=st.integers(1, 3),
    stay=st.integers(0, 1),
    swap=st.booleans(),
    tables=st.integers(0, 2),
    context=st.booleans(),
    stacked=st.integers(0, 2),
    number=st.booleans(),
    weights=st.sampled_from(["outside", "initializer", "constant"]),
    condition=st.sampled_from(["passed", "absent", "true", "cast"]),
    inner=st.integers(0, 2),
    reads=st.none() | st.integers(0, 3),
)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(specs=st.lists(SPECS, min_size=1, max_size=3), seed=st.integers(0, 99), inner=st.booleans())
def test_any_graph_of_loops_computes_the_same(
    specs: list[LoopSpec], seed: int, inner: bool
) -> None:
    found = written_out(loop_model(*specs, seed=seed), inner=inner)
    assert [loop.iterations for loop in found.loops] == [spec.iterations for spec in specs]
    left = sum(spec.iterations for spec in specs if spec.inner and not inner)
    assert operators(found.model).count("Loop") == found.inner_left == left


def test_a_loop_without_states_and_without_a_condition() -> None:
    """It gives the stack of its numbers."""
    model = loop_model(LoopSpec(number=True))
    _, loop, body = edited(model)
    loop.input[1] = ""
    del loop.input[2:], loop.output[0], model.graph.output[0]
    del body.input[2], body.output[1]
    del body.node[1:-1]
    written_out(model)


def test_notes_of_an_exporter_are_not_copied() -> None:
    model = loop_model(LoopSpec())
    _, _, body = edited(model)
    for node in body.node:
        node.doc_string = "File model.py, line 1"
        entry = node.metadata_props.add()
        entry.key, entry.value = "stack_trace", "File model.py, line 1"
    found = written_out(model)
    assert "model.py" not in str(ir.to_proto(found.model))


def test_a_state_that_is_a_sequence() -> None:
    """A list that each iteration appends to, put together behind the Loop."""
    listed = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    after = helper.make_tensor_sequence_value_info("s.next", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "number"], ["sum"]),
            helper.make_node("SequenceInsert", ["s", "sum"], ["s.next"]),
        ],
        "body",
        [tensor("i", TensorProto.INT64, []), tensor("go", TensorProto.BOOL, []), listed],
        [tensor("on", TensorProto.BOOL, []), after],
    )
    graph = helper.make_graph(
        [
            helper.make_node("SequenceEmpty", [], ["none"]),
            helper.make_node("Loop", ["n", "", "none"], ["all"], "loop", body=body),
            helper.make_node("ConcatFromSequence", ["all"], ["y"], axis=1),
        ],
        "other",
        [tensor("x", TensorProto.FLOAT, SHAPE)],
        [tensor("y", TensorProto.FLOAT, ["batch", None, D])],
        [numpy_helper.from_array(np.array(3), "n")],
    )
    written_out(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=8))
