"""The order in which a graph reads its tied weights, and what speaks against rolling it."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from loopedge.graph.rolling.copies import equal_copies
from loopedge.graph.rolling.outlook.answer import Outlook, outlook_of, reason_against
from loopedge.graph.rolling.outlook.ordered_reads import ordered_reads
from loopedge.graph.rolling.outlook.tie_order import TieOrder, longest_repeat, tie_order

WIDTH, HIDDEN = 4, 6


class Writer:
    """Writes a graph out, node by node, as an exporter does; layers by their letter are two linears."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(seed)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator, list(inputs), [output], name=f"n{len(self.nodes)}", **attributes
            )
        )
        return output

    def weight(self, name: str, *shape: int) -> str:
        if name not in self.stored:
            self.stored[name] = self._random.standard_normal(shape).astype(np.float32)
        return name

    def linear(self, x: str, name: str, wide: int = WIDTH, out: int = WIDTH) -> str:
        return self.node("MatMul", x, self.weight(name, wide, out))

    def layer(self, x: str, name: str, *, between: Sequence[str] = ()) -> str:
        hidden = self.node("Gelu", self.linear(x, f"{name}.up", WIDTH, HIDDEN))
        for operator in between:
            hidden = self.node(operator, hidden)
        return self.node("Add", x, self.linear(hidden, f"{name}.down", HIDDEN, WIDTH))

    def layers(self, names: str, x: str = "x") -> str:
        for name in names:
            x = self.layer(x, name)
        return x

    def model(
        self, *outputs: str, inputs: Sequence[str] = ("x",), seed: int | None = None
    ) -> ir.Model:
        """Return the graph; ``seed``: its nodes in another order that is allowed."""
        nodes = self.nodes if seed is None else shuffled(self.nodes, seed)
        graph = helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH])
                for name in inputs
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
        )
        return ir.from_proto(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        )


def shuffled(nodes: Sequence[onnx.NodeProto], seed: int) -> list[onnx.NodeProto]:
    waiting, chance = list(nodes), random.Random(seed)
    found: list[onnx.NodeProto] = []
    while waiting:
        missing = {name for node in waiting for name in node.output}
        ready = [node for node in waiting if not missing & set(node.input)]
        found.append(chance.choice(ready))
        waiting.remove(found[-1])
    return found


def order_of(model: ir.Model) -> TieOrder:
    return tie_order(ordered_reads(model, equal_copies(model)))


def outlook(model: ir.Model) -> Outlook:
    copies = equal_copies(model)
    ordered = ordered_reads(model, copies)
    return outlook_of(ordered, tie_order(ordered), copies)


@pytest.mark.parametrize(
    ("names", "order", "iterations"),
    [
        ("AAAAAA", "6 x A", 6),
        ("ABABAB", "3 x (A B)", 3),
        ("AABB", "2 x A, 2 x B", 2),
        ("AAABBB", "3 x A, 3 x B", 3),
        ("AABAB", "A, 2 x (A B)", 2),
        ("AAAABBBBBB", "4 x A, 6 x B", 6),
        ("ABCABCABC", "3 x (A B C)", 3),
        ("AABAABAAB", "3 x (2 x A, B)", 3),
        ("ABBABBABB", "3 x (A, 2 x B)", 3),
    ],
)
@pytest.mark.parametrize("seed", [None, 1])
def test_orders(names: str, order: str, iterations: int, seed: int | None) -> None:
    writer = Writer()
    found = writer.model(writer.layers(names), seed=seed)
    ties = order_of(found)
    assert ties.order == order
    assert {group.label: group.weights for group in ties.groups} == {
        name: [f"{name}.up", f"{name}.down"] for name in sorted(set(names))
    }
    for group in ties.groups:
        assert (group.reads, group.side_by_side) == (names.count(group.label), 1)
        assert group.bytes == 2 * WIDTH * HIDDEN * 4
    seen = outlook(found)
    assert (seen.rollable, seen.iterations, seen.reason, seen.notes) == (True, iterations, None, [])


def test_linears_side_by_side_in_a_layer_are_read_together() -> None:
    writer, x = Writer(), "x"
    for _ in range(5):
        q, k, v = (writer.linear(x, name) for name in ("wq", "wk", "wv"))
        mixed = writer.node("Mul", writer.node("Mul", q, k), v)
        x = writer.node("Add", x, writer.linear(mixed, "wo"))
    for seed in range(3):
        (group,) = order_of(writer.model(x, seed=seed)).groups
        assert sorted(group.weights) == ["wk", "wo", "wq", "wv"]
        assert order_of(writer.model(x, seed=seed)).order == "5 x A"


def test_equal_copies_are_one_weight_also_turned_and_by_use() -> None:
    writer = Writer()
    x = writer.linear("x", "w")
    array = writer.stored["w"]
    writer.stored |= {"copy": array.copy(), "turned": np.ascontiguousarray(array.T)}
    x = writer.node("MatMul", writer.node("Tanh", x), "copy")
    x = writer.node("Gemm", writer.node("Tanh", x), "turned", transB=1)
    x = writer.node(
        "MatMul", writer.node("Tanh", x), writer.node("Transpose", "turned", perm=[1, 0])
    )
    model = writer.model(x)
    (copies,) = equal_copies(model)
    assert (sorted(copies.names), copies.transposed) == (["copy", "w"], ["turned"])
    assert copies.saved_bytes == 2 * array.nbytes
    assert order_of(model).order == "4 x A"


def test_a_tied_embedding_is_no_loop() -> None:
    writer = Writer()
    table = writer.weight("table", 12, WIDTH)
    x = writer.node("Add", "x", writer.node("Gather", table, writer.node("Cast", "x", to=7)))
    x = writer.linear(writer.layer(x, "A"), "out", WIDTH, 7)
    writer.node("MatMul", x, writer.weight("other", 7, 7))
    assert outlook(writer.model(x)).reason == "no weight is read by two products"


def test_two_towers_are_side_by_side() -> None:
    writer = Writer()
    towers = [writer.layers("AB", x) for x in ("x", "z")]
    model = writer.model(writer.node("Sub", *towers), inputs=("x", "z"))
    assert order_of(model).order == "A, B"
    found = outlook(model)
    assert not found.rollable
    assert found.reason == (
        "A.up, A.down, B.up, B.down are read 2 times side by side: no reading depends on another one's result, "
        "so there are no iterations"
    )


def test_two_towers_of_loops_are_loops() -> None:
    writer = Writer()
    towers = [writer.layers("AAAA", x) for x in ("x", "z")]
    model = writer.model(writer.node("Sub", *towers), inputs=("x", "z"))
    (group,) = order_of(model).groups
    assert (group.reads, group.side_by_side, outlook(model).rollable) == (4, 2, True)


def test_the_same_product_twice_is_read_once() -> None:
    """Keys of a context that every iteration computes again."""
    writer, x = Writer(), "x"
    for _ in range(3):
        keys = writer.linear("context", "keys")
        x = writer.layer(writer.node("Mul", x, keys), "A")
    model = writer.model(x, inputs=("x", "context"))
    assert [group.weights for group in order_of(model).groups] == [["A.up", "A.down"]]


def test_an_untied_stack_is_named() -> None:
    writer = Writer()
    found = outlook(writer.model(writer.layers("ABCDEF")))
    size = f"{6 * 2 * WIDTH * HIDDEN * 4 / 1024:.3g} KiB"
    assert found.reason is not None
    assert found.reason.startswith(
        f"6 blocks of equal structure have weights of their own, {size} in all"
    )


def test_what_is_shared_and_what_is_not() -> None:
    writer, x = Writer(), "x"
    for t in range(4):
        x = writer.node(
            "Add", x, writer.node("Tanh", writer.linear(x, f"attention{t}", WIDTH, WIDTH))
        )
        x = writer.layer(x, "ff")
    found = outlook(writer.model(x))
    assert found.reason == (
        "4 blocks share ff.up, ff.down, but each has its own attention0: 256 bytes differ by block, 192 bytes do not"
    )


def test_small_weights_of_an_iteration_are_no_hindrance() -> None:
    """They become a table."""
    writer, x = Writer(), "x"
    for t in range(4):
        x = writer.layer(writer.node("Mul", x, writer.linear(x, f"row{t}", WIDTH, 1)), "A")
    assert outlook(writer.model(x)).rollable


def test_layers_shared_by_neighbours_are_not_worth_loops() -> None:
    writer = Writer()
    found = outlook(writer.model(writer.layers("AABBCCDD")))
    assert not found.rollable
    assert found.reason == (
        "its layers are shared by neighbours alone (2 x A, 2 x B, 2 x C, 2 x D): 4 Loops of 2 iterations would "
        "save no bytes, for each weight is stored once"
    )


def test_an_iteration_that_differs_is_counted() -> None:
    writer, x = Writer(), "x"
    for t in range(1, 7):
        x = writer.layer(x, "A", between=["Gelu"] * 3 + ["Neg"] if t == 4 else [])
    found = outlook(writer.model(x))
    assert (found.iterations, found.notes) == (6, ["iteration 4 has 3 x Gelu, 1 x Neg"])


def test_a_loop_in_a_loop_is_seen() -> None:
    writer, x = Writer(), "x"
    for _ in range(3):
        for _ in range(4):
            x = writer.layer(x, "A")
        x = writer.node("Tanh", x)
    found = outlook(writer.model(x))
    assert (found.iterations, found.notes) == (
        3,
        ["every 4 readings repeat themselves together: a loop in a loop"],
    )


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (lambda t: [t - 2] if t > 2 else [], []),
        (lambda t: [1] if t > 2 else [], []),
        (
            lambda t: [1] if t == 6 else [],
            [
                "iteration 6 reads what iteration 1 made: a state of order 5, which 6 iterations do not show"
            ],
        ),
    ],
)
def test_links_between_iterations(reads: Callable[[int], list[int]], said: list[str]) -> None:
    writer, made = Writer(), {0: "x"}
    for t in range(1, 8):
        x = writer.layer(made[t - 1], "A")
        for earlier in (reads(t) if t < 7 else []) or [t - 1]:
            x = writer.node("Add", x, made[earlier])
        made[t] = writer.node("Tanh", x)
    assert outlook(writer.model(made[7])).notes == said


def test_iterations_that_cross() -> None:
    writer, made = Writer(), {0: "x"}
    for t in range(1, 8):
        x = writer.node("Add", writer.layer(made[t - 1], "A"), made[1 if t == 5 else t - 1])
        made[t] = writer.node("Tanh", x)
    found = outlook(writer.model(made[7]))
    assert found.rollable  # those before and behind may be alike
    assert found.notes == [
        "iteration 5 reads what iteration 1 made, others do not read one so far back"
    ]


def test_iterations_that_read_all_earlier_ones() -> None:
    writer, made = Writer(), ["x"]
    for _ in range(7):
        x = writer.layer(made[-1], "A")
        made.append(writer.node("Tanh", writer.node("Sum", x, *made)))
    (note,) = outlook(writer.model(made[-1])).notes
    assert note.startswith("each of 6 iterations reads what all earlier ones made")


def test_a_graph_that_has_its_loop() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 20]>
        looped (float[N, 4] x) => (float[N, 4] y) <int64 trips = {3}, bool go = {1}, float[1] w = {2.0}> {
          [again] y = Loop (trips, go, x) <body = step (int64 i, bool keep, float[N, 4] s) => (bool on, float[N, 4] t) {
            on = Identity (keep)
            t = Mul (s, w)
          }>
        }"""
    )
    assert reason_against(ir.from_proto(proto)) == "it has its Loop already: again of 3 iterations"


def test_constants_and_functions_are_looked_into() -> None:
    writer = Writer()
    body = [
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
    ]
    layer = helper.make_function(
        "own", "Layer", ["a", "w"], ["c"], body, [helper.make_opsetid("", 21)]
    )
    x = "x"
    for _ in range(3):
        value = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) + 1)
        x = writer.node("Layer", x, writer.node("Constant", value=value), domain="own")
    model = writer.model(x)
    proto = ir.to_proto(model)
    proto.functions.append(layer)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    assert reason_against(ir.from_proto(proto)) is None


def test_a_graph_without_weights() -> None:
    writer = Writer()
    model = writer.model(writer.node("Tanh", writer.node("Tanh", "x")))
    assert outlook(model).reason == "none of its products reads a stored weight"
    assert order_of(model) == TieOrder(order="", groups=[], repeats=())


def test_thousands_of_layers_take_no_recursion() -> None:
    writer = Writer()
    names = [name for number in range(200) for name in [f"l{number}"] * 2]
    x = "x"
    for name in names:
        x = writer.layer(x, name)
    ties = order_of(writer.model(x))
    assert ties.order.endswith("... (200 parts)")
    assert len(ties.groups) == 200


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        ("", None),
        ("abc", None),
        ("aab", (0, 1, 2)),
        ("xababab", (1, 2, 3)),
        ("ababa", (0, 2, 2)),
        ("aabbb", (2, 1, 3)),
    ],
)
def test_the_longest_repeat(tokens: str, found: tuple[int, int, int] | None) -> None:
    assert longest_repeat(tokens) == found
