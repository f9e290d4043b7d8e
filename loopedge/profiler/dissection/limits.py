"""Measure what this machine reaches at most: ONNX Runtime's own GEMM, float32 and int8, and a copy."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import initializer
from loopedge.profiler.machine import free_bytes
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import MachineLimits
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = ["measure_limits"]

SIDE = 512
"""Rows, columns and inner axis of the products: larger ones are no faster, and take longer than a busy
system leaves a thread alone."""
WARM_UP, MIN_RUNS = 2, 6
SECONDS = 0.4
"""Of runs of each product: long enough to find a quiet moment."""

ROWS_PER_THREAD = 256

CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
CACHES = 4
CHUNK_BYTES = 4 << 20
"""Copied at a time, for the same reason."""

BUFFER_BYTES = (64 << 20, 512 << 20)
MEMORY_SHARE = 0.1

FLOAT = """<ir_version: 10, opset_import: ["": 21]>
gemm (float[M, {side}] x, float[{side}, {side}] w) => (float[M, {side}] y) {{
  y = MatMul (x, w)
}}"""
INT8 = """<ir_version: 10, opset_import: ["": 21]>
gemm (uint8[M, {side}] x, int8[{side}, {side}] w) => (int32[M, {side}] y) <uint8 z = {{128}}> {{
  y = MatMulInteger (x, w, z)
}}"""


def measure_limits(threads: int) -> MachineLimits:
    """Measure the limits in processes that are pinned as those of the models are; takes a second or two.

    Args:
        threads: Threads inside an operator, and of the copy.

    Returns:
        The best of a few runs each: a limit is what can be reached.

    Raises:
        LoopedgeError: A process died.
    """
    rows = max(SIDE, ROWS_PER_THREAD * threads)
    with tempfile.TemporaryDirectory(prefix="loopedge.") as name:
        folder = Path(name)
        float_ms, seconds = _time_product(folder, FLOAT, "float32", rows, threads, _buffer_bytes())
        try:
            int8_ms, _ = _time_product(folder, INT8, "int8", rows, threads, 0)
        except InputError:  # a runtime that was built without it
            int8_ms = []
    operations = 2.0 * rows * SIDE * SIDE
    return MachineLimits(
        threads=threads,
        gflops_per_second=_billions_per_second(operations, min(float_ms) / 1e3),
        int8_gops_per_second=(
            _billions_per_second(operations, min(int8_ms) / 1e3) if int8_ms else None
        ),
        gb_per_second=_billions_per_second(2.0 * CHUNK_BYTES, min(seconds)),
    )


def _billions_per_second(amount: float, seconds: float) -> float:
    return amount / seconds / 1e9


def _time_product(
    folder: Path, text: str, dtype: str, rows: int, threads: int, copied: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Return the latencies of a product in ms, and the seconds of each chunk of a copy of so many bytes."""
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (SIDE, SIDE)).astype(dtype)
    given = generator.integers(0, 256, (rows, SIDE))
    model = ir.from_onnx_text(text.format(side=SIDE))
    stored = initializer("w", weight)
    ir.convenience.replace_all_uses_with(model.graph.inputs.pop(1), stored)
    model.graph.register_initializer(stored)
    path, inputs = folder / f"{dtype}.onnx", folder / f"{dtype}.npz"
    ir.save(model, path)
    np.savez(inputs, x=given.astype(np.uint8 if dtype == "int8" else dtype))
    setup = ProcessSetup(model=path, inputs=inputs, threads=threads, provider=CPU_PROVIDER)
    with MeasuredProcess(setup) as process:
        warm_ms = min(process.run(WARM_UP))
        latencies = process.run(max(MIN_RUNS, round(SECONDS * 1e3 / warm_ms)))
        return latencies, process.copy(copied, CHUNK_BYTES) if copied else []


def _buffer_bytes() -> int:
    """Return the size of a buffer that no cache holds, and that the machine has memory for."""
    least, most = BUFFER_BYTES
    try:
        cache = int(CACHE.read_text(encoding="ascii").strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        cache = least // CACHES
    wanted = min(max(least, CACHES * cache), most)
    fitting = min(wanted, int(free_bytes() * MEMORY_SHARE))
    return max(fitting // CHUNK_BYTES, 1) * CHUNK_BYTES
