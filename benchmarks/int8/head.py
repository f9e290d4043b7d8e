"""Which eight-bit product makes the fastest head of a table that is also the embedding?

As rows, [vocabulary, d], the head computes W x^T, and ONNX Runtime's kernels differ widely by signedness;
turned, [d, vocabulary], it is a linear like any other. One thread, medians of runs in turns.

    python benchmarks/int8/head.py
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

VOCABULARY, D = 4096, 768
LENGTHS = (128, 1)
ROUNDS = 15
PAIRINGS = {"s8 x u8": ("int8", "uint8"), "s8 x s8": ("int8", "int8")} | {
    "u8 x u8": ("uint8", "uint8"),
    "u8 x s8": ("uint8", "int8"),
}


def model(left: str, right: str) -> ir.Model:
    """Return x (B, S, d) -> W x^T, rounded, multiplied, scaled."""
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        head (float[B, S, {D}] x, {left}[{VOCABULARY}, {D}] w) => (float[B, {VOCABULARY}, S] y)
        <float s = {{0.02}}, {right} z = {{{0 if right == "int8" else 128}}},
         {left} m = {{{0 if left == "int8" else 128}}}> {{
          q = QuantizeLinear (x, s, z)
          t = Transpose <perm = [0, 2, 1]> (q)
          p = MatMulInteger (w, t, m, z)
          f = Cast <to = 1> (p)
          y = Mul (f, s)
        }}"""
    )


def turned_model() -> ir.Model:
    """Return x (B, S, d) -> x W with the table turned, [d, vocabulary]."""
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        head (float[B, S, {D}] x, int8[{D}, {VOCABULARY}] w) => (float[B, S, {VOCABULARY}] y)
        <float s = {{0.02}}, uint8 z = {{128}}> {{
          q = QuantizeLinear (x, s, z)
          y = com.microsoft.MatMulIntegerToFloat (q, w, s, s, z)
        }}"""
    )


def float_model() -> ir.Model:
    """Return the same in float."""
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        head (float[B, S, {D}] x, float[{VOCABULARY}, {D}] w) => (float[B, {VOCABULARY}, S] y) {{
          t = Transpose <perm = [0, 2, 1]> (x)
          y = MatMul (w, t)
        }}"""
    )


def session(graph: ir.Model, table: np.ndarray[Any, Any]) -> ort.InferenceSession:
    """Load a graph with the table as its constant."""
    weight = graph.graph.inputs.pop(1)
    weight.const_value = ir.tensor(table, name="w")
    graph.graph.register_initializer(weight)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ir.to_proto(graph).SerializeToString(), options)


def main() -> int:
    """Measure and print a Markdown table."""
    generator = np.random.default_rng(0)
    values = generator.integers(-127, 128, (VOCABULARY, D))
    tables = {"int8": values.astype(np.int8), "uint8": (values + 128).astype(np.uint8)}
    sessions = {"float x float": session(float_model(), (values * 0.01).astype(np.float32))}
    sessions["turned"] = session(turned_model(), np.ascontiguousarray(tables["int8"].T))
    for name, (left, right) in PAIRINGS.items():
        sessions[name] = session(model(left, right), tables[left])
    print(
        f"| table x activations | {' | '.join(f'{length} positions, ms' for length in LENGTHS)} |"
    )
    print("|---|" + "---|" * len(LENGTHS))
    medians: dict[str, list[float]] = {name: [] for name in sessions}
    for length in LENGTHS:
        x = generator.normal(size=(1, length, D)).astype(np.float32)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, one in sessions.items():
                started = time.perf_counter()
                one.run(None, {"x": x})
                times[name].append((time.perf_counter() - started) * 1000)
        for name, measured in times.items():
            medians[name].append(statistics.median(measured))
    for name, columns in medians.items():
        print(f"| {name} | {' | '.join(f'{ms:.2f}' for ms in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
