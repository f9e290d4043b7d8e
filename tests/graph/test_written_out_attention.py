"""Attention that is written out becomes the operator, and computes the same; what is none stays."""

from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from loopedge.graph.decoding.attention.softmax_attention import match_written_out
from loopedge.graph.decoding.attention.written_out.numbers import number_of, sizes_in

HEADS, SIZE = 2, 4
AXES = f"float[batch,{HEADS},sequence,{SIZE}]"
STORED = """
    int64 zero = {0}, int64 one = {1}, int64[1] first = {0}, int64[1] second = {1},
    float none = {0.0}, float half = {0.5}, float two = {2.0}, float[1] root = {0.7},
    float cap = {3.0}, float minus = {-0.5}, float hidden = {-inf}, float least = {-3.4e38},
    float rate = {0.1}, int64[3] folded = {-1, 0, 4}, int64[4] apart = {0, 2, -1, 4}, bool no = {0}
"""
MASKS = """
    length = Shape<start=2, end=3>(q)
    count = Squeeze(length)
    range = Range(zero, count, one)
    rows = Unsqueeze(range, second)
    columns = Unsqueeze(range, first)
    read = LessOrEqual(columns, rows)
    later = Greater(columns, rows)
    added = Where(read, none, hidden)
    filled = Where(read, none, least)
"""
KEYS = "kt = Transpose<perm=[0, 1, 3, 2]>(k)\n"
PRODUCT = KEYS + "s = MatMul(q, kt)\n"
VALUES = "y = MatMul(p, v)\n"

WRITTEN = {
    "no mask": PRODUCT + "t = Mul(s, half)\n p = Softmax<axis=-1>(t)\n" + VALUES,
    "added": PRODUCT + "t = Mul(s, half)\n m = Add(t, added)\n p = Softmax<axis=-1>(m)\n" + VALUES,
    "added first": PRODUCT
    + "t = Mul(half, s)\n m = Add(filled, t)\n p = Softmax<axis=3>(m)\n"
    + VALUES,
    "divided": PRODUCT + "t = Div(s, two)\n m = Add(t, added)\n p = Softmax<axis=-1>(m)\n" + VALUES,
    "scaled queries": KEYS
    + "qs = Mul(q, half)\n s = MatMul(qs, kt)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "scaled both": "qs = Mul(q, root)\n ks = Mul(k, root)\n kt = Transpose<perm=[0, 1, 3, 2]>(ks)\n"
    "s = MatMul(qs, kt)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n" + VALUES,
    "keys scaled when turned": KEYS
    + "ks = Div(kt, two)\n s = MatMul(q, ks)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "scale computed": PRODUCT
    + "z = Shape<start=3>(q)\n f = Cast<to=1>(z)\n r = Sqrt(f)\n t = Div(s, r)\n m = Add(t, added)\n"
    "p = Softmax<axis=-1>(m)\n" + VALUES,
    "where": PRODUCT
    + "t = Mul(s, half)\n m = Where(read, t, hidden)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "where it hides": PRODUCT
    + "t = Mul(s, half)\n m = Where(later, least, t)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "scaled behind the mask": PRODUCT
    + "m = Where(read, s, hidden)\n t = Mul(m, half)\n p = Softmax<axis=-1>(t)\n"
    + VALUES,
    "two masks": PRODUCT
    + "t = Mul(s, half)\n a = Add(t, added)\n m = Where(read, a, hidden)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "soft cap": PRODUCT
    + "t = Mul(s, half)\n d = Div(t, cap)\n h = Tanh(d)\n c = Mul(h, cap)\n m = Add(c, added)\n"
    "p = Softmax<axis=-1>(m)\n" + VALUES,
    "soft cap in one factor": PRODUCT
    + "t = Mul(s, half)\n h = Tanh(t)\n c = Mul(cap, h)\n m = Where(read, c, hidden)\n p = Softmax<axis=-1>(m)\n"
    + VALUES,
    "rows that read nothing": PRODUCT
    + "m = Add(s, added)\n w = Softmax<axis=-1>(m)\n n = IsNaN(w)\n p = Where(n, none, w)\n"
    + VALUES,
    "softmax in double": PRODUCT
    + "m = Add(s, added)\n d = Cast<to=11>(m)\n w = Softmax<axis=-1>(d)\n p = Cast<to=1>(w)\n"
    + VALUES,
    "dropout": PRODUCT
    + "m = Add(s, added)\n w = Softmax<axis=-1>(m)\n p = Dropout(w, rate, no)\n"
    + VALUES,
    "einsum": 's = Einsum<equation="bhqd,bhkd->bhqk">(q, k)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n'
    'y = Einsum<equation="bhqk,bhkd->bhqd">(p, v)\n',
    "einsum of turned operands": "qt = Transpose<perm=[0, 2, 1, 3]>(q)\n kt = Transpose<perm=[0, 2, 1, 3]>(k)\n"
    's = Einsum<equation="bkhd, bqhd -> bhqk">(kt, qt)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n'
    'yt = Einsum<equation="bhqk,bhkd->bqhd">(p, v)\n y = Transpose<perm=[0, 2, 1, 3]>(yt)\n',
    "batch and heads as one axis": "a = Shape<start=2>(q)\n far = Neg(second)\n flat = Concat<axis=0>(far, a)\n"
    "q3 = Reshape(q, flat)\n k3 = Reshape(k, flat)\n v3 = Reshape(v, flat)\n kt = Transpose<perm=[0, 2, 1]>(k3)\n"
    "s3 = MatMul(q3, kt)\n l = Shape<start=0, end=2>(q)\n l2 = Concat<axis=0>(l, length, length)\n"
    "s = Reshape(s3, l2)\n m = Add(s, added)\n p = Softmax<axis=-1>(m)\n" + VALUES,
    "keys turned as three axes": "b = Shape<start=0, end=2>(k)\n size = Shape<start=3>(k)\n far = Neg(second)\n"
    "flat = Concat<axis=0>(far, length, size)\n k3 = Reshape(k, flat)\n k3t = Transpose<perm=[0, 2, 1]>(k3)\n"
    "back = Concat<axis=0>(b, size, length)\n kt = Reshape(k3t, back)\n s = MatMul(q, kt)\n m = Add(s, added)\n"
    "p = Softmax<axis=-1>(m)\n" + VALUES,
}

OTHERS = {
    "over the queries": PRODUCT + "p = Softmax<axis=2>(s)\n" + VALUES,
    "cap behind the mask": PRODUCT
    + "m = Where(read, s, least)\n d = Div(m, cap)\n h = Tanh(d)\n c = Mul(h, cap)\n p = Softmax<axis=-1>(c)\n"
    + VALUES,
    "a mask that is scaled": PRODUCT
    + "m = Add(s, added)\n t = Mul(m, half)\n p = Softmax<axis=-1>(t)\n"
    + VALUES,
    "a negative scale": PRODUCT + "t = Mul(s, minus)\n p = Softmax<axis=-1>(t)\n" + VALUES,
    "shares that are read twice": PRODUCT
    + "p = Softmax<axis=-1>(s)\n w = MatMul(p, v)\n z = ReduceMax(p, first)\n y = Add(w, z)\n",
    "shares on the right": KEYS
    + "s = MatMul(q, kt)\n p = Softmax<axis=-1>(s)\n x = MatMul(p, p)\n y = MatMul(x, v)\n",
    "scores that are no product": PRODUCT + "t = Sin(s)\n p = Softmax<axis=-1>(t)\n" + VALUES,
}


def graph_of(code: str, opset: int = 20) -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["": {opset}]>\n'
    ends = f"g ({AXES} q, {AXES} k, {AXES} v) => ({AXES} y)\n<{STORED}>\n"
    return onnx.parser.parse_model(head + ends + "{" + MASKS + code + "}")


def run(proto: onnx.ModelProto, batch: int, length: int) -> Any:
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal((batch, HEADS, length, SIZE)).astype(np.float32) for name in "qkv"
    }
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def check_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    for batch, length in ((1, 1), (2, 7)):
        found, expected = run(after, batch, length), run(before, batch, length)
        assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("name", WRITTEN)
def test_attention_is_found_and_computes_the_same(name: str) -> None:
    proto = graph_of(WRITTEN[name])
    model = ir.from_proto(proto)
    assert match_written_out(model) == 1
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Attention") == 1
    assert not {"Softmax", "MatMul", "Einsum"} & set(kinds)
    assert model.opset_imports[""] == 23
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    assert ("softcap" in attention.attributes) is ("cap" in name)
    assert (len(attention.inputs) == 3) is (name == "no mask")
    check_same(proto, ir.to_proto(model))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_attention_stays(name: str) -> None:
    proto = graph_of(OTHERS[name])
    model = ir.from_proto(proto)
    assert match_written_out(model) == 0
    assert model.opset_imports[""] == 20
    assert not any(node.op_type == "Attention" for node in model.graph)


def test_attention_in_the_body_of_a_loop_is_found() -> None:
    inner = graph_of(WRITTEN["where"]).graph
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["on"], ["next"]), *inner.node],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            inner.input[0],
        ],
        [onnx.helper.make_tensor_value_info("next", onnx.TensorProto.BOOL, []), inner.output[0]],
    )
    nodes = [onnx.helper.make_node("Loop", ["loops", "", "start"], ["end"], body=body)]
    start, end = onnx.ValueInfoProto(), onnx.ValueInfoProto()
    start.CopyFrom(inner.input[0])
    end.CopyFrom(inner.output[0])
    start.name, end.name = "start", "end"
    loops = onnx.helper.make_tensor("loops", onnx.TensorProto.INT64, [], [3])
    graph = onnx.helper.make_graph(
        nodes, "g", [start, *inner.input[1:]], [end], [loops, *inner.initializer]
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = ir.from_proto(proto)
    assert match_written_out(model) == 1
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal((2, HEADS, 5, SIZE)).astype(np.float32)
        for name in ("start", "k", "v")
    }
    found, expected = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, feeds
        )[0]
        for each in (ir.to_proto(model), proto)
    )
    assert np.abs(found - expected).max() < 1e-5


FUSED_AXES = f"float[batch,sequence,{HEADS * 8}]"


@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [
        ("q, k, v", "unidirectional=1"),
        ("q, k, v, bias", "scale=0.5"),
        ("q, k, v, , , added", ""),
        ("q, k, v, bias, , added", "unidirectional=1"),
    ],
)
def test_what_optimizers_fused_becomes_the_operator(inputs: str, attributes: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 20, "com.microsoft": 1]>
    g ({FUSED_AXES} q, {FUSED_AXES} k, {FUSED_AXES} v) => ({FUSED_AXES} y)
    <int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{0}}, int64[1] second = {{1}}, float none = {{0}},
     float least = {{-3.4e38}}, int64[2] ahead = {{0, 1}}> {{
        length = Shape<start=1, end=2>(q)
        count = Squeeze(length)
        range = Range(zero, count, one)
        rows = Unsqueeze(range, second)
        columns = Unsqueeze(range, first)
        read = LessOrEqual(columns, rows)
        square = Where(read, none, least)
        added = Unsqueeze(square, ahead)
        y = com.microsoft.MultiHeadAttention<num_heads={HEADS}{", " + attributes if attributes else ""}>({inputs})
    }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    bias = rng.standard_normal(3 * HEADS * 8).astype(np.float32)
    if "bias" in inputs:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    model = ir.from_proto(proto)
    assert match_written_out(model) == 1
    assert [node.op_type for node in model.graph if node.domain] == []
    feeds = {
        name: rng.standard_normal((2, 7, HEADS * 8)).astype(np.float32) for name in ("q", "k", "v")
    }
    found, expected = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, feeds
        )[0]
        for each in (ir.to_proto(model), proto)
    )
    assert np.abs(found - expected).max() < 1e-5


def test_options_that_were_attributes_become_inputs() -> None:
    code = (
        PRODUCT
        + "m = Add(s, added)\n p = Softmax<axis=-1>(m)\n w = MatMul(p, v)\n"
        + "a, b = Split<axis=3>(w)\n c = Concat<axis=3>(b, a)\n r = ReduceMean<axes=[3]>(c)\n y = Sub(c, r)\n"
    )
    proto = graph_of(code, opset=17)
    model = ir.from_proto(proto)
    assert match_written_out(model) == 1
    check_same(proto, ir.to_proto(model))


def test_a_graph_whose_opset_cannot_be_raised_stays() -> None:
    code = PRODUCT + "m = Add(s, added)\n p = Softmax<axis=-1>(m)\n w = MatMul(p, v)\n"
    norm = code + "y = BatchNormalization(w, gamma, gamma, gamma, gamma)\n"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]>\ng ({AXES} q, {AXES} k, {AXES} v, float[2] gamma) => ({AXES} y)\n'
        f"<{STORED}>\n{{{MASKS}{norm}}}"
    )
    model = ir.from_proto(proto)
    assert match_written_out(model) == 0
    assert [node.op_type for node in model.graph][-1] == "BatchNormalization"


def test_numbers_and_sizes_are_read_through_nodes() -> None:
    code = (
        "z = Shape<start=3>(q)\n f = Cast<to=1>(z)\n r = Sqrt(f)\n t = Reciprocal(r)\n"
        "w = Shape(q)\n l = Gather(w, second)\n e = Expand(t, l)\n y = Mul(q, e)\n"
    )
    model = ir.from_proto(graph_of(code))
    made = {value.name: value for node in model.graph for value in node.outputs}
    assert number_of(made["t"]) == 0.5
    assert number_of(made["e"]) == 0.5
    assert number_of(made["y"]) is None
    assert sizes_in(made["w"]) == ["batch", HEADS, "sequence", SIZE]
    assert sizes_in(made["l"]) == [HEADS]
