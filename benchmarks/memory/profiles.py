"""What the memory profiles take and cost on the paper's block: d=768, sequence 128, vocabulary 4096.

Exports the Loop for several loop counts, once for `low` and once for the other profiles, quantizes it to
static int8, prepares both, and measures every profile in fresh processes; times of the profiles of one model
are taken in turns. Bytes block (exit code 4), times advise. Two more tables say why a bound cannot be met: what the peak of `low`
is made of, and what glibc keeps after a prepared file is loaded. Takes about three minutes.

    python benchmarks/memory/profiles.py [--output benchmarks/results/memory]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import loopedge
import loopedge_calibration
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.profiler.pipeline import Run

LOOPS = (1, 12, 48)
MODELS = ("float32", "static int8")
OTHERS = {"dynamic int8": "dynamic", "weight-int8": "weight-int8", "weight-int4": "weight-int4"}
OTHERS_LOOPS = 12
SEQUENCES = (128, 64, 1)
PROFILES = ("balanced", "low", "mapped")
MIB = 2**20
MB = 10**6
MAPPED_ANONYMOUS_MIB = 2.5
PEAK_MB = {
    ("float32", "balanced"): 70.0,
    ("float32", "low"): 58.0,
    ("static int8", "balanced"): 32.0,
    ("static int8", "low"): 27.0,
}
REACHED_MB = PEAK_MB | {("float32", "low"): 59.0, ("static int8", "low"): 28.0}
"""What blocks: the arena's layout moves the peak of `low` by up to 0.9 MB from run to run."""
LOW_TIME = 1.15
FLAT_MIB = 1.0

Key = tuple[str, int, str]


@dataclass(frozen=True)
class Bound:
    """A figure, the most it may be, and whether missing it fails the benchmark."""

    name: str
    measured: float
    allowed: float
    blocks: bool

    @property
    def passed(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.measured <= self.allowed

    def row(self) -> str:
        """Return a row of the Markdown table."""
        verdict = "pass" if self.passed else "FAIL" if self.blocks else "missed"
        return f"| {self.name} | {self.measured:.3f} | <= {self.allowed:.3f} | {verdict} |"


def make_models(folder: Path) -> dict[Key, Path]:
    """Export, quantize and prepare; return the file of each model, loop count and profile."""
    files: dict[Key, Path] = {}
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, 4096, (2, 128))} for _ in range(2)]
    for loops in LOOPS:
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=768, heads=12, loops=loops, vocab_size=4096, max_length=128
        )
        model = loopedge.LoopedTransformer(config).eval()
        exported = folder / f"float32.{loops}.onnx"
        for memory in ("balanced", "low"):
            path = exported if memory == "balanced" else folder / f"float32.{loops}.low.onnx"
            quantized = folder / f"int8.{loops}.{memory}.onnx"
            loopedge.export(model, path, memory=memory)
            ranges = loopedge_calibration.collect(path, samples)
            loopedge.quantize(path, quantized, ranges=ranges)
            for kind, source in zip(MODELS, (path, quantized), strict=True):
                files[kind, loops, memory] = source
                if memory == "balanced":
                    prepared = loopedge.prepare(source).path
                    files[kind, loops, "mapped"] = Path(prepared)
        if loops == OTHERS_LOOPS:
            for kind, scheme in OTHERS.items():
                path = folder / f"{scheme}.{loops}.onnx"
                loopedge.quantize(exported, path, scheme=scheme)
                files |= variants(kind, loops, path)
    return files


def variants(kind: str, loops: int, path: Path) -> dict[Key, Path]:
    """Return a model's file under each profile."""
    prepared = Path(loopedge.prepare(path).path)
    paths = {"balanced": path, "low": low_copy(path), "mapped": prepared}
    return {(kind, loops, profile): file for profile, file in paths.items()}


def low_copy(path: Path) -> Path:
    """Write the same graph with `low` in its metadata; it reads the data of the original."""
    proto = onnx.load(path, load_external_data=False)
    properties = {item.key: item.value for item in proto.metadata_props}
    metadata = read_metadata(properties)
    assert not metadata.foreign
    write_metadata(metadata.model_copy(update={"memory": "low"}), properties)
    onnx.helper.set_model_props(proto, properties)
    target = path.with_suffix(".low.onnx")
    target.write_bytes(proto.SerializeToString())
    return target


def measure(files: Mapping[Key, Path]) -> tuple[dict[Key, Run], dict[str, Any]]:
    """Profile the profiles of each model together: their latencies are taken in turns."""
    runs: dict[Key, Run] = {}
    for kind, loops in dict.fromkeys((kind, loops) for kind, loops, _ in files):
        keys = [(kind, loops, profile) for profile in PROFILES]
        result = loopedge.profile([files[key] for key in keys], seconds=1.5, details=False)
        runs |= dict(zip(keys, result.runs, strict=True))
    return runs, result.machine


def judge(runs: Mapping[Key, Run]) -> list[Bound]:
    """Hold the figures against the bounds."""
    bounds = [
        Bound(
            f"{kind}, r={loops}, mapped: anonymous MiB after load",
            runs[kind, loops, "mapped"].anon_bytes / MIB,
            MAPPED_ANONYMOUS_MIB,
            blocks=True,
        )
        for kind in MODELS
        for loops in LOOPS
    ]
    for kind in MODELS:
        for profile in ("low", "mapped"):
            taken = [runs[kind, loops, profile].anon_bytes / MIB for loops in LOOPS]
            bounds.append(
                Bound(
                    f"{kind}, {profile}: anonymous MiB, largest minus smallest over r",
                    max(taken) - min(taken),
                    FLAT_MIB,
                    blocks=True,
                )
            )
    bounds += [
        Bound(
            f"{kind}, r={loops}, {profile}: peak MB{text}",
            runs[kind, loops, profile].rss_peak_bytes / MB,
            allowed[kind, profile],
            blocks=blocks,
        )
        for text, allowed, blocks in (("", PEAK_MB, False), (", reached", REACHED_MB, True))
        for kind, profile in PEAK_MB
        for loops in LOOPS
    ]
    for kind in MODELS:
        for loops in LOOPS:
            for profile, allowed in (("low", LOW_TIME), ("mapped", 1.02)):
                bounds.append(
                    Bound(
                        f"{kind}, r={loops}, {profile}: time against balanced, in turns",
                        runs[kind, loops, profile].time_ratio,
                        allowed,
                        blocks=False,
                    )
                )
    return bounds


def peaks(model: Path, small: Path) -> list[str]:
    """Take the peak of `low` apart: weights, onnxruntime itself, activations."""
    own = (
        loopedge.profile([small], memory="low", runs=3, sequence=1, details=False)
        .runs[0]
        .rss_peak_bytes
    )
    lines = [
        "| positions | peak MB | weights MB | onnxruntime MB | activations MB |",
        "|---|---|---|---|---|",
    ]
    for sequence in SEQUENCES:
        run = loopedge.profile(
            [model], memory="low", runs=3, sequence=sequence, details=False
        ).runs[0]
        peak = run.rss_peak_bytes
        rest = peak - run.weight_bytes - own
        cells = (f"{size / MB:.1f}" for size in (peak, run.weight_bytes, own, rest))
        lines.append(f"| {sequence} | {' | '.join(cells)} |")
    return lines


PLAIN = """
import ctypes, sys
import onnxruntime as ort
from loopedge.profiler.child.process_memory import read_memory
before = read_memory().anon_bytes
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
kept = read_memory().anon_bytes
ctypes.CDLL(None).malloc_trim(0)
print(kept - before, read_memory().anon_bytes - before)
"""


def kept_by_malloc(prepared: Mapping[str, Path]) -> list[str]:
    """Load prepared files with plain onnxruntime, glibc as it is and with a fixed mmap threshold."""
    lines = [
        "| prepared | glibc as it is | then malloc_trim(0) | MALLOC_MMAP_THRESHOLD_=131072 |",
        "|---|---|---|---|",
    ]
    for kind, path in prepared.items():
        cells = []
        for setting in ({}, {"MALLOC_MMAP_THRESHOLD_": "131072"}):
            words = [sys.executable, "-c", PLAIN, str(path)]
            said = subprocess.run(
                words, env=os.environ | setting, capture_output=True, text=True, check=True
            ).stdout.split()
            cells.append([f"{int(word) / MIB:.1f}" for word in said])
        lines.append(f"| {kind} | {cells[0][0]} | {cells[0][1]} | {cells[1][0]} |")
    return lines


def table(runs: Mapping[Key, Run]) -> list[str]:
    """Return the rows of all runs."""
    return [
        "| model | loops | memory | file MB | load s | anonymous MiB | mapped MiB | peak MiB "
        "| p50 ms | time |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {loops} | {profile} | {run.file_bytes / MB:.1f} | {run.load_seconds:.3f} "
            f"| {run.anon_bytes / MIB:.1f} | {run.mapped_bytes / MIB:.1f} "
            f"| {run.rss_peak_bytes / MIB:.1f} | {run.latency_ms.p50:.1f} | {run.time_ratio:.2f} |"
            for (kind, loops, profile), run in runs.items()
        ),
    ]


def main() -> int:
    """Make the models, measure, print the tables, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for profiles.json and profiles.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_models(folder)
        runs, machine = measure(files)
        small = folder / "small.onnx"
        config = loopedge.LoopedConfig(d_model=8, heads=1, loops=1, vocab_size=8, max_length=8)
        loopedge.export(loopedge.LoopedTransformer(config).eval(), small)
        experiments = [
            "Peak of float32, low, by positions; onnxruntime's own is the peak of a model of 8 channels:",
            "",
            *peaks(files["float32", 12, "low"], small),
            "",
            "Anonymous MiB after plain onnxruntime has loaded a prepared file: it packs each weight "
            "once more, to find the packed one by its hash, and glibc keeps what was freed:",
            "",
            *kept_by_malloc({kind: files[kind, 12, "mapped"] for kind in MODELS}),
        ]
    bounds = judge(runs)
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}, "
        f"torch {torch.__version__}; memory is growth over the imported runtime, time against "
        "balanced in turns.",
        "",
        *table(runs),
        "",
        "| figure | measured | bound | |",
        "|---|---|---|---|",
        *(bound.row() for bound in bounds),
        "",
        *experiments,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        write(arguments.output, text, machine, runs, bounds)
    return 4 if any(bound.blocks and not bound.passed for bound in bounds) else 0


def write(
    folder: Path,
    text: str,
    machine: Mapping[str, Any],
    runs: Mapping[Key, Run],
    bounds: list[Bound],
) -> None:
    """Write the tables as Markdown and the figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profiles.md").write_text(text, encoding="utf-8")
    report = {
        "machine": machine,
        "torch": torch.__version__,
        "runs": [
            {"model": kind} | run.to_json() | {"path": run.name}
            for (kind, _, _), run in runs.items()
        ],
        "bounds": [asdict(bound) | {"passed": bound.passed} for bound in bounds],
    }
    (folder / "profiles.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
