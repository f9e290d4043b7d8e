"""Does the time to capture, assemble and write the Loop form depend on the loop count?

TMLT block, d=768, sequence 128, vocabulary 4096. Loop counts alternate over several rounds in one
process; the first round is thrown away (PyTorch loads its exporter in it). Exits 4 when the median
time at the largest count passes 1.1 times that at one.

    python benchmarks/export/flat_in_r.py [--rounds 3] [--output benchmarks/results/export]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import torch

import loopedge

LOOPS = (1, 12, 48)
ALLOWED = 1.1


def tmlt(loops: int) -> loopedge.LoopedTransformer:
    """Return the paper's language-model block at its published width."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=768, heads=12, loops=loops, vocab_size=4096, max_length=128
    )
    return loopedge.LoopedTransformer(config).eval()


def measure(rounds: int) -> dict[int, list[dict[str, float]]]:
    """Export every loop count once per round."""
    seconds: dict[int, list[dict[str, float]]] = {loops: [] for loops in LOOPS}
    models = {loops: tmlt(loops) for loops in LOOPS}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds + 1):
            for loops in LOOPS:
                target = Path(folder) / f"{loops}.onnx"
                result = loopedge.export(models[loops], target, force=True)
                if i > 0:
                    seconds[loops].append(result.seconds)
    return seconds


def main() -> int:
    """Measure, print a Markdown table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="folder for flat_in_r.json")
    arguments = parser.parse_args()
    seconds = measure(arguments.rounds)
    rows, totals = [], {}
    for loops in LOOPS:
        medians = {
            part: statistics.median(run[part] for run in seconds[loops])
            for part in ("capture", "assemble", "write", "verify")
        }
        totals[loops] = statistics.median(
            run["capture"] + run["assemble"] + run["write"] for run in seconds[loops]
        )
        rows.append({"loops": loops, **medians, "capture_to_write": totals[loops]})
    print("| loops | capture s | assemble s | write s | together s | against r=1 | verify s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['loops']} | {row['capture']:.2f} | {row['assemble']:.2f} | {row['write']:.2f} "
            f"| {row['capture_to_write']:.2f} | {row['capture_to_write'] / totals[LOOPS[0]]:.3f} "
            f"| {row['verify']:.2f} |"
        )
    ratio = totals[LOOPS[-1]] / totals[LOOPS[0]]
    passed = ratio <= ALLOWED
    print(f"\nr={LOOPS[-1]} against r={LOOPS[0]}: {ratio:.3f}, allowed {ALLOWED}: ", end="")
    print("pass" if passed else "FAIL")
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        versions = {
            "loopedge": loopedge.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
        }
        report = {"versions": versions, "rows": rows, "ratio": ratio, "allowed": ALLOWED}
        text = json.dumps(report, indent=2) + "\n"
        (arguments.output / "flat_in_r.json").write_text(text, encoding="utf-8")
    return 0 if passed else 4


if __name__ == "__main__":
    sys.exit(main())
