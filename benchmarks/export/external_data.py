"""From which size on do weights belong into a file of their own?

Exports one looped block at growing widths, writes each graph twice, weights inside the ``.onnx`` and
as external data, and loads both in turns in fresh processes (numpy and onnxruntime only). Memory is
growth over the imported runtime. External data wins at every size, by about the weights themselves,
so no size is a natural border: `EXTERNAL_THRESHOLD_BYTES` trades one file less for memory. It is held
to that: above it a second file must save at least half of the weights, below it the single file must
not cost more than a fifth of what the session takes anyway. Bytes block (exit code 4). Takes a minute.

    python benchmarks/export/external_data.py [--rounds 7] [--output benchmarks/results/export]
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import loopedge
from loopedge.artifact.artifact import EXTERNAL_THRESHOLD_BYTES, open_artifact, write_artifact
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup

WIDTHS = (36, 52, 68, 76, 104, 148, 208, 296, 592)
"""12 d^2 weights of 4 bytes in a block: 64 KiB at d=36, four times as much at twice the width."""

FEATURES, SEQUENCE, LOOPS = 8, 32, 12
EVERYTHING = 2**62
KIB = 1024
LEAST_SAVED = 0.5  # of the weights, by a second file
MOST_WASTED = 0.2  # of the anonymous memory of the session, by a single file


@dataclass(frozen=True, kw_only=True)
class Load:
    """What loading one file cost: medians over fresh processes."""

    anon_bytes: float
    anon_spread_bytes: float
    mapped_bytes: float
    peak_bytes: float
    load_ms: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """One width: the bytes of its initializers, and both ways to write them."""

    d_model: int
    initializer_bytes: int
    inside: Load
    external: Load

    @property
    def saved_bytes(self) -> float:
        """Anonymous memory that external data saves."""
        return self.inside.anon_bytes - self.external.anon_bytes

    @property
    def passed(self) -> bool:
        """Whether the threshold decides this size well."""
        if self.initializer_bytes > EXTERNAL_THRESHOLD_BYTES:
            return self.saved_bytes >= LEAST_SAVED * self.initializer_bytes
        return self.saved_bytes <= MOST_WASTED * self.external.anon_bytes

    def row(self) -> str:
        """Return a row of the Markdown table."""
        inside, external = self.inside, self.external
        chosen = "external" if self.initializer_bytes > EXTERNAL_THRESHOLD_BYTES else "inside"
        return (
            f"| {self.d_model} | {self.initializer_bytes / KIB:.0f} "
            f"| {inside.anon_bytes / KIB:.0f} | {external.anon_bytes / KIB:.0f} "
            f"| {self.saved_bytes / KIB:+.0f} "
            f"| {inside.peak_bytes / KIB:.0f} | {external.peak_bytes / KIB:.0f} "
            f"| {inside.load_ms:.1f} | {external.load_ms:.1f} "
            f"| {chosen} | {'pass' if self.passed else 'FAIL'} |"
        )


def write_both(d_model: int, folder: Path) -> tuple[int, Path, Path]:
    """Export one block; return its initializer bytes, the single file, and the one with data."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=d_model, heads=4, loops=LOOPS, features=FEATURES, max_length=SEQUENCE
    )
    source = folder / f"{d_model}.onnx"
    loopedge.export(loopedge.LoopedTransformer(config).eval(), source)
    inside, external = folder / f"{d_model}.inside.onnx", folder / f"{d_model}.external.onnx"
    write_artifact(open_artifact(source), external, external_threshold_bytes=0)
    write_artifact(open_artifact(source), inside, external_threshold_bytes=EVERYTHING)
    tensors = [value.const_value for value in open_artifact(source).graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None), inside, external


def measure(paths: tuple[Path, Path], inputs: Path, rounds: int) -> list[Load]:
    """Load each file ``rounds`` times, in turns."""
    loads: dict[Path, list[dict[str, float]]] = {path: [] for path in paths}
    for _ in range(rounds):
        for path in paths:
            with MeasuredProcess(ProcessSetup(model=path, inputs=inputs)) as process:
                memory, seconds = process.loaded["memory"], process.loaded["load_seconds"]
                loads[path].append({**memory, "load_ms": seconds * 1000})
    return [summarize(loads[path]) for path in paths]


def summarize(loads: list[dict[str, float]]) -> Load:
    """Return the medians of one file's loads."""
    medians = {key: statistics.median(load[key] for load in loads) for key in loads[0]}
    anonymous = [load["anon_bytes"] for load in loads]
    return Load(
        anon_bytes=medians["anon_bytes"],
        anon_spread_bytes=max(anonymous) - min(anonymous),
        mapped_bytes=medians["mapped_bytes"],
        peak_bytes=medians["peak_bytes"],
        load_ms=medians["load_ms"],
    )


def main() -> int:
    """Measure, print a Markdown table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="folder for external_data.json and .md")
    arguments = parser.parse_args()
    sizes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = folder / "inputs.npz"
        values = np.random.default_rng(0).normal(size=(1, SEQUENCE, FEATURES))
        np.savez(inputs, inputs=values.astype(np.float32))
        for d_model in WIDTHS:
            stored, *paths = write_both(d_model, folder)
            inside, external = measure((paths[0], paths[1]), inputs, arguments.rounds)
            sizes.append(
                Size(d_model=d_model, initializer_bytes=stored, inside=inside, external=external)
            )
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, torch {torch.__version__}; "
        f"Loop form, medians of {arguments.rounds} fresh processes; KiB of growth over the imported "
        f"runtime. Threshold: {EXTERNAL_THRESHOLD_BYTES // KIB} KiB.",
        "",
        "| d_model | weights KiB | anonymous, inside | anonymous, external | saved "
        "| peak, inside | peak, external | load ms, inside | load ms, external | chosen | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(size.row() for size in sizes),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "external_data.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "torch": torch.__version__,
            "threshold_bytes": EXTERNAL_THRESHOLD_BYTES,
            "rounds": arguments.rounds,
            "sizes": [asdict(size) | {"saved_bytes": size.saved_bytes} for size in sizes],
        }
        (arguments.output / "external_data.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(size.passed for size in sizes) else 4


if __name__ == "__main__":
    sys.exit(main())
