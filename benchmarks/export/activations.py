"""What small activations save and cost: MLPs in chunks, attention in groups of heads, the tied head in place.

The paper's block (d=768, 12 heads, 12 loops, vocabulary 4096, 128 positions) in float32 and static int8, in
the memory profiles balanced and low, with `--activations whole` and `small`; every choice by itself; where
ONNX Runtime's peak is; and the sizes from which on chunks pay. Memory is growth over the imported runtime,
in fresh processes; times are taken in turns against the unrolled float32 graph. Bytes block (exit code 4),
times advise: this may run on a busy machine.

    python benchmarks/export/activations.py [--output benchmarks/results/export]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.graph.passes.table_head import read_table_in_place
from loopedge.graph.split.head_groups import split_heads
from loopedge.graph.split.hidden_chunks import split_hidden
from loopedge.runtime.session_options import session_options

WIDTH, LENGTH, VOCABULARY = 768, 128, 4096
KINDS, PROFILES, ACTIVATIONS = ("float32", "static int8"), ("balanced", "low"), ("whole", "small")
MB = 10**6
PEAK_MB = {
    ("float32", "balanced"): 70.0,
    ("float32", "low"): 58.0,
    ("static int8", "balanced"): 32.0,
    ("static int8", "low"): 27.0,
}
REACHED_MB = PEAK_MB | {("float32", "low"): 59.0, ("static int8", "low"): 28.0}
"""What blocks: the arena's layout moves the peak of `low` by up to 0.9 MB from run to run."""
TIME = {
    ("float32", "balanced"): 0.97,
    ("float32", "low"): 1.15,
    ("static int8", "balanced"): 0.31,
}
SIZES = (64, 128, 256, 768)
RUNS_OF_SIZES = {1: 60, 128: 15, 512: 6}
"""Positions, and timed runs of each model at that length."""

Key = tuple[str, str, str]
Change = Callable[[ir.Model], object]

CHOICES: dict[str, list[Change]] = {
    "whole": [],
    "MLP in 2": [lambda model: split_hidden(model, least_width=1536)],
    "MLP in 4": [lambda model: split_hidden(model)],
    "MLP in 4, heads in 2": [
        lambda model: split_hidden(model),
        lambda model: split_heads(model, length=LENGTH),
    ],
    "head in place": [lambda model: read_table_in_place(model)],
    "MLP in 4, head in place": [
        lambda model: split_hidden(model),
        lambda model: read_table_in_place(model),
    ],
    "MLP in 4, heads in 2, head in place": [
        lambda model: split_hidden(model),
        lambda model: split_heads(model, length=LENGTH),
        lambda model: read_table_in_place(model),
    ],
}


@dataclass(frozen=True)
class Row:
    """What was measured of one file."""

    file_mb: float
    load_mb: float
    peak_mb: float
    anon_mb: float
    time: float


def tmlt(width: int = WIDTH, loops: int = 12, length: int = LENGTH) -> loopedge.LoopedTransformer:
    """Return the paper's block with random gates: with gates of zero its core would do nothing."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=width,
        heads=width // 64 if width >= WIDTH else 4,
        loops=loops,
        vocab_size=VOCABULARY if width == WIDTH and length == LENGTH else 256,
        max_length=length,
    )
    model = loopedge.LoopedTransformer(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.startswith("timestep.last"):
                values.normal_(0.0, 0.02)
    return model


def make_models(folder: Path) -> tuple[dict[Key, Path], dict[Key, float]]:
    """Export and quantize; return the files, and the SQNR of the quantized ones."""
    model, files, sqnr = tmlt(), dict[Key, Path](), dict[Key, float]()
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, VOCABULARY, (4, LENGTH))} for _ in range(4)]
    files["float32", "unrolled", "whole"] = folder / "unrolled.onnx"
    loopedge.export(model, folder / "unrolled.onnx", form="unrolled", activations="whole")
    for profile in PROFILES:
        for activations in ACTIVATIONS:
            source = folder / f"{profile}.{activations}.onnx"
            loopedge.export(model, source, memory=profile, activations=activations)
            target = source.with_suffix(".int8.onnx")
            ranges = loopedge_calibration.collect(source, samples)
            key = ("static int8", profile, activations)
            sqnr[key] = loopedge.quantize(source, target, ranges=ranges, data=samples).sqnr_db
            files |= {("float32", profile, activations): source, key: target}
    return files, sqnr


def measure(files: Mapping[Any, Path], runs: int, **options: Any) -> dict[Any, Row]:
    """Measure files in fresh processes, their times in turns against the first."""
    paths = list(files.values())
    result = loopedge.profile(paths, runs=runs, processes=1, details=False, **options)
    return {
        key: Row(
            file_mb=run.file_bytes / MB,
            load_mb=run.rss_load_bytes / MB,
            peak_mb=run.rss_peak_bytes / MB,
            anon_mb=run.anon_bytes / MB,
            time=run.time_ratio,
        )
        for key, run in zip(files, result.runs, strict=True)
    }


def changed(source: Path, changes: list[Change], target: Path) -> Path:
    """Write a changed copy of a graph, with its metadata."""
    model = open_artifact(source)
    for change in changes:
        change(model)
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=1024)
    return target


def peaks_by_part(path: Path, memory: str, folder: Path) -> dict[str, float]:
    """Return the MB of activations in use when each part raised ONNX Runtime's peak last, in two runs."""
    options = session_options(1, memory)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "trace")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, LENGTH))
    for _ in range(2):
        session.run(None, {"input_ids": ids})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    parts = {"prelude": 0, "attention": 0, "MLP": 0, "coda": 0}
    part, highest = "prelude", 0
    for event in events:
        name, args = event["name"], event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        if name.startswith(("prelude/", "coda/")):
            part = name.partition("/")[0]
        elif name.startswith("core/"):
            attends = name.startswith("core/rms_norm_kernel") or part in {"prelude", "coda"}
            part = "attention" if attends else "MLP" if "core/rms_norm_1" in name else part
        peak = int(args.get("mem_in_use_peak", 0))
        if peak > highest:
            highest = parts[part] = peak
    return {name: bytes_in_use / MB for name, bytes_in_use in parts.items()}


def sizes(folder: Path) -> list[str]:
    """Measure at which widths and lengths chunks pay: split whatever the size, against whole."""
    lines = [
        "| d | positions | time of 2 chunks | of 4 | peak MB whole | 2 chunks | 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for width in SIZES:
        source = folder / f"{width}.onnx"
        loopedge.export(tmlt(width, 4, max(RUNS_OF_SIZES)), source, activations="whole")
        files = {1: source}
        for parts in (2, 4):

            def split(model: ir.Model, least: int = 4 * width // parts) -> object:
                return split_hidden(model, least_width=least, least_bytes=0)

            files[parts] = changed(source, [split], folder / f"{width}.{parts}.onnx")
        for length in RUNS_OF_SIZES:
            rows = measure(files, RUNS_OF_SIZES[length], sequence=length)
            lines.append(
                f"| {width} | {length} | {rows[2].time:.2f} | {rows[4].time:.2f} | {rows[1].peak_mb:.1f} "
                f"| {rows[2].peak_mb:.1f} | {rows[4].peak_mb:.1f} |"
            )
    return lines


def choices(folder: Path, source: Path) -> list[str]:
    """Measure every choice by itself, in float32."""
    files = {
        name: changed(source, changes, folder / f"choice{i}.onnx")
        for i, (name, changes) in enumerate(CHOICES.items())
    }
    by_profile = {profile: measure(files, 6, memory=profile) for profile in PROFILES}
    lines = [
        "| float32 | balanced: peak MB | time | low: peak MB | time |",
        "|---|---|---|---|---|",
    ]
    for name in files:
        cells = [
            f"{by_profile[profile][name].peak_mb:.1f} | {by_profile[profile][name].time:.3f}"
            for profile in PROFILES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Measure, print Markdown tables, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for activations.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, sqnr = make_models(folder)
        rows = measure(files, 15)
        lines = [
            f"ONNX Runtime {onnxruntime.__version__}, one thread, d={WIDTH}, {LENGTH} positions, 12 loops; memory "
            "is growth over the imported runtime in MB of 10^6 bytes, time against the unrolled float32 "
            "graph, in turns.",
            "",
            "| model | memory | activations | file | after load | peak | anonymous | time | SQNR dB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for key, row in rows.items():
            db = f"{sqnr[key]:.1f}" if key in sqnr else ""
            lines.append(
                f"| {' | '.join(key)} | {row.file_mb:.1f} | {row.load_mb:.1f} | {row.peak_mb:.1f} "
                f"| {row.anon_mb:.1f} | {row.time:.3f} | {db} |"
            )
        lines += ["", "| goal | measured | at most | |", "|---|---|---|---|"]
        missed = False
        for (kind, profile), allowed in PEAK_MB.items():
            peak = rows[kind, profile, "small"].peak_mb
            failed = peak > REACHED_MB[kind, profile]
            missed |= failed
            verdict = "FAIL" if failed else "missed" if peak > allowed else "pass"
            lines.append(f"| {kind}, {profile}: peak MB | {peak:.1f} | {allowed:.1f} | {verdict} |")
        for (kind, profile), allowed in TIME.items():
            time = rows[kind, profile, "small"].time
            verdict = "missed" if time > allowed else "pass"
            lines.append(f"| {kind}, {profile}: time | {time:.3f} | {allowed:.2f} | {verdict} |")
        lines += [
            "",
            "Activations in use, MB, when each part last raised the peak (`mem_in_use_peak` of ONNX Runtime's "
            "trace; 0: never above what came before). What the arena touches is more, for it is cut into "
            "regions of 1, 2 and 4 MiB:",
            "",
            "| model | memory | activations | prelude | attention | MLP | coda |",
            "|---|---|---|---|---|---|---|",
        ]
        for key, path in files.items():
            if key[1] in PROFILES:
                parts = peaks_by_part(path, key[1], folder)
                cells = " | ".join(f"{peak:.2f}" for peak in parts.values())
                lines.append(f"| {' | '.join(key)} | {cells} |")
        lines += ["", "Each choice by itself; time against whole, in turns:", ""]
        lines += choices(folder, files["float32", "balanced", "whole"])
        lines += ["", "MLPs in chunks at other sizes, 4 loops, float32, balanced:", ""]
        lines += sizes(folder)
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "activations.md").write_text(text, encoding="utf-8")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
