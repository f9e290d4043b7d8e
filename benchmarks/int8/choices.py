"""What two small choices are worth on the paper's block in static int8 (d=768, 12 loops, vocabulary 4096).

Gates folded into the scales of the products that they follow, and ONNX Runtime's memory pattern switched
off, which every session of loopedge does. One thread; times in turns in one process, peak memory each in a
process of its own, as growth over the imported runtime. One minute.

    python benchmarks/int8/choices.py
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.profiler.child.process_memory import read_memory, reset_peak
from loopedge.quantizer.schemes.static import quantize_static
from loopedge.runtime.session_options import session_options

LENGTHS = (128, 1)
ROUNDS = 15
MIB = 2**20


def make_models(folder: Path) -> dict[str, Path]:
    """Export the float Loop, quantize it with the gates folded and without."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128)
    model = loopedge.LoopedTransformer(config).eval()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    paths = {name: folder / f"{name}.onnx" for name in ("float", "folded", "unfolded")}
    loopedge.export(model, paths["float"])
    generator = np.random.default_rng(0)
    data = [{"input_ids": generator.integers(0, 4096, (4, 128))} for _ in range(4)]
    ranges = loopedge_calibration.collect(paths["float"], data, as_core=["all"])
    loopedge.quantize(
        paths["float"], paths["folded"], ranges=ranges, as_core=["all"], data=data[:1]
    )
    graph = open_artifact(paths["float"]).clone()
    quantize_static(graph, ranges)
    write_artifact(graph, paths["unfolded"], force=False)
    return paths


def feeds(length: int) -> dict[str, np.ndarray]:
    """Return the inputs."""
    return {"input_ids": np.random.default_rng(1).integers(0, 4096, (1, length))}


def load(path: Path, *, pattern: bool) -> ort.InferenceSession:
    """Open a session with the memory pattern on or off."""
    options = session_options(1)
    options.enable_mem_pattern = pattern
    return ort.InferenceSession(str(path), options)


def ratio(one: ort.InferenceSession, two: ort.InferenceSession, length: int) -> float:
    """Return the time of ``two`` against ``one``, in turns."""
    inputs, count = feeds(length), 3 if length > 1 else 50
    ratios = []
    for _ in range(ROUNDS + 1):
        taken = []
        for session in (one, two):
            started = time.perf_counter()
            for _ in range(count):
                session.run(None, inputs)
            taken.append(time.perf_counter() - started)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios[1:])


def peak_mib(path: Path, length: int, *, pattern: bool) -> float:
    """Return the peak of a process of its own."""
    words = [sys.executable, __file__, "child", str(path), str(length), str(int(pattern))]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return float(json.loads(printed)) / MIB


def child(path: str, length: str, pattern: str) -> None:
    """Print the growth of the peak in bytes."""
    inputs = feeds(int(length))
    reset_peak()
    before = read_memory().rss_bytes
    session = load(Path(path), pattern=bool(int(pattern)))
    for _ in range(5):
        session.run(None, inputs)
    print(read_memory().peak_bytes - before)


def main() -> int:
    """Measure and print Markdown tables."""
    with tempfile.TemporaryDirectory() as name:
        paths = make_models(Path(name))
        print("| positions | time of folded gates against unfolded | nodes |\n|---|---|---|")
        nodes = [
            len(list(open_artifact(paths[key]).graph.all_nodes())) for key in ("unfolded", "folded")
        ]
        one, two = (load(paths[key], pattern=False) for key in ("unfolded", "folded"))
        for length in LENGTHS:
            print(f"| {length} | {ratio(one, two, length):.3f} | {nodes[0]} -> {nodes[1]} |")
        print(
            "\n| | positions | peak MiB, pattern on | off | time off against on |\n|---|---|---|---|---|"
        )
        for key in ("float", "folded"):
            one, two = (load(paths[key], pattern=pattern) for pattern in (True, False))
            for length in LENGTHS:
                on, off = (
                    statistics.median(
                        peak_mib(paths[key], length, pattern=pattern) for _ in range(3)
                    )
                    for pattern in (True, False)
                )
                kind = "float" if key == "float" else "int8"
                print(
                    f"| {kind} | {length} | {on:.1f} | {off:.1f} | {ratio(one, two, length):.3f} |"
                )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main())
