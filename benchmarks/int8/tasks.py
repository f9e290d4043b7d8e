"""int8 on trained models: what each choice costs in SQNR and in the task's own metric.

Trains four small models (sorting without norms, whose ranges grow over the iterations; sorting with timestep
encoding; edit distance; the sunspot forecaster), quantizes them with every scheme, and puts onnxruntime's own quantizer beside it: static
on the unrolled graph after its preprocessing, dynamic with EnableSubgraph on the Loop. Counts come
from the graph that ONNX Runtime runs after its optimizations. About ten minutes on two cores.

    python benchmarks/int8/tasks.py [--output benchmarks/results/int8] [--models FOLDER]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime import quantization as peer
from onnxruntime.quantization.shape_inference import quant_pre_process
from plain_looped import PlainSorting
from subjects import Subject, subjects

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact
from loopedge.graph.agreement import NoiseRatio
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.tasks.metrics import metric_value, total
from loopedge_calibration.budget import meet_budget
from loopedge_calibration.losses import RelativeError

BATCHES, BATCH = 16, 8
JUDGED = 1024
ROUNDS = 9
INTEGER = {
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QLinearMatMul",
}
FLOAT = {"MatMul", "FusedMatMul", "Gemm"}
FORMS: tuple[Literal["loop", "unrolled"], ...] = ("loop", "unrolled")
METHODS = ("minmax", "mse", "percentile", "entropy")

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """One quantized model."""

    name: str
    sqnr_db: float
    metric: float
    file_bytes: int
    integer: int
    floating: int
    time: float | None


class Bench:
    """A trained model in both forms, its calibration data, and the data it is judged on."""

    def __init__(self, subject: Subject | PlainSorting, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        stem = subject.name.replace(",", "").replace(" ", "-")
        self.paths: dict[str, Path] = {form: folder / f"{stem}.{form}.onnx" for form in FORMS}
        # onnxruntime's quantizer writes invalid files from opset 23.
        self.peers = {form: folder / f"{stem}.{form}.20.onnx" for form in FORMS}
        for form in FORMS:
            subject.export(folder, self.paths[form], form=form)
            subject.export(folder, self.peers[form], form=form, opset=20)
        names = [node.name for node in ort.InferenceSession(str(self.paths["loop"])).get_inputs()]
        self.calibration: list[Feeds] = [
            subject.task.batch("train", BATCH, 10_000 + step).feeds(names)
            for step in range(BATCHES)
        ]
        self.asked = list(subject.task.evaluation("test", 128, JUDGED))
        self.judged: list[Feeds] = [batch.feeds(names) for batch in self.asked]
        self.reference, self.metric = self.run(self.paths["loop"])
        self.notes: list[str] = []

    def run(self, path: Path) -> tuple[NDArray[Any], float]:
        """Return the outputs and the task's metric."""
        session = ort.InferenceSession(str(path))
        outputs = [session.run(None, feeds)[0] for feeds in self.judged]
        task, pairs = self.subject.task, zip(outputs, self.asked, strict=True)
        scores = task.metrics(total(task.tally_batch(given, batch) for given, batch in pairs))
        return np.concatenate(outputs), metric_value(scores, task.metric)

    def row(self, name: str, path: Path, *, timed: bool = False) -> Row:
        """Judge a quantized model."""
        outputs, metric = self.run(path)
        ratio = NoiseRatio()
        ratio.add(self.reference, outputs)
        integer, floating = weight_products(path, self.folder)
        return Row(
            name,
            ratio.db,
            metric,
            sum(file.stat().st_size for file in Artifact.open(path).files),
            integer,
            floating,
            self.time_ratio(path) if timed else None,
        )

    def time_ratio(self, path: Path) -> float:
        """Return the latency of one sample against the float Loop, alternated, one thread."""
        inputs = self.folder / "one.npz"
        np.savez(inputs, **{name: array[:1] for name, array in self.judged[0].items()})  # type: ignore[arg-type]
        with (
            MeasuredProcess(ProcessSetup(model=self.paths["loop"], inputs=inputs)) as one,
            MeasuredProcess(ProcessSetup(model=path, inputs=inputs)) as two,
        ):
            one.run(20)
            two.run(20)
            return statistics.median(
                statistics.median(two.run(40)) / statistics.median(one.run(40))
                for _ in range(ROUNDS)
            )


def weight_products(path: Path, folder: Path) -> tuple[int, int]:
    """Count integer and float products with a stored weight, as ONNX Runtime runs them."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options)
    integer = floating = 0
    for node in ir.load(folder / "optimized.onnx").graph.all_nodes():
        stored = any(value is not None and value.const_value is not None for value in node.inputs)
        integer += node.op_type in INTEGER
        floating += node.op_type in FLOAT and stored
    return integer, floating


class Reader(peer.CalibrationDataReader):  # type: ignore[misc]
    """Calibration data for onnxruntime's quantizer."""

    def __init__(self, batches: list[Feeds]) -> None:
        self.batches: Iterator[Feeds] = iter(batches)

    def get_next(self) -> Feeds | None:
        """Return the next batch."""
        return next(self.batches, None)


def peer_static(bench: Bench, target: Path) -> None:
    """onnxruntime.quantization, static QDQ on the unrolled graph after its preprocessing.

    Its linears alone: with the embedding's Gather it writes a scale of the wrong size.
    """
    prepared = bench.folder / "prepared.onnx"
    quant_pre_process(str(bench.peers["unrolled"]), str(prepared), skip_symbolic_shape=True)
    peer.quantize_static(
        str(prepared),
        str(target),
        Reader(bench.calibration),
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        activation_type=peer.QuantType.QUInt8,
        weight_type=peer.QuantType.QInt8,
    )


def peer_dynamic(bench: Bench, target: Path) -> None:
    """onnxruntime.quantization, dynamic on the Loop, bodies included."""
    peer.quantize_dynamic(
        str(bench.peers["loop"]),
        str(target),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=peer.QuantType.QInt8,
        extra_options={"EnableSubgraph": True},
    )


def ours(
    bench: Bench,
    form: str,
    granularity: str,
    method: str,
    *,
    smoothing: bool = False,
    as_core: tuple[str, ...] = ("all",),
) -> Callable[[Path], None]:
    """Return the making of a static model; every linear has a range where ``as_core`` says so."""

    def make(target: Path) -> None:
        table = loopedge_calibration.collect(
            bench.paths["loop"],
            bench.calibration,
            granularity=granularity,  # type: ignore[arg-type]
            method=method,
            as_core=as_core,
            smoothing=smoothing,
        )
        options = {"ranges": table, "as_core": as_core, "data": bench.calibration[:2]}
        unjudged(bench.paths[form], target, **options)

    return make


def unjudged(source: Path, target: Path, **options: Any) -> None:
    """Quantize whatever the SQNR."""
    loopedge.quantize(source, target, min_sqnr_db=0, force=True, **options)


def budgeted(bench: Bench, target: Path) -> None:
    """Hold half of the error that static int8 has on the calibration data."""
    source = bench.paths["loop"]
    recipe = Recipe(scheme="static", table=loopedge_calibration.collect(source, bench.calibration))
    loss = RelativeError(bench.calibration, loopedge.Session(source, threads=1))
    _, whole = meet_budget(FloatSource.open(source), recipe, loss, 1.0, threads=1)
    lifted, budget = meet_budget(FloatSource.open(source), recipe, loss, whole.loss / 2, threads=1)
    levels = ", ".join(f"{item.name} to {item.level}" for item in budget.lifted)
    bench.notes.append(
        f"The budget, on the calibration data: relative error {whole.loss:.2e} -> {budget.loss:.2e}; {levels}."
    )
    options = {"keep": lifted.keep, "weight_only": lifted.weight_only}
    unjudged(source, target, ranges=lifted.table, data=bench.calibration[:2], **options)


def measure(bench: Bench) -> list[Row]:
    """Quantize in every way and judge."""

    def scheme(name: str) -> Callable[[Path], None]:
        return lambda target: unjudged(bench.paths["loop"], target, scheme=name)

    makers: dict[str, tuple[Callable[[Path], None], bool]] = {
        f"static {granularity} {method}": (ours(bench, "loop", granularity, method), False)
        for granularity in ("shared", "per-iteration", "auto")
        for method in METHODS
    }
    for form, name in (
        ("loop", "static per-iteration mse smoothed"),
        ("unrolled", "the same, unrolled"),
    ):
        makers[name] = (ours(bench, form, "per-iteration", "mse", smoothing=True), True)
    default = ours(bench, "loop", "per-iteration", "mse", smoothing=True, as_core=())
    makers["by place, per-iteration mse smoothed (default)"] = (default, True)
    makers["by place, half its error as budget"] = (lambda path: budgeted(bench, path), True)
    for name in ("dynamic", "weight-int8", "weight-int4"):
        makers[name] = (scheme(name), True)
    makers["onnxruntime static, unrolled"] = (lambda path: peer_static(bench, path), True)
    makers["onnxruntime dynamic, Loop"] = (lambda path: peer_dynamic(bench, path), True)
    rows = [bench.row("float", bench.paths["loop"])]
    for name, (make, timed) in makers.items():
        target = bench.folder / "quantized.onnx"
        for file in bench.folder.glob("quantized.onnx*"):
            file.unlink()
        try:
            make(target)
            rows.append(bench.row(name, target, timed=timed))
        except Exception as error:  # a peer that cannot is a result
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
    return rows


def table(bench: Bench, rows: list[Row]) -> list[str]:
    """Return a Markdown table."""
    metric = bench.subject.task.metric
    lines = [
        f"### {bench.subject.name}: {metric} {bench.metric:.4f} in float",
        "",
        f"| | SQNR dB | {metric} | change | file KiB | int8 / float products | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        time = "" if row.time is None else f"{row.time:.2f}"
        lines.append(
            f"| {row.name} | {row.sqnr_db:.1f} | {row.metric:.4f} | {row.metric - bench.metric:+.4f} "
            f"| {row.file_bytes / 1024:.0f} | {row.integer} / {row.floating} | {time} |"
        )
    return [*lines, "", *bench.notes, ""]


def main() -> int:
    """Train, quantize, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for tasks.md and tasks.json")
    parser.add_argument("--models", type=Path, help="keep the trained models here")
    arguments = parser.parse_args()
    lines: list[str] = []
    results: dict[str, Any] = {}
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.models or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for subject in subjects():
            bench = Bench(subject, folder)
            rows = measure(bench)
            lines += table(bench, rows)
            print("\n".join(table(bench, rows)))
            results[subject.name] = [asdict(row) for row in rows]
            found = {row.name: row for row in rows}
            missed |= any(found[name].floating for name in found if name.startswith("static"))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        text = "\n".join([f"ONNX Runtime {ort.__version__}, one thread.", "", *lines])
        (arguments.output / "tasks.md").write_text(text, encoding="utf-8")
        content = json.dumps(results, indent=2) + "\n"
        (arguments.output / "tasks.json").write_text(content, encoding="utf-8")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
