"""What denormals cost: numbers too small to be normal, which ONNX Runtime's softmax gives to masked positions.

Causal attention alone (128 positions, 12 heads of 64), and the block of the paper (d=768, 12 loops, vocabulary 4096) in
float32 and static int8, computed with denormals and with denormals as zero, as `loopedge.Session` does. One thread, in turns,
by the thread's own time; the outputs are compared. A minute.

    python benchmarks/int8/denormals.py [--output benchmarks/results/int8]
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from speed import make_models

from loopedge.runtime.denormals import DenormalsAreZero
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.processor import this_processor
from loopedge.runtime.session_options import session_options

POSITIONS, HEADS, D = 128, 12, 768
RUNS = {"attention": 100, "model": 12}


def attention(folder: Path, *, causal: bool) -> Path:
    """Write attention alone."""
    size = f"float[1, {POSITIONS}, {D}]"
    model = ir.from_onnx_text(
        f"""<ir_version: 11, opset_import: ["": 23]>
        attention ({size} q, {size} k, {size} v) => ({size} y) {{
          y = Attention <is_causal = {int(causal)}, q_num_heads = {HEADS}, kv_num_heads = {HEADS}> (q, k, v)
        }}"""
    )
    path = folder / f"attention{int(causal)}.onnx"
    ir.save(model, path)
    return path


def measure(path: Path, runs: int) -> tuple[list[float], float, float]:
    """Return median ms with denormals and without, the second's time against the first, and how far outputs differ."""
    session = ort.InferenceSession(str(path), session_options(1), ["CPUExecutionProvider"])
    draw = np.random.default_rng(1)
    feeds = {
        item.name: draw.integers(0, 4096, (1, POSITIONS))
        if "int64" in item.type
        else draw.normal(size=item.shape).astype(np.float32)
        for item in session.get_inputs()
    }
    outputs: list[Any] = []

    def way(scope: Callable[[], Any]) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            found = []
            with scope():
                for _ in range(count):
                    started = time.thread_time()
                    session.run(None, feeds)
                    found.append((time.thread_time() - started) * 1e3)
            return found

        with scope():
            outputs.append(session.run(None, feeds)[0])
        return run

    ways = [way(contextlib.nullcontext), way(DenormalsAreZero)]
    rounds = time_in_turns(ways, [runs] * len(ways))
    middles = [median(ms for turn in turns for ms in turn) for turns in rounds]
    return middles, time_ratios(rounds)[1], float(np.abs(outputs[0] - outputs[1]).max())


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for denormals.md")
    arguments = parser.parse_args()
    lines = [
        f"{this_processor().name}, one thread, ONNX Runtime {ort.__version__}; by the thread's own time, in turns.",
        "",
        "| | ms with denormals | ms as zero | time | largest difference of the outputs |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = make_models(folder)
        subjects = {
            "attention, not causal": (attention(folder, causal=False), "attention"),
            "attention, causal": (attention(folder, causal=True), "attention"),
            "the block of the paper, float32": (models["float"], "model"),
            "the block of the paper, static int8": (models["static"], "model"),
        }
        for label, (path, kind) in subjects.items():
            (kept, zero), ratio, difference = measure(path, RUNS[kind])
            lines.append(f"| {label} | {kept:.2f} | {zero:.2f} | {ratio:.2f} | {difference:.1g} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "denormals.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
