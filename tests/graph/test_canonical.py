"""Graphs of any tool in one form: they compute what they did, and equal parts of them are equal."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.graph.rolling.canonical import canonicalise
from loopedge.graph.rolling.canonical_passes import constant_folding

Array = npt.NDArray[Any]
Weights = dict[str, npt.NDArray[np.generic] | ir.TensorProtocol]


def parsed(text: str, weights: Weights | None = None) -> ir.Model:
    """Return a graph in ONNX's text, some of whose inputs are weights."""
    model = ir.from_onnx_text(text)
    for name, data in (weights or {}).items():
        value = next(each for each in model.graph.inputs if each.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(data, name=name) if isinstance(data, np.ndarray) else data
        model.graph.register_initializer(value)
    return model


def run(path: Path, feeds: dict[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given: list[Array] = session.run(None, feeds)
    return given


def canonical(folder: Path, source: ir.Model, *cases: dict[str, Array]) -> ir.Model:
    """Return the canonical form of a graph after comparing its outputs."""
    before, after = folder / "before.onnx", folder / "after.onnx"
    ir.save(source, before)
    model = Artifact.open(before).fresh_graph()
    ends = [[value.name for value in side] for side in (model.graph.inputs, model.graph.outputs)]
    canonicalise(model)
    assert ends == [[v.name for v in side] for side in (model.graph.inputs, model.graph.outputs)]
    write_scratch(model, after)
    onnx.checker.check_model(str(after))
    for feeds in cases:
        for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
            assert expected.dtype == found.dtype
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(found, expected)
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def draw(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


D = 48
"""Weights of this width are above what is moved by computing it."""


def test_copies_become_one_weight_and_iterations_equal(tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {D}] x, float[{D}, {D}] a, float[{D}, {D}] b) => (float[N, {D}] y)
        <float one = {{1.0}}, float two = {{2.0}}> {{
          turned_a = Transpose <perm = [1, 0]> (a)  first = Sin (one)
          p = MatMul (x, turned_a)  q = Add (p, first)  r = Tanh (q)
          copy = Identity (r)
          turned_b = Transpose <perm = [1, 0]> (b)  second = Sin (two)
          s = MatMul (copy, turned_b)  t = Add (s, second)  y = Tanh (t)
        }}"""
    weight = draw(D, D)
    source = parsed(text, {"a": weight, "b": weight.copy()})
    model = canonical(tmp_path, source, {"x": draw(3, D)}, {"x": draw(1, D)})
    assert operators(model) == ["MatMul", "Add", "Tanh"] * 2
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert products[0].inputs[1] is products[1].inputs[1]
    stored = products[0].inputs[1]
    assert stored is not None
    assert stored.const_value is not None
    np.testing.assert_array_equal(stored.const_value.numpy(), weight.T)
    assert sum(
        v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value
    ) == (weight.nbytes + 8)
    assert all(value.dtype and value.shape for node in model.graph for value in node.outputs)


def test_a_weight_that_is_read_both_ways_stays_one(tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (int64[N] ids, float[{D}, {D}] table) => (float[N, {D}] y) {{
          rows = Gather (table, ids)  head = Transpose <perm = [1, 0]> (table)
          y = MatMul (rows, head)
        }}"""
    source = parsed(text, {"table": draw(D, D)})
    model = canonical(tmp_path, source, {"ids": np.arange(5)})
    assert operators(model) == ["Gather", "Transpose", "MatMul"]
    assert len(model.graph.initializers) == 1


def test_a_stored_transpose_is_read_in_the_place_of_a_node(tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (int64[N] ids, float[{D}, {D}] table, float[{D}, {D}] other) => (float[N, {D}] y) {{
          rows = Gather (table, ids)  head = Transpose <perm = [1, 0]> (table)
          first = MatMul (rows, head)  y = MatMul (first, other)
        }}"""
    weight = draw(D, D)
    source = parsed(text, {"table": weight, "other": np.ascontiguousarray(weight.T)})
    model = canonical(tmp_path, source, {"ids": np.arange(5)})
    assert operators(model) == ["Gather", "MatMul", "MatMul"]


@pytest.mark.parametrize(("axis", "length"), [(0, D), (1, 2 * D), (-1, 2 * D)])
def test_a_quantized_weight_is_turned_before_it_is_scaled(
    tmp_path: Path, axis: int, length: int
) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {2 * D}] x, int8[{D}, {2 * D}] w, float[{length}] s, int8[{length}] z)
        => (float[N, {D}] y) {{
          wide = DequantizeLinear <axis = {axis}> (w, s, z)
          turned = Transpose <perm = [1, 0]> (wide)  y = MatMul (x, turned)
        }}"""
    generator = np.random.default_rng(1)
    source = parsed(
        text,
        {
            "w": generator.integers(-128, 127, (D, 2 * D)).astype(np.int8),
            "s": generator.uniform(0.01, 0.02, length).astype(np.float32),
            "z": generator.integers(-9, 9, length).astype(np.int8),
        },
    )
    model = canonical(tmp_path, source, {"x": draw(3, 2 * D)})
    assert operators(model) == ["DequantizeLinear", "MatMul"]
    assert model.graph[0].attributes["axis"].as_int() == 1 - axis % 2


def test_blocks_of_a_quantized_weight_stay_as_they_are(tmp_path: Path) -> None:
    """ONNX Runtime computes a product with turned blocks in eight bits, with others in floats."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, {2 * D}] x, int8[{D}, {2 * D}] w, float[{D}, 6] s) => (float[N, {D}] y) {{
          wide = DequantizeLinear <axis = 1, block_size = 16> (w, s)
          turned = Transpose <perm = [1, 0]> (wide)  y = MatMul (x, turned)
        }}"""
    weight = np.random.default_rng(1).integers(-128, 127, (D, 2 * D)).astype(np.int8)
    scales = np.random.default_rng(2).uniform(0.01, 0.02, (D, 6)).astype(np.float32)
    source = parsed(text, {"w": weight, "s": scales})
    model = canonical(tmp_path, source, {"x": draw(3, 2 * D)})
    assert operators(model) == ["DequantizeLinear", "Transpose", "MatMul"]


def test_what_is_made_of_stored_integers_is_folded_and_they_stay(tmp_path: Path) -> None:
    """A row that integers are multiplied for becomes a table; the weight of the state stays in integers."""
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {2 * D}] x, int8[{D}, {2 * D}] w, int8[{2 * D}, {2 * D}] v, float[1, {D}] t) =>
        (float[N, {2 * D}] y) <float scale = {{0.01}}, int8 zero = {{0}}> {{
          q = QuantizeLinear (t, scale, zero)  row = DequantizeLinear (q, scale, zero)
          wide = DequantizeLinear (w, scale, zero)  shift = MatMul (row, wide)
          q2 = QuantizeLinear (shift, scale, zero)  shifted = DequantizeLinear (q2, scale, zero)
          weight = DequantizeLinear (v, scale, zero)  p = MatMul (x, weight)
          y = Add (p, shifted)
        }}"""
    generator = np.random.default_rng(1)
    source = parsed(
        text,
        {
            "w": generator.integers(-128, 127, (D, 2 * D)).astype(np.int8),
            "v": generator.integers(-128, 127, (2 * D, 2 * D)).astype(np.int8),
            "t": draw(1, D),
        },
    )
    model = canonical(tmp_path, source, {"x": draw(3, 2 * D)})
    assert sorted(operators(model)) == ["Add", "DequantizeLinear", "DequantizeLinear", "MatMul"]
    kinds = {value.dtype for value in model.graph.initializers.values()}
    assert kinds == {ir.DataType.INT8, ir.DataType.FLOAT}
    assert "w" not in model.graph.initializers


def test_halves_stay_halves(tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {D}] x, float16[{D}, {D}] w, float16[{D}] b) => (float[N, {D}] y) {{
          wide = Cast <to = 1> (w)  turned = Transpose (wide)  bias = Cast <to = 1> (b)
          p = MatMul (x, turned)  y = Add (p, bias)
        }}"""
    source = parsed(text, {"w": draw(D, D).astype(np.float16), "b": draw(D).astype(np.float16)})
    model = canonical(tmp_path, source, {"x": draw(3, D)})
    assert operators(model) == ["Cast", "MatMul", "Add"]


@pytest.mark.parametrize(
    "text",
    [
        "y0 = ConstantOfShape <value = float[1] {1.0}> (big) y = Mul (x, y0)",
        "y0 = Expand (one, big) y = Mul (x, y0)",
        "y0 = Tile (one, big) y = Mul (x, y0)",
    ],
)
def test_what_swells_is_computed_when_it_runs(tmp_path: Path, text: str) -> None:
    source = parsed(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, N] x) => (float[A, B, N] y)
        <int64[3] big = {{700, 500, 1}}, float[1, 1, 1] one = {{1.0}}> {{ {text} }}"""
    )
    model = canonical(tmp_path, source, {"x": draw(1, 1, 2)})
    assert len(operators(model)) == 2


def test_random_numbers_are_drawn_apart_and_when_it_runs(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y, float[4] z)
        <float[4] like = {0.5, 0.5, 0.5, 0.5}> {
          a = Bernoulli (like)  b = Bernoulli (like)  c = RandomNormal <shape = [4]> ()
          d = RandomNormal <shape = [4]> ()  e = Add (a, c)  f = Add (b, d)
          y = Add (x, e)  z = Add (x, f)
        }"""
    )
    model = canonical(tmp_path, source)
    assert sorted(operators(model)) == ["Add"] * 4 + ["Bernoulli"] * 2 + ["RandomNormal"] * 2


def test_an_input_with_a_default_is_no_constant(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float[2] gain) => (float[2] y)
        <float[2] same = {1.0, 2.0}> { scale = Exp (gain) fixed = Exp (same)
        p = Mul (x, scale) y = Mul (p, fixed) }"""
    )
    (gain,) = (value for value in source.graph.inputs if value.name == "gain")
    gain.const_value = ir.tensor(np.array([1, 2], np.float32), name="gain")
    source.graph.register_initializer(gain)
    x, other = draw(2), np.array([5, 7], np.float32)
    model = canonical(tmp_path, source, {"x": x}, {"x": x, "gain": other})
    assert operators(model) == ["Exp", "Mul", "Mul"]


def test_inputs_of_old_files_that_are_weights_are_constants(tmp_path: Path) -> None:
    source = parsed(
        f"""<ir_version: 3, opset_import: ["": 9]> g (float[N, {D}] x, float[{D}, {D}] w) =>
        (float[N, {D}] y) {{ turned = Transpose <perm = [1, 0]> (w) y = MatMul (x, turned) }}"""
    )
    value = source.graph.inputs[1]
    value.const_value = ir.tensor(draw(D, D), name="w")
    source.graph.register_initializer(value)
    before = tmp_path / "before.onnx"
    ir.save(source, before)
    model = Artifact.open(before).fresh_graph()
    canonicalise(model)
    assert operators(model) == ["MatMul"]
    assert [each.name for each in model.graph.inputs] == ["x"]


def test_functions_are_inlined(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N] x) => (float[N] y) {
          p = own.twice (x) q = own.twice (p) y = own.twice (q) }
        <domain: "own", opset_import: ["": 17]> twice (v) => (w) {
          two = Constant <value_float = 2.0> () w = Mul (v, two) }"""
    )
    model = canonical(tmp_path, source, {"x": draw(3)})
    assert operators(model) == ["Mul"] * 3
    assert len(model.graph.initializers) == 1
    assert not model.functions


def test_a_body_keeps_its_nodes_and_shares_constants(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y, float[4] z)
        <int64 count = {3}, bool always = {1}> {
          c = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
          y = Loop <body = b (int64 t, bool go, float[4] s) => (bool on, float[4] next) {
            on = Identity (go)
            c1 = Constant <value_floats = [5.0, 5.0, 5.0, 5.0]> ()
            d = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
            e = Exp (d)  f = Add (s, c1)  next = Mul (f, e) }> (count, always, x)
          small = Constant <value_float = 0.001> ()
          scaled = Mul (c, small)
          total = ReduceSum <keepdims = 0> (x)
          positive = Greater (total, small)
          z = If <then_branch = t () => (float[4] p) { n = Neg (x) p = Mul (n, scaled) },
                  else_branch = e () => (float[4] q) { q = Constant <value_floats = [0.0, 1.0, 2.0, 3.0]> () }>
              (positive)
        }"""
    )
    cases = [{"x": np.abs(draw(4))}, {"x": -np.abs(draw(4))}]
    model = canonical(tmp_path, source, *cases)
    assert operators(model) == ["Loop", "ReduceSum", "Greater", "If"]
    (body,) = (a.as_graph() for a in model.graph[0].attributes.values())
    assert [node.op_type for node in body] == ["Exp", "Add", "Mul"] or [
        node.op_type for node in body
    ] == ["Identity", "Exp", "Add", "Mul"]
    assert not body.initializers


def test_a_branch_that_is_always_taken_is_written_out(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y)
        <int64[1] rank = {3}, int64[1] three = {3}> {
          same = Equal (rank, three)
          w = If <then_branch = t () => (float[4] p) {
                k = Constant <value_float = 3.0> () p = Mul (x, k) },
              else_branch = e () => (float[4] q) { q = Neg (x) }> (same)
          y = Tanh (w)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(4)})
    assert operators(model) == ["Mul", "Tanh"]


def test_outputs_that_are_equal_keep_their_names(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, float[4] z, float[2] stored, float[4] same) {
          y = Exp (x)  z = Exp (x)
          stored = Constant <value_floats = [1.0, 2.0]> ()  same = Identity (x)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(4)})
    assert operators(model).count("Exp") == 1


def test_optional_outputs_are_told_apart(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[6] x) => (float[2] v, int64[2] i, float[2] w) <int64[1] k = {2}> {
          v, m = TopK (x, k)  n, i = TopK (x, k)  p, q = TopK <largest = 0> (x, k)  w = Add (n, p)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(6)})
    assert operators(model).count("TopK") == 2


def test_what_changes_nothing_is_passed_over(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[A, 4, 6] x) => (float[A, 24] y)
        <int64[1] one = {1}, int64[2] flat = {-1, 24}, int64[3] folded = {0, 6, 4}> {
          a = Cast <to = 1> (x)  b = Transpose <perm = [0, 2, 1]> (a)
          c = Transpose <perm = [0, 2, 1]> (b)  d = Dropout (c)  e = Concat <axis = 0> (d)
          f = Unsqueeze (e, one)  g = Squeeze (f, one)
          h = Reshape (g, folded)  y0 = Reshape (h, flat)  y = Tanh (y0)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(2, 4, 6)}, {"x": draw(1, 4, 6)})
    assert operators(model) == ["Reshape", "Tanh"]


def test_a_sequence_of_parts_is_a_split(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 18]> g (float[A, 7] x) => (float[A, 3] y, float[A, 1] z)
        <int64 three = {3}, int64 first = {0}, int64 second = {1}, int64 last = {-1}> {
          parts = SplitToSequence <axis = 1> (x, three)
          a = SequenceAt (parts, first)  b = SequenceAt (parts, second)
          y = Add (a, b)  c = SequenceAt (parts, last)  z = Neg (c)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(2, 7)})
    assert sorted(operators(model)) == ["Add", "Neg", "Split"]


def test_sizes_that_are_always_the_same_are_stored(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 13]> g (float[A, 8] x) => (float[A, 2, 4] y)
        <int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[1] at = {0}, int64[1] rest = {4}> {
          shape = Shape (x)  free = Gather (shape, zero)  width = Gather (shape, one)
          half = Div (width, rest)  a = Unsqueeze (free, at)
          whole = Concat <axis = 0> (a, half, rest)  y = Reshape (x, whole)
        }"""
    )
    model = canonical(tmp_path, source, {"x": draw(3, 8)}, {"x": draw(1, 8)})
    assert operators(model) == ["Reshape"]
    (shape,) = (value.const_value for value in model.graph.initializers.values())
    assert shape is not None
    assert shape.numpy().tolist() == [0, 2, 4]


def test_a_size_is_not_believed_for_its_name(tmp_path: Path) -> None:
    """The output of the other tool calls two sizes by one name."""
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[A, B] x) => (float[A, A] p, float[A, A] y)
        <int64[2] places = {1, 0}> {
          p = Transpose <perm = [1, 0]> (x)
          shape = Shape (x)  other = Gather (shape, places)  q = Reshape (p, other)  y = Tanh (q)
        }"""
    )
    canonical(tmp_path, source, {"x": draw(2, 3)})


def test_strings_and_narrow_floats_are_no_obstacle(tmp_path: Path) -> None:
    source = parsed(
        """<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (string[2] s, float[2] y) {
          s0 = Constant <value_strings = ["a", "b"]> ()  s = Identity (s0)
          h = Constant <value_float = 1.5> ()  b = Cast <to = 16> (h)  c = Cast <to = 1> (b)
          y = Mul (x, c)
        }"""
    )
    canonical(tmp_path, source, {"x": draw(2)})


def test_what_onnxruntime_refuses_stays_and_the_rest_is_folded() -> None:
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2] x) => (float[2] y)
        <float[2] a = {1.0, 2.0}, float[2] b = {3.0, 4.0}, int64 far = {9}> {
          bad = Gather (a, far)  good = Exp (b)  p = Mul (x, bad)  y = Add (p, good)
        }"""
    )
    canonicalise(source)
    assert operators(source) == ["Gather", "Mul", "Add"]


def test_without_onnxruntime_the_graph_is_canonical_but_for_its_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Array]:
        raise RuntimeError("no session")

    monkeypatch.setattr(constant_folding, "compute", refuse)
    source = parsed(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y)
        <float[2] a = {1.0, 2.0}> { b = Exp (a) c = Exp (a) p = Mul (x, b) y = Mul (p, c) }"""
    )
    model = canonical(tmp_path, source, {"x": draw(2)})
    assert operators(model) == ["Exp", "Mul", "Mul"]


def test_operators_of_onnxruntime_have_types(tmp_path: Path) -> None:
    source = parsed(
        f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[N, S, {D}] x, float[{D}, {D}] w, float[{D}] b) => (y) {{
          n, , , r = com.microsoft.SkipLayerNormalization (x, x, b, b)
          p = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (n, w)
          q = com.microsoft.BiasGelu (p, b)
          a, s, z = DynamicQuantizeLinear (q)
          y0 = Add (q, r)  y = Reshape (y0, to)
        }}""".replace("=> (y) {", "=> (float[N, M] y) <int64[2] to = {0, -1}> {"),
        {"w": draw(D, D), "b": draw(D)},
    )
    model = canonical(tmp_path, source, {"x": draw(2, 3, D)})
    for node in model.graph:
        for value in node.outputs:
            assert not value.name or (value.dtype is not None and value.shape is not None)


def test_a_second_time_nothing_changes(tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {D}] x, float[{D}, {D}] a) => (float[N, {D}] y) {{
          shape = Shape (x)  t = Transpose <perm = [1, 0]> (a)  p = MatMul (x, t)
          q = Reshape (p, shape)  y = Tanh (q)
        }}"""
    model = canonical(tmp_path, parsed(text, {"a": draw(D, D)}), {"x": draw(2, D)})
    once = [(node.op_type, *(v.name if v else "" for v in node.inputs)) for node in model.graph]
    canonicalise(model)
    twice = [(node.op_type, *(v.name if v else "" for v in node.inputs)) for node in model.graph]
    assert once == twice
