"""What ONNX Runtime's memory pattern takes where the shapes of inputs vary, and what it saves where they do not.

Runs 200 lengths in random order, in fresh processes, with the pattern (ONNX Runtime's default) and without it (as
loopedge opens every session): resident memory after the longest input was seen three times, and its growth over three
passes of all lengths. Then both sessions run one shape in turns. Takes about four minutes.

    python benchmarks/memory/shapes.py [--output benchmarks/results/memory]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import loopedge
import loopedge_calibration
from loopedge.profiler.machine import describe_machine

LENGTHS, VOCABULARY, MIB = 200, 512, 2**20
ALLOWED_BYTES = 2 * MIB
"""By which the resident memory may grow over lengths that are no longer than one that was seen."""

RUNS = {1: 2000, 32: 500, LENGTHS: 200}
"""Timed runs by positions."""

MEASURE = """
import sys
import numpy as np
from loopedge.profiler.child.process_memory import read_memory
from loopedge.runtime.session_options import open_session, session_options
path, pattern, lengths, passes = sys.argv[1], *map(int, sys.argv[2:])
options = session_options(1, model=path)
options.enable_mem_pattern = bool(pattern)
session = open_session(path, options, "CPUExecutionProvider")
generator = np.random.default_rng(0)
run = lambda length: session.run(None, {"input_ids": generator.integers(0, 64, (1, length))})
for _ in range(3):
    run(lengths)
before = read_memory().rss_bytes
seen = []
for _ in range(passes):
    for length in 1 + generator.permutation(lengths):
        run(int(length))
    seen.append(read_memory().rss_bytes - before)
print(before, *seen)
"""

TIMED = """
import sys
import time
import numpy as np
from loopedge.runtime.latency import time_in_turns, time_ratios
from loopedge.runtime.session_options import open_session, session_options
path, length, runs = sys.argv[1], *map(int, sys.argv[2:])
ids = np.random.default_rng(0).integers(0, 64, (1, length))
def opened(pattern):
    options = session_options(1, model=path)
    options.enable_mem_pattern = pattern
    session = open_session(path, options, "CPUExecutionProvider")
    def run(count):
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            session.run(None, {"input_ids": ids})
            taken.append(time.perf_counter() - begun)
        return taken
    run(10)
    return run
models = [opened(True), opened(False)]
print(time_ratios(time_in_turns(models, [runs, runs]))[1])
"""


def main() -> int:
    """Measure and print two tables; 4 where memory grows without the pattern."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for shapes.md")
    arguments = parser.parse_args()
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, one thread, d=256, 8 loops, lengths 1 to {LENGTHS}.",
        "",
        "| model | memory pattern | after the longest, MiB | growth after one pass | two | three | |",
        "|---|---|---|---|---|---|---|",
    ]
    worst = 0
    with tempfile.TemporaryDirectory() as name:
        models = write_models(Path(name))
        for label, path in models.items():
            for pattern in (True, False):
                before, *seen = measured(MEASURE, path, int(pattern), LENGTHS, 3)
                worst = worst if pattern else max(worst, *map(int, seen))
                verdict = "" if pattern else ("ok" if max(seen) <= ALLOWED_BYTES else "FAIL")
                cells = [f"{int(each) / MIB:.1f}" for each in (before, *seen)]
                lines.append(
                    f"| {label} | {'on' if pattern else 'off'} | {' | '.join(cells)} | {verdict} |"
                )
        lines += ["", "| model | positions | time without the pattern |", "|---|---|---|"]
        for label, path in models.items():
            for length, runs in RUNS.items():
                (ratio,) = measured(TIMED, path, length, runs)
                lines.append(f"| {label} | {length} | {ratio:.3f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "shapes.md").write_text(text, encoding="utf-8")
    return 0 if worst <= ALLOWED_BYTES else 4


def write_models(folder: Path) -> dict[str, Path]:
    """Write a block in both forms, and in int8."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=256, heads=4, loops=8, vocab_size=VOCABULARY, max_length=LENGTHS, gate_init=0.2
    )
    model = loopedge.LoopedTransformer(config).eval()
    found = {"Loop": folder / "loop.onnx", "unrolled": folder / "unrolled.onnx"}
    for form, path in found.items():
        loopedge.export(model, path, form=form.lower())  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, VOCABULARY, (4, 64))} for _ in range(4)]
    ranges = loopedge_calibration.collect(found["Loop"], samples)
    found["Loop, static int8"] = folder / "int8.onnx"
    loopedge.quantize(found["Loop"], found["Loop, static int8"], ranges=ranges, reduce_range=True)
    return found


def measured(program: str, path: Path, *words: int) -> list[float]:
    """Run a program in a fresh process; return the numbers that it prints."""
    command = [sys.executable, "-c", program, str(path), *map(str, words)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    sys.exit(main())
