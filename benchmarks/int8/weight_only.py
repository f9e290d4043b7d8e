"""Weights alone in 8 or 4 bits: which block size, which accuracy level of MatMulNBits?

The paper's block, d=768, 12 loops, vocabulary 4096, one thread, random weights: file, peak memory, time
against the float Loop at 128 positions and at one (in turns, in processes of their own), SQNR of the
outputs. Where a trained model of the task sorting is given (`tasks.py --models` keeps one), also the SQNR
of its logits and its accuracy, by block size and by how four bits are rounded. Bytes block (exit code 4),
times advise. About three minutes.

    python benchmarks/int8/weight_only.py [--output benchmarks/results/int8] [--sorting MODEL.onnx]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.graph.agreement import NoiseRatio
from loopedge.graph.integer_weights.block_weights import DEFAULT_BLOCK
from loopedge.graph.integer_weights.blocks import BLOCK_SIZES, quantize_blocks
from loopedge.graph.weights import linears
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.quantizer.noise import generated_batches, measure_noise
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import metric_value

LENGTHS = (128, 1)
ROUNDS = 7
ALLOWED_FILE = {8: 0.27, 4: 0.17}
"""At the default block sizes, against the float Loop."""

MIB = 2**20
Array = NDArray[Any]
Rounding = Callable[[Array], Array]


@dataclass(frozen=True)
class Variant:
    """A choice; level 1 multiplies float activations, level 4 rounds them to eight bits."""

    bits: int
    block_size: int
    level: int


@dataclass(frozen=True)
class Row:
    """What a choice gave; times and peaks by positions, against the float Loop."""

    variant: Variant
    file_bytes: int
    sqnr_db: float
    time: dict[int, float]
    peak: dict[int, float]


def variants() -> list[Variant]:
    """Return what is compared."""
    rounded = [Variant(bits, size, 4) for bits in (8, 4) for size in BLOCK_SIZES]
    return rounded + [Variant(bits, size, 1) for bits, size in DEFAULT_BLOCK.items()]


def make_float(folder: Path) -> Path:
    """Export the paper's block."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(d_model=768, heads=12, loops=12, vocab_size=4096, max_length=128)
    model = loopedge.LoopedTransformer(config).eval()
    torch.nn.init.normal_(model.get_submodule("timestep").last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    path = folder / "float.onnx"
    loopedge.export(model, path)
    return path


def make(source: Path, variant: Variant, folder: Path) -> tuple[Path, float]:
    """Quantize; return the file and the SQNR of its outputs."""
    path = folder / "quantized.onnx"
    loopedge.quantize(
        source,
        path,
        scheme=f"weight-int{variant.bits}",
        block_size=variant.block_size,
        min_sqnr_db=0,
        force=True,
    )
    model = open_artifact(path)
    for node in model.graph.all_nodes():
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", variant.level)
    leveled = folder / "leveled.onnx"
    write_artifact(model, leveled, force=True, verify=lambda _: None)
    exact = open_artifact(source)
    agreement = measure_noise(
        exact,
        open_artifact(leveled),
        folder,
        inputs=generated_batches(exact),
        random_rows=False,
    )
    return leveled, agreement.sqnr_db


def measure(source: Path, variant: Variant, folder: Path) -> Row:
    """Return bytes, SQNR, time and peak of one choice."""
    path, ratio_db = make(source, variant, folder)
    times, peaks = {}, {}
    for length in LENGTHS:
        inputs = folder / f"{length}.npz"
        np.savez(inputs, input_ids=np.random.default_rng(1).integers(0, 4096, (1, length)))
        runs = 2 if length > 1 else 15
        with (
            MeasuredProcess(ProcessSetup(model=source, inputs=inputs)) as one,
            MeasuredProcess(ProcessSetup(model=path, inputs=inputs)) as two,
        ):
            one.run(2)
            two.run(2)
            times[length] = statistics.median(
                statistics.median(two.run(runs)) / statistics.median(one.run(runs))
                for _ in range(ROUNDS)
            )
            peaks[length] = two.memory()["peak_bytes"] / one.memory()["peak_bytes"]
    size = sum(file.stat().st_size for file in Artifact.open(path).files)
    return Row(variant, size, ratio_db, times, peaks)


class Sorting:
    """A trained sorting model and the data that it is judged on."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.task = SortingTask(length=12, vocab=24)
        self.batches = list(self.task.evaluation("test", 128, 1024))
        self.targets = np.concatenate([batch.targets for batch in self.batches])
        self.reference, self.accuracy = self.run(source)

    def run(self, path: Path) -> tuple[Array, float]:
        """Return logits and accuracy."""
        session = ort.InferenceSession(str(path))
        given = [session.run(None, batch.feeds(["input_ids"]))[0] for batch in self.batches]
        outputs = np.concatenate(given).astype(np.float64)
        return outputs, metric_value(self.task.score(outputs, self.targets), self.task.metric)

    def judge(self, path: Path) -> str:
        """Return SQNR and accuracy as two cells."""
        outputs, accuracy = self.run(path)
        ratio = NoiseRatio()
        ratio.add(self.reference, outputs)
        return f"{ratio.db:.1f} | {accuracy:.4f}"

    def by_block_size(self) -> list[str]:
        """Return a table of real files."""
        lines = ["| bits | block | file KiB | SQNR dB | accuracy |", "|---|---|---|---|---|"]
        for variant in variants():
            if variant.level == 4:
                path, _ = make(self.source, variant, self.folder)
                size = sum(file.stat().st_size for file in Artifact.open(path).files) / 1024
                lines.append(
                    f"| {variant.bits} | {variant.block_size} | {size:.1f} | {self.judge(path)} |"
                )
        return lines

    def by_rounding(self) -> list[str]:
        """Return a table of four-bit roundings, float activations."""
        lines = ["| four bits | block | SQNR dB | accuracy |", "|---|---|---|---|"]
        for name, rounding in ROUNDINGS.items():
            for size in (32, 128):
                path = self.folder / "rounded.onnx"
                ir.save(rounded(open_artifact(self.source), rounding, size), path)
                lines.append(f"| {name} | {size} | {self.judge(path)} |")
        return lines


def rounded(model: ir.Model, rounding: Rounding, block_size: int) -> ir.Model:
    """Round the weights of all linears in blocks; keep them as floats."""
    for weight, index in {item.weight: item.index for item in linears(model)}.items():
        if weight.const_value is None:
            continue
        stored = weight.const_value.numpy()
        rows = stored.T if index == 1 else stored
        filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % block_size)))
        blocks = rounding(filled.reshape(len(rows), -1, block_size))
        found = blocks.reshape(filled.shape)[:, : rows.shape[1]].astype(np.float32)
        found = np.ascontiguousarray(found.T if index == 1 else found)
        weight.const_value = ir.tensor(found, name=weight.name)
    return model


def symmetric(blocks: Array) -> Array:
    """-7 to 7."""
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    return np.asarray(np.rint(blocks / np.where(scale > 0, scale, 1)) * scale)


def signed(blocks: Array) -> Array:
    """-8 to 7, the scale's sign by the largest value."""
    high, low = blocks.max(axis=-1, keepdims=True), blocks.min(axis=-1, keepdims=True)
    scale = np.where(high > -low, high, low) / -8
    levels = np.rint(blocks / np.where(scale != 0, scale, 1)).clip(-8, 7)
    return np.asarray(levels * scale)


def shifted(blocks: Array, low_share: float = 1.0, high_share: float = 1.0) -> Array:
    """0 to 15 with a zero point."""
    low = np.minimum(blocks.min(axis=-1, keepdims=True), 0) * low_share
    high = np.maximum(blocks.max(axis=-1, keepdims=True), 0) * high_share
    scale = np.where(high > low, (high - low) / 15, 1)
    zero_point = np.rint(-low / scale).clip(0, 15)
    levels = (np.rint(blocks / scale) + zero_point).clip(0, 15)
    return np.asarray((levels - zero_point) * scale)


def searched_shifted(blocks: Array) -> Array:
    """The same, of 49 ranges the one with the least squared error."""
    shares = np.linspace(1, 0.7, 7)
    tried = [shifted(blocks, low, high) for low in shares for high in shares]
    errors = [np.square(found - blocks).sum(axis=-1, keepdims=True) for found in tried]
    best = np.argmin(errors, axis=0)
    return np.asarray(np.take_along_axis(np.stack(tried), best[None], axis=0)[0])


def searched(blocks: Array) -> Array:
    """What the library does."""
    rows, _, size = blocks.shape
    packed = quantize_blocks(blocks.reshape(rows, -1), bits=4, block_size=size)
    return packed.floats().reshape(blocks.shape)


ROUNDINGS: dict[str, Rounding] = {
    "-7 to 7": symmetric,
    "-8 to 7, signed scale": signed,
    "-8 to 7, scale searched": searched,
    "zero point": shifted,
    "zero point, range searched": searched_shifted,
}


def main() -> int:
    """Measure, print Markdown tables, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for weight_only.md and .json")
    parser.add_argument("--sorting", type=Path, help="a trained sorting model, float Loop")
    arguments = parser.parse_args()
    lines = [
        f"ONNX Runtime {ort.__version__}, one thread; time and peak against the float Loop.",
        "",
        "| bits | block | level | file MiB | file | SQNR dB | "
        + " | ".join(f"time, {n} | peak, {n}" for n in LENGTHS)
        + " |",
        "|---" * (6 + 2 * len(LENGTHS)) + "|",
    ]
    results, missed = [], False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_float(folder)
        whole = sum(file.stat().st_size for file in Artifact.open(source).files)
        for variant in variants():
            row = measure(source, variant, folder)
            results.append(asdict(row))
            share = row.file_bytes / whole
            missed |= (
                variant.block_size == DEFAULT_BLOCK[variant.bits]
                and share > ALLOWED_FILE[variant.bits]
            )
            figures = " | ".join(f"{row.time[n]:.2f} | {row.peak[n]:.2f}" for n in LENGTHS)
            lines.append(
                f"| {variant.bits} | {variant.block_size} | {variant.level} "
                f"| {row.file_bytes / MIB:.1f} | {share:.3f} | {row.sqnr_db:.1f} | {figures} |"
            )
            print(lines[-1], flush=True)
        if arguments.sorting:
            sorting = Sorting(arguments.sorting, folder)
            lines += ["", f"Sorting, trained: accuracy {sorting.accuracy:.4f} in float", ""]
            lines += [*sorting.by_block_size(), "", *sorting.by_rounding()]
    text = "\n".join(lines)
    print(text)
    print(f"\nfile at the default block sizes, allowed {ALLOWED_FILE}: ", end="")
    print("FAIL" if missed else "pass")
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "weight_only.md").write_text(text + "\n", encoding="utf-8")
        content = json.dumps({"float_bytes": whole, "measured": results}, indent=2) + "\n"
        (arguments.output / "weight_only.json").write_text(content, encoding="utf-8")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
