"""Which ONNX Runtime loads what, and how much memory it takes: releases from 1.17 to the current one.

Exports the paper's block (d=768, sequence 128, vocabulary 4096) in both forms and three opsets, in
float32 and three kinds of int8, and loads each file in a fresh process of each release. Each release
gets an environment of its own with nothing but numpy beside it. Bytes block (exit code 4). Takes a
quarter of an hour, 3 GB of disk and a package index to install the releases from.

    python benchmarks/reach/versions.py [--output benchmarks/results/reach] [--venvs build/reach]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import LoopedgeError
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.quantizer.recipe import Recipe

ROOT = Path(__file__).parents[2]
RELEASES = {
    "1.17.3": "numpy<2",
    "1.20.1": "numpy<3",
    "1.22.1": "numpy<3",
    "1.23.2": "numpy<3",
    "1.24.1": "numpy<3",
}
"""Each with the numpy that it was built for."""

PACKING_PER_NODE = ("1.17.3", "1.20.1")
"""Releases in which every node packs its own copy of a shared weight."""

OPSETS = (18, 20, 23)
FORMS = ("loop", "unrolled")
LOOPS = (1, 12, 48)
KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"scheme": "static", "ops": "microsoft"},
    "int8, standard": {"scheme": "static", "ops": "standard"},
    "weight-int8": {"scheme": "weight-int8"},
}
MEMORY_OPSET = 20  # the newest that all releases read
MIB = 2**20
RUNS = 3
SEQUENCE = 128
VOCABULARY = 4096


@dataclass(frozen=True, kw_only=True)
class File:
    """One exported file."""

    opset: int
    form: str
    kind: str
    loops: int
    path: Path

    @property
    def label(self) -> str:
        """Return the cells that name the file in a table."""
        return f"| {self.opset} | {self.form} | {self.kind} | {self.loops} |"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a release made of a file; ``refused`` is its reason where it did not load it."""

    refused: str | None = None
    anon_mib: float = 0.0
    peak_mib: float = 0.0
    min_ms: float = 0.0
    relative_error: float = 0.0

    def cell(self) -> str:
        """Return the cell of the table."""
        return "refused" if self.refused else f"{self.anon_mib:.1f} / {self.peak_mib:.0f}"


def interpreters(folder: Path) -> dict[str, Path]:
    """Return the interpreter of each release, installing what is not there; the current one last."""
    found = {}
    for release, numpy in RELEASES.items():
        home = folder / f"onnxruntime-{release}"
        python = home / "bin" / "python"
        if not python.exists():
            venv.create(home, with_pip=True)
            words = [str(python), "-m", "pip", "install", "-q", f"onnxruntime=={release}", numpy]
            subprocess.run(words, check=True)
        found[release] = python
    return {**found, ort.__version__: Path(sys.executable)}


def export_all(folder: Path) -> list[File]:
    """Export every opset, form and kind for one loop count, and those of one opset for all."""
    files = []
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (8, 1, SEQUENCE))
    for loops in LOOPS:
        torch.manual_seed(0)
        config = loopedge.LoopedConfig(
            d_model=768, heads=12, loops=loops, vocab_size=VOCABULARY, max_length=SEQUENCE
        )
        model = loopedge.LoopedTransformer(config).eval()
        open_gates(model)
        for opset in OPSETS if loops == LOOPS[1] else (MEMORY_OPSET,):
            ranges = None
            for form in FORMS:
                path = folder / f"{opset}.{form}.{loops}.onnx"
                loopedge.export(model, path, form=form, opset=opset)  # type: ignore[arg-type]
                ranges = ranges or loopedge_calibration.collect(
                    path, [{"input_ids": sample} for sample in ids], smoothing=False
                )
                for kind, options in KINDS.items():
                    written = path
                    if options:
                        written = path.with_name(f"{path.stem}.{kind.replace(', ', '.')}.onnx")
                        table = ranges if options["scheme"] == "static" else None
                        quantize(path, written, table, options)
                    files.append(File(opset=opset, form=form, kind=kind, loops=loops, path=written))
    return sorted(files, key=lambda file: (file.opset, file.form, file.kind, file.loops))


def open_gates(model: torch.nn.Module) -> None:
    """Give the timestep table random rows: with gates of zero the core would not reach the outputs."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("timestep.last"):
                parameter.normal_(0.3, 0.3)


def quantize(source: Path, target: Path, table: Any, options: dict[str, Any]) -> None:
    """Quantize unverified: verification would take most of the time, and outputs are compared here."""
    graph = open_artifact(source)
    Recipe(table=table, **options).apply(graph)
    write_artifact(graph, target)


def load(file: File, python: Path, inputs: Path, folder: Path, current: Path) -> Loaded:
    """Load and run a file in a fresh process; compare its outputs with those of the current release."""
    outputs = folder / "outputs.npz"
    try:
        with MeasuredProcess(
            ProcessSetup(model=file.path, inputs=inputs), python=python
        ) as process:
            min_ms = min(process.run(RUNS))
            memory, loaded = process.memory(), process.loaded["memory"]
            process.save_outputs(outputs)
    except LoopedgeError as error:
        return Loaded(refused=error.message.replace(str(file.path), file.path.name))
    with np.load(outputs) as given, np.load(current) as expected:
        pairs = [(given[name], expected[name]) for name in expected.files]
        relative = max(float(np.abs(one - two).max() / np.abs(two).max()) for one, two in pairs)
    return Loaded(
        anon_mib=loaded["anon_bytes"] / MIB,
        peak_mib=memory["peak_bytes"] / MIB,
        min_ms=min_ms,
        relative_error=relative,
    )


def measure(files: list[File], pythons: dict[str, Path], folder: Path) -> dict[File, list[Loaded]]:
    """Load every file in every release."""
    inputs = folder / "inputs.npz"
    np.savez(inputs, input_ids=np.random.default_rng(0).integers(0, VOCABULARY, (1, SEQUENCE)))
    found = {}
    for file in files:
        current = folder / "current.npz"
        with MeasuredProcess(ProcessSetup(model=file.path, inputs=inputs)) as process:
            process.save_outputs(current)
        found[file] = [load(file, python, inputs, folder, current) for python in pythons.values()]
    return found


def judge(found: dict[File, list[Loaded]], releases: list[str]) -> list[tuple[str, bool]]:
    """Hold the figures against what docs/reach.md promises."""

    def anon(form: str, kind: str, loops: int, release: str) -> float:
        for file, loaded in found.items():
            key = (file.opset, file.form, file.kind, file.loops)
            if key == (MEMORY_OPSET, form, kind, loops):
                return loaded[releases.index(release)].anon_mib
        raise KeyError(form, kind, loops)

    bounds = []
    for opset in (18, 20):
        refused = [
            f"{file.form} {file.kind} on {release}"
            for file, loaded in found.items()
            for release, one in zip(releases, loaded, strict=True)
            if file.opset == opset and one.refused and file.kind in {"float32", "int8"}
        ]
        text = f"opset {opset}, float32 and int8, refused: {', '.join(refused) or 'nowhere'}"
        bounds.append((text, not refused))
    for release in releases:
        for kind in ("float32", "int8"):
            loop = [anon("loop", kind, loops, release) for loops in LOOPS]
            spread = max(loop) - min(loop)
            text = f"{release}: Loop {kind}, anonymous MiB over r within 2: {spread:.1f}"
            bounds.append((text, spread <= 2))
    for release in PACKING_PER_NODE:
        tied, unrolled = (anon(form, "float32", LOOPS[-1], release) for form in FORMS)
        ratio = unrolled / tied
        text = f"{release}: r={LOOPS[-1]}, unrolled against Loop at least 20: {ratio:.1f}"
        bounds.append((text, ratio >= 20))
    errors = [
        one.relative_error
        for file, loaded in found.items()
        for one in loaded
        if file.kind == "float32" and not one.refused
    ]
    worst = max(errors)
    bounds.append((f"float32 outputs against the current release: {worst:.1e}", worst <= 1e-4))
    return bounds


def main() -> int:
    """Install, export, measure, print one table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for versions.json and versions.md")
    parser.add_argument("--venvs", type=Path, default=ROOT / "build" / "reach")
    arguments = parser.parse_args()
    # The measured process is loopedge's own; the environments do not hold it.
    os.environ["PYTHONPATH"] = str(ROOT)
    pythons = interpreters(arguments.venvs)
    releases = list(pythons)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = measure(export_all(folder), pythons, folder)
    bounds = judge(found, releases)
    machine = describe_machine()
    errors = {
        kind: max(
            one.relative_error
            for file, loaded in found.items()
            for one in loaded
            if file.kind == kind and not one.refused
        )
        for kind in KINDS
    }
    lines = [
        f"{machine['cpu']}, one thread. Anonymous MiB after load / peak MiB after {RUNS} runs, growth "
        "over the imported runtime.",
        "",
        f"| opset | form | weights | loops | {' | '.join(releases)} |",
        "|" + "---|" * (4 + len(releases)),
        *(
            f"{file.label} {' | '.join(one.cell() for one in loaded)} |"
            for file, loaded in found.items()
        ),
        "",
        "Largest relative error against the current release: "
        + ", ".join(f"{kind} {error:.1e}" for kind, error in errors.items())
        + ".",
        "",
        "| bound | |",
        "|---|---|",
        *(f"| {text} | {'pass' if passed else 'FAIL'} |" for text, passed in bounds),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "versions.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "torch": torch.__version__,
            "files": [
                {
                    "opset": file.opset,
                    "form": file.form,
                    "kind": file.kind,
                    "loops": file.loops,
                    "releases": {
                        release: asdict(one) for release, one in zip(releases, loaded, strict=True)
                    },
                }
                for file, loaded in found.items()
            ],
            "bounds": [{"name": text, "passed": passed} for text, passed in bounds],
        }
        (arguments.output / "versions.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(passed for _, passed in bounds) else 4


if __name__ == "__main__":
    sys.exit(main())
