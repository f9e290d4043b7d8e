"""Attention in groups of heads, and a tied head that reads its table in place."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from loopedge.graph.editing import add_initializer
from loopedge.graph.passes.table_head import read_table_in_place, turn_scores
from loopedge.graph.split.head_groups import split_heads
from loopedge.graph.weights import weight_bytes

Array = NDArray[Any]
WIDTH, HEADS, VOCABULARY = 32, 4, 50
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 5, WIDTH)).astype(np.float32)
STATE = f"float[B, S, {WIDTH}]"


def stored(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32) / np.float32(shape[0] ** 0.5)


ARRAYS = {
    **{f"w_{name}": stored(WIDTH, WIDTH) for name in "qkvo"},
    **{f"half_{name}": stored(WIDTH, WIDTH // 2) for name in "kv"},
    **{f"b_{name}": stored(WIDTH) for name in "qkvo"},
    "mask": np.tril(np.ones((5, 5), np.bool_)),
    "per_head": GENERATOR.random((1, HEADS, 5, 5)) > 0.2,
    "table": stored(VOCABULARY, WIDTH),
}
ATTENTION = (
    f"a = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}, is_causal = 1> (q, k, v) "
)
PLAIN = "q = MatMul (x, w_q) k = MatMul (x, w_k) v = MatMul (x, w_v) "
BIASED = "".join(f"p_{n} = MatMul (x, w_{n}) {n} = Add (p_{n}, b_{n}) " for n in "qkv")
END = "y = MatMul (a, w_o)"
SPLIT = {
    "plain": PLAIN + ATTENTION + END,
    "biases": BIASED + ATTENTION + "p = MatMul (a, w_o) y = Add (p, b_o)",
    "mask": PLAIN + ATTENTION.replace("v)", "v, mask)").replace(", is_causal = 1", "") + END,
    "grouped queries": "q = MatMul (x, w_q) k = MatMul (x, half_k) v = MatMul (x, half_v) "
    + ATTENTION.replace("kv_num_heads = 4", "kv_num_heads = 2")
    + END,
}
WHOLE = {
    "a mask per head": PLAIN + ATTENTION.replace("v)", "v, per_head)") + END,
    "one projection": PLAIN + ATTENTION.replace("(q, k, v)", "(q, k, k)") + END,
    "rotated queries": PLAIN.replace("q =", "r =") + "q = Sin (r) " + ATTENTION + END,
    "read twice": PLAIN + ATTENTION + "o = MatMul (a, w_o) y = Add (o, a)",
    "queries read twice": PLAIN + ATTENTION + "o = MatMul (a, w_o) y = Add (o, q)",
}


def parse(nodes: str, width: int = WIDTH) -> ir.Model:
    model = ir.from_onnx_text(
        f'<ir_version: 11, opset_import: ["": 23]> agraph ({STATE} x) => '
        f"(float[B, S, {width}] y) {{ {nodes} }}"
    )
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in ARRAYS:
                node.replace_input_with(
                    index, add_initializer(model.graph, value.name, ARRAYS[value.name])
                )
    return model


def run(model: ir.Model, x: Array = X) -> Array:
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("name", SPLIT)
def test_attention_is_split_and_computes_the_same(name: str) -> None:
    model = parse(SPLIT[name])
    before, size = run(model), weight_bytes(model)
    assert set(split_heads(model, least_width=8).values()) == {2 if "grouped" in name else 4}
    assert weight_bytes(model) == size
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_other_attention_stays_as_it_is(name: str) -> None:
    model = parse(WHOLE[name])
    names = [node.op_type for node in model.graph]
    assert split_heads(model, least_width=8) == {}
    assert [node.op_type for node in model.graph] == names


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"length": 8}, set()),  # the scores are no larger than the state
        ({"length": 9}, {2}),
        ({"length": 16}, {2}),
        ({"length": 17}, {4}),
        ({"length": 999}, {4}),
        ({"length": 999, "least_width": 16}, {2}),
        ({"length": 999, "least_width": 17}, set()),
        ({"length": 999, "least_width": None}, set()),
    ],
)
def test_groups_are_as_many_as_the_scores_take(
    options: dict[str, int | None], groups: set[int]
) -> None:
    given = {"least_width": 8} | options
    known = {key: value for key, value in given.items() if value is not None}
    assert set(split_heads(parse(SPLIT["plain"]), **known).values()) == groups


HEAD = "t = Transpose <perm = [0, 2, 1]> (x) s = MatMul (table, t) y = Transpose <perm = [0, 2, 1]> (s)"


def test_a_tied_head_gives_its_scores_at_once_and_back() -> None:
    model = parse(HEAD, VOCABULARY)
    model.graph.inputs[0].shape = ir.Shape(["B", "S", WIDTH])
    before = run(model)
    assert read_table_in_place(model, least_bytes=0)
    assert [node.op_type for node in model.graph] == ["FusedMatMul"]
    for x in (X, X[:, :1], X[:1]):
        np.testing.assert_allclose(run(model, x), x @ ARRAYS["table"].T, rtol=1e-4, atol=1e-5)
    assert dict(model.graph.opset_imports) == {"": 23, "com.microsoft": 1}
    assert turn_scores(model)
    assert dict(model.graph.opset_imports) == {"": 23}
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul", "Transpose"]
    np.testing.assert_array_equal(run(model), before)
    assert not turn_scores(model)


@pytest.mark.parametrize(
    "nodes",
    [
        HEAD.replace("MatMul (table, t)", "MatMul (c, t) c = Identity (table)").replace(
            "s = MatMul (c, t) c = Identity (table)", "c = Identity (table) s = MatMul (c, t)"
        ),
        HEAD.replace("perm = [0, 2, 1]> (s)", "perm = [0, 1, 2]> (s)"),
        HEAD.replace("y = ", "z = ") + " r = Transpose <perm = [0, 2, 1]> (s) y = Add (z, r)",
    ],
)
def test_another_product_stays_as_it_is(nodes: str) -> None:
    assert not read_table_in_place(parse(nodes, VOCABULARY), least_bytes=0)


def test_a_head_with_few_words_stays_as_it_is() -> None:
    scores = 4 * VOCABULARY * 128
    assert not read_table_in_place(parse(HEAD, VOCABULARY))
    assert not read_table_in_place(parse(HEAD, VOCABULARY), length=127, least_bytes=scores)
    assert read_table_in_place(parse(HEAD, VOCABULARY), least_bytes=scores)
