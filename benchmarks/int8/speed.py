"""What int8 costs and saves on the paper's block: d=768, 12 loops, vocabulary 4096, one thread.

Against the float Loop: file, peak memory, and time at 128 positions and at one. The weights are random:
time and memory do not depend on them, accuracy is `tasks.py`'s subject. The same graphs at d=32, whose
weights and activations are next to nothing, show what ONNX Runtime's own code and graph objects take: the
net peak leaves that out. How much of the runtime's code is resident differs from boot to boot, so the net peak
blocks (exit code 4); the whole peak and the times advise. About a minute.

    python benchmarks/int8/speed.py [--output benchmarks/results/int8]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import loopedge
import loopedge_calibration
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup

LENGTHS = (128, 1)
ALLOWED_TIME = {128: 0.33, 1: 0.15}
ALLOWED_PEAK = 0.45
ROUNDS = 15
MIB = 2**20


def make_models(folder: Path, d_model: int = 768, heads: int = 12) -> dict[str, Path]:
    """Export the float Loop and quantize it."""
    torch.manual_seed(0)
    vocab = 4096 if d_model > 32 else 64
    config = loopedge.LoopedConfig(
        d_model=d_model, heads=heads, loops=12, vocab_size=vocab, max_length=128
    )
    model = loopedge.LoopedTransformer(config).eval()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    paths = {name: folder / f"{name}.{d_model}.onnx" for name in ("float", "static", "dynamic")}
    loopedge.export(model, paths["float"])
    generator = np.random.default_rng(0)
    data = [{"input_ids": generator.integers(0, vocab, (4, 128))} for _ in range(6)]
    ranges = loopedge_calibration.collect(paths["float"], data)
    loopedge.quantize(paths["float"], paths["static"], ranges=ranges, data=data[:1])
    loopedge.quantize(paths["float"], paths["dynamic"], scheme="dynamic")
    return paths


def measure(paths: dict[str, Path], length: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return time ratio and memory of each model; latencies in turns."""
    inputs = folder / f"{length}.npz"
    np.savez(inputs, input_ids=np.random.default_rng(1).integers(0, 64, (1, length)))
    processes = {
        name: MeasuredProcess(ProcessSetup(model=path, inputs=inputs))
        for name, path in paths.items()
    }
    ratios: dict[str, list[float]] = {name: [] for name in paths}
    try:
        for process in processes.values():
            process.run(5)
        for _ in range(ROUNDS):
            medians = {
                name: statistics.median(process.run(3 if length > 1 else 20))
                for name, process in processes.items()
            }
            for name, median in medians.items():
                ratios[name].append(median / medians["float"])
        return {
            name: {
                "time": statistics.median(ratios[name]),
                "peak_bytes": process.memory()["peak_bytes"],
                "anonymous_bytes": process.loaded["memory"]["anon_bytes"],
            }
            for name, process in processes.items()
        }
    finally:
        for process in processes.values():
            process.close()


def main() -> int:
    """Measure, print a Markdown table, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, default=768, help="width of the block")
    parser.add_argument("--output", type=Path, help="folder for speed.md and speed.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_models(folder, arguments.d_model, arguments.d_model // 64)
        files = {
            key: sum(part.stat().st_size for part in folder.glob(f"{path.name}*"))
            for key, path in paths.items()
        }
        found = {length: measure(paths, length, folder) for length in LENGTHS}
        small = make_models(folder, d_model=32, heads=4)
        floors = {length: measure(small, length, folder) for length in LENGTHS}
    lines = [
        "| | positions | file MiB | anonymous MiB | peak MiB | peak | of it runtime MiB | net peak "
        "| time | allowed time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    judged: dict[str, float] = {}
    for length, models in found.items():
        for key, figures in models.items():
            peak = figures["peak_bytes"] / models["float"]["peak_bytes"]
            floor = {name: floors[length][name]["peak_bytes"] for name in ("float", key)}
            net = (figures["peak_bytes"] - floor[key]) / (
                models["float"]["peak_bytes"] - floor["float"]
            )
            if key == "static" and length == LENGTHS[0]:
                judged = {"net peak": net, "whole peak": peak}
            lines.append(
                f"| {key} | {length} | {files[key] / MIB:.1f} "
                f"| {figures['anonymous_bytes'] / MIB:.1f} | {figures['peak_bytes'] / MIB:.1f} "
                f"| {peak:.2f} | {floor[key] / MIB:.1f} | {net:.2f} | {figures['time']:.3f} "
                f"| {'' if key == 'float' else ALLOWED_TIME[length]} |"
            )
    peaks = ", ".join(
        f"{name} {value:.2f} ({'pass' if value <= ALLOWED_PEAK else 'missed'})"
        for name, value in judged.items()
    )
    lines += ["", f"Static at {LENGTHS[0]} positions, allowed {ALLOWED_PEAK}: {peaks}"]
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "speed.md").write_text(text + "\n", encoding="utf-8")
        figures_of = {"files": files, "measured": found, "runtime": floors}
        content = json.dumps(figures_of, indent=2) + "\n"
        (arguments.output / "speed.json").write_text(content, encoding="utf-8")
    return 4 if judged["net peak"] > ALLOWED_PEAK else 0


if __name__ == "__main__":
    sys.exit(main())
