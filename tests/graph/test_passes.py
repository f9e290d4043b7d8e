"""Graph passes on hand-made graphs: structure and values."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from loopedge.errors import InputError
from loopedge.graph.core.probe import probe, stack_probed
from loopedge.graph.core.ties import tied_weights, untied_bytes
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.graph.metadata import FOREIGN, ArtifactMetadata, read_metadata, write_metadata
from loopedge.graph.passes.layout import fold_weight_layouts
from loopedge.graph.passes.norms import fold_unit_scales, fuse_rms_norms
from loopedge.graph.passes.simplify import hoist_invariants, simplify_reshapes, tidy
from loopedge.graph.weights import weight_bytes

GENERATOR = np.random.default_rng(0)
WEIGHT = GENERATOR.normal(size=(4, 4)).astype(np.float32)
TABLE = GENERATOR.normal(size=(3, 4)).astype(np.float32)
X = GENERATOR.normal(size=(2, 5, 4)).astype(np.float32)


def parse(text: str, **initializers: NDArray[Any]) -> ir.Model:
    model = ir.from_onnx_text(text)
    for name, array in initializers.items():
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.tensor(array).dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=name),
        )
        for old in [value for node in model.graph.all_nodes() for value in node.inputs]:
            if old is not None and old.name == name:
                ir.convenience.replace_all_uses_with(old, value)
        model.graph.register_initializer(value)
    return model


def literal(name: str, array: NDArray[np.float32]) -> str:
    sizes = ", ".join(map(str, array.shape))
    return f"float[{sizes}] {name} = {{{', '.join(f'{x:.9g}' for x in array.ravel())}}}"


def loop_model(rows: int = 3) -> ir.Model:
    """state <- (state @ weight) * table[t]"""
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y)
        <int64 count = {{{rows}}}, bool always = {{1}}, {literal("weight", WEIGHT)}, {literal("table", TABLE)}> {{
          y = Loop <body = core (int64 t, bool go, float[B, S, 4] state)
              => (bool still, float[B, S, 4] next) {{
            still = Identity (go)
            row = Gather <axis = 0> (table, t)
            product = MatMul (state, weight)
            next = Mul (product, row)
          }}> (count, always, x)
        }}"""
    )
    loop = next(node for node in model.graph if node.op_type == "Loop")
    loop.name = "core"
    for node in loop.attributes["body"].as_graph():
        node.name = f"core/{node.op_type}"
        node.outputs[0].name = f"core/{node.outputs[0].name}"
    metadata = ArtifactMetadata(version="0", form="loop", loops=rows, trained_loops=rows)
    write_metadata(metadata, model.metadata_props)
    return model


def evaluate(model: ir.Model, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    names = [value.name or "" for value in model.graph.outputs]
    return dict(zip(names, ReferenceEvaluator(proto).run(names, feeds), strict=True))


def expected(rows: int = 3) -> NDArray[Any]:
    state = X
    for t in range(rows):
        state = (state @ WEIGHT) * TABLE[t]
    return state


def test_unrolling_keeps_the_values_and_shares_the_weight() -> None:
    model = loop_model()
    unrolled = unroll(model)
    assert np.allclose(evaluate(unrolled, x=X)["y"], expected(), atol=1e-5)
    assert view_core(unrolled).form == "unrolled"
    assert view_core(model).form == "loop", "the source was modified"
    products = [node for node in unrolled.graph if node.op_type == "MatMul"]
    assert [node.name for node in products] == [f"core.{t}/MatMul" for t in range(3)]
    assert {node.inputs[1] for node in products} == {unrolled.graph.initializers["weight"]}
    metadata = read_metadata(unrolled.metadata_props)
    assert not metadata.foreign
    assert metadata.form == "unrolled"


def test_unrolling_refuses_a_loop_that_stops_early() -> None:
    model = loop_model()
    core = view_core(model)
    assert isinstance(core, LoopCore)
    body = core.loop.body
    stop = ir.node("Not", [body.inputs[1]])
    stop.outputs[0].name = "stop"
    stop.outputs[0].type, stop.outputs[0].shape = body.outputs[0].type, body.outputs[0].shape
    body.insert_before(body[0], stop)
    body.outputs[0] = stop.outputs[0]
    with pytest.raises(InputError, match="stops early"):
        unroll(model)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_probing_gives_one_row_per_iteration(form: str) -> None:
    model = loop_model() if form == "loop" else unroll(loop_model())
    (name,) = view_core(model).states
    # In ONNX Runtime: onnx.reference joins stacked outputs instead of stacking them.
    probed = probe(model, [name])
    session = ort.InferenceSession(ir.to_proto(probed).SerializeToString())
    names = [value.name or "" for value in probed.graph.outputs]
    outputs = dict(zip(names, session.run(names, {"x": X}), strict=True))
    given = stack_probed(outputs, [name])[name]
    for t in range(3):
        assert np.allclose(given[t], expected(t + 1), atol=1e-5)


def test_ties_are_counted_in_both_forms() -> None:
    for model in (loop_model(), unroll(loop_model())):
        assert view_core(model).weights["weight"] == 3
        tied = {weight.name: weight for weight in tied_weights(model)}
        assert (tied["weight"].uses, tied["weight"].bytes) == (3, 64)
        extra = untied_bytes(model) - weight_bytes(model)
        assert extra >= 2 * 64


def test_a_transposed_weight_is_stored_transposed() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y) {
          turned = Transpose <perm = [1, 0]> (w)
          y = MatMul (x, turned)
        }""",
        w=WEIGHT,
    )
    assert fold_weight_layouts(model)
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert np.allclose(evaluate(model, x=X)["y"], X @ WEIGHT.T, atol=1e-5)


def test_a_weight_read_in_two_layouts_is_stored_once() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (int64[B, S] ids) => (float[B, S, 4] y) {
          x = Gather <axis = 0> (w, ids)
          turned = Transpose <perm = [1, 0]> (w)
          y = MatMul (x, turned)
        }""",
        w=WEIGHT,
    )
    model.graph[0].outputs[0].shape = ir.Shape(["B", "S", 4])
    assert fold_weight_layouts(model)
    product = next(node for node in model.graph if node.op_type == "MatMul")
    assert product.inputs[0] is model.graph.initializers["w"]
    ids = np.array([[0, 1, 3], [2, 2, 1]])
    assert np.allclose(evaluate(model, ids=ids)["y"], WEIGHT[ids] @ WEIGHT.T, atol=1e-5)


def test_a_gemm_becomes_a_matmul_and_a_bias() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, 4] x) => (float[B, 4] y) {
          y = Gemm <transB = 1> (x, w, b)
        }""",
        w=WEIGHT,
        b=TABLE[0],
    )
    fold_weight_layouts(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "Add"]
    assert np.allclose(evaluate(model, x=X[0])["y"], X[0] @ WEIGHT.T + TABLE[0], atol=1e-5)


def test_computed_reshapes_become_constant() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, S, 8] x) => (float[B, S, 2, 4] y)
        <int64[2] tail = {2, 4}, int64[2] start = {0, 1}> {
          shape = Shape (x)
          front = Gather (shape, start)
          whole = Concat <axis = 0> (front, tail)
          y = Reshape (x, whole)
        }"""
    )
    x = np.zeros((2, 3, 8), np.float32)
    assert simplify_reshapes(model)
    tidy(model)
    assert [node.op_type for node in model.graph] == ["Reshape"]
    assert evaluate(model, x=x)["y"].shape == (2, 3, 2, 4)


def test_what_the_body_does_not_need_leaves_the_loop() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[4] x, float[4] c) => (float[4] y)
        <int64 count = {3}, bool always = {1}> {
          y = Loop <body = core (int64 t, bool go, float[4] state) => (bool still, float[4] next) {
            still = Identity (go)
            shift = Exp (c)
            next = Add (state, shift)
          }> (count, always, x)
        }"""
    )
    assert hoist_invariants(model)
    assert [node.op_type for node in model.graph] == ["Exp", "Loop"]
    x = np.arange(4, dtype=np.float32)
    assert np.allclose(evaluate(model, x=x, c=x)["y"], x + 3 * np.exp(x), rtol=1e-5)


def test_metadata_round_trip_and_damage() -> None:
    properties: dict[str, str] = {"other": "kept"}
    assert read_metadata(properties) is FOREIGN
    metadata = ArtifactMetadata(
        version="1", form="loop", loops=3, trained_loops=4, tables=["timestep.a"]
    )
    write_metadata(metadata, properties)
    assert read_metadata(properties) == metadata
    assert properties["other"] == "kept"
    properties["loopedge.loops"] = "three"
    with pytest.raises(InputError, match="damaged"):
        read_metadata(properties)


@pytest.mark.parametrize(
    "ones", ["ConstantOfShape <value = float[1] {1}> (shape)", "Expand (one, shape)"]
)
def test_a_norm_without_weights_gets_a_constant_scale(ones: str) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 11, opset_import: ["": 23]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y) <float one = {{1}}> {{
          shape = Shape (x)
          scale = {ones}
          y = LayerNormalization <axis = -1> (x, scale)
        }}"""
    )
    before = evaluate(model, x=X)["y"]
    assert fold_unit_scales(model)
    tidy(model)
    assert [node.op_type for node in model.graph] == ["LayerNormalization"]
    scale = model.graph[0].inputs[1]
    assert scale is not None
    assert scale.shape == (4,)
    assert np.array_equal(evaluate(model, x=X)["y"], before)
    assert not fold_unit_scales(model)


def test_a_scale_that_is_not_one_stays() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 11, opset_import: ["": 23]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y) {
          shape = Shape (x)
          scale = ConstantOfShape <value = float[1] {2}> (shape)
          y = LayerNormalization <axis = -1> (x, scale)
        }"""
    )
    assert not fold_unit_scales(model)


NORM = """<ir_version: 11, opset_import: ["": OPSET]>
agraph (float[B, S, 4] x) => (float[B, S, 4] y)
<float two = {2}, int64[1] last = {AXIS}, float epsilon = {0.5}, float[4] weight = {1, 2, 3, 4}> {
  square = Pow (x, two)
  mean = ReduceMean <keepdims = 1> (square, last)
  more = Add (mean, epsilon)
  root = Sqrt (more)
  inverse = Reciprocal (root)
  LAST
}"""
PLAIN = "y = Mul (x, inverse)"
SCALED = "norm = Mul (x, inverse) y = Mul (weight, norm)"


def norm(last: str, *, axis: int = -1, opset: int = 23) -> ir.Model:
    text = NORM.replace("LAST", last).replace("AXIS", str(axis)).replace("OPSET", str(opset))
    return ir.from_onnx_text(text)


@pytest.mark.parametrize(("last", "scale"), [(PLAIN, [1, 1, 1, 1]), (SCALED, [1, 2, 3, 4])])
def test_a_norm_that_is_written_out_becomes_one_operator(last: str, scale: list[int]) -> None:
    model = norm(last)
    before = evaluate(model, x=X)["y"]
    assert fuse_rms_norms(model)
    tidy(model)
    assert [node.op_type for node in model.graph] == ["RMSNormalization"]
    stored = model.graph[0].inputs[1]
    assert stored is not None
    assert stored.const_value is not None
    assert stored.const_value.numpy().tolist() == scale
    assert np.allclose(evaluate(model, x=X)["y"], before, atol=1e-5)


def test_what_is_no_norm_of_the_last_axis_stays() -> None:
    assert not fuse_rms_norms(norm(PLAIN, axis=1))
    assert not fuse_rms_norms(norm(PLAIN, opset=20))
    assert not fuse_rms_norms(norm("y = Mul (square, inverse)"))


def convolution(kernel: int, pads: str = "") -> ir.Model:
    weight = f"float[2, 4, {kernel}] weight = {{{', '.join(map(str, range(8 * kernel)))}}}"
    return ir.from_onnx_text(
        f"""<ir_version: 11, opset_import: ["": 23]>
        agraph (float[B, 4, L] x) => (float[B, 2, M] y, float[B, 2, M] z)
        <{weight}, float[2] bias = {{1, 2}}> {{
          y = Conv {pads} (x, weight, bias)
          z = Conv {pads} (y, weight2)
        }}""".replace("(y, weight2)", "(x, weight)")
    )


def test_a_convolution_of_kernel_one_is_stored_as_a_linear() -> None:
    model = convolution(1)
    x = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    before = evaluate(model, x=x)
    assert fold_weight_layouts(model)
    assert not any(node.op_type == "Conv" for node in model.graph)
    weight = model.graph.initializers["weight"]
    assert tuple(weight.shape or ()) == (4, 2)  # [in, out], for both readers
    after = evaluate(model, x=x)
    for name in ("y", "z"):
        assert np.allclose(after[name], before[name], atol=1e-5)


def test_other_convolutions_stay() -> None:
    assert not fold_weight_layouts(convolution(3))
    assert not fold_weight_layouts(convolution(1, "<pads = [1, 1]>"))


def test_equal_derived_constants_are_kept_once_and_equal_weights_apart() -> None:
    values = np.array([1.5, 2.5, 3.5, 4.5], np.float32)
    model = parse(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[B, S, 4] x) => (float[B, S, 4] y) {
          a = Mul (x, first)
          b = Mul (a, second)
          c = Mul (b, norm)
          y = Mul (c, other)
        }""",
        **dict.fromkeys(("first", "second", "norm", "other"), values),
    )
    for name in ("first", "second"):  # as folding calls what it makes of a core's nodes
        value = model.graph.initializers.pop(name)
        value.name = f"core/{name}"
        model.graph.register_initializer(value)
    tidy(model)
    assert set(model.graph.initializers) == {"core/first", "norm", "other"}
    assert np.allclose(evaluate(model, x=X)["y"], X * values**4, rtol=1e-5)
