"""What ORT format and float16 storage cost and save, on the paper's block (d=768, r=12, sequence 128).

Exports the block in both forms, in float32 and in float16, converts each to ORT format, and profiles
them in fresh processes.
Bytes block (exit code 4), times advise. Takes two minutes.

    python benchmarks/reach/formats.py [--output benchmarks/results/reach]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

import loopedge
from loopedge.profiler.pipeline import Run

LOOPS = 12
FORMS = ("loop", "unrolled")
STORAGES = ("float32", "float16")
MIB = 2**20


def export_all(folder: Path) -> dict[tuple[str, str, str], Path]:
    """Export and convert; the keys are form, storage and format."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=768, heads=12, loops=LOOPS, vocab_size=4096, max_length=128
    )
    model = loopedge.LoopedTransformer(config).eval()
    paths = {}
    for form in FORMS:
        for storage in STORAGES:
            path = folder / f"{form}.{storage}.onnx"
            loopedge.export(model, path, form=form, storage=storage)  # type: ignore[arg-type]
            paths[form, storage, "onnx"] = path
            paths[form, storage, "ort"] = path.with_suffix(".ort")
            loopedge.convert(path, path.with_suffix(".ort"))
    return paths


def judge(runs: dict[tuple[str, str, str], Run]) -> list[tuple[str, bool]]:
    """Hold the bytes against their bounds."""
    bounds = []
    for form in FORMS:
        onnx, ort = (runs[form, "float32", kind] for kind in ("onnx", "ort"))
        half = runs[form, "float16", "onnx"]
        extra = (ort.anon_bytes - onnx.anon_bytes) / MIB
        slack = (
            1 if form == "loop" else 20
        )  # the unrolled form's packed copies vary by the allocator
        bounds.append((f"{form}: ORT format, anonymous MiB more: {extra:.1f}", extra <= slack))
        files = ort.file_bytes / onnx.file_bytes
        bounds.append((f"{form}: ORT format, file against .onnx: {files:.3f}", files <= 1.01))
        files = half.file_bytes / onnx.file_bytes
        bounds.append((f"{form}: float16, file against float32: {files:.3f}", files <= 0.52))
        narrow = runs[form, "float16", "ort"].file_bytes / half.file_bytes
        bounds.append((f"{form}: float16, ORT file against .onnx: {narrow:.3f}", narrow <= 1.01))
    loop, plain = (runs["loop", storage, "onnx"].anon_bytes for storage in ("float16", "float32"))
    extra = (loop - plain) / MIB
    text = f"loop: float16, anonymous MiB more, of which the tied table 12: {extra:.1f}"
    bounds.append((text, extra <= 20))
    return bounds


def main() -> int:
    """Export, measure, print one table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for formats.json and formats.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = export_all(Path(name))
        result = loopedge.profile(list(paths.values()), runs=10, details=False)
        short = loopedge.profile(list(paths.values()), runs=20, sequence=1, details=False)
    runs = dict(zip(paths, result.runs, strict=True))
    bounds = judge(runs)
    machine = result.machine
    lines = [
        f"{machine['cpu']}, one thread, ONNX Runtime {machine['onnxruntime']}; memory is growth over "
        "the imported runtime, times are against the first row.",
        "",
        "| form | weights | format | file MiB | load s | anonymous MiB | peak MiB | time | time, one position |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {form} | {storage} | {kind} | {run.file_bytes / MIB:.1f} | {run.load_seconds:.3f} "
            f"| {run.anon_bytes / MIB:.1f} | {run.rss_peak_bytes / MIB:.1f} | {run.time_ratio:.2f} "
            f"| {one.time_ratio:.2f} |"
            for ((form, storage, kind), run), one in zip(runs.items(), short.runs, strict=True)
        ),
        "",
        "| bound | |",
        "|---|---|",
        *(f"| {text} | {'pass' if passed else 'FAIL'} |" for text, passed in bounds),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "formats.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "torch": torch.__version__,
            "runs": [run.to_json() | {"path": run.name} for run in result.runs],
            "one_position": [run.to_json() | {"path": run.name} for run in short.runs],
            "bounds": [{"name": text, "passed": passed} for text, passed in bounds],
        }
        (arguments.output / "formats.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(passed for _, passed in bounds) else 4


if __name__ == "__main__":
    sys.exit(main())
