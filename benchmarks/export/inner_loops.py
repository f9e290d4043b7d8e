"""What becomes of a loop inside the core: written out in the body of the Loop, or a Loop of its own?

A module of two states in the manner of HRM (d=512, 8 heads, 4 inner iterations for each of 3 outer ones) is
exported both ways, once with 2 and once with 6 inner iterations, and profiled: nodes, bytes, memory, and
time at 128 positions and at one, one thread. Nodes and weights stored block (exit code 4).

    python benchmarks/export/inner_loops.py [--output benchmarks/results/export]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.model.contract import Tensors
from loopedge.model.transformer import Layer

WIDTH, HEADS, LOOPS = 512, 8, 3
INNER = (2, 6)
LENGTHS = (128, 1)
MIB = 2**20


class Hierarchy(loopedge.LoopedModule):
    """A fast state is refined ``inner`` times for each step of a slow one."""

    loops = LOOPS
    input_names = ("inputs",)

    def __init__(self, inner: int) -> None:
        super().__init__()
        config = loopedge.LoopedConfig(
            d_model=WIDTH, heads=HEADS, features=WIDTH, timestep="none", causal=False
        )
        self.inner = inner
        self.fast, self.slow = Layer(config), Layer(config)

    def example_inputs(self) -> tuple[Tensor]:
        """Return float32 (batch, sequence, d)."""
        return (torch.randn(2, 7, WIDTH),)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Start both states, the fast one from zero."""
        return (inputs[0], torch.zeros_like(inputs[0])), ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Refine the fast state, then move the slow one."""
        slow, fast = state
        refined = loopedge.inner_loop(self.refine, self.inner, (fast,), (slow,))
        moved: Tensor = self.slow(slow + refined[0], None, (), {})
        return moved, refined[0]

    def refine(
        self, state: tuple[Tensor], context: tuple[Tensor], row: dict[str, Tensor]
    ) -> tuple[Tensor]:
        """Apply the fast layer once, the slow state injected."""
        refined: Tensor = self.fast(state[0] + context[0], None, (), {})
        return (refined,)

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Give the slow state."""
        return state[0]


def main() -> int:
    """Export, profile, print a Markdown table and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for inner_loops.md")
    arguments = parser.parse_args()
    lines = [
        "| inner iterations | as | nodes | weights MiB | anonymous MiB | mapped MiB | peak MiB "
        "| time at 128 | time at 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    nodes: dict[tuple[int, str], int] = {}
    weights: set[int] = set()
    with tempfile.TemporaryDirectory() as name:
        for inner in INNER:
            torch.manual_seed(0)
            model = Hierarchy(inner).eval()
            paths = [Path(name) / f"{kind}.{inner}.onnx" for kind in ("unrolled", "loop")]
            for path in paths:
                loopedge.export(model, path, inner=path.name.partition(".")[0])  # type: ignore[arg-type]
            long, short = (
                loopedge.profile(paths, sequence=length, details=False) for length in LENGTHS
            )
            for path, run, at_one in zip(paths, long.runs, short.runs, strict=True):
                kind = path.name.partition(".")[0]
                nodes[inner, kind] = sum(1 for _ in open_artifact(path).graph.all_nodes())
                weights.add(run.weight_bytes)
                lines.append(
                    f"| {inner} | {'written out' if kind == 'unrolled' else 'a Loop'} "
                    f"| {nodes[inner, kind]} | {run.weight_bytes / MIB:.1f} "
                    f"| {run.anon_bytes / MIB:.1f} | {run.mapped_bytes / MIB:.1f} "
                    f"| {run.rss_peak_bytes / MIB:.1f} "
                    f"| {run.time_ratio:.2f} | {at_one.time_ratio:.2f} |"
                )
    machine = long.machine
    flat = nodes[INNER[0], "loop"] == nodes[INNER[1], "loop"]
    once = len(weights) == 1
    lines += [
        "",
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}; "
        f"d={WIDTH}, {LOOPS} outer iterations, times against the written-out form.",
        "",
        f"- Nodes of the Loop form do not depend on the inner count: {'pass' if flat else 'FAIL'}",
        f"- Both forms store each weight once: {'pass' if once else 'FAIL'}",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "inner_loops.md").write_text(text, encoding="utf-8")
    return 0 if flat and once else 4


if __name__ == "__main__":
    sys.exit(main())
