"""Files as other tools write them, tiny, each with the products that read weights and what can be int8, counted by hand."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

D = 32


def weights() -> dict[str, NDArray[np.generic]]:
    draw = np.random.default_rng(0).normal
    shapes = {
        **dict.fromkeys("abc", (D, D)),
        "row": (D,),
        "flat": (D * D,),
        "wide": (D, 3 * D),
        "three": (3, D, D),
        "kernel": (D, D, 3),
        "gates": (1, 3 * D, D),
        "again": (1, 3 * D, D),
    }
    found: dict[str, NDArray[np.generic]] = {
        name: (draw(size=shape) / np.sqrt(D)).astype(np.float32) for name, shape in shapes.items()
    }
    found["q"] = np.rint(30 * draw(size=(D, D))).clip(-127, 127).astype(np.int8)
    found["scale"] = np.full(D, 0.01, np.float32)
    return found


FOREIGN: dict[str, tuple[str, int, int]] = {
    "Gemm": ("f = Flatten <axis=2> (x) y = Gemm <transB=1, alpha=0.5, beta=2.0> (f, a, row)", 1, 1),
    "a turned weight": ("w = Transpose <perm=[1,0]> (a) y = MatMul (x, w)", 1, 1),
    "a weight and a copy": ("w = Identity (a) p = MatMul (x, w) y = MatMul (p, a)", 2, 2),
    "a flat weight": (
        f"s = Constant <value_ints=[{D},{D}]> () w = Reshape (flat, s) y = MatMul (x, w)",
        1,
        1,
    ),
    "a scaled weight": ("w = Mul (a, row) y = MatMul (x, w)", 1, 1),
    "one weight for three": (
        "p, q1, r = Split <axis=1, num_outputs=3> (wide) "
        "t = MatMul (x, p) u = MatMul (t, q1) y = MatMul (u, r)",
        3,
        3,
    ),
    "a first factor": (
        "t = Transpose <perm=[0,2,1]> (x) u = MatMul (a, t) y = Transpose <perm=[0,2,1]> (u)",
        1,
        1,
    ),
    "a constant": ("CONSTANT y = MatMul (x, made)", 1, 1),
    "branches": (
        """p = MatMul (x, a) s = ReduceSum <keepdims=0> (p) zero = Constant <value = float {0}> ()
           k = Greater (s, zero) y = If (k)
           <then_branch = one () => (float[B,S,32] u) { u = MatMul (p, b) },
            else_branch = two () => (float[B,S,32] v) { v = MatMul (p, c) }>""",
        3,
        3,
    ),
    "a Loop": (
        """n = Constant <value_int=3> () go = Constant <value = bool {1}> ()
           y, rest = Loop (n, go, x, a) <body = step (int64 i, bool k, float[B,S,32] s, float[32,32] w)
             => (bool d, float[B,S,32] t, float[32,32] v) {
             d = Identity (k) v = Identity (w) m = Gather (three, i) p = MatMul (s, w) q1 = MatMul (p, m)
             t = Tanh (q1) }>""",
        2,
        2,
    ),
    "a Scan": (
        """y = Scan <num_scan_inputs=1, body = step (float[B,S,32] s, float[32,32] w) => (float[B,S,32] t) {
             p = MatMul (s, w) q1 = MatMul (p, a) t = Tanh (q1) }> (x, three)""",
        2,
        1,
    ),
    "a convolution": (
        "t = Transpose <perm=[0,2,1]> (x) u = Conv <pads=[1,1]> (t, kernel) "
        "v = Transpose <perm=[0,2,1]> (u) y = MatMul (v, a)",
        2,
        2,
    ),
    "Einsum": ('p = Einsum <equation="bsd,de->bse"> (x, a) y = MatMul (p, b)', 2, 1),
    "GRU": (
        f"t = Transpose <perm=[1,0,2]> (x) u, h = GRU <hidden_size={D}> (t, gates, again) "
        "o = Constant <value_ints=[1]> () v = Squeeze (u, o) z = Transpose <perm=[1,0,2]> (v) y = MatMul (z, a)",
        2,
        1,
    ),
    "QDQ": (
        "w = DequantizeLinear <axis=1> (q, scale) p = MatMul (x, w) t = Tanh (p) y = MatMul (t, a)",
        2,
        2,
    ),
    "functions": (
        """y = own.twice (x, a) } <opset_import: ["": 21], domain: "own">
           twice (x, w) => (z) { p = MatMul (x, w) q1 = Tanh (p) z = MatMul (q1, w)""",
        2,
        2,
    ),
    "float16": (
        "h = Cast <to=10> (x) w = Cast <to=10> (a) p = MatMul (h, w) y = Cast <to=1> (p)",
        1,
        1,
    ),
    "experts": (
        "s = ReduceSum <keepdims=0> (x) k = Greater (s, s) i = Cast <to=7> (k) w = Gather (three, i) "
        "p = MatMul (x, w) y = MatMul (p, a)",
        2,
        2,
    ),
}


def write_foreign(name: str, path: Path) -> Path:
    """Write the file of a name; its input is x float32 (B, S, 32), its output y."""
    text, _, _ = FOREIGN[name]
    head = '<ir_version: 10, opset_import: ["": 21, "own": 1]>'
    text = text.replace(
        "CONSTANT", f"made = Constant <value = float[{D},{D}] {{{', '.join(['0.5'] * D * D)}}}> ()"
    )
    found = weights()
    model = onnx.parser.parse_model(
        f"{head} other (float[B, S, {D}] x) => (float[B, S, {D}] y) {{ {text} }}"
    )
    words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    for key in words & found.keys():
        model.graph.initializer.append(numpy_helper.from_array(found[key], key))
    if name == "Gemm":
        model.graph.output[0].CopyFrom(
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["M", D])
        )
    onnx.save(model, path)
    return path
