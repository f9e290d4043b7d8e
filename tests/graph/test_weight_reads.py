"""Weights are followed to the products that read them, wherever both stand."""

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.integer_linears import count_integer_linears
from loopedge.graph.weight_reads import weight_reads

D = 4
HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "own": 1]>'
SHAPES = {"a": (D, D), "b": (D, D), "three": (3, D, D), "pair": (2 * D, D), "row": (D,)}
"""Stored float weights that a text may name among its inputs."""


def model_of(text: str) -> ir.Model:
    model = ir.from_onnx_text(HEAD + text)
    for value in list(model.graph.inputs):
        name = value.name or ""
        if name in SHAPES or name.startswith("q"):
            dtype = np.int8 if name.startswith("q") else np.float32
            array = np.ones(SHAPES[name.removeprefix("q") if name != "q" else "a"], dtype)
            value.const_value = ir.tensor(array, name=name)
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)
    return model


def found(text: str) -> list[tuple[str, list[str]]]:
    return [
        (read.node.op_type, sorted(value.name or "" for value in read.weights))
        for read in weight_reads(model_of(text))
    ]


def wrapped(body: str, weights: str, outputs: str = "y") -> str:
    return f"g (float[N, {D}] x{weights}) => (float[N, {D}] {outputs}) {{ {body} }}"


STRAIGHT = {
    "stored": ("y = MatMul (x, a)", ", float a", [("MatMul", ["a"])]),
    "first factor": ("y = MatMul (a, x)", ", float a", [("MatMul", ["a"])]),
    "two activations": ("y = MatMul (x, x)", "", []),
    "turned": (
        "t = Transpose <perm=[1,0]> (a) y = MatMul (x, t)",
        ", float a",
        [("MatMul", ["a"])],
    ),
    "scaled by a row": (
        "t = Mul (a, row) u = Identity (t) y = MatMul (x, u)",
        ", float a, float row",
        [("MatMul", ["a", "row"])],
    ),
    "two joined": (
        "t = Concat <axis=1> (a, b) y = MatMul (x, t)",
        ", float a, float b",
        [("MatMul", ["a", "b"])],
    ),
    "computed by a product": (
        "t = MatMul (a, b) y = MatMul (x, t)",
        ", float a, float b",
        [("MatMul", ["b"]), ("MatMul", ["a", "b"])],
    ),
    "a constant": (
        "t = Constant <value = float[2, 2] {1, 2, 3, 4}> () y = MatMul (x, t)",
        "",
        [("MatMul", ["t"])],
    ),
    "cut by a size of the inputs": (
        "e = Shape <start=0, end=1> (x) z = Constant <value_ints=[0]> () "
        "t = Slice (a, z, e) y = MatMul (t, x)",
        ", float a",
        [("MatMul", ["a"])],
    ),
    "an embedding": ("i = Cast <to=7> (x) e = Gather (a, i) y = MatMul (e, e)", ", float a", []),
    "one of several matrices": (
        "i = Cast <to=7> (x) e = Gather (three, i) y = MatMul (x, e)",
        ", float three",
        [("MatMul", ["three"])],
    ),
    "an attention's own keys": (
        "y = Attention <q_num_heads=1, kv_num_heads=1> (x, a, x)",
        ", float a",
        [("Attention", ["a"])],
    ),
    "a function": (
        """y = own.twice (x, a) }
        <opset_import: ["": 21], domain: "own">
        twice (x, w) => (y) {
          c = Constant <value = float[2, 2] {1, 2, 3, 4}> ()
          p = MatMul (x, w) q = MatMul (p, c) y = MatMul (q, w)""",
        ", float a",
        [("MatMul", ["a"]), ("MatMul", ["c"]), ("MatMul", ["a"])],
    ),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_weight_on_its_way(name: str) -> None:
    body, weights, expected = STRAIGHT[name]
    assert found(wrapped(body, weights)) == expected


LOOP = """n = Constant <value_int=3> () go = Constant <value = bool {1}> ()
  %s = Loop (n, go, %s) <body = step (int64 i, bool c, %s) => (bool d, %s) { d = Identity (c) %s }>"""


def test_weights_of_a_loop_body() -> None:
    captured = LOOP % ("y", "x", "float s", "float t", "t = MatMul (s, a)")
    assert found(wrapped(captured, ", float a")) == [("MatMul", ["a"])]
    gathered = LOOP % ("y", "x", "float s", "float t", "w = Gather (three, i) t = MatMul (s, w)")
    assert found(wrapped(gathered, ", float three")) == [("MatMul", ["three"])]
    handed = LOOP % (
        "y, w",
        "x, a",
        "float s, float v",
        "float t, float u",
        "u = Identity (v) t = MatMul (s, v)",
    )
    assert found(wrapped(handed, ", float a")) == [("MatMul", ["a"])]


def test_a_state_that_starts_as_a_weight_is_an_activation() -> None:
    handed = LOOP % ("y", "b", "float s", "float t", "p = MatMul (s, s) t = Add (p, x)")
    assert found(wrapped(handed, ", float b")) == []


def test_two_weights_that_change_places_are_both_read() -> None:
    handed = LOOP % (
        "y, v, w",
        "x, a, b",
        "float s, float v0, float w0",
        "float t, float v1, float w1",
        "v1 = Identity (w0) w1 = Identity (v0) t = MatMul (s, v0)",
    )
    assert found(wrapped(handed, ", float a, float b")) == [("MatMul", ["a", "b"])]


def test_weights_of_a_scan_and_of_branches() -> None:
    scan = """z, y = Scan <num_scan_inputs=1, body = step (float s, float w) => (float t, float k) {
      t = MatMul (s, w) k = MatMul (s, s) }> (x, three)"""
    assert found(wrapped(scan, ", float three")) == [("MatMul", ["three"])]
    branch = """s = ReduceSum <keepdims=0> (x) c = Cast <to=9> (s)
      y = If (c) <then_branch = g () => (float u) { u = MatMul (x, a) },
                  else_branch = h () => (float v) { v = MatMul (x, b) }>"""
    assert found(wrapped(branch, ", float a, float b")) == [("MatMul", ["a"]), ("MatMul", ["b"])]
    chosen = """s = ReduceSum <keepdims=0> (x) c = Cast <to=9> (s)
      w = If (c) <then_branch = g () => (float u) { u = Identity (a) },
                  else_branch = h () => (float v) { v = Transpose (b) }>
      y = MatMul (x, w)"""
    assert found(wrapped(chosen, ", float a, float b")) == [("MatMul", ["a", "b"])]


def test_integers_behind_whatever_makes_them_float() -> None:
    scaled = "f = Cast <to=1> (qa) w = Mul (f, row) y = MatMul (x, w)"
    counted = count_integer_linears(model_of(wrapped(scaled, ", int8 qa, float row")))
    assert (counted.quantized, counted.total) == (1, 1)
    assert (counted.bytes, counted.total_bytes) == (D * D, D * D + 4 * D)
    half = "f = Cast <to=1> (qa) w = Concat <axis=1> (f, b) y = MatMul (x, w)"
    counted = count_integer_linears(model_of(wrapped(half, ", int8 qa, float b")))
    assert (counted.quantized, counted.total) == (0, 1)
    assert (counted.bytes, counted.total_bytes) == (D * D, 5 * D * D)
