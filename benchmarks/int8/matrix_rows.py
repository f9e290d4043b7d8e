"""Does it pay to store timestep rows that are matrices in eight bits?

A table (loops, in, out) gives each iteration a weight of its own: pairs of LoRA, weights of an attention per loop. In a
Loop no kernel can pack such a weight before it runs, so integer products lose what they gain from packing. Forms, timed in
turns in one Loop of eight iterations, one thread:

- float: the float row is gathered and multiplied;
- dequantized: s8 rows, made float by one scale per iteration and output, then multiplied in float;
- dynamic: DynamicQuantizeMatMul reads the gathered s8 row;
- static: QuantizeLinear and MatMulIntegerToFloat with a gathered s8 row.

SQNR is that of the products of one iteration, against float64. Two minutes.

    python benchmarks/int8/matrix_rows.py
"""

import re
import statistics
import sys
import time

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from loopedge.graph.integer_weights.channels import INT8_LIMIT, REDUCED_LIMIT, quantize_weight
from loopedge.graph.weights import stored_bytes
from loopedge.runtime.processor import this_processor
from loopedge.runtime.session_options import session_options

LOOPS, ROUNDS, LEAST_SECONDS = 8, 15, 0.02
SIZES = {
    "LoRA A": (512, 8),
    "LoRA B": (8, 512),
    "LoRA A, rank 64": (512, 64),
    "LoRA B, rank 64": (64, 512),
    "attention": (512, 512),
    "attention, small": (128, 128),
}
POSITIONS = (1, 16, 128)
FORMS = {
    "float": "w = Gather (table, i) y = MatMul (x, w)",
    "dequantized": "q = Gather (s8, i) g = Gather (scale, i) "
    "w = DequantizeLinear <axis=1> (q, g) y = MatMul (x, w)",
    "dynamic": "q = Gather (s8, i) g = Gather (scale, i) "
    "y = com.microsoft.DynamicQuantizeMatMul (x, q, g)",
    "static": "q = Gather (s8, i) g = Gather (scale, i) "
    "r = QuantizeLinear (x, range, middle) y = com.microsoft.MatMulIntegerToFloat (r, q, range, g, middle)",
}


def model_of(form: str, table: np.ndarray, x: np.ndarray) -> ir.Model:
    """Return a Loop that multiplies the same input by the row of each iteration and stacks what it gives."""
    loops, inputs, outputs = table.shape
    limit = (
        INT8_LIMIT if form == "dequantized" else REDUCED_LIMIT
    )  # no product saturates without VNNI
    parts = [quantize_weight(row, limit=limit) for row in table]
    stored = {
        "table": table,
        "s8": np.stack([values for values, _ in parts]),
        "scale": np.stack([scales for _, scales in parts]),
        "range": np.array(np.abs(x).max() / 127, np.float32),
        "middle": np.array(128, np.uint8),
    }
    used = [name for name in stored if re.search(rf"\b{name}\b", FORMS[form])]
    kinds = {"s8": "int8", "middle": "uint8"}
    given = "".join(
        f", {kinds.get(name, 'float')}[{','.join(map(str, stored[name].shape))}] {name}".replace(
            "[]", ""
        )
        for name in used
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        rows (float[1, S, {inputs}] x, float[1, S, {outputs}] z{given}) => (float[1, S, {outputs}] sum)
        <int64 n = {{{loops}}}, bool go = {{1}}> {{
          sum = Loop (n, go, z) <body = step (int64 i, bool c, float[1, S, {outputs}] before)
            => (bool d, float[1, S, {outputs}] after) {{
            d = Identity (c) {FORMS[form]} after = Add (before, y) }}>
        }}"""
    )
    for value in list(model.graph.inputs)[2:]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(stored[value.name or ""], name=value.name)
        model.graph.register_initializer(value)
    return model


def measure(
    sessions: dict[str, ort.InferenceSession], feeds: dict[str, np.ndarray]
) -> dict[str, list[float]]:
    """Return the milliseconds of each form in turns."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.run(None, feeds)
    started = time.perf_counter()
    sessions["float"].run(None, feeds)
    runs = max(3, int(LEAST_SECONDS / (time.perf_counter() - started)))
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            started = time.perf_counter()
            for _ in range(runs):
                session.run(None, feeds)
            times[name].append((time.perf_counter() - started) / runs * 1e3)
    return times


def main() -> int:
    """Measure and print a Markdown table."""
    generator = np.random.default_rng(0)
    features = this_processor().features
    print(
        f"Instructions: {', '.join(sorted(features)) or 'unknown'}; onnxruntime {ort.__version__}.\n"
    )
    print(
        "| rows | positions | form | KiB | time against float | SQNR, dB |\n|---|---|---|---|---|---|"
    )
    for name, (inputs, outputs) in SIZES.items():
        table = (generator.normal(size=(LOOPS, inputs, outputs)) / np.sqrt(inputs)).astype(
            np.float32
        )
        for positions in POSITIONS:
            x = generator.normal(size=(1, positions, inputs)).astype(np.float32)
            feeds = {"x": x, "z": np.zeros((1, positions, outputs), np.float32)}
            exact = (x.astype(np.float64) @ table.astype(np.float64)).sum(axis=0)
            models = {form: model_of(form, table, x) for form in FORMS}
            sessions = {
                form: ort.InferenceSession(
                    ir.to_proto(model).SerializeToString(), session_options(1)
                )
                for form, model in models.items()
            }
            times = measure(sessions, feeds)
            for form, session in sessions.items():
                given = session.run(None, feeds)[0][0]
                noise = np.square(given - exact).sum()
                db = 10 * np.log10(np.square(exact).sum() / noise)
                stored = sum(
                    stored_bytes(value) for value in models[form].graph.initializers.values()
                )
                ratio = statistics.median(
                    a / b for a, b in zip(times[form], times["float"], strict=True)
                )
                print(
                    f"| {name} {inputs} x {outputs} | {positions} | {form} | {stored / 1024:.0f} "
                    f"| {ratio:.2f} | {db:.1f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
