"""int8 on samples that calibrated nothing: the task's metric, SQNR and clipped values of five trained models.

Trains sorting, edit distance, a byte language model on generated sentences, the sunspot forecaster, and a series
with a trend, small ones. Ranges come from the training part, everything is judged on the test part, whose
rows of a series are the newest. ``uniform`` is static int8 that treats every linear as the core's
(``--as-core all``). A share of clipped values is that of the held-out values that lie outside of the range of
their linear and iteration, whether it is used or the linear is treated otherwise. Blocks: static is within 2 % of float's metric and within 2 dB of dynamic, and its file is not larger
than the uniform one by more than 2 %.

    python benchmarks/int8/held_out.py [--output benchmarks/results/int8] [--models FOLDER]
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
from subjects import Subject, sorting, sunspots

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.graph.agreement import NoiseRatio
from loopedge.graph.core.probe import probe, stack_probed
from loopedge.graph.offsets import output_offsets
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.smoothing import apply_smoothing
from loopedge.quantizer.recipe import Recipe
from loopedge.runtime.inputs import MASK
from loopedge.runtime.processor import FAST_INT8, this_processor
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.metrics import metric_value, total
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.text import TextTask

CALIBRATED, JUDGED, BATCH = 128, 512, 64
METRIC_SHARE, SQNR_DB, BYTES_SHARE = 0.02, 2.0, 1.02
MONTHS, SENTENCES = 600, 4000
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """One model, judged on held-out samples; ``share``: by how much its metric is worse than float's."""

    name: str
    metric: float
    share: float
    sqnr_db: float
    file_bytes: int


@dataclass(frozen=True)
class Clipped:
    """Held-out values of one linear outside of their range, as shares by iteration."""

    name: str
    treatment: str
    shares: list[float]


def edit_distance() -> Subject:
    """Return a smaller one than that of `subjects`, asked at every letter: it learns in a tenth of the steps."""
    return Subject(
        "edit distance, prefixes",
        EditDistanceTask(length=4, letters=4, prefixes=True),
        {"d_model": 64, "heads": 4, "loops": 6, "positions": "rotary"},
        {"steps": 4000, "batch_size": 64, "lr": 2e-3},
    )


def sentences(folder: Path) -> Subject:
    """Return a language model of bytes, on sentences that a few rules make."""
    generator = np.random.default_rng(0)
    parts = (
        ("the", "every", "no", "one"),
        ("old", "green", "small", "quiet", "heavy"),
        ("pump", "river", "engineer", "sensor", "garden", "motor"),
        ("sees", "moves", "measures", "stops", "finds"),
        ("a tree", "the water", "two wires", "its neighbour", "an error"),
        ("slowly", "at night", "again", "without a sound"),
    )
    lines = [
        " ".join(str(generator.choice(words)) for words in parts) + "." for _ in range(SENTENCES)
    ]
    text = folder / "sentences.txt"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Subject(
        "bytes",
        TextTask.from_path(text, context=64),
        {"d_model": 64, "heads": 4, "loops": 4},
        {"steps": 300, "batch_size": 16, "lr": 2e-3},
    )


def trend(folder: Path) -> Subject:
    """Return a forecaster of a monthly series that rises: trend, season and noise."""
    months, generator = np.arange(MONTHS), np.random.default_rng(0)
    season = 3 * np.sin(2 * np.pi * months / 12)
    values = 315 + 0.12 * months + 3e-5 * months**2 + season + generator.normal(size=MONTHS) * 0.3
    table = folder / "trend.csv"
    rows = [f"{month},{value:.4f}" for month, value in zip(months, values, strict=True)]
    table.write_text("\n".join(["month,level", *rows]) + "\n", encoding="utf-8")
    return Subject(
        "trend",
        SeriesTask.from_file(table, targets=["level"], context=48, horizon=12),
        {"d_model": 64, "heads": 4, "loops": 8},
        {"steps": 300, "batch_size": 32, "lr": 1e-3},
    )


class HeldOut:
    """A trained model, what it is calibrated on, and what it is judged on."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.path = folder / f"{subject.name.replace(' ', '-').replace(',', '')}.onnx"
        subject.export(folder, self.path)
        self.graph = Artifact.open(self.path).float32_graph()
        names = [value.name or "" for value in self.graph.graph.inputs]
        task = subject.task
        self.calibration: list[Feeds] = [
            task.batch("train", 8, 10_000 + step).feeds(names) for step in range(CALIBRATED // 8)
        ]
        batches = list(task.evaluation("test", BATCH, JUDGED))
        self.judged: list[Feeds] = [batch.feeds(names) for batch in batches]
        self.asked = batches
        self.reference, self.metric = self.run(self.path)

    def run(self, path: Path) -> tuple[list[dict[str, NDArray[Any]]], float]:
        """Return the outputs of the held-out batches, and the task's metric."""
        session = loopedge.Session(path, threads=1)
        outputs = [session.run(feeds) for feeds in self.judged]
        task, first = self.subject.task, session.output_names[0]
        pairs = zip(outputs, self.asked, strict=True)
        scores = task.metrics(
            total(task.tally_batch(given[first], batch) for given, batch in pairs)
        )
        return outputs, metric_value(scores, task.metric)

    def row(self, name: str, path: Path) -> Row:
        """Judge a model."""
        outputs, metric = self.run(path)
        ratio, offsets = NoiseRatio(), output_offsets(self.graph)
        for exact, given in zip(self.reference, outputs, strict=True):
            for output, values in exact.items():
                ratio.add(values, given[output], offsets.get(output))
        worse = self.metric - metric if self.subject.task.higher_is_better else metric - self.metric
        size = sum(file.stat().st_size for file in Artifact.open(path).files)
        return Row(name, metric, worse / abs(self.metric), ratio.db, size)

    def quantized(self, name: str, **options: Any) -> Row:
        """Quantize whatever the SQNR, and judge."""
        target = self.folder / "quantized.onnx"
        loopedge.quantize(
            self.path, target, data=self.judged[:1], min_sqnr_db=0, force=True, **options
        )
        return self.row(name, target)

    def clipped(self, table: RangeTable) -> list[Clipped]:
        """Return the share of held-out values outside of their ranges, by linear and iteration."""
        graph = self.graph.clone()
        apply_smoothing(graph, table.factors())
        treated = {
            item.name: item.treatment
            for item in Recipe(scheme="static", table=table).apply(self.graph.clone()).treatments
        }
        names = [f"{name}.input" for name in table.tensors]
        path = self.folder / "probed.onnx"
        write_artifact(probe(graph, names), path, force=True)
        session = loopedge.Session(path, threads=1)
        parts = [stack_probed(session.run(feeds), names) for feeds in self.judged]
        found = []
        for name, known in table.tensors.items():
            low, high = np.array(known.low)[:, None], np.array(known.high)[:, None]
            outside, count = np.zeros(len(low)), 0
            for feeds, part in zip(self.judged, parts, strict=True):
                rows = read_positions(part[f"{name}.input"], feeds.get(MASK))
                flat = rows.reshape(len(rows), -1)
                outside += ((flat < low) | (flat > high)).sum(axis=1)
                count += flat.shape[1]
            shares = (outside / count).tolist()
            found.append(Clipped(name, treated.get(name, "static"), shares))
        return found


def read_positions(rows: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    """Leave padded positions out of what a linear read, (iterations, batch, sequence, ...)."""
    if mask is None or rows.shape[1:3] != mask.shape:
        return rows
    return rows[:, mask.astype(bool)]


def measure(bench: HeldOut) -> tuple[list[Row], list[Clipped]]:
    """Quantize in every way and judge."""
    seven = {"reduce_range": no_vnni()}
    rows = [bench.row("float", bench.path)]
    table = loopedge_calibration.collect(bench.path, bench.calibration)
    rows.append(bench.quantized("static", ranges=table, **seven))
    whole = loopedge_calibration.collect(bench.path, bench.calibration, as_core=["all"])
    rows.append(bench.quantized("static, uniform", ranges=whole, as_core=["all"], **seven))
    rows.append(bench.quantized("dynamic", scheme="dynamic", **seven))
    rows += [bench.quantized(name, scheme=name) for name in ("weight-int8", "weight-int4")]
    return rows, bench.clipped(table)


def missed(rows: list[Row]) -> list[str]:
    """Return the bounds that static int8 misses."""
    found = {row.name: row for row in rows}
    static, uniform = found["static"], found["static, uniform"]
    bounds = {
        f"metric within {METRIC_SHARE:.0%} of float's": static.share <= METRIC_SHARE,
        f"SQNR within {SQNR_DB:g} dB of dynamic": static.sqnr_db
        >= found["dynamic"].sqnr_db - SQNR_DB,
        "file no larger than uniform": static.file_bytes <= BYTES_SHARE * uniform.file_bytes,
    }
    return [name for name, held in bounds.items() if not held]


def tables(bench: HeldOut, rows: list[Row], clipped: list[Clipped]) -> list[str]:
    """Return Markdown."""
    metric = bench.subject.task.metric
    lines = [
        f"### {bench.subject.name}",
        "",
        f"| | {metric} | worse by | SQNR dB | file, bytes |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        sqnr = "" if row.name == "float" else f"{row.sqnr_db:.1f}"
        lines.append(
            f"| {row.name} | {row.metric:.4f} | {row.share:+.2%} | {sqnr} | {row.file_bytes:,} |"
        )
    lines += [
        "",
        "| linear | treatment | held-out values outside of the range, worst iteration |",
    ]
    lines.append("|---|---|---|")
    for item in clipped:
        worst = int(np.argmax(item.shares))
        where = f", iteration {worst}" if len(item.shares) > 1 else ""
        lines.append(f"| {item.name} | {item.treatment} | {item.shares[worst]:.2%}{where} |")
    return [*lines, "", *(f"FAIL: {name}" for name in missed(rows)), ""]


def judge(subject: Subject, folder: Path) -> tuple[list[str], dict[str, Any], bool]:
    """Return the tables of a model, their figures, and whether all bounds were held."""
    bench = HeldOut(subject, folder)
    rows, clipped = measure(bench)
    figures = {
        "rows": [asdict(row) for row in rows],
        "clipped": [asdict(item) for item in clipped],
    }
    return tables(bench, rows, clipped), figures, not missed(rows)


def write_results(output: Path, lines: list[str], figures: dict[str, Any]) -> None:
    """Write held_out.md and held_out.json."""
    output.mkdir(parents=True, exist_ok=True)
    bits = "seven bits, for this processor has no VNNI" if no_vnni() else "eight bits"
    head = f"Weights of static and dynamic in {bits}. {CALIBRATED} samples of the training part calibrate."
    (output / "held_out.md").write_text("\n".join([head, "", *lines]), encoding="utf-8")
    content = json.dumps(figures, indent=1) + "\n"
    (output / "held_out.json").write_text(content, encoding="utf-8")


def no_vnni() -> bool:
    """Tell whether products of eight bits may overflow here."""
    features = this_processor().features
    return bool(features) and FAST_INT8.isdisjoint(features)


def main() -> int:
    """Train, quantize, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for held_out.md and held_out.json")
    parser.add_argument("--models", type=Path, help="keep the trained models here")
    arguments = parser.parse_args()
    lines, figures, held = list[str](), dict[str, Any](), True
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.models or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for subject in (sorting(), edit_distance(), sentences(folder), sunspots(), trend(folder)):
            part, figures[subject.name], kept = judge(subject, folder)
            print("\n".join(part), flush=True)
            lines, held = [*lines, *part], held and kept
    if arguments.output:
        write_results(arguments.output, lines, figures)
    return 0 if held else 4


if __name__ == "__main__":
    sys.exit(main())
