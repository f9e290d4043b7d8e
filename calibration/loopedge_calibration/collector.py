"""Run a float model on samples and find the ranges of what its linears read."""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError, UntrainedWarning
from loopedge.files.scratch import never_named
from loopedge.graph.core.cores import Cores
from loopedge.options import with_keywords
from loopedge.quantizer.activations.ranges import (
    Granularity,
    RangeTable,
    TensorRange,
    weights_sha256,
)
from loopedge.quantizer.activations.smoothing import (
    SmoothingGroup,
    apply_smoothing,
    best_factors,
    smoothable,
)
from loopedge.quantizer.named_linears import core_like_nodes
from loopedge.quantizer.options import Data
from loopedge.quantizer.recipe import check_one_loop
from loopedge.quantizer.schemes.rule import Observing, observed_by
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.histogram import RowHistograms
from loopedge_calibration.loop_counts import LoopCounts
from loopedge_calibration.observers import expected_noise, find_ranges
from loopedge_calibration.options import CollectKeywords, CollectOptions
from loopedge_calibration.probes import Probes
from loopedge_calibration.readers import SampleBatch
from loopedge_calibration.samples import Part, all_samples, fixed_batch, survey_of
from loopedge_calibration.survey import Survey, sample_digests

__all__ = ["Observations", "collect", "collect_ranges", "held_out_parts", "observe"]

FEW_SAMPLES = 16
LARGEST = float(np.finfo(np.float32).max)
UNJUDGED = (
    "one sample, or one batch of a fixed size, leaves nothing to judge by: auto took a range per "
    "iteration for every tensor"
)
HELD_OUT = 4
"""With ``auto``, a quarter of the samples judges the ranges that the others gave."""

RANKED = 64
"""Fewer samples are divided by rank, so that some judge; of more, some do by chance alone (all but one time in 10^8)."""


def collect(
    model: str | Path,
    data: Data,
    *,
    options: CollectOptions | None = None,
    **keywords: Unpack[CollectKeywords],
) -> RangeTable:
    """Find the ranges of the activations that the linears of a model read.

    Args:
        model: Float artifact, loop or unrolled.
        data: As `loopedge.quantize` takes it: ``.npz``, a folder of them, ``.npy`` or a CSV; arrays by
            input, the first axis the samples; or an iterable of such batches, which is read into memory.
        options: The keywords below as one object, `loopedge_calibration.options.CollectOptions`; a
            keyword wins over the object's field.

    Keyword Args:
        granularity: ``per-iteration`` (default): one range per iteration of the core; ``shared``: one
            for all; ``auto``: per tensor whichever does better on a held-out quarter of the data.
        method: ``mse`` (default), ``minmax``, ``percentile`` or ``entropy``, for the linears of the core; those of
            prelude and coda have the smallest and largest value, and a margin.
        as_core: Linears whose ranges are found as the core's, wherever they stand; ``all``: every one.
        smoothing: First move outlier channels into the weights, where that lessens the expected
            error; takes a second pass over the data. Default: True.
        samples: At most as many samples are run, evenly spread over the data; default: all.
        loops: Iterations, for a model with a selectable count; default: the exported one.
        threads: Threads of ONNX Runtime.
        chunk_bytes: Most bytes of probed activations at once; default: 256 MiB.

    Returns:
        The table, with warnings about the data.

    Raises:
        InputError: The model, an option or the data cannot be used.
    """
    chosen = with_keywords("collect", CollectOptions, options, keywords)
    source = FloatSource.open(model)
    part = all_samples(data, source.graph, chosen.samples, loops=chosen.loops)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)  # the table's warnings say it
        return collect_ranges(source, part, chosen)


def collect_ranges(source: FloatSource, part: Part, options: CollectOptions) -> RangeTable:
    """Find ranges as `collect`, of a model that is open, on samples that were chosen.

    Raises:
        InputError: The model or a sample cannot be used, as `collect`.
    """
    smoothing = options.smoothing is not False
    observations = observe(source, part, options, plain=not smoothing, smoothed=smoothing)
    return observations.table(options.granularity, options.method, smoothing=smoothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What the passes over the data saw: ranges of every kind are found on it, without another pass.

    Attributes:
        source: The float model.
        as_core: Linears that are treated as the core's.
        seen: The samples that passed.
        notes: What a person should know of them.
        plain: What the linears read in the model as it is; None where that was not looked at.
        smoothed: What they read in the smoothed one; likewise.
        factors: By which channels are divided there; empty where nothing gains by it, and both are the same.
    """

    source: FloatSource
    as_core: Sequence[str]
    seen: Survey
    notes: Sequence[str]
    plain: "_Observed | None"
    smoothed: "_Observed | None"
    factors: Mapping[str, npt.NDArray[np.float32]]

    def table(self, granularity: Granularity, method: str, *, smoothing: bool) -> RangeTable:
        """Return the ranges that a method finds; those of a smoothed model hold its factors."""
        observed = self.smoothed if smoothing else self.plain
        if observed is None:
            raise ValueError("the model was not looked at so")
        factors = self.factors if smoothing else {}
        as_core = core_like_nodes(self.source.graph, self.as_core)
        observing = observed_by(self.source.graph, method, as_core=as_core)
        tensors = {
            name: item.model_copy(
                update={"smoothing": factors[name].tolist()} if name in factors else {}
            )
            for name, item in observed.ranges(granularity, observing).items()
        }
        table = RangeTable(
            weights_sha256=weights_sha256(self.source.graph),
            loops=next(iter(observed.cores.values()), 1),
            cores=observed.cores if len(observed.cores) > 1 else {},
            granularity=granularity,
            method=method,
            samples=self.seen.samples,
            data_sha256=self.seen.sha256,
            lengths=sorted(self.seen.lengths),
            tensors=tensors,
        )
        warnings = [*self.notes, *_warnings(table, self.source.metadata.trained_length)]
        warnings += observed.unseen()
        repeats = any(count > 1 for count in observed.cores.values())
        if granularity == "auto" and repeats and not observed.any_judged:
            warnings.append(UNJUDGED)
        return table.model_copy(update={"warnings": warnings})


def observe(
    source: FloatSource,
    part: Part,
    options: CollectOptions,
    *,
    plain: bool,
    smoothed: bool,
    go_on: Callable[[], bool] = lambda: True,
) -> Observations:
    """Pass over the samples, twice where the model is smoothed: the first pass finds its factors.

    Args:
        source: The float model.
        part: The samples.
        options: How many linears are looked at at once, and whether some samples judge the ranges of the others.
        plain: Look at the model as it is.
        smoothed: Look at the smoothed one.
        go_on: Asked between the two passes; where it says no, there is none with smoothing, if both were to be.

    Raises:
        InputError: As `collect`.
    """
    if source.metadata.quantization is not None:
        raise InputError(f"{source.path} is quantized already", hint="loopedge export model.pt")
    check_one_loop(source.graph, source.path)
    seen = survey_of(source.graph)
    for batch in part:
        seen.note(batch)
    notes = seen.check()
    graph, largest = source.graph, _Largest(smoothable(source.graph) if smoothed else {})
    first: _Observed | None = None
    second: _Observed | None = None
    if plain:
        first = _observe(graph, iter(part), options, note=largest.note)
    elif smoothed:
        largest.run(graph, iter(part), options)
    factors = largest.factors()
    if smoothed and (first is None or go_on()):
        if factors or first is None:
            graph = graph.clone()
            apply_smoothing(graph, factors)
            second = _observe(graph, iter(part), options)
        else:  # nothing is divided: it is the model as it is
            second = first
    return Observations(
        source=source,
        as_core=options.as_core,
        seen=seen,
        notes=notes,
        plain=first,
        smoothed=second,
        factors=factors,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observed:
    """What the linears read, by their names: what ranges are fitted on, and what judges them.

    ``repeated`` are those that run once per iteration, each with its core, and ``cores`` how often these run; a Loop
    that ends itself may have run fewer on these samples.
    """

    fitted: dict[str, RowHistograms]
    judged: dict[str, RowHistograms]
    any_judged: bool
    repeated: dict[str, str]
    cores: dict[str, int]

    def unseen(self) -> list[str]:
        """Say that no sample reached the last iterations."""
        notes = []
        for core, count in self.cores.items():
            own = (found for name, found in self.fitted.items() if self.repeated.get(name) == core)
            ran = max((found.rows for found in own), default=count)
            if ran < count:
                place = f" of {core}" if len(self.cores) > 1 else ""
                notes.append(
                    f"the samples ran {ran} of {count} iterations{place}: the others have the ranges of the last "
                    "that ran"
                )
        return notes

    def ranges(
        self, granularity: Granularity, observing: Mapping[str, Observing]
    ) -> dict[str, TensorRange]:
        """Return the range of each linear; an iteration that no sample reached has that of the last one before it."""
        found = {}
        for name, fitted in self.fitted.items():
            judged = self.judged[name].first(fitted.rows)
            item = _range(fitted, judged, granularity, observing[name])
            core = self.repeated.get(name)
            missing = 0 if core is None else self.cores[core] - fitted.rows
            ends = {"low": item.low, "high": item.high}
            found[name] = item.model_copy(
                update={end: [*row, *row[-1:] * missing] for end, row in ends.items()}
            )
        return found


def _observe(
    graph: ir.Model,
    batches: Iterator[SampleBatch],
    options: CollectOptions,
    note: "Callable[[str, npt.NDArray[np.float32]], None]" = lambda name, values: None,
) -> _Observed:
    """Run the model on the data; with ``auto`` a part of it is held out. ``note`` takes what each linear reads."""
    any_fitted = any_judged = False
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), "the model"),
    ):
        probes = Probes(graph, Path(folder), options)
        fitted, judged = probes.histograms(), probes.histograms()
        parts = (
            held_out_parts(
                batches,
                fixed=fixed_batch(graph) is not None,
                counts=LoopCounts.of(graph, None).specs,
            )
            if options.granularity == "auto"
            else ((batch, False) for batch in batches)
        )
        for batch, held_out in parts:
            any_fitted, any_judged = any_fitted or not held_out, any_judged or held_out
            for name, values in probes.run(batch):
                (judged if held_out else fitted)[name].update(values)
                note(name, values)
        repeated = probes.repeated
    if not any_fitted:  # all samples are the same, and were all held out
        fitted, judged, any_judged = judged, fitted, False
    seen: dict[str, int] = {}
    for name, core in repeated.items():
        seen[core] = max(seen.get(core, 1), fitted[name].rows)
    return _Observed(
        fitted=fitted,
        judged=judged,
        any_judged=any_judged,
        repeated=repeated,
        cores={
            name: known or max(seen.get(name, 1), options.loops or 1)
            for name, known in Cores(graph).iterations.items()
        },
    )


def held_out_parts(
    batches: Iterator[SampleBatch], *, fixed: bool, counts: Collection[str] = ()
) -> Iterator[tuple[SampleBatch, bool]]:
    """Yield the samples in batches, and whether each batch judges the ranges that the others give.

    A quarter of the samples judges. Which do is told by what they hold, not by when they come: those whose hash is
    divisible by four; where all data is fewer than `RANKED` samples, every fourth in the order of their hashes, of fewer than
    four the last. Batches that cannot be cut are taken whole, as one sample is; where there is one of all, nothing
    judges.

    Args:
        batches: Samples that run together.
        fixed: The model takes batches of one size alone.
        counts: Inputs that count iterations: they are of no sample.
    """
    first: list[_Hashed] = []
    for hashed in (whole := (_hashed(batch, fixed, counts) for batch in batches)):
        first.append(hashed)
        if sum(len(each.hashes) for each in first) >= RANKED:
            for each in chain(first, whole):
                yield from each.parts({number for number in each.hashes if number % HELD_OUT == 0})
            return
    ranked = sorted(number for each in first for number in each.hashes)
    judging = ranked[HELD_OUT - 1 :: HELD_OUT] if len(ranked) >= HELD_OUT else ranked[1:][-1:]
    for each in first:
        yield from each.parts(set(judging))


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A batch, with a number for each of its samples; one number where it cannot be cut."""

    batch: SampleBatch
    hashes: list[int]

    def parts(self, judging: set[int]) -> Iterator[tuple[SampleBatch, bool]]:
        """Yield the samples that do not judge, and those that do."""
        held_out = np.array([number in judging for number in self.hashes])
        if len(set(held_out.tolist())) == 1:
            yield self.batch, bool(held_out[0])
            return
        for judges in (False, True):
            rows = held_out == judges
            if rows.any():
                yield self.batch.rows(rows), judges


def _hashed(batch: SampleBatch, fixed: bool, counts: Collection[str]) -> _Hashed:
    digests = sample_digests({n: array for n, array in batch.feeds.items() if n not in counts})
    if fixed and len(digests) > 1:
        digests = [hashlib.sha256(b"".join(digests)).digest()]
    return _Hashed(batch, [int.from_bytes(digest[:8], "little") for digest in digests])


class _Largest:
    """The largest magnitude of every channel, of what the first linears of groups read: it chooses their factors."""

    def __init__(self, groups: Mapping[str, SmoothingGroup]) -> None:
        self._groups = groups
        self._found: dict[str, npt.NDArray[np.float32]] = {}

    def note(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Count what a linear read, float32 (rows, ..., channels)."""
        if name in self._groups:
            rows = np.abs(values.reshape(len(values), -1, values.shape[-1])).max(axis=1)
            self._found[name] = _largest(self._found.get(name, rows), rows)

    def run(self, graph: ir.Model, batches: Iterator[SampleBatch], options: CollectOptions) -> None:
        """Pass over the data for them alone."""
        with (
            tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
            never_named(Path(folder), "the model"),
        ):
            probes = Probes(graph, Path(folder), options)
            for batch in batches:
                for name, values in probes.run(batch):
                    self.note(name, values)

    def factors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the factors of the groups that gain by them."""
        chosen = {
            name: best_factors(self._groups[name], rows) for name, rows in self._found.items()
        }
        return {name: factors for name, factors in chosen.items() if (factors != 1).any()}


def _largest(
    known: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the larger of two magnitudes, (iterations, channels); one of them may have run fewer iterations."""
    longer, shorter = (known, rows) if len(known) >= len(rows) else (rows, known)
    both = longer.copy()
    both[: len(shorter)] = np.maximum(longer[: len(shorter)], shorter)
    return both


def _range(
    fitted: RowHistograms, judged: RowHistograms, granularity: Granularity, by: Observing
) -> TensorRange:
    own = _found(fitted, by, rows=fitted.rows)
    if granularity == "per-iteration" or (granularity == "auto" and fitted.rows == 1):
        return own
    together = _found(fitted.pooled(), by, rows=fitted.rows)
    shared = together.model_copy(update={"shared": True})
    if granularity == "shared":
        return shared
    errors = [
        expected_noise(judged, np.array(item.low), np.array(item.high)).sum()
        for item in (own, together)
    ]
    return shared if errors[1] < errors[0] else own


def _found(histograms: RowHistograms, by: Observing, *, rows: int) -> TensorRange:
    """Return ranges, those of one row of histograms for all rows."""
    low, high = (
        np.broadcast_to((ends * by.margin).clip(-LARGEST, LARGEST), (rows,))
        for ends in find_ranges(histograms, by.method)
    )
    return TensorRange(low=low.tolist(), high=high.tolist(), method=by.method, margin=by.margin)


def _warnings(table: RangeTable, trained_length: int | None) -> list[str]:
    warnings = []
    if table.samples < FEW_SAMPLES:
        warnings.append(
            f"{table.samples} {'sample is' if table.samples == 1 else 'samples are'} few for ranges per iteration, "
            f"{FEW_SAMPLES} or more are advised"
        )
    if trained_length and table.lengths and max(table.lengths) < trained_length:
        warnings.append(
            f"the longest sample has {max(table.lengths)} positions, the model was trained for "
            f"{trained_length}: longer inputs may leave the ranges"
        )
    shared = [name for name, item in table.tensors.items() if item.shared]
    if table.granularity == "auto" and shared:
        warnings.append(f"a shared range did better on held-out data for: {', '.join(shared)}")
    return warnings
