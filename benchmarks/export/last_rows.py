"""What it is worth that the last iteration computes only the positions that are read.

The paper's block (d=768, 12 heads, 12 loops, vocabulary 4096) with the logits of the last position, and a
series forecaster, in float32 and static int8, each with and without, against the float32 graph that is
unrolled; one thread, in turns; and the time over widths, loops and positions. Bytes and counts are exact and
held, times advise. Prints Markdown tables. Takes about three minutes.

    python benchmarks/export/last_rows.py [--output benchmarks/results/export] [--runs 45]
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.files.arrays import write_arrays
from loopedge.graph.inputs import generate_inputs
from loopedge.profiler.machine import describe_machine
from loopedge.quantizer.timing import session_runner
from loopedge.runtime.latency import time_in_turns, time_ratios

MEGABYTE = 1e6
WIDTHS, LOOPS = (64, 256, 768), (1, 4, 12)
MOST_ANON_GROWTH_BYTES = 1_500_000
"""Most that the anonymous memory after load may grow by: no weight is packed twice."""

MEASURE = """
import json, sys
import onnxruntime as ort
from loopedge.profiler.child.process_memory import read_memory, reset_peak
from loopedge.runtime.session_options import open_session, session_options
import numpy as np
inputs = dict(np.load(sys.argv[2]))
reset_peak()
before = read_memory()
session = open_session(sys.argv[1], session_options(1), "CPUExecutionProvider")
loaded = read_memory()
for _ in range(3):
    session.run(None, inputs)
after = read_memory()
print(json.dumps({
    "anon": loaded.anon_bytes - before.anon_bytes,
    "rss": loaded.rss_bytes - before.rss_bytes,
    "peak": after.peak_bytes - before.rss_bytes,
}))
"""


@dataclass(frozen=True)
class Subject:
    """A model, its length, how it is exported, and by how much more often than the others it is timed."""

    name: str
    config: loopedge.LoopedConfig
    length: int
    logits: str = "all"
    runs: int = 1


SUBJECTS = (
    Subject(
        "language model, d=768, T=128, r=12",
        loopedge.LoopedConfig(
            d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128, gate_init=0.2
        ),
        128,
        "last",
    ),
    Subject(
        "forecaster, d=128, T=96, r=8",
        loopedge.LoopedConfig(
            d_model=128,
            heads=4,
            loops=8,
            features=4,
            outputs=1,
            read="last",
            horizon=24,
            max_length=96,
            gate_init=0.2,
        ),
        96,
        runs=20,
    ),
)


def make_files(subject: Subject, folder: Path) -> tuple[dict[str, Path], Path]:
    """Write the five files of a subject, and inputs of its length."""
    torch.manual_seed(0)
    model = loopedge.LoopedTransformer(subject.config).eval()
    logits: Any = subject.logits
    files = {"float32, unrolled": folder / "unrolled.onnx"}
    loopedge.export(model, files["float32, unrolled"], form="unrolled", logits=logits)
    data = folder / "data.npz"
    for name, wish in (("all positions", False), ("last position", None)):
        source, target = folder / f"{name}.onnx", folder / f"{name}.int8.onnx"
        loopedge.export(model, source, logits=logits, last_rows=wish)
        if not data.exists():
            opened = Artifact.open(source).float32_graph()
            write_arrays(data, generate_inputs(opened, batch=8, sequence=subject.length, seed=1))
        loopedge.quantize(source, target, data=data, scheme="static", method="minmax")
        files |= {f"float32, {name}": source, f"int8, {name}": target}
    inputs = folder / "inputs.npz"
    opened = Artifact.open(files["float32, all positions"]).float32_graph()
    write_arrays(inputs, generate_inputs(opened, batch=1, sequence=subject.length))
    return files, inputs


def measure_memory(file: Path, inputs: Path) -> dict[str, int]:
    """Return anonymous and resident bytes after load and the peak, of a fresh process; median of three."""
    command = [sys.executable, "-P", "-c", MEASURE, str(file), str(inputs)]
    found: list[dict[str, int]] = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    return {key: int(np.median([one[key] for one in found])) for key in found[0]}


def rows_of(subject: Subject, runs: int) -> tuple[list[str], list[str]]:
    """Return the rows of a table, and what does not hold."""
    with tempfile.TemporaryDirectory() as name:
        files, inputs = make_files(subject, Path(name))
        feeds = dict(np.load(inputs))
        runners = [
            session_runner(loopedge.Session(file, threads=1), feeds) for file in files.values()
        ]
        times = time_in_turns(runners, [runs * subject.runs] * len(runners))
        ratios = dict(zip(files, time_ratios(times), strict=True))
        del runners
        memory = {key: measure_memory(file, inputs) for key, file in files.items()}
        sizes = {
            key: sum(item.bytes for item in loopedge.inspect(file).files)
            for key, file in files.items()
        }
        weights = {key: loopedge.inspect(file).weight_bytes for key, file in files.items()}
    lines, wrong = [], []
    for key in sorted(files, key=list(files).index):
        measured = memory[key]
        lines.append(
            f"| {subject.name} | {key} | {sizes[key] / MEGABYTE:.2f} | {measured['anon'] / MEGABYTE:.1f} | "
            f"{measured['rss'] / MEGABYTE:.1f} / {measured['peak'] / MEGABYTE:.1f} | {ratios[key]:.3f} |"
        )
    for kind in ("float32", "int8"):
        one, two = f"{kind}, all positions", f"{kind}, last position"
        if weights[one] != weights[two]:
            wrong.append(
                f"{subject.name}, {kind}: {weights[two]} bytes of weights, not {weights[one]}"
            )
        growth = memory[two]["anon"] - memory[one]["anon"]
        if growth > MOST_ANON_GROWTH_BYTES:
            wrong.append(f"{subject.name}, {kind}: {growth} bytes more are anonymous after load")
    return lines, wrong


def sizes_table(runs: int) -> list[str]:
    """Return a table of times over widths, loops and positions: where there is something to gain."""
    lines = ["| d | loops | positions | time | the same file again |", "|---|---|---|---|---|"]
    for width, loops in itertools.product(WIDTHS, LOOPS):
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=width,
            heads=max(width // 64, 4),
            loops=loops,
            vocab_size=1024,
            max_length=128,
            gate_init=0.2,
        )
        model = loopedge.LoopedTransformer(config).eval()
        with tempfile.TemporaryDirectory() as name:
            every, last = (Path(name) / f"{which}.onnx" for which in ("every", "last"))
            loopedge.export(model, every, logits="last", last_rows=False)
            loopedge.export(model, last, logits="last")
            for length in (1, 128):
                feeds = generate_inputs(
                    Artifact.open(every).float32_graph(), batch=1, sequence=length
                )
                runners = [
                    session_runner(loopedge.Session(file, threads=1), feeds)
                    for file in (every, last, every)
                ]
                counts = [runs if width == WIDTHS[-1] else 4 * runs] * len(runners)
                _, ratio, again = time_ratios(time_in_turns(runners, counts))
                lines.append(f"| {width} | {loops} | {length} | {ratio:.2f} | {again:.2f} |")
    return lines


def main() -> int:
    """Measure and print; 4 where bytes do not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for last_rows.md")
    parser.add_argument("--runs", type=int, default=45, help="timed runs of each file")
    arguments = parser.parse_args()
    lines = [
        "| model | file | MB | anonymous MB after load | RSS MB after load / peak | time |",
        "|---|---|---|---|---|---|",
    ]
    wrong: list[str] = []
    for subject in SUBJECTS:
        rows, found = rows_of(subject, arguments.runs)
        lines += rows
        wrong += found
    machine = describe_machine()
    lines += [
        "",
        "Memory is growth over the process with onnxruntime imported; times are against the first file of a "
        f"model. {machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}.",
        "",
        "The last position against all positions of the last iteration, float32, vocabulary 1024:",
        "",
        *sizes_table(arguments.runs),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    for line in wrong:
        print(f"FAIL: {line}", file=sys.stderr)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "last_rows.md").write_text(text, encoding="utf-8")
    return 4 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
