"""Does the cosine of the recurrent state to the float model's say how much a metric loses, without labels?

arXiv 2606.26488 finds so on two recursive reasoners. Here on four trained models (sorting without norms, sorting,
edit distance, sunspots), each damaged in some fifty ways: every scheme and kind of ranges, fewer bits, noise on the weights
of one linear, of the core or outside of it, and ranges or timestep rows that are wrong in a single iteration. For each way:
the loss of the task's metric on held-out samples, and what can be known without labels, from the outputs (SQNR) and from the states
(cosines by iteration, as `loopedge quantize` measures them, on eight batches). Spearman's rank correlation of each with the loss, and
how well each tells a loss beyond the metric's noise from none (area under the ROC curve; 0.5 is chance).

    python benchmarks/int8/state_fidelity.py [--output benchmarks/results/int8] [--models FOLDER]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from held_out import edit_distance, no_vnni
from numpy.typing import NDArray
from plain_looped import PlainSorting
from subjects import Subject, plain_sorting, sorting, sunspots

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import write_scratch
from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.offsets import output_offsets
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.smoothing import rescaled_products
from loopedge.quantizer.held_out.samples import HeldOut, Judge
from loopedge.quantizer.held_out.significance import loss_error, moved
from loopedge.quantizer.noise import QuantizationNoise, measure_noise
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.tasks.metrics import Tally

CALIBRATED, JUDGED, BATCH = 64, 512, 16
EDIT_STEPS = 1500
NOISES = (0.1, 0.5, 1.5)
"""Standard deviation of noise on a weight, in parts of the weight's own."""
ROW_NOISES = (0.3, 1.0)
"""The same of one row of the timestep tables."""
WIDTHS = {"narrow": 0.2, "wide": 32.0}
"""Factors of the ranges of one iteration: values are cut off, or rounded coarsely."""
CODA = "on coda/"
BITS = (6, 4, 3, 2)

Array = NDArray[Any]
Feeds = dict[str, Array]

LABEL_FREE: dict[str, Callable[["Way"], float]] = {
    "worst sample's cosine, last iteration": lambda way: 1 - way.worst[-1],
    "mean cosine, last iteration": lambda way: 1 - way.mean[-1],
    "worst sample's cosine, worst iteration": lambda way: 1 - min(way.worst),
    "mean cosine over all iterations": lambda way: 1 - float(np.mean(way.mean)),
    "SQNR of the last state": lambda way: -way.state_db,
    "SQNR of the outputs": lambda way: -way.sqnr_db,
}
"""What is known without labels; each is larger where it expects more damage."""


@dataclass(frozen=True)
class Way:
    """One way to damage a model: what is known without labels, and by how much its metric is worse."""

    name: str
    mean: list[float]
    worst: list[float]
    state_db: float
    sqnr_db: float
    score: float
    loss: float
    moved: bool


class Bench:
    """A trained model, the samples that judge, and what the float model answers on them."""

    def __init__(self, subject: Subject | PlainSorting, models: Path, folder: Path) -> None:
        self.name, self.folder, self.task = subject.name, folder, subject.task
        path = folder / "float.onnx"
        subject.export(models, path)
        self.source = FloatSource.open(path)
        self.graph = self.source.graph
        names = [value.name or "" for value in self.graph.graph.inputs]
        batches = list(subject.task.evaluation("test", BATCH, JUDGED))
        self.feeds: list[Feeds] = [batch.feeds(names) for batch in batches]
        self.judge = Judge(task=subject.task, batches=batches)
        held_out = HeldOut(kind="data", batches=self.feeds, places=[()] * len(batches))
        self.few = held_out.few()
        drawn = (subject.task.batch("train", 8, 10_000 + step) for step in range(CALIBRATED // 8))
        self.calibration: list[Feeds] = [batch.feeds(names) for batch in drawn]
        self.exact = self._run(self.graph)

    def _run(self, graph: ir.Model) -> list[dict[str, Array]]:
        path = self.folder / "judged.onnx"
        write_scratch(graph, path)
        session = loopedge.Session(path, threads=1)
        return [session.run(feeds) for feeds in self.feeds]

    @cached_property
    def _exact_tallies(self) -> list[Tally]:
        return [self.judge.tally(number, exact) for number, exact in enumerate(self.exact)]

    def judged(self, name: str, given: ir.Model, noise: QuantizationNoise) -> Way:
        """Run a damaged model on all samples."""
        outputs, ratio = self._run(given), NoiseRatio()
        offsets = output_offsets(self.graph)
        for feeds, exact, each in zip(self.feeds, self.exact, outputs, strict=True):
            mask = feeds.get("attention_mask")
            for output, values in exact.items():
                kept = at_kept(values, mask), at_kept(each[output], mask)
                ratio.add(*kept, offsets.get(output))
        tallies = [self.judge.tally(number, each) for number, each in enumerate(outputs)]

        def loss(one: list[Tally], other: list[Tally]) -> float:
            return self.judge.loss(self.judge.score(one), self.judge.score(other))

        lost = loss(self._exact_tallies, tallies)
        error = loss_error(self._exact_tallies, tallies, loss)
        state = noise.states[0]
        return Way(
            name=name,
            mean=[value or 0.0 for value in state.mean],
            worst=[value or 0.0 for value in state.worst],
            state_db=noise.per_iteration_db[-1],
            sqnr_db=ratio.db,
            score=self.judge.score(tallies),
            loss=lost,
            moved=moved(lost, error, self.float_score, batches=len(tallies)),
        )

    @cached_property
    def float_score(self) -> float:
        """The metric in float."""
        return self.judge.score(self._exact_tallies)

    def quantized(self, name: str, recipe: Recipe) -> Way:
        """Quantize by a recipe, and judge."""
        given = self.graph.clone()
        rewritten = recipe.apply(given)
        factors = recipe.table.factors() if recipe.table else {}
        noise = self._noise(given, rescaled_products(self.graph, factors), rewritten.moved)
        return self.judged(name, given, noise)

    def damaged(self, name: str, weights: Mapping[str, Array]) -> Way:
        """Replace weights of the float model, and judge."""
        given = self.graph.clone()
        for key, array in weights.items():
            changed = np.ascontiguousarray(array, np.float32)
            given.graph.initializers[key].const_value = ir.tensor(changed, name=key)
        return self.judged(name, given, self._noise(given, set(), {}))

    def _noise(
        self, given: ir.Model, rescaled: set[str], moved_values: Mapping[str, str]
    ) -> QuantizationNoise:
        return measure_noise(
            self.graph,
            given,
            self.folder,
            inputs=self.few,
            random_rows=False,
            rescaled=rescaled,
            moved=moved_values,
            threads=1,
        )

    def ranges(self, **options: Any) -> RangeTable:
        """Calibrate."""
        path = self.source.path
        return loopedge_calibration.collect(path, self.calibration, threads=1, **options)


def shorter(subject: Subject) -> Subject:
    """Return edit distance, trained for fewer steps."""
    name = f"{subject.name}, {EDIT_STEPS} steps"
    return replace(subject, name=name, training=subject.training | {"steps": EDIT_STEPS})


def ways(bench: Bench) -> Iterator[Way]:
    """Damage a model in every way."""
    yield from schemes(bench)
    yield from single_iterations(bench)
    yield from noises(bench)


def schemes(bench: Bench) -> Iterator[Way]:
    """Quantize with every scheme, kind of ranges and block size, and to fewer bits per output channel."""
    seven = no_vnni()
    yield bench.quantized("dynamic", Recipe(scheme="dynamic", reduce_range=seven))
    yield bench.quantized("dynamic, seven bits", Recipe(scheme="dynamic", reduce_range=True))
    for granularity in ("per-iteration", "shared"):
        for method in ("mse", "minmax"):
            for smoothing in (True, False):
                table = bench.ranges(granularity=granularity, method=method, smoothing=smoothing)
                name = f"static, {granularity}, {method}{', smoothed' if smoothing else ''}"
                yield bench.quantized(
                    name, Recipe(scheme="static", table=table, reduce_range=seven)
                )
    for scheme, sizes in (("weight-int8", (32, 128)), ("weight-int4", (16, 32, 64, 128))):
        for size in sizes:
            yield bench.quantized(f"{scheme}, {size}", Recipe(scheme=scheme, block_size=size))
    items = linears(bench.graph)
    for bits in BITS:
        weights = {stored(item): rounded(array_of(item), bits) for item in items}
        yield bench.damaged(f"{bits} bits per output", weights)


def single_iterations(bench: Bench) -> Iterator[Way]:
    """Give one iteration wrong ranges, or wrong timestep rows."""
    table = bench.ranges(smoothing=False)
    loops, generator = table.loops, np.random.default_rng(1)
    core = next(iter(Cores(bench.graph)))
    rows = {name: array_of(value) for name, value in core.tables.items()}
    for t in (0, loops // 2, loops - 1):
        for word, factor in WIDTHS.items():
            tensors = {
                name: item if len(item.low) == 1 else scaled(item, t, factor)
                for name, item in table.tensors.items()
            }
            wrong = table.model_copy(update={"tensors": tensors})
            recipe = Recipe(scheme="static", table=wrong, reduce_range=no_vnni())
            yield bench.quantized(f"ranges {word} in iteration {t}", recipe)
        for amount in ROW_NOISES if rows else ():
            changed = {name: array.copy() for name, array in rows.items()}
            for array in changed.values():
                array[t] += amount * array.std() * generator.normal(size=array[t].shape)
            yield bench.damaged(f"noise {amount:g} on timestep rows {t}", changed)


def scaled(item: Any, t: int, factor: float) -> Any:
    """Return a range of the core with one iteration's narrowed or widened."""
    low, high = list(item.low), list(item.high)
    low[t], high[t] = low[t] * factor, high[t] * factor
    return item.model_copy(update={"low": low, "high": high})


def noises(bench: Bench) -> Iterator[Way]:
    """Add noise to the weights of one linear at a time."""
    generator = np.random.default_rng(2)
    for item in linears(bench.graph):
        weight = array_of(item)
        for amount in NOISES:
            wrong = weight + amount * weight.std() * generator.normal(size=weight.shape)
            yield bench.damaged(
                f"noise {amount:g} on {loop_name(item.node)}", {stored(item): wrong}
            )


def stored(item: Linear) -> str:
    """Name the weight of a linear."""
    return item.weight.name or ""


def array_of(item: Linear | ir.Value) -> Array:
    """Return the weight of a linear, or a stored value."""
    value = item if isinstance(item, ir.Value) else item.weight
    assert value.const_value is not None
    return value.const_value.numpy()


def rounded(weight: Array, bits: int) -> Array:
    """Round a weight [in, out] to nearest, symmetric, with a scale per output."""
    scale = np.abs(weight).max(axis=0, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.asarray(np.rint(weight / np.maximum(scale, 1e-12)) * scale)


def ranks(values: Sequence[float]) -> Array:
    """Return ranks from 0; equal values share the mean of theirs."""
    array = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return (ends - (counts + 1) / 2)[inverse]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the rank correlation of two lists."""
    first, second = (ranks(values) - (len(values) - 1) / 2 for values in (one, other))
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def area(values: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the share of pairs, one positive and one not, in which the positive one has the larger value."""
    chosen = np.asarray(positive, bool)
    count, others = int(chosen.sum()), int((~chosen).sum())
    if not count or not others:
        return float("nan")
    return float((ranks(values)[chosen].sum() - count * (count - 1) / 2) / (count * others))


def correlations(found: Mapping[str, Sequence[Way]]) -> list[str]:
    """Return the Markdown table of what predicts the loss, model by model and over all of them."""
    lines = [
        f"| | {' | '.join(found)} | median | all as one, AUC |",
        f"|---|{'---|' * len(found)}---|---|",
    ]
    everything = [way for own in found.values() for way in own]
    for name, value in LABEL_FREE.items():
        each = [
            spearman([value(way) for way in own], [way.loss for way in own])
            for own in found.values()
        ]
        areas = [
            area([value(way) for way in own], [way.moved for way in own]) for own in found.values()
        ]
        cells = [f"{rho:.2f} ({auc:.2f})" for rho, auc in zip(each, areas, strict=True)]
        middle = f"{np.median(each):.2f} ({np.nanmedian(areas):.2f})"
        pooled = area([value(way) for way in everything], [way.moved for way in everything])
        lines.append(f"| {name} | {' | '.join(cells)} | {middle} | {pooled:.2f} |")
    return [*lines, ""]


def table_of(bench: Bench, found: Sequence[Way]) -> list[str]:
    """Return the Markdown table of all ways of one model, the least damaging first."""
    metric = bench.task.metric
    lines = [
        f"### {bench.name}",
        "",
        f"{metric} in float: {bench.float_score:.4f}",
        "",
        f"| way | {metric} | worse by | beyond noise | cosine, last: mean | worst sample | SQNR of outputs, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {way.name} | {way.score:.4f} | {way.loss:+.4f} | {'yes' if way.moved else ''} | "
        f"{way.mean[-1]:.5f} | {way.worst[-1]:.5f} | {way.sqnr_db:.1f} |"
        for way in sorted(found, key=lambda way: way.loss)
    ]
    return [*lines, ""]


HEAD = f"""# The state's cosine against the loss of a metric

`benchmarks/int8/state_fidelity.py`: loss of the metric on {JUDGED} held-out samples, one thread. Rank correlation (Spearman) with
the loss over all ways to damage a model; in brackets how often a way whose loss is beyond the metric's noise has the larger value than
one whose loss is not (AUC; 0.5 is chance). The last column takes the ways of all models as one list: does one threshold hold for all of them?
"""


def page_of(found: Mapping[str, Sequence[Way]], tables: Sequence[str]) -> str:
    """Return the page: what predicts the loss, then the tables of all models."""
    damaged = ", ".join(
        f"{key} {sum(way.moved for way in own)} of {len(own)}" for key, own in found.items()
    )
    behind = {key: [way for way in own if CODA not in way.name] for key, own in found.items()}
    page = [
        HEAD,
        *correlations(found),
        "Without noise on the coda, which no state can show:",
        "",
        *correlations(behind),
        f"Ways beyond the noise: {damaged}.",
        "",
        *tables,
    ]
    return "\n".join(page).rstrip() + "\n"


def main() -> None:
    """Train, damage, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for state_fidelity.md")
    parser.add_argument("--models", type=Path, help="keep the trained models here")
    arguments = parser.parse_args()
    found: dict[str, list[Way]] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        models = arguments.models or Path(name)
        models.mkdir(parents=True, exist_ok=True)
        for subject in (plain_sorting(), sorting(), shorter(edit_distance()), sunspots()):
            begun = time.perf_counter()
            bench = Bench(subject, models, Path(name))
            found[bench.name] = list(ways(bench))
            lines += table_of(bench, found[bench.name])
            print(f"{bench.name}: {time.perf_counter() - begun:.0f} s", flush=True)
    page = page_of(found, lines)
    print(page)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "state_fidelity.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
