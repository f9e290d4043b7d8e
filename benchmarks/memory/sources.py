"""What the memory of the paper's block consists of, at its peak while it loads and while it runs.

d=768, 12 loops, vocabulary 4096, 128 positions, one thread: each form, memory profile and storage. The part that
nothing explains blocks (exit code 4) where it exceeds a tenth of the peak. Some five minutes.

    python benchmarks/memory/sources.py [--output benchmarks/results/memory]
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.graph.core.untied import untie
from loopedge.profiler.dissection.memory_sources import memory_sources
from loopedge.profiler.dissection.trace import read_trace
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import MemorySources
from loopedge.runtime.providers import CPU_PROVIDER

MIB = 2**20
RUNS = 4
UNEXPLAINED = 0.1
PARTS = (
    *("weights_mapped", "weights_copied", "packed", "activations", "graph"),
    *("retained", "transient", "runtime", "other"),
)


def make_models(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Export, quantize and prepare; yield name, file and memory profile."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128)
    model = loopedge.LoopedTransformer(config).eval()
    loop, int8, blocks = (folder / f"{name}.onnx" for name in ("loop", "int8", "blocks"))
    loopedge.export(model, loop)
    loopedge.export(model, folder / "unrolled.onnx", form="unrolled")
    loopedge.export(model, folder / "half.onnx", storage="float16")
    write_artifact(untie(open_artifact(loop)), folder / "untied.onnx")
    write_artifact(
        open_artifact(loop), folder / "inline.onnx", external_threshold_bytes=sys.maxsize
    )
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, 4096, (2, 128))} for _ in range(2)]
    ranges = loopedge_calibration.collect(loop, samples)
    low = folder / "int8.low.onnx"  # a file for low holds no blocks, which need packing
    loopedge.quantize(loop, int8, ranges=ranges)
    loopedge.quantize(loop, low, ranges=ranges, memory="low")
    loopedge.quantize(loop, blocks, scheme="weight-int8")
    for name, path, small in (("float32 Loop", loop, loop), ("int8 Loop", int8, low)):
        yield name, path, "balanced"
        yield name, small, "low"
        yield name, Path(loopedge.prepare(path).path), "mapped"
    yield "float32 unrolled", folder / "unrolled.onnx", "balanced"
    yield "float32 untied", folder / "untied.onnx", "balanced"
    yield "float32 Loop, weights inside the file", folder / "inline.onnx", "balanced"
    yield "float32 Loop, stored in float16", folder / "half.onnx", "balanced"
    yield "weights in blocks of 8 bits", blocks, "balanced"
    yield "weights in blocks of 8 bits", blocks, "low"


def measure(path: Path, memory: str, folder: Path) -> tuple[MemorySources, MemorySources]:
    """Trace a few runs of a model, and take its memory apart."""
    inputs = folder / "inputs.npz"
    np.savez(inputs, input_ids=np.random.default_rng(0).integers(0, 4096, (1, 128)))
    artifact = Artifact.open(path)
    setup = ProcessSetup(
        model=path,
        inputs=inputs,
        file_bytes=artifact.file_bytes,
        provider=CPU_PROVIDER,
        threads=1,
        memory=memory,
    )
    with MeasuredProcess(setup, trace=folder / "trace") as process:
        process.run(RUNS)
        events = read_trace(process.end_trace())
    return memory_sources(setup, events, artifact.files)


def row(name: str, memory: str, sources: MemorySources) -> str:
    """Return a row of the table."""
    parts = (getattr(sources, f"{part}_bytes") / MIB for part in PARTS)
    cells = " | ".join(f"{part + 0.0:.1f}" for part in parts).replace("-0.0", "0.0")
    return (
        f"| {name} | {memory} | {sources.moment} | {sources.peak_bytes / MIB:.1f} | {cells} "
        f"| {sources.peak_node or ''} |"
    )


def main() -> int:
    """Make the models, take each apart, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for sources.md")
    arguments = parser.parse_args()
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}; MiB of growth over the "
        "imported runtime.",
        "",
        f"| | memory | at | peak | {' | '.join(part.replace('_', ' ') for part in PARTS)} | largest at |",
        "|" + "---|" * (len(PARTS) + 5),
    ]
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, path, memory in make_models(folder):
            for sources in measure(path, memory, folder):
                lines.append(row(name, memory, sources))
                worst = max(worst, abs(sources.other_bytes) / sources.peak_bytes)
    verdict = "pass" if worst <= UNEXPLAINED else "FAIL"
    lines += ["", f"Unexplained, largest share of a peak: {worst:.1%}, allowed 10 % ({verdict})"]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "sources.md").write_text(text, encoding="utf-8")
    return 0 if worst <= UNEXPLAINED else 4


if __name__ == "__main__":
    sys.exit(main())
