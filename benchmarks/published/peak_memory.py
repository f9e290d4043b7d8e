"""What does exporting a published model's folder take in memory, against the file that it writes?

Writes a folder of an Ouro with random bfloat16 weights (236 million parameters), exports it in a fresh process for each
way to store its weights, and reads the highest resident memory of that process: libraries, capture, writing, and all
checks, ONNX Runtime's run of the file among them. Held to 1.3 times the bytes of the file and one GB (exit code 4 where
one is missed): two float32 copies of four billion parameters would fit no laptop. Takes five minutes and 1.5 GB of disk.

    python benchmarks/published/peak_memory.py [--output benchmarks/results/published]
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loopedge
from loopedge.model.published.ouro import Ouro, OuroConfig
from loopedge.profiler.machine import describe_machine

CONFIG: dict[str, Any] = {
    "model_type": "ouro",
    "vocab_size": 49_152,
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 128,
    "total_ut_steps": 4,
    "torch_dtype": "bfloat16",
}
WAYS: dict[str, dict[str, Any]] = {
    "float32, Loop": {},
    "float16, Loop": {"storage": "float16"},
    "float32, with a cache": {"task": "generate"},
    "8 bits, with a cache": {"task": "generate", "weight_bits": 8},
    "4 bits, with a cache": {"task": "generate", "weight_bits": 4},
}
MIB = 2**20
WRITTEN_AT_ONCE = 1 << 22

CHILD = """
import json, sys
import loopedge, loopedge.exporter.pipeline
def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
imported = peak()
result = loopedge.export(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
size = sum(file.bytes for file in result.files)
print(json.dumps([imported, peak(), size, result.notes[-1]]))
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to store the weights: bytes of the file, and the highest memory of the process."""

    name: str
    file_bytes: int
    imported_bytes: int
    peak_bytes: int
    seconds: float
    note: str

    @property
    def allowed_bytes(self) -> float:
        """The bound."""
        return 1.3 * self.file_bytes + 1e9

    @property
    def passed(self) -> bool:
        """Whether the peak is within it."""
        return self.peak_bytes <= self.allowed_bytes

    def row(self) -> str:
        """Return a row of the Markdown table."""
        return (
            f"| {self.name} | {self.file_bytes / MIB:.0f} | {self.imported_bytes / MIB:.0f} "
            f"| {self.peak_bytes / MIB:.0f} | {self.allowed_bytes / MIB:.0f} "
            f"| {self.peak_bytes / self.allowed_bytes:.2f} | {'pass' if self.passed else 'FAIL'} |"
        )


def write_folder(folder: Path) -> int:
    """Write the folder, a few values at a time; return the bytes of its weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with torch.device("meta"):
        module = Ouro(OuroConfig.read(CONFIG, "config.json"))
    header, size = dict[str, Any](), 0
    for name, parameter in module.named_parameters():
        end = size + 2 * parameter.numel()
        header[name] = {
            "dtype": "BF16",
            "shape": list(parameter.shape),
            "data_offsets": [size, end],
        }
        size = end
    text = json.dumps(header).encode()
    generator = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for parameter in module.parameters():
            left, matrix = parameter.numel(), parameter.dim() > 1
            while left:
                count = min(left, WRITTEN_AT_ONCE)
                values = generator.standard_normal(count, dtype=np.float32)
                values = values * parameter.shape[-1] ** -0.5 if matrix else 1 + 0.1 * values
                bits = values.astype(np.float32).view(np.uint32) >> 16
                file.write(bits.astype(np.uint16).tobytes())
                left -= count
    return size


def measure(name: str, folder: Path, target: Path) -> Way:
    """Export the folder in a process of its own."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", CHILD, str(folder), str(target), json.dumps(WAYS[name])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported, peak, size, note = json.loads(done.stdout.splitlines()[-1])
    return Way(
        name=name,
        file_bytes=size,
        imported_bytes=imported,
        peak_bytes=peak,
        seconds=time.perf_counter() - begun,
        note=note,
    )


def write_report(ways: list[Way], stored: int, output: Path | None) -> None:
    """Print the Markdown table, and write it and the figures where that is asked for."""
    machine = describe_machine()
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, torch {torch.__version__}, loopedge "
        f"{loopedge.__version__}; a folder with {stored / MIB:.0f} MiB of bfloat16 weights. MiB; `imported` is the "
        "peak once the libraries are loaded, `allowed` 1.3 times the file and 1 GB.",
        "",
        "| weights | file | imported | peak | allowed | peak / allowed | |",
        "|---|---|---|---|---|---|---|",
        *(way.row() for way in ways),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    (output / "peak_memory.md").write_text(text, encoding="utf-8")
    report = {"machine": machine, "stored_bytes": stored, "ways": [asdict(way) for way in ways]}
    (output / "peak_memory.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Measure, print a Markdown table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for peak_memory.json and .md")
    arguments = parser.parse_args()
    ways = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "folder"
        stored = write_folder(folder)
        for way in WAYS:
            target = Path(name) / "out"
            target.mkdir()
            ways.append(measure(way, folder, target / "model.onnx"))
            for file in target.iterdir():
                file.unlink()
            target.rmdir()
    write_report(ways, stored, arguments.output)
    return 0 if all(way.passed for way in ways) else 4


if __name__ == "__main__":
    sys.exit(main())
