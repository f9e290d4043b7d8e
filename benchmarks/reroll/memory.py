"""What does bringing a file with copies of its weights into one form take in memory?

Writes files of 12 uses of weights of 40 MB, as external data: copies, copies that are turned where they are read, weights that
are each their own, halves that are widened, weights that are scaled. Each is canonicalised and written again in a fresh
process. The peak of the process must stay below 1.3 times the bytes of its different weights plus 200 MB (exit code 4): no
weight is in memory twice, and no two copies are there together. Takes a minute and 2 GB of disk.

    python benchmarks/reroll/memory.py [--width 3200] [--output benchmarks/results/reroll]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from loopedge.profiler.child.process_memory import read_memory
from loopedge.profiler.machine import describe_machine

KINDS = ("copies", "copies, turned", "different", "different, turned", "halves", "scaled")
USES = 12
MB = 1e6
FACTOR, FIXED_BYTES = 1.3, 200 * MB
EXIT_BOUND = 4


@dataclass(frozen=True, kw_only=True)
class Run:
    """One file: its bytes, those of its different weights, those written, and what the process took."""

    kind: str
    source_bytes: int
    unique_bytes: int
    written_bytes: int
    import_peak_bytes: int
    peak_bytes: int
    anon_peak_bytes: int
    seconds: float

    @property
    def bound_bytes(self) -> float:
        """What the process may take at its peak."""
        return FACTOR * self.unique_bytes + FIXED_BYTES

    def row(self) -> str:
        """Return a row of the Markdown table."""
        passed = "pass" if self.peak_bytes <= self.bound_bytes else "FAIL"
        figures = (
            self.source_bytes,
            self.unique_bytes,
            self.written_bytes,
            self.import_peak_bytes,
            self.anon_peak_bytes,
            self.peak_bytes,
            self.bound_bytes,
        )
        cells = " | ".join(f"{figure / MB:.0f}" for figure in figures)
        return f"| {self.kind} | {cells} | {self.seconds:.1f} | {passed} |"


def write_source(kind: str, path: Path, width: int) -> int:
    """Write a chain of products with ``USES`` stored weights and return the bytes of the different ones."""
    dtype = np.float16 if kind == "halves" else np.float32
    different = kind.startswith("different")
    data = path.with_suffix(".data")
    nodes, weights, state = [], [], "inputs"
    weight_bytes = width * width * np.dtype(dtype).itemsize
    with data.open("wb") as file:
        for use in range(USES):
            block = np.random.default_rng(use if different else 0)
            for _ in range(width):
                row = block.standard_normal(width, np.float32) / width**0.5
                file.write(row.astype(dtype).tobytes())
            weight = onnx.TensorProto(
                name=f"weight.{use}",
                dims=[width, width],
                data_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (
                ("location", data.name),
                ("offset", use * weight_bytes),
                ("length", weight_bytes),
            ):
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            read = weight.name
            if kind == "halves":
                nodes.append(helper.make_node("Cast", [read], [f"wide.{use}"], to=1))
                read = f"wide.{use}"
            if kind == "scaled":
                nodes.append(helper.make_node("Mul", [read, "scale"], [f"scaled.{use}"]))
                read = f"scaled.{use}"
            if kind.endswith("turned") or kind == "halves":
                nodes.append(helper.make_node("Transpose", [read], [f"turned.{use}"], perm=[1, 0]))
                read = f"turned.{use}"
            nodes.append(helper.make_node("MatMul", [state, read], [f"product.{use}"]))
            nodes.append(helper.make_node("Tanh", [f"product.{use}"], [f"state.{use}"]))
            state = f"state.{use}"
    scale = onnx.numpy_helper.from_array(np.full(width, 0.5, np.float32), "scale")
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("inputs", 1, ["batch", width])],
        [helper.make_tensor_value_info(state, 1, ["batch", width])],
        [*weights, *([scale] if kind == "scaled" else [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return weight_bytes * (USES if different else 1)


def measure(source: Path, target: Path) -> dict[str, float]:
    """Canonicalise a file and write it; return what this process took, in bytes and seconds."""
    import onnxruntime  # noqa: F401 - folding needs it: its import is no part of the work

    from loopedge.artifact.artifact import Artifact, write_artifact
    from loopedge.graph.rolling.canonical import canonicalise

    imported = read_memory().peak_bytes
    highest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], read_memory().anon_bytes)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.perf_counter()
    model = Artifact.open(source).fresh_graph()
    canonicalise(model)
    files = write_artifact(model, target, sources=[source])
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    return {
        "written_bytes": sum(file.stat().st_size for file in files),
        "import_peak_bytes": imported,
        "peak_bytes": read_memory().peak_bytes,
        "anon_peak_bytes": highest[0],
        "seconds": seconds,
    }


def run(kind: str, width: int) -> Run:
    """Write a file, and canonicalise it in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        unique_bytes = write_source(kind, source, width)
        source_bytes = sum(file.stat().st_size for file in Path(folder).iterdir())
        command = [sys.executable, __file__, "--source", str(source), "--target", str(target)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return Run(
            kind=kind, source_bytes=source_bytes, unique_bytes=unique_bytes, **json.loads(answer)
        )


def main() -> int:
    """Measure every kind of file and hold the peaks against their bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--width", type=int, default=3200, help="of the weights")
    parser.add_argument("--output", type=Path, help="folder to write memory.md and memory.json to")
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.source is not None:
        print(json.dumps(measure(arguments.source, arguments.target)))
        return 0
    lines = [
        "| weights | file MB | different MB | written MB | imports MB | anonymous peak MB | peak MB | bound MB | s | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    runs = []
    print("\n".join(lines))
    for kind in KINDS:
        runs.append(run(kind, arguments.width))
        lines.append(runs[-1].row())
        print(lines[-1], flush=True)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "memory.md").write_text("\n".join(lines) + "\n")
        figures = {"machine": describe_machine(), "runs": [asdict(each) for each in runs]}
        (arguments.output / "memory.json").write_text(json.dumps(figures, indent=1) + "\n")
    return EXIT_BOUND if any(each.peak_bytes > each.bound_bytes for each in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
