"""Graphs of other tools at the edges: their values stay, or what cannot be changed is named."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
from loopedge.graph.passes.foreign_weights import normalise_weights
from tests.parity.models import SEVEN_BITS

D = 64
HEAD = f'<ir_version: 8, opset_import: ["": 21]> g (float[N, {D}] x'
LOOP = (
    "c = Constant <value_ints=[3]> () count = Squeeze (c) {outs} = Loop (count, , {states}) <body = b "
    "(int64 i, bool before, float[N, 64] s{more}) => (bool after, float[N, 64] t{given}) "
    "{{ {body} after = Identity (before) }}> "
)


def written(path: Path, text: str, weights: dict[str, tuple[int, ...]], *inputs: str) -> Path:
    """Write a graph whose seeded weights are initializers; ``inputs`` are listed as inputs too."""
    model = ir.from_onnx_text(text)
    generator = np.random.default_rng(3)
    for name, shape in weights.items():
        half = "float16" in text
        array = (generator.normal(size=shape) / 8).astype(np.float16 if half else np.float32)
        value = next((each for each in model.graph.inputs if each.name == name), None)
        assert value is not None
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
        if name not in inputs:
            model.graph.inputs.remove(value)
    ir.save(model, path)
    return path


def outputs(path: Path, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(path)
    (name,) = {each.name for each in session.get_inputs()}
    return [np.asarray(array, np.float64) for array in session.run(None, {name: x})]


def quantized(source: Path, x: np.ndarray, least: float = 25.0) -> tuple[Any, Path]:
    """Quantize, hold every output to the other tool's file, and return what was said."""
    path = source.with_suffix(".int8.onnx")
    result = loopedge.quantize(source, path, min_coverage=0, **SEVEN_BITS)
    for exact, given in zip(outputs(source, x), outputs(path, x), strict=True):
        error = np.square(exact - given).sum()
        assert error == 0 or 10 * np.log10(np.square(exact).sum() / error) > least
    return result, path


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def test_weights_among_the_inputs_cannot_be_fed_once_they_are_integers(tmp_path: Path) -> None:
    text = (
        f"{HEAD}, float[64, 64] w, float[4096] v, float[64] bias) => (float[N, 64] y) "
        "{ t = Transpose <perm=[1,0]> (w) a = MatMul (x, t) r = Relu (a) s = Constant <value_ints=[64, 64]> () "
        "u = Reshape (v, s) z = MatMul (r, u) y = Add (z, bias) }"
    )
    shapes = {"w": (D, D), "v": (D * D,), "bias": (D,)}
    source = written(tmp_path / "m.onnx", text, shapes, "w", "v", "bias")
    path = tmp_path / "q.onnx"
    result = loopedge.quantize(source, path, **SEVEN_BITS)
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (2, 2)
    assert any("w, v are weights" in note and "cannot be fed" in note for note in result.notes)
    stored = onnx.load(path).graph
    assert [value.name for value in stored.input] == ["x", "bias"]
    feeds = {"x": draw(3, D), "bias": np.full(D, 2, np.float32)}  # what stays float may be fed
    (exact,), (given,) = (ort.InferenceSession(each).run(None, feeds) for each in (source, path))
    assert np.square(exact - given).sum() < 1e-2 * np.square(exact).sum()


def test_before_inputs_had_defaults_no_initializer_was_one(tmp_path: Path) -> None:
    text = f"{HEAD}, float[64, 64] w, float[64] bias) => (float[N, 64] y) {{ a = MatMul (x, w) y = Add (a, bias) }}"
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "bias": (D,)}, "w", "bias")
    model = ir.load(source)
    model.ir_version = 3
    assert normalise_weights(model)
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_a_state_that_is_multiplied_with_a_weight_stays_an_input_with_a_default(
    tmp_path: Path,
) -> None:
    text = (
        f"{HEAD}, float[64, 64] w, float[1, 64] first) => (float[N, 64] y) "
        "{ s = Add (x, first) h = MatMul (first, w) y = Add (s, h) }"
    )
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "first": (1, D)}, "w", "first")
    model = ir.load(source)
    normalise_weights(model)
    assert [value.name for value in model.graph.inputs] == ["x", "first"]


def test_a_weight_that_is_an_output_stays_float(tmp_path: Path) -> None:
    text = (
        f"{HEAD}, float[64, 64] w, float[64, 64] v) => (float[N, 64] y, float[64, 64] w) "
        "{ a = MatMul (x, w) r = Relu (a) y = MatMul (r, v) }"
    )
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "v": (D, D)})
    result, _ = quantized(source, draw(3, D))
    (skipped,) = result.matmuls["skipped"]
    assert skipped["reason"] == "w is an output of the graph"


STATES = {
    "stacked too": ("w2 = Identity (w1)", "w2, w2"),
    "stacked as it came": ("w2 = Identity (w1) w3 = Identity (w1)", "w2, w3"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_weight_that_a_body_hands_on_and_stacks(name: str, tmp_path: Path) -> None:
    copies, given = STATES[name]
    two = given.split(", ")
    loop = LOOP.format(
        outs="f, last, all",
        states="x, w",
        more=", float[64, 64] w1",
        given=f", float[64, 64] {two[0]}, float[64, 64] {two[1]}",
        body=f"a = MatMul (s, w1) t = Tanh (a) {copies}",
    )
    text = (
        f"{HEAD}, float[64, 64] w, float[64, 64] v) => (float[N, 64] y, float[3, 64, 64] all) "
        f"{{ {loop} y = MatMul (f, v) }}"
    )
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "v": (D, D)})
    result, _ = quantized(source, draw(3, D))
    assert result.matmuls["total"] == 2


def test_rows_that_are_turned_matrices(tmp_path: Path) -> None:
    loop = LOOP.format(
        outs="f",
        states="x",
        more="",
        given="",
        body="r = Gather <axis=0> (rows, i) q = Transpose <perm=[1,0]> (r) a = MatMul (s, q) t = Tanh (a)",
    )
    text = (
        f"{HEAD}, float[3, 64, 64] rows, float[64, 64] v) => (float[N, 64] y) "
        f"{{ {loop} y = MatMul (f, v) }}"
    )
    source = written(tmp_path / "m.onnx", text, {"rows": (3, D, D), "v": (D, D)})
    result, path = quantized(source, draw(3, D))
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (2, 2)
    assert path.stat().st_size < source.stat().st_size / 2.5


def test_a_tied_table_of_halves_is_stored_once_in_integers(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 21]> g (int64[N, L] ids, float16[100, 64] table, float16[64, 64] w) '
        "=> (float16[N, L, 100] y) { e = Gather (table, ids) a = MatMul (e, w) t = Tanh (a) "
        "turned = Transpose <perm=[1,0]> (table) y = MatMul (t, turned) }"
    )
    source = written(tmp_path / "m.onnx", text, {"table": (100, D), "w": (D, D)})
    ids = np.random.default_rng(0).integers(0, 100, (3, 5))
    result, path = quantized(source, ids)
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (2, 2)
    assert result.matmuls["bytes"] == 100 * D + D * D
    assert path.stat().st_size < source.stat().st_size


def test_a_scan_that_stacks_its_state(tmp_path: Path) -> None:
    """ONNX Runtime computes a Scan wrongly whose body gives one value twice: copies stay."""
    text = (
        f"{HEAD}, float[64, 64] w, float[64, 64] v) => (float[N, 64] y) "
        "{ first = Constant <value_ints=[0]> () h = ReduceMean <keepdims=0> (x, first) "
        "last, all = Scan <num_scan_inputs=1, body = b (float[64] s, float[64] row) => (float[64] t, float[64] o) "
        "{ a = MatMul (s, w) z = Add (a, row) t = Tanh (z) o = Identity (t) }> (h, x) y = MatMul (all, v) }"
    )
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "v": (D, D)})
    stored = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(source).graph.initializer
    }
    x = draw(9, D)
    state, rows = x.mean(axis=0), []
    for row in x:
        state = np.tanh(state @ stored["w"] + row)
        rows.append(state)
    assert np.allclose(outputs(source, x)[0], np.stack(rows) @ stored["v"], atol=1e-4)
    result, _ = quantized(source, x)
    assert (result.matmuls["quantized"], result.matmuls["total"]) == (2, 2)


def test_outputs_that_copy_outputs_inputs_and_weights_keep_their_names(tmp_path: Path) -> None:
    text = (
        f"{HEAD}, float[64, 64] w, float[64, 64] v) => (float[N, 64] y, float[N, 64] z, float[N, 64] same, "
        "float[64, 64] shown) { a = MatMul (x, w) b = Identity (a) c = Relu (b) y = MatMul (c, v) "
        "z = Identity (y) same = Identity (x) shown = Identity (v) }"
    )
    source = written(tmp_path / "m.onnx", text, {"w": (D, D), "v": (D, D)})
    _, path = quantized(source, draw(3, D))
    stored = onnx.load(path).graph
    assert [value.name for value in stored.output] == ["y", "z", "same", "shown"]
    assert [node.output[0] for node in stored.node if node.op_type == "Identity"] == [
        "z",
        "same",
        "shown",
    ]
