"""What two choices of the memory profile `low` take off its peak: optimizers off, and a larger first region.

Exports the paper's block and others with `low` and measures each in fresh processes, with and without each
choice. Peaks are growth over the imported runtime, in MB of 10^6 bytes. Takes about two minutes.

    python benchmarks/memory/low.py [--output benchmarks/results/memory]
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
from loopedge.artifact.artifact import open_artifact
from loopedge.graph.metadata import read_metadata
from loopedge.profiler.machine import describe_machine

SHAPES = ((64, 64, 1), (256, 512, 1), (256, 512, 4), (768, 128, 1), (768, 512, 1), (1280, 128, 1))
"""Width, positions and batch; the paper's block in int8 too."""

VOCABULARY = 4096
CHOICES = {"neither": (True, False), "optimizers off": (False, False), "both": (False, True)}
"""Whether the optimizers run, and whether the arena starts with 4 MiB."""

MEASURE = """
import sys
import numpy as np
from loopedge.runtime import session_options as opening
from loopedge.profiler.child.process_memory import growth_since, read_memory, reset_peak
path, batch, length, optimize, region = sys.argv[1], *map(int, sys.argv[2:])
ids = np.random.default_rng(0).integers(0, 64, (batch, length))
if not region:
    opening._register_arena = lambda: False
reset_peak()
baseline = read_memory()
options = opening.session_options(1, "low", model=path, optimize=bool(optimize))
session = opening.open_session(path, options, "CPUExecutionProvider", "low")
for _ in range(5):
    session.run(None, {"input_ids": ids})
print(growth_since(baseline)["peak_bytes"])
"""


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for low.md")
    arguments = parser.parse_args()
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, memory profile low, 4 loops, peak MB.",
        "",
        f"| model | positions | batch | {' | '.join(CHOICES)} |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for width, length, batch in SHAPES:
            path = Path(name) / f"{width}.{length}.onnx"
            if not path.exists():
                export(width, length, path)
            lines.append(row(f"float32, d={width}", path, length, batch))
            if (width, length) == (768, 128):
                lines.append(row("static int8, d=768", quantize(path, length), length, batch))
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "low.md").write_text(text, encoding="utf-8")
    return 0


def export(width: int, length: int, path: Path) -> None:
    """Write a block of a width."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=width,
        heads=max(width // 64, 4),
        loops=4,
        vocab_size=VOCABULARY,
        max_length=length,
        gate_init=0.2,
    )
    loopedge.export(loopedge.LoopedTransformer(config).eval(), path, memory="low")


def quantize(path: Path, length: int) -> Path:
    """Write the static int8 of a file beside it."""
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, VOCABULARY, (4, length))} for _ in range(4)]
    target = path.with_suffix(".int8.onnx")
    ranges = loopedge_calibration.collect(path, samples)
    loopedge.quantize(path, target, ranges=ranges, data=samples[:1])
    return target


def row(name: str, path: Path, length: int, batch: int) -> str:
    """Return a row of the table; optimizers stay on where the file needs them."""
    metadata = read_metadata(open_artifact(path).metadata_props)
    idle = metadata.optimized
    cells = []
    for optimize, region in CHOICES.values():
        flags = [str(int(optimize or not idle)), str(int(region))]
        words = [sys.executable, "-c", MEASURE, str(path), str(batch), str(length), *flags]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(words, env=quiet, capture_output=True, text=True, check=True)
        cells.append(f"{int(done.stdout) / 1e6:.1f}")
    label = name if idle else f"{name}, optimizers needed"
    return f"| {label} | {length} | {batch} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
