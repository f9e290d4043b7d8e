"""Weights of other tools are stored once, as linears read them."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
from loopedge.errors import InputError, LoopedgeError
from loopedge.graph.passes.foreign_weights import normalise_weights
from loopedge.graph.weights import linears, stored_bytes

D = 48
KINDS = {"float": np.float32, "float16": np.float16}


def weights() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).normal
    shapes = {"a": (D, D), "b": (D, D), "row": (D,), "wide": (D, 3 * D), "table": (20, D)}
    return {name: draw(size=shape) / np.sqrt(D) for name, shape in shapes.items()}


def model_of(body: str, names: str, kind: str = "float") -> ir.Model:
    found = weights()
    given = "".join(f", {kind}[{','.join(map(str, found[n].shape))}] {n}" for n in names.split())
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 21]> g ({kind}[N, {D}] x{given}) => ({kind}[N, M] y) {{ {body} }}'
    )
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        array = found[value.name or ""].astype(KINDS[kind])
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    for place, node in enumerate(model.graph.all_nodes()):
        node.name = f"n{place}"
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0], np.float32)


CASES = {
    "Gemm": ("y = Gemm <transB=1, alpha=0.5, beta=2.0> (x, a, row)", "a row", ["a"]),
    "Gemm of a turned activation": (
        "t = Transpose <perm=[1,0]> (x) y = Gemm <transA=1> (t, a)",
        "a",
        ["a"],
    ),
    "Gemm whose weight comes first": (
        "t = Transpose <perm=[1,0]> (x) z = Gemm <transA=1> (a, t) y = Transpose <perm=[1,0]> (z)",
        "a",
        ["a"],
    ),
    "three of one": (
        "p, q, r = Split <axis=1, num_outputs=3> (wide) "
        "t = MatMul (x, p) u = MatMul (t, q) y = MatMul (u, r)",
        "wide",
        ["wide", "wide.1", "wide.2"],
    ),
    "one made twice": (
        "v = Mul (a, row) w = Mul (a, row) t = MatMul (x, v) y = MatMul (t, w)",
        "a row",
        ["a", "a"],
    ),
    "a tied head": (
        "i = Cast <to=7> (x) k = Constant <value_ints=[1]> () m = ReduceMin <keepdims=0> (i, k) "
        "n = Abs (m) e = Gather (table, n) w = Transpose <perm=[1,0]> (table) y = MatMul (e, w)",
        "table",
        ["table"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_every_product_is_a_linear_with_a_stored_weight(name: str, kind: str) -> None:
    body, names, expected = CASES[name]
    model = model_of(body, names, kind)
    x = np.random.default_rng(1).normal(size=(3, D)).astype(KINDS[kind])
    exact = run(model, x)
    bytes_before = sum(map(stored_bytes, model.graph.initializers.values()))
    assert normalise_weights(model)
    close = 1e-5 if kind == "float" else 5e-3
    assert np.abs(run(model, x) - exact).max() <= close * np.abs(exact).max()
    found = linears(model)
    assert [(item.node.op_type, item.weight.name) for item in found] == [
        ("MatMul", each) for each in expected
    ]
    assert {item.weight.dtype for item in found} == {ir.DataType.FLOAT}
    wider = 1 if kind == "float" else 2
    after = sum(map(stored_bytes, model.graph.initializers.values()))
    assert after <= wider * bytes_before + 64


def test_a_weight_in_two_forms_is_not_stored_twice(tmp_path: Path) -> None:
    model = model_of(
        "v = Mul (a, row) t = MatMul (x, v) u = MatMul (t, b) y = MatMul (u, a)", "a b row"
    )
    normalise_weights(model)
    assert sorted(model.graph.initializers) == ["a", "b", "row"]
    ir.save(model, tmp_path / "m.onnx")
    with pytest.raises(LoopedgeError, match=r"1 of 3 .* is computed from a, row") as caught:
        loopedge.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert "min_coverage=0" in (caught.value.hint or "")
    result = loopedge.quantize(
        tmp_path / "m.onnx", tmp_path / "q.onnx", min_coverage=0, reduce_range=True
    )
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (1, 3)


def test_where_nothing_can_become_int8_no_hint_leads_back(tmp_path: Path) -> None:
    ir.save(
        model_of("v = Mul (a, row) t = MatMul (x, v) y = MatMul (t, a)", "a row"),
        tmp_path / "m.onnx",
    )
    for share in (1, 0):
        with pytest.raises(InputError, match=r"none of the 2 linears .* became int8") as caught:
            loopedge.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", min_coverage=share)
        assert caught.value.hint is None
    assert not (tmp_path / "q.onnx").exists()
