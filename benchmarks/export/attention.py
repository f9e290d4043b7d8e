"""What it is worth to let Attention split and join the heads itself.

Exports the paper's block (d=768, 12 heads, 12 loops, vocabulary 4096) with and without
`loopedge.graph.passes.attention.merge_head_axes` and times both in turns, one thread, at 128 positions and at one.

    python benchmarks/export/attention.py
"""

import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup

LENGTHS = (128, 1)
ROUNDS = 15


def export_both(folder: Path) -> dict[str, Path]:
    """Export with the pass and without it."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128)
    model = loopedge.LoopedTransformer(config).eval()
    paths = {"without": folder / "without.onnx", "with": folder / "with.onnx"}
    loopedge.export(model, paths["with"])
    with mock.patch("loopedge.exporter.passes.merge_head_axes"):
        loopedge.export(model, paths["without"])
    return paths


def main() -> int:
    """Measure and print a Markdown table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = export_both(folder)
        nodes = {
            key: len(list(open_artifact(path).graph.all_nodes())) for key, path in paths.items()
        }
        print(f"nodes: {nodes['without']} without, {nodes['with']} with\n")
        print("| positions | without ms | with ms | ratio |\n|---|---|---|---|")
        for length in LENGTHS:
            inputs = folder / f"{length}.npz"
            np.savez(inputs, input_ids=np.random.default_rng(0).integers(0, 4096, (1, length)))
            with (
                MeasuredProcess(ProcessSetup(model=paths["without"], inputs=inputs)) as one,
                MeasuredProcess(ProcessSetup(model=paths["with"], inputs=inputs)) as two,
            ):
                count = 3 if length > 1 else 20
                one.run(count)
                two.run(count)
                pairs = [
                    (statistics.median(one.run(count)), statistics.median(two.run(count)))
                    for _ in range(ROUNDS)
                ]
            before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(two_ms / one_ms for one_ms, two_ms in pairs)
            print(f"| {length} | {before:.2f} | {after:.2f} | {ratio:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
