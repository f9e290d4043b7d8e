"""How much of int8's time at one position is the products themselves?

The paper's block (d=768, 12 loops, vocabulary 4096) at one position waits for its weights. A Loop that holds
its seven int8 products and the additions that keep them alive, nothing else, is timed in turns with the
whole int8 model and the float one, one thread; its time is a floor of what any graph around
MatMulIntegerToFloat can reach. Half a minute.

    python benchmarks/int8/one_position.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from speed import make_models

from loopedge.runtime.session_options import session_options

D, LOOPS, VOCABULARY, ROUNDS, RUNS = 768, 12, 4096, 25, 50
WEIGHTS = {
    **dict.fromkeys(("q", "k", "v", "o"), (D, D)),
    "up": (D, 4 * D),
    "down": (4 * D, D),
    "head": (D, VOCABULARY),
}


def products() -> ir.Model:
    """Return the products of the block alone, every output added to a state."""
    names = ", ".join(
        f"int8[{rows}, {columns}] {name}" for name, (rows, columns) in WEIGHTS.items()
    )
    narrow = "\n".join(
        f"{name}y = com.microsoft.MatMulIntegerToFloat ({'b' if name == 'down' else 'a'}, {name}, s, s, z)"
        for name in ("q", "k", "v", "o", "down")
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        products (uint8[1, 1, {D}] a, uint8[1, 1, {4 * D}] b, float[1, 1, {D}] x0,
                  float[1, 1, {4 * D}] u0, {names}) => (float[1, 1, {D}] x, float[1, 1, {4 * D}] u,
                  float[1, 1, {VOCABULARY}] y)
        <float s = {{0.01}}, uint8 z = {{128}}, int64 n = {{{LOOPS}}}, bool go = {{1}}> {{
          x, u = Loop (n, go, x0, u0) <body = step (int64 i, bool c, float[1, 1, {D}] x1,
              float[1, 1, {4 * D}] u1) => (bool d, float[1, 1, {D}] x2, float[1, 1, {4 * D}] u2) {{
            d = Identity (c)
            {narrow}
            upy = com.microsoft.MatMulIntegerToFloat (a, up, s, s, z)
            x2 = Sum (x1, qy, ky, vy, oy, downy)
            u2 = Add (u1, upy)
          }}>
          y = com.microsoft.MatMulIntegerToFloat (a, head, s, s, z)
        }}"""
    )
    generator = np.random.default_rng(0)
    for value in model.graph.inputs[4:]:
        rows, columns = WEIGHTS[value.name or ""]
        weight = generator.integers(-127, 128, (rows, columns)).astype(np.int8)
        value.const_value = ir.tensor(weight, name=value.name)
        model.graph.register_initializer(value)
    del model.graph.inputs[4:]
    return model


def main() -> int:
    """Measure and print a Markdown table."""
    generator = np.random.default_rng(0)
    ids = {"input_ids": generator.integers(0, VOCABULARY, (1, 1))}
    bare = {
        "a": generator.integers(0, 256, (1, 1, D)).astype(np.uint8),
        "b": generator.integers(0, 256, (1, 1, 4 * D)).astype(np.uint8),
        "x0": np.zeros((1, 1, D), np.float32),
        "u0": np.zeros((1, 1, 4 * D), np.float32),
    }
    with tempfile.TemporaryDirectory() as name:
        paths = make_models(Path(name))
        paths["products alone"] = Path(name) / "products.onnx"
        ir.save(products(), paths["products alone"])
        sessions = {
            key: ort.InferenceSession(str(paths[key]), session_options(1))
            for key in ("float", "static", "products alone")
        }
        times: dict[str, list[float]] = {key: [] for key in sessions}
        for _ in range(ROUNDS):
            for key, session in sessions.items():
                feeds = bare if key == "products alone" else ids
                session.run(None, feeds)
                started = time.perf_counter()
                for _ in range(RUNS):
                    session.run(None, feeds)
                times[key].append((time.perf_counter() - started) / RUNS * 1000)
    weights = sum(
        rows * columns * (1 if name == "head" else LOOPS)
        for name, (rows, columns) in WEIGHTS.items()
    )
    print("| | ms | against float | weights read, GB/s |\n|---|---|---|---|")
    for key, measured in times.items():
        ratio = statistics.median(a / b for a, b in zip(measured, times["float"], strict=True))
        ms = statistics.median(measured)
        speed = weights * (4 if key == "float" else 1) / ms / 1e6
        print(f"| {key} | {ms:.2f} | {ratio:.3f} | {speed:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
