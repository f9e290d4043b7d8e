"""Where the time of MatMulIntegerToFloat goes inside the Loop: the same product alone, in the caches and out of them.

The block of the paper multiplies 128 positions by twelve weights of 768 x 768, 7.1 MB, in every iteration. The product is
timed as ONNX Runtime (MLAS) and oneDNN compute it: twelve times by one weight, which stays in the second-level cache, and by
twelve weights in turn, as in the Loop; with weights packed at loading and at each run (``low``); for the types of both
operands. Then the products inside the int8 Loop, from ONNX Runtime's trace. One thread, in turns, by the thread's own
time; the trace by its shortest event of each node. Two minutes.

    python benchmarks/int8/cold_products.py [--output benchmarks/results/int8]
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from gemm import peak_gops
from speed import make_models

from loopedge.runtime.denormals import DenormalsAreZero
from loopedge.runtime.latency import time_in_turns
from loopedge.runtime.processor import this_processor
from loopedge.runtime.session_options import session_options

POSITIONS, D, WEIGHTS, LOOPS = 128, 768, 12, 12
RUNS, TRACED = 20, 20
OPERATIONS = 2 * POSITIONS * D * D
X_SCALE = 0.02
ZERO = {"uint8": 128, "int8": 0}
TYPES = (("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"))
Array = np.ndarray[Any, Any]


def integers(kind: str, shape: tuple[int, int], seed: int) -> Array:
    """Return random integers of a type."""
    low, high = (0, 256) if kind == "uint8" else (-127, 128)
    return np.random.default_rng(seed).integers(low, high, shape).astype(kind)


def mlas(types: tuple[str, str], weights: int, *, packed: bool) -> Callable[[], Any]:
    """Return twelve products of one input by so many weights, each node with scales of its own."""
    left, right = types
    names = [f"w{number}" for number in range(weights)]
    stored = ", ".join(f"{right}[{D}, {D}] {name}" for name in names)
    scales = ", ".join(f"float[{D}] s{number}" for number in range(WEIGHTS))
    outputs = ", ".join(f"float[{POSITIONS}, {D}] y{number}" for number in range(WEIGHTS))
    nodes = "\n".join(
        f"y{number} = com.microsoft.MatMulIntegerToFloat (x, {names[number % weights]}, a, s{number}, z, v)"
        for number in range(WEIGHTS)
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        products ({left}[{POSITIONS}, {D}] x, {stored}, {scales}) => ({outputs})
        <float a = {{{X_SCALE}}}, {left} z = {{{ZERO[left]}}}, {right} v = {{{ZERO[right]}}}> {{
          {nodes}
        }}"""
    )
    for place, value in enumerate(model.graph.inputs[1:]):
        own = (
            integers(right, (D, D), place)
            if str(value.name).startswith("w")
            else np.random.default_rng(place).uniform(0.001, 0.002, D).astype(np.float32)
        )
        value.const_value = ir.tensor(own, name=value.name)
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    options = session_options(1, "balanced" if packed else "low")
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_cpu_input("x", integers(left, (POSITIONS, D), 99))
    written = ort.OrtValue.ortvalue_from_numpy(np.zeros((POSITIONS, D), np.float32))
    for number in range(WEIGHTS):  # one buffer for all, as the Loop's arena uses one again
        binding.bind_ortvalue_output(f"y{number}", written)
    return lambda: session.run_with_iobinding(binding)


def onednn(weights: int) -> Callable[[], Any]:
    """Return the same of uint8 and int8 by oneDNN, as PyTorch calls it."""
    given = torch.from_numpy(integers("uint8", (POSITIONS, D), 99))
    packed = [
        torch.ops.onednn.qlinear_prepack(
            torch.from_numpy(np.ascontiguousarray(integers("int8", (D, D), number).T)),
            [POSITIONS, D],
        )
        for number in range(weights)
    ]
    scales, zeros = torch.full((D,), 0.0015), torch.zeros(D, dtype=torch.int32)

    def run() -> None:
        for number in range(WEIGHTS):
            torch.ops.onednn.qlinear_pointwise(
                *(given, X_SCALE, ZERO["uint8"], packed[number % weights], scales, zeros, None),
                *(1.0, 0, torch.float32, "none", [], ""),
            )

    return run


def measure(ways: Sequence[Callable[[], Any]]) -> list[tuple[float, float]]:
    """Return best and median microseconds of a product, in turns."""

    def timed(way: Callable[[], Any]) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            found = []
            for _ in range(count):
                started = time.thread_time()
                way()
                found.append((time.thread_time() - started) * 1e6 / WEIGHTS)
            return found

        return run

    for way in ways:
        way()
    rounds = time_in_turns([timed(way) for way in ways], [RUNS] * len(ways))
    return [
        (min(us for turn in turns for us in turn), median(us for turn in turns for us in turn))
        for turns in rounds
    ]


def products_in_the_loop(path: Path) -> tuple[int, float, float]:
    """Return how many products an inference computes, and their best and median ms, from the trace."""
    options = session_options(1)
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(".trace"))
    session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feeds = {"input_ids": np.random.default_rng(1).integers(0, 4096, (1, POSITIONS))}
    with DenormalsAreZero():
        for _ in range(TRACED):
            session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    of_nodes = collections.defaultdict(list)
    for event in events:
        if event.get("args", {}).get("op_name") == "MatMulIntegerToFloat" and "dur" in event:
            of_nodes[event["name"]].append(event["dur"])
    count = len(of_nodes) * LOOPS
    best = sum(min(durations) for durations in of_nodes.values()) * LOOPS / 1e3
    return count, best, sum(median(durations) for durations in of_nodes.values()) * LOOPS / 1e3


def main() -> int:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for cold_products.md")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    peak = peak_gops()
    named = [
        (f"MLAS, {left} x {right}", way, packed, weights)
        for left, right in TYPES
        for packed, way in ((True, "at loading"), (False, "at each run"))
        for weights in (1, WEIGHTS)
    ]
    ways = [
        mlas((*name.removeprefix("MLAS, ").split(" x "),), weights, packed=packed)  # type: ignore[arg-type]
        for name, _, packed, weights in named
    ]
    rows = [(name, way, weights) for name, way, _, weights in named]
    for weights in (1, WEIGHTS):
        ways.append(onednn(weights))
        rows.append(("oneDNN, uint8 x int8", "at loading", weights))
    found = measure(ways)
    with tempfile.TemporaryDirectory() as folder:
        count, best_ms, median_ms = products_in_the_loop(make_models(Path(folder))["static"])
    vnni = "" if peak is None else f", {peak:.0f} GOP/s of `vpdpbusd`"
    lines = [
        f"{this_processor().name} ({', '.join(sorted(this_processor(['amx_int8', 'avx512_vnni']).features))}){vnni}; one thread, "
        f"ONNX Runtime {ort.__version__}, torch {torch.__version__}; {POSITIONS} x {D} by {D} x {D}, by the thread's own time.",
        "",
        "| product | weights packed | distinct weights | best us | median us | best GOP/s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {way} | {weights} | {best:.0f} | {middle:.0f} | {OPERATIONS / best / 1e3:.0f} |"
            for (name, way, weights), (best, middle) in zip(rows, found, strict=True)
        ),
        "",
        f"Inside the int8 Loop of {LOOPS} iterations: {count} products, best {best_ms:.1f} ms, median {median_ms:.1f} "
        f"({best_ms / count * 1e3:.0f} us each, {count * OPERATIONS / best_ms / 1e6:.0f} GOP/s). "
        f"As many alone by {WEIGHTS} weights in turn: {count * found[1][0] / 1e3:.1f} ms; by one weight: "
        f"{count * found[0][0] / 1e3:.1f} ms; by oneDNN: {count * found[-1][0] / 1e3:.1f} and {count * found[-2][0] / 1e3:.1f} ms.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "cold_products.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
