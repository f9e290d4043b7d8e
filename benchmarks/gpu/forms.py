"""Loop, unrolled and CUDA graph on a GPU, float32 and float16: memory by source, and time.

Exports the paper's block (d=768, 12 heads, vocabulary 4096, 128 positions) for several loop counts and
profiles each with its unrolled twin, both computed in float16 too, and the unrolled ones replayed as CUDA
graphs; times of one loop count are taken in turns. What ran on the CPU is listed. Bytes block (exit code
4), times advise; without a CUDA device it ends with one line and exit code 5.

    python benchmarks/gpu/forms.py [--loops 1 12 48] [--output benchmarks/results/gpu]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import loopedge
from loopedge.errors import ProviderError
from loopedge.profiler.pipeline import ProfileResult, Run
from loopedge.runtime.cuda import check_built_in

LOOPS = (1, 12, 48)
SEQUENCE = 128
MIB = 2**20
FLAT_MIB = 6.0
"""Most that a Loop's process may grow over the loop counts: its tables, and blocks of 2 MiB of CUDA."""
NO_DEVICE, MISSED = 5, 4


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


def export_models(folder: Path, loops: Sequence[int]) -> dict[int, Path]:
    """Export the block for each loop count."""
    files = {}
    for count in loops:
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=768, heads=12, loops=count, vocab_size=4096, max_length=SEQUENCE
        )
        files[count] = folder / f"r{count}.onnx"
        loopedge.export(loopedge.LoopedTransformer(config).eval(), files[count])
    return files


def measure(files: Mapping[int, Path]) -> dict[int, ProfileResult]:
    """Profile each loop count by itself: all of its forms, in turns."""
    return {
        count: loopedge.profile(
            [path],
            provider="cuda",
            unrolled=True,
            float16=True,
            cuda_graphs=True,
            sequence=SEQUENCE,
            seconds=2.0,
        )
        for count, path in files.items()
    }


def form_of(run: Run) -> str:
    """Return what a run is among those of its loop count."""
    form = "unrolled" if run.twin == "unrolled" else "Loop"
    return form + (" as a CUDA graph" if run.gpu and run.gpu.cuda_graph else "")


def mib(size: int | None) -> str:
    """Return bytes in MiB, or a dash where they are not known."""
    return "-" if size is None else f"{size / MIB:.1f}"


def table(results: Mapping[int, ProfileResult]) -> list[str]:
    """Return the figures as a Markdown table; MiB, and ms of the median."""
    lines = [
        "| r | form | computed in | process | weights | activations | workspace | context | arena "
        "| load s | p50 ms | time | Memcpy nodes | fell back |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count, result in results.items():
        for run in result.runs:
            assert run.gpu is not None
            gpu = run.gpu
            sizes = (
                gpu.process_bytes,
                gpu.weights_bytes,
                gpu.activations_bytes,
                gpu.workspace_bytes,
                gpu.context_bytes,
                gpu.arena_bytes,
            )
            cells = [
                str(count),
                form_of(run),
                run.compute,
                *map(mib, sizes),
                f"{run.load_seconds:.2f}",
                f"{run.latency_ms.p50:.3f}",
                f"{run.time_ratio:.3f}",
                str(gpu.memcpy_nodes),
                str(len(gpu.fell_back)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def judge(results: Mapping[int, ProfileResult]) -> list[Bound]:
    """Hold the figures against the bounds: the tie on the device, captured graphs, nothing fallen."""
    runs = [run for result in results.values() for run in result.runs]
    bounds = [
        Bound(
            f"r={count}: forms that were not measured",
            len(result.failures),
            0,
            blocks=True,
        )
        for count, result in results.items()
    ]
    for compute in ("float32", "float16"):
        held = [
            run.gpu.process_bytes
            for run in runs
            if run.compute == compute and run.twin is None and run.gpu and run.gpu.process_bytes
        ]
        if held:
            grown = (max(held) - min(held)) / MIB
            name = f"{compute}: Loop over r, growth of the process in MiB"
            bounds.append(Bound(name, grown, FLAT_MIB, blocks=True))
    fallen = sorted({node for run in runs if run.gpu for node in run.gpu.fell_back})
    bounds.append(Bound("nodes that fell back to the CPU", len(fallen), 0, blocks=False))
    for count, result in results.items():
        asked = [run for run in result.runs if "CUDA graph" in run.name]
        replayed = sum(run.gpu is not None and run.gpu.cuda_graph for run in asked)
        name = f"r={count}: CUDA graphs that were not replayed"
        bounds.append(Bound(name, len(asked) - replayed, 0, blocks=True))
    return bounds


def describe(results: Mapping[int, ProfileResult]) -> list[str]:
    """Return device, versions, and the notes and nodes that a reader has to know."""
    first = next(iter(results.values()))
    gpu = first.runs[0].gpu
    assert gpu is not None
    lines = [
        f"{gpu.name}, driver {gpu.driver}, onnxruntime-gpu {first.machine['onnxruntime']}, "
        f"{first.machine['cpu']}, {first.created[:10]}.",
        "",
    ]
    fallen = sorted(
        {
            node
            for result in results.values()
            for run in result.runs
            if run.gpu
            for node in run.gpu.fell_back
        }
    )
    lines += [f"- on the CPU: {node}" for node in fallen]
    notes = dict.fromkeys(note for result in results.values() for note in result.notes)
    return [*lines, *(f"- {note}" for note in notes)]


def main() -> int:
    """Measure, print, and hold the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, nargs="+", default=LOOPS)
    parser.add_argument("--output", type=Path, help="folder for forms.md and forms.json")
    arguments = parser.parse_args()
    try:
        check_built_in()
        with tempfile.TemporaryDirectory() as name:
            results = measure(export_models(Path(name), arguments.loops))
    except ProviderError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return NO_DEVICE
    bounds = judge(results)
    rows = ["| bound | measured | allowed | |", "|---|---|---|---|", *(one.row() for one in bounds)]
    text = "\n".join([*table(results), "", *rows, "", *describe(results)]) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "forms.md").write_text(text, encoding="utf-8")
        content = {
            "command": "python benchmarks/gpu/forms.py --loops "
            + " ".join(map(str, arguments.loops)),
            "bounds": [asdict(one) | {"passed": one.passed} for one in bounds],
            "profiles": {count: result.to_json() for count, result in results.items()},
        }
        (arguments.output / "forms.json").write_text(
            json.dumps(content, indent=1), encoding="utf-8"
        )
    return MISSED if any(one.blocks and not one.passed for one in bounds) else 0


if __name__ == "__main__":
    sys.exit(main())
