"""Low bits by other tools on the same trained models: SQNR, metric, bytes, and whether the tie is kept.

`onnxruntime.quantization`'s MatMulNBits quantizers, NNCF's weight compression and the ONNX quantizer of
`transformers.exporters`, each on the Loop and, where that fails, on the unrolled twin; the samples that calibrate are
those that calibrate loopedge. Rows of `low_bits.py`, where it wrote into the same folder, stand beside them. One seed of each model. The tools
have an environment of their own (`benchmarks/peers/requirements/low_bits.txt`): the first time it takes minutes and a
package index. What a tool cannot is a row with its reason; nothing blocks.

    PYTHONPATH=. python benchmarks/int8/low_bits_peers.py [--output benchmarks/results/int8] [--models FOLDER]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from judged_rows import Row, Rows
from numpy.typing import NDArray
from trained import MODELS, NAMES, Trained, trained_models

from benchmarks.peers.environments import direct_versions, environment_of
from loopedge.artifact.artifact import Artifact
from loopedge.graph.weights import linears
from loopedge_calibration.samples import Samples

ENVIRONMENT, SECONDS, CALIBRATED = "low_bits", 300, 128
CONVERTER = Path(__file__).with_name("peer_converter.py")
PEERS = {
    **{f"onnxruntime {name}": 4 for name in ("Default", "RTN", "k_quant", "HQQ", "GPTQ")},
    "NNCF int4": 4,
    "NNCF int4, AWQ, scale estimation": 4,
    "transformers.exporters, NNCF int4": 4,
    "NNCF int8": 8,
}
OURS = {
    4: ("weight-int4, nearest", "weight-int4, on data", "weight-int4, refined"),
    8: ("weight-int8, nearest", "weight-int8, on data"),
}
Feeds = dict[str, NDArray[Any]]


def calibration(model: Trained, folder: Path) -> Path:
    """Write the samples that calibrate loopedge on the same data."""
    graph = Artifact.open(model.path).float32_graph()
    samples = Samples(
        model.data, graph, samples=CALIBRATED, artifact=model.path, metric=None, chooses=True
    )
    found: dict[str, list[NDArray[Any]]] = {}
    for batch in samples.calibrating:
        for name, array in batch.feeds.items():
            found.setdefault(name, []).append(array)
    path = folder / f"{model.stem}.npz"
    np.savez(path, **{name: np.concatenate(parts) for name, parts in found.items()})  # type: ignore[arg-type]
    return path


def convert(python: Path, variant: str, source: Path, data: Path, target: Path) -> dict[str, Any]:
    """Run a tool in its environment."""
    job = {
        "variant": variant,
        "source": str(source),
        "data": str(data),
        "target": str(target),
    }
    words = [str(python), str(CONVERTER), json.dumps(job)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {SECONDS} s"}
    try:
        outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"failed": f"ended with {done.returncode}: {done.stderr.strip()[-200:]}"}
    return outcome


def outputs_of(model: Trained, path: Path) -> list[Feeds]:
    """Run a file of another tool on the test part."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options)
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, feeds), strict=True)) for feeds in model.judging[0]]


def measure(python: Path, model: Trained, variant: str, folder: Path, rows: Rows) -> Row:
    """Convert the Loop, or its unrolled twin, and judge."""
    data, target = calibration(model, folder), folder / "peer.onnx"
    tried: dict[str, str] = {}
    for form, source in (("Loop", model.path), ("unrolled", model.unrolled)):
        started = time.perf_counter()
        outcome = convert(python, variant, source, data, target)
        if "failed" in outcome:
            tried[form] = outcome["failed"]
            continue
        source_weights = len({item.weight.name for item in linears(Artifact.open(source).graph)})
        if outcome["weights"] < source_weights / 2:  # what stands in the body was not seen
            tried[form] = f"only {outcome['weights']} of {source_weights} weights became integers"
            continue
        seconds = time.perf_counter() - started
        try:
            judged = model.judge_outputs(outputs_of(model, target), target)
        except Exception as error:
            tried[form] = f"{type(error).__name__}: {_first_line(error, folder)}"
            continue
        more = {
            "form": form,
            "nodes": outcome["nodes"],
            "weights": outcome["weights"],
            "float_weights": source_weights,
            "failed_on": tried,
        }
        return rows.judged(model, variant, target, seconds=seconds, judged=judged, more=more)
    reasons = "; ".join(f"{form}: {reason}" for form, reason in tried.items())
    return rows.failed(model, variant, reasons)


def tables(rows: Rows, ours: Rows) -> list[str]:
    """Return Markdown: a table of each model."""
    versions = ", ".join(
        f"{name} {version}" for name, version in direct_versions(ENVIRONMENT).items()
    )
    lines = [
        f"{versions}. Four bits are symmetric, in blocks of 32. *Weights*: matrices of integers that the file stores, of so many weights of "
        "linears in the float file (more: tables, too). *Nodes*: those that read them: where they are more than weights, copies share one. Of the unrolled twin the nodes alone take 60 KiB and more.",
    ]
    for stem in rows.stems():
        first = next(row for row in rows.rows if row.model == stem)
        lines += [
            "",
            f"## {stem}: {first.metric_name} {first.float_metric:.4f} in float",
            "",
            f"| | SQNR dB | {first.metric_name} | file KiB | form | weights | nodes |",
            "|---|---|---|---|---|---|---|",
        ]
        for bits, own in OURS.items():
            lines += [_own_line(found) for name in own if (found := ours.get(stem, name))]
            for variant, taken in PEERS.items():
                row = rows.get(stem, variant)
                if taken == bits and row is not None:
                    lines.append(_line(row))
        failed = [row for row in rows.rows if row.model == stem and (row.failed or _failures(row))]
        lines += ["", *(f"- {row.name}: {row.failed or _failures(row)}" for row in failed)]
    return lines


def _first_line(error: Exception, folder: Path) -> str:
    """Return what an error says, without the place where the file stood."""
    return str(error).splitlines()[0].replace(f"{folder}/", "")


def _failures(row: Row) -> str:
    return "; ".join(f"{form}: {reason}" for form, reason in row.more.get("failed_on", {}).items())


def _own_line(row: Row) -> str:
    if row.failed:
        return f"| **loopedge {row.name}** | failed | | | | | |"
    return (
        f"| **loopedge {row.name}** | {row.sqnr_db:.1f} | {row.metric:.4f} "
        f"| {row.file_bytes / 1024:.0f} | Loop | | |"
    )


def _line(row: Row) -> str:
    if row.failed:
        return f"| {row.name} | failed | | | | | |"
    more = row.more
    return (
        f"| {row.name} | {row.sqnr_db:.1f} | {row.metric:.4f} | {row.file_bytes / 1024:.0f} "
        f"| {more['form']} | {more['weights']} of {more['float_weights']} | {more['nodes']} |"
    )


def main() -> int:
    """Convert, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for low_bits_peers.md and .json")
    parser.add_argument("--models", type=Path, default=MODELS, help="where trained models are kept")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    arguments = parser.parse_args()
    python = environment_of(ENVIRONMENT)
    if isinstance(python, str):
        print(python)
        return 0
    rows = Rows.open(arguments.output, "low_bits_peers", again=arguments.again)
    with tempfile.TemporaryDirectory() as name:
        for model in trained_models(arguments.models, tuple(arguments.only), (arguments.seed,)):
            for variant in PEERS:
                if not rows.has(model, variant):
                    print(measure(python, model, variant, Path(name), rows).line, flush=True)
            rows.save()
    lines = tables(rows, Rows.open(arguments.output, "low_bits", again=False))
    print("\n".join(lines))
    rows.write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
