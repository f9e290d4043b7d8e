"""What an early exit costs where no row stops, and what it saves where rows do.

The paper's block (d=768, 12 heads, 12 loops, vocabulary 4096) is exported without and with
``--exit tolerance=X`` and timed in turns, one thread: with a tolerance of 0, under which all iterations
run, and with tolerances that stop after some of them. Prints a Markdown table.

    python benchmarks/export/early_exit.py [--output benchmarks/results/export]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import loopedge
from loopedge.profiler.machine import describe_machine
from loopedge.quantizer.timing import session_runner
from loopedge.runtime.latency import time_in_turns, time_ratios

LENGTHS = (128, 1)
RUNS = 30


def export_both(folder: Path) -> tuple[Path, Path]:
    """Export without and with the exit; gates shrink over the loops, so that the state settles."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128, timestep="learned"
    )
    model = loopedge.LoopedTransformer(config).eval()
    with torch.no_grad():
        fading = 0.5 ** torch.arange(12.0)
        for name, parameter in model.named_parameters():
            if name.startswith("timestep.rows"):
                parameter.copy_(
                    fading.reshape(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter)
                )
    plain, early = folder / "plain.onnx", folder / "early.onnx"
    loopedge.export(model, plain)
    loopedge.export(model, early, exit="tolerance=0")
    return plain, early


def runner(
    session: loopedge.Session, ids: np.ndarray, tolerance: float
) -> Callable[[int], list[float]]:
    """Return what times a session under a tolerance."""
    return session_runner(session, {"input_ids": ids, "tolerance": np.array(tolerance, np.float32)})


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for early_exit.md")
    arguments = parser.parse_args()
    lines = ["| positions | tolerance | iterations | time |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        plain, early = (loopedge.Session(path, threads=1) for path in export_both(Path(name)))
        for length in LENGTHS:
            ids = np.random.default_rng(0).integers(0, 4096, (1, length))
            tolerances = (0.0, 1e-3, 1e-2, 1e-1)
            ran = [
                int(early.run({"input_ids": ids}, tolerance=tolerance)["iterations"][0])
                for tolerance in tolerances
            ]
            runs = [
                session_runner(plain, {"input_ids": ids}),
                *(runner(early, ids, tolerance) for tolerance in tolerances),
            ]
            counts = [RUNS if length > 1 else 10 * RUNS] * len(runs)
            ratios = time_ratios(time_in_turns(runs, counts))
            lines.append(f"| {length} | no exit | 12 | 1.000 |")
            lines += [
                f"| {length} | {tolerance:g} | {count} | {ratio:.3f} |"
                for tolerance, count, ratio in zip(tolerances, ran, ratios[1:], strict=True)
            ]
    machine = describe_machine()
    lines += ["", f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "early_exit.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
