"""Is a re-rolled file worth as much in int8 as an export from PyTorch of the same model?

ALBERT and a tiny recursive model, each with the same weights by two ways: ``torch.onnx.export`` and `loopedge.reroll`, and
`loopedge.export` with its adapter. Both are quantized on the same samples, and compared with the float model on others. All linears
of the loops must be int8, and static ranges per iteration must be worth as many decibels on both ways, within one (exit code 4).
Needs the extra ``adapters``; four minutes.

    python -m benchmarks.reroll.int8 [--output benchmarks/results/reroll]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import loopedge
from benchmarks.reroll.exporters import export
from benchmarks.reroll.subjects import SUBJECTS, Subject, feeds_of
from loopedge.model.adapters import adapt
from loopedge.profiler.machine import describe_machine

NAMES = ("albert-1", "trm")
SCHEMES = ("static", "dynamic", "weight-int8")
SAMPLES, FRESH = 256, 512
WITHIN_DB = 1.0
EXIT_BOUND = 4
WAYS = ("torch.onnx.export, re-rolled", "loopedge.export")

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """One int8 file: its linears in int8, and what it is worth on samples that did not calibrate it."""

    model: str
    way: str
    scheme: str
    linears: int
    linears_int8: int
    sqnr_db: float
    held_out_sqnr_db: float
    file_bytes: int


def samples_of(subject: Subject, seed: int, count: int) -> Arrays:
    """Return seeded inputs of a subject that differ from each other; masks keep all but some last positions."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, value in feeds_of(subject, batch=count).items():
        if name == "attention_mask":
            arrays[name] = np.ones(value.shape, np.int64)
            arrays[name][::3, -1] = 0
        else:
            arrays[name] = rng.integers(subject.tokens[name], size=value.shape)
    return arrays


def files_of(subject: Subject, folder: Path) -> dict[str, Path]:
    """Write a subject's model by both ways."""
    source = export("dynamo", subject, folder / "source.onnx")
    rolled, exported = folder / "rolled.onnx", folder / "exported.onnx"
    loopedge.reroll(source, rolled, threads=1)
    model = subject.model()
    adapter = adapt(getattr(model, "model", model))
    assert adapter is not None
    loopedge.export(adapter, exported)
    return dict(zip(WAYS, (rolled, exported), strict=True))


def named(path: Path, arrays: Arrays) -> Arrays:
    """Return the arrays under the names of a file's inputs: both ways have them in the same order."""
    session = loopedge.Session(path, threads=1)
    return dict(zip(session.inputs, arrays.values(), strict=True))


def outputs_of(path: Path, arrays: Arrays) -> list[NDArray[Any]]:
    """Run a file and return its outputs in their order."""
    session = loopedge.Session(path, threads=1)
    found = session.run(named(path, arrays))
    return [found[name] for name in session.output_names]


def decibels(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the power of the expected values over that of the error."""
    error = float(np.square(found.astype(np.float64) - expected).sum())
    return float(10 * np.log10(float(np.square(expected.astype(np.float64)).sum()) / error))


def measure(subject: Subject, folder: Path) -> list[Quantized]:
    """Quantize both files by every scheme and hold them against the float file that PyTorch's exporter wrote."""
    calibrating, fresh = samples_of(subject, 1, SAMPLES), samples_of(subject, 2, FRESH)
    files = files_of(subject, folder)
    expected = outputs_of(folder / "source.onnx", fresh)[0]
    quantized = []
    for way, path in files.items():
        for scheme in SCHEMES:
            target = path.with_suffix(f".{scheme}.onnx")
            result = loopedge.quantize(
                path, target, scheme=scheme, data=named(path, calibrating), threads=1
            )
            found = outputs_of(target, fresh)[0]
            quantized.append(
                Quantized(
                    model=subject.name,
                    way=way,
                    scheme=scheme,
                    linears=result.matmuls["total"],
                    linears_int8=result.matmuls["quantized"],
                    sqnr_db=decibels(expected, found),
                    held_out_sqnr_db=result.held_out.sqnr_db,
                    file_bytes=sum(file.bytes for file in result.files),
                )
            )
    return quantized


def judge(quantized: list[Quantized]) -> list[tuple[str, bool]]:
    """Hold the files against what they must be: text, and whether it passed."""
    bounds = []
    for one in quantized:
        whole = one.linears_int8 == one.linears
        text = f"{one.model}, {one.way}, {one.scheme}: {one.linears_int8} of {one.linears} linears in int8"
        bounds.append((text, whole))
    by_way = {(one.model, one.way, one.scheme): one.sqnr_db for one in quantized}
    for name in NAMES:
        for scheme in SCHEMES:
            rolled, exported = (by_way[name, way, scheme] for way in WAYS)
            text = f"{name}, {scheme}: re-rolled {rolled:.1f} dB, exported {exported:.1f} dB"
            bounds.append(
                (
                    f"{text}: at most {WITHIN_DB:.0f} dB less",
                    rolled >= exported - WITHIN_DB,
                )
            )
    return bounds


def page(
    quantized: list[Quantized], bounds: list[tuple[str, bool]], machine: dict[str, Any]
) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}. {SAMPLES} samples to calibrate on, SQNR of the first output on "
        f"{FRESH} others against what PyTorch's exporter wrote in float.",
        "",
        "| model | file | scheme | linears in int8 | SQNR, dB | held out of the data, dB | bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.model} | {one.way} | {one.scheme} | {one.linears_int8} of {one.linears} | {one.sqnr_db:.1f} | "
        f"{one.held_out_sqnr_db:.1f} | {one.file_bytes} |"
        for one in quantized
    ]
    lines += ["", "| bound | |", "|---|---|"]
    lines += [f"| {text} | {'pass' if passed else 'FAIL'} |" for text, passed in bounds]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for int8.json and int8.md")
    arguments = parser.parse_args()
    quantized: list[Quantized] = []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            quantized += measure(SUBJECTS[name], Path(folder))
    bounds, machine = judge(quantized), describe_machine()
    text = page(quantized, bounds, machine)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "int8.md").write_text(text, encoding="utf-8")
        report = {"machine": machine, "quantized": [asdict(one) for one in quantized]}
        (arguments.output / "int8.json").write_text(
            json.dumps(report, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if all(passed for _, passed in bounds) else EXIT_BOUND


if __name__ == "__main__":
    sys.exit(main())
