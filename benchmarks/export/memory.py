"""What weight tying saves, measured on the paper's block: d=768, sequence 128, vocabulary 4096.

Exports the Loop and the unrolled form for several loop counts, profiles each in fresh processes,
builds the untied twin of the middle count, and holds the figures against their bounds. Bytes block
(exit code 4), times advise. Takes three to five minutes and 1 GB of disk.

    python benchmarks/export/memory.py [--output benchmarks/results/export]
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.profiler.pipeline import Run
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup

LOOPS = (1, 12, 48)
TWIN_LOOPS = 12
MIB = 2**20
ROUNDS = 15
LOADS = 9


@dataclass(frozen=True)
class Bound:
    """A figure, what it may be, and whether missing it fails the benchmark."""

    name: str
    measured: float
    allowed: float
    blocks: bool
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the figure keeps its bound."""
        if self.at_least:
            return self.measured >= self.allowed
        return self.measured <= self.allowed

    def row(self) -> str:
        """Return a row of the Markdown table."""
        sign = ">=" if self.at_least else "<="
        verdict = "pass" if self.passed else "FAIL" if self.blocks else "missed"
        return f"| {self.name} | {self.measured:.3f} | {sign} {self.allowed:.3f} | {verdict} |"


def export_all(folder: Path) -> None:
    """Export both forms for every loop count, and the untied twin of one of them."""
    for loops in LOOPS:
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=768, heads=12, loops=loops, vocab_size=4096, max_length=128
        )
        model = loopedge.LoopedTransformer(config).eval()
        for form in ("loop", "unrolled"):
            loopedge.export(model, folder / f"{form}.{loops}.onnx", form=form)
    tied = open_artifact(folder / f"loop.{TWIN_LOOPS}.onnx")
    write_artifact(untie(tied), folder / f"untied.{TWIN_LOOPS}.onnx")


def alternated_ratio(first: Path, second: Path, folder: Path) -> float:
    """Return the median over rounds of second's latency against first's, one thread."""
    ids = np.random.default_rng(0).integers(0, 4096, (1, 128))
    inputs = folder / "inputs.npz"
    np.savez(inputs, input_ids=ids)
    ratios = []
    with (
        MeasuredProcess(ProcessSetup(model=first, inputs=inputs)) as one,
        MeasuredProcess(ProcessSetup(model=second, inputs=inputs)) as two,
    ):
        one.run(3)
        two.run(3)
        for _ in range(ROUNDS):
            before = statistics.median(one.run(3))
            ratios.append(statistics.median(two.run(3)) / before)
    return statistics.median(ratios)


def load_ratio(first: Path, second: Path, inputs: Path) -> float:
    """Return second's load time against first's: medians over fresh processes, in turns."""
    seconds: dict[Path, list[float]] = {first: [], second: []}
    for _ in range(LOADS):
        for model in (first, second):
            with MeasuredProcess(ProcessSetup(model=model, inputs=inputs)) as process:
                seconds[model].append(process.loaded["load_seconds"])
    return statistics.median(seconds[second]) / statistics.median(seconds[first])


def judge(
    runs: dict[tuple[str, int], Run], ratio: float, load: float, core_bytes: int
) -> list[Bound]:
    """Hold the figures against the bounds."""
    loop = {loops: runs["loop", loops] for loops in LOOPS}
    weights = loop[1].weight_bytes
    table = {loops: loops * 4 * 768 * 4 for loops in LOOPS}
    bounds = [
        Bound(
            f"Loop r={loops}: anonymous MiB after load, against 1.15 x weights + 8 MiB",
            loop[loops].anon_bytes / MIB,
            (1.15 * weights + 8 * MIB) / MIB,
            blocks=True,
        )
        for loops in LOOPS
    ]
    least = min(loop[loops].anon_bytes for loops in LOOPS)
    bounds += [
        Bound(
            f"Loop r={loops}: anonymous MiB, against 1.02 x the smallest + tables + 1 MiB",
            loop[loops].anon_bytes / MIB,
            (1.02 * least + table[loops] + MIB) / MIB,
            blocks=True,
        )
        for loops in LOOPS
    ]
    tied, untied = runs["loop", TWIN_LOOPS], runs["untied", TWIN_LOOPS]
    extra_file = untied.file_bytes - tied.file_bytes
    extra_anonymous = untied.anon_bytes - tied.anon_bytes
    bounds += [
        Bound(
            f"r={TWIN_LOOPS}: bytes of the core in the file, untied against tied",
            (core_bytes + extra_file) / core_bytes,
            0.8 * TWIN_LOOPS,
            blocks=True,
            at_least=True,
        ),
        Bound(
            f"r={TWIN_LOOPS}: anonymous memory of the core, untied against tied",
            (core_bytes + extra_anonymous) / core_bytes,
            0.8 * TWIN_LOOPS,
            blocks=True,
            at_least=True,
        ),
        Bound(
            f"r={TWIN_LOOPS}: latency, Loop against unrolled, alternated", ratio, 1.0, blocks=False
        ),
        Bound(
            f"load time, Loop r={LOOPS[-1]} against r={LOOPS[0]}, alternated",
            load,
            1.1,
            blocks=False,
        ),
    ]
    return bounds


def main() -> int:
    """Export, measure, print two Markdown tables, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for memory.json and memory.md")
    arguments = parser.parse_args()
    runs: dict[tuple[str, int], Run] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_all(folder)
        for loops in LOOPS:
            # One profile per loop count: the latencies of its rows are taken in turns.
            kinds = ["loop", "unrolled", *(["untied"] if loops == TWIN_LOOPS else [])]
            paths = [folder / f"{kind}.{loops}.onnx" for kind in kinds]
            result = loopedge.profile(paths, runs=10, details=False)
            runs |= {(kind, loops): run for kind, run in zip(kinds, result.runs, strict=True)}
        ratio = alternated_ratio(
            folder / f"unrolled.{TWIN_LOOPS}.onnx", folder / f"loop.{TWIN_LOOPS}.onnx", folder
        )
        load = load_ratio(
            folder / f"loop.{LOOPS[0]}.onnx",
            folder / f"loop.{LOOPS[-1]}.onnx",
            folder / "inputs.npz",
        )
        graph = open_artifact(folder / "loop.1.onnx")
        core_bytes = sum(
            tensor.nbytes
            for weight in view_core(graph).weights
            if (tensor := graph.graph.initializers[weight].const_value) is not None
        )
    bounds = judge(runs, ratio, load, core_bytes)
    machine = result.machine
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}, "
        f"torch {torch.__version__}; memory is growth over the imported runtime.",
        "",
        "| model | loops | file MiB | load s | anonymous MiB | peak MiB | p50 ms |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {loops} | {run.file_bytes / MIB:.1f} "
            f"| {run.load_seconds:.3f} | {run.anon_bytes / MIB:.1f} "
            f"| {run.rss_peak_bytes / MIB:.1f} | {run.latency_ms.p50:.1f} |"
            for (kind, loops), run in runs.items()
        ),
        "",
        "| figure | measured | bound | |",
        "|---|---|---|---|",
        *(bound.row() for bound in bounds),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "memory.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "torch": torch.__version__,
            "runs": [run.to_json() | {"path": run.name} for run in runs.values()],
            "bounds": [
                {
                    "name": bound.name,
                    "measured": bound.measured,
                    "allowed": bound.allowed,
                    "passed": bound.passed,
                }
                for bound in bounds
            ],
        }
        (arguments.output / "memory.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )
    return 4 if any(bound.blocks and not bound.passed for bound in bounds) else 0


if __name__ == "__main__":
    sys.exit(main())
