"""How far is ONNX Runtime's int8 product (MLAS) from oneDNN's, which OpenVINO and PyTorch run on?

The products of the paper's block, 128 positions, d=768: uint8 activations, int8 weights with a scale per
column, float32 out. ONNX Runtime runs `MatMulIntegerToFloat`, as our int8 artifacts do; oneDNN runs PyTorch's
`onednn::qlinear_pointwise`; ONNX Runtime's float32 `MatMul` stands beside them. One thread, in turns,
by the thread's own time: a float32 product takes longer than a busy system leaves a thread alone. The peak of the
processor is measured too, where it has AVX512-VNNI: a loop of nothing but `vpdpbusd`. About a minute.

    python benchmarks/int8/gemm.py [--output benchmarks/results/int8]
"""

import argparse
import ctypes
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.processor import this_processor
from loopedge.runtime.session_options import session_options

POSITIONS, D, HIDDEN, VOCABULARY = 128, 768, 3072, 4096
LOOPS = 12
SHAPES = {
    "query, key, value, output": (D, D, 4 * LOOPS),
    "up": (D, HIDDEN, LOOPS),
    "down": (HIDDEN, D, LOOPS),
    "head": (D, VOCABULARY, 1),
}
"""Inner axis, columns, and how often an inference of 12 loops runs the product."""

RUNS, PEAK_ROUNDS = 400, 30
OPENVINO, OURS = 0.27, 0.31
"""Time of the whole int8 inference against unrolled float32."""

X_SCALE, X_ZERO = 0.02, 128
MLAS, ONEDNN, FLOAT = "MLAS, int8", "oneDNN, int8", "MLAS, float32"

VPDPBUSD_OPERATIONS = 2 * 64  # 16 sums of four products of bytes
ACCUMULATORS = range(3, 15)


@dataclass(frozen=True)
class Timed:
    """Best and usual milliseconds of a product, and its time against MLAS's int8 in turns."""

    best_ms: float
    median_ms: float
    ratio: float


def int8_session(weight: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]) -> ort.InferenceSession:
    """Return x uint8 (positions, inner) -> float32 (positions, columns)."""
    inner, columns = weight.shape
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        product (uint8[M, {inner}] x, int8[{inner}, {columns}] w, float[{columns}] s)
          => (float[M, {columns}] y) <float a = {{{X_SCALE}}}, uint8 z = {{{X_ZERO}}}> {{
          y = com.microsoft.MatMulIntegerToFloat (x, w, a, s, z)
        }}"""
    )
    return session(model, {"w": weight, "s": scale})


def float_session(weight: np.ndarray[Any, Any]) -> ort.InferenceSession:
    """Return x float32 (positions, inner) -> float32 (positions, columns)."""
    inner, columns = weight.shape
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        product (float[M, {inner}] x, float[{inner}, {columns}] w) => (float[M, {columns}] y) {{
          y = MatMul (x, w)
        }}"""
    )
    return session(model, {"w": weight})


def session(model: ir.Model, stored: Mapping[str, np.ndarray[Any, Any]]) -> ort.InferenceSession:
    """Load a graph with its last inputs as constants, which ONNX Runtime packs."""
    for value in list(model.graph.inputs):
        constant = stored.get(value.name or "")
        if constant is not None:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(constant, name=value.name)
            model.graph.register_initializer(value)
    return ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), session_options(1), ["CPUExecutionProvider"]
    )


def products(inner: int, columns: int) -> dict[str, Callable[[], Any]]:
    """Return the same product three times, after checking that the integer ones agree."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (POSITIONS, inner)).astype(np.uint8)
    weight = generator.integers(-127, 128, (inner, columns)).astype(np.int8)
    scale = generator.uniform(0.001, 0.002, columns).astype(np.float32)
    mlas = int8_session(weight, scale)
    given = torch.from_numpy(x)
    packed = torch.ops.onednn.qlinear_prepack(
        torch.from_numpy(np.ascontiguousarray(weight.T)), [POSITIONS, inner]
    )
    scales, zeros = torch.from_numpy(scale), torch.zeros(columns, dtype=torch.int32)

    def onednn() -> torch.Tensor:
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            given,
            X_SCALE,
            X_ZERO,
            packed,
            scales,
            zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product

    expected = mlas.run(None, {"x": x})[0]
    np.testing.assert_allclose(onednn().numpy(), expected, rtol=1e-4, atol=1e-2)
    wide = float_session(weight * scale)
    centred = (x.astype(np.float32) - X_ZERO) * np.float32(X_SCALE)
    return {
        MLAS: lambda: mlas.run(None, {"x": x}),
        ONEDNN: onednn,
        FLOAT: lambda: wide.run(None, {"x": centred}),
    }


def measure(inner: int, columns: int) -> dict[str, Timed]:
    """Time the product of one shape in turns."""
    ways = products(inner, columns)

    def timed(way: Callable[[], Any]) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            latencies_ms = []
            for _ in range(count):
                started = time.thread_time()
                way()
                latencies_ms.append((time.thread_time() - started) * 1e3)
            return latencies_ms

        return run

    rounds = time_in_turns([timed(way) for way in ways.values()], [RUNS] * len(ways))
    return {
        name: Timed(
            min(ms for turn in turns for ms in turn),
            median(ms for turn in turns for ms in turn),
            ratio,
        )
        for name, turns, ratio in zip(ways, rounds, time_ratios(rounds), strict=True)
    }


def peak_gops() -> float | None:
    """Return what a loop of `vpdpbusd` on 512 bits reaches; None on a processor or system without it."""
    features = this_processor(["avx512_vnni"]).features
    if not features or platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return None
    body = b"".join(  # vpdpbusd zmm<i>, zmm1, zmm2
        bytes([0x62, 0xF2 if i < 8 else 0x72, 0x75, 0x48, 0x50, 0xC2 | (i & 7) << 3])
        for i in ACCUMULATORS
    )
    head = b"\x48\x89\xf8"  # mov rax, rdi
    count_down = b"\x48\xff\xc8"  # dec rax
    back = -(len(body) + len(count_down) + 6)
    jump = b"\x0f\x85" + back.to_bytes(4, "little", signed=True)  # jnz
    code = head + body + count_down + jump + b"\xc5\xf8\x77\xc3"  # vzeroupper, ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)
    turns = 200_000
    seconds = []
    for _ in range(PEAK_ROUNDS):
        started = time.thread_time()
        loop(turns)
        seconds.append(time.thread_time() - started)
    return turns * len(ACCUMULATORS) * VPDPBUSD_OPERATIONS / min(seconds) / 1e9


def table(results: Mapping[str, Mapping[str, Timed]], peak: float | None) -> list[str]:
    """Return the rows of all shapes and ways."""
    lines = [
        "| product | inner x columns | way | best ms | median ms | GOP/s | of the VNNI peak | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, ways in results.items():
        inner, columns, _ = SHAPES[name]
        for way, timed in ways.items():
            gops = 2 * POSITIONS * inner * columns / timed.best_ms / 1e6
            share = "" if peak is None or way == FLOAT else f"{gops / peak:.0%}"
            lines.append(
                f"| {name} | {inner} x {columns} | {way} | {timed.best_ms:.3f} | {timed.median_ms:.3f} "
                f"| {gops:.0f} | {share} | {timed.ratio:.2f} |"
            )
    return lines


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for gemm.md")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    peak = peak_gops()
    results = {name: measure(inner, columns) for name, (inner, columns, _) in SHAPES.items()}
    totals = {
        way: sum(SHAPES[name][2] * ways[way].best_ms for name, ways in results.items())
        for way in (MLAS, ONEDNN, FLOAT)
    }
    speed = "no AVX512-VNNI" if peak is None else f"{peak:.0f} GOP/s of `vpdpbusd`"
    gap = (totals[MLAS] - totals[ONEDNN]) / totals[FLOAT]
    lines = [
        f"{this_processor().name}, one thread, {speed}; ONNX Runtime {ort.__version__}, "
        f"torch {torch.__version__}; {RUNS} runs each, in turns, by the thread's own time; time against MLAS, int8.",
        "",
        *table(results, peak),
        "",
        f"All products of an inference of {LOOPS} loops, best ms: "
        + ", ".join(f"{way} {ms:.1f}" for way, ms in totals.items())
        + f". MLAS takes {gap:+.3f} of the float32 products' time more than oneDNN: so much of the "
        f"{OURS - OPENVINO:.2f} between OpenVINO's {OPENVINO:.2f} of unrolled float32 and our {OURS:.2f} "
        "is the products'; the rest lies in what stands between them.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "gemm.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
