"""Run a float model on samples and find the ranges of what its linears read."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.artifact import write_scratch
from loopedge.errors import InputError
from loopedge.files.scratch import never_named
from loopedge.graph.core.names import loop_name
from loopedge.graph.core.probe import activation_of, probe, stack_probed
from loopedge.graph.core.view import view_core
from loopedge.graph.inputs import axes_of
from loopedge.graph.weights import Linear, linears
from loopedge.options import with_keywords
from loopedge.quantizer.activations.ranges import (
    Granularity,
    RangeTable,
    TensorRange,
    weights_sha256,
)
from loopedge.quantizer.activations.smoothing import apply_smoothing, best_factors, smoothable
from loopedge.quantizer.options import Data
from loopedge.quantizer.recipe import check_one_loop
from loopedge.quantizer.source import FloatSource
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge_calibration.histogram import RowHistograms
from loopedge_calibration.observers import expected_noise, find_ranges
from loopedge_calibration.options import CollectKeywords, CollectOptions
from loopedge_calibration.readers import Feeds, SampleBatch
from loopedge_calibration.samples import Part, all_samples, survey_of

__all__ = ["collect", "collect_ranges", "held_out_parts"]

FEW_SAMPLES = 16
UNJUDGED = (
    "one sample, or one batch of a fixed size, leaves nothing to judge by: auto took a range per "
    "iteration for every tensor"
)
HELD_OUT = 4
"""With ``auto``, every fourth batch judges the ranges that the others gave, of fewer every fourth sample."""


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
        method: ``mse`` (default), ``minmax``, ``percentile`` or ``entropy``.
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
    return collect_ranges(source, all_samples(data, source.graph, chosen.samples), chosen)


def collect_ranges(source: FloatSource, part: Part, options: CollectOptions) -> RangeTable:
    """Find ranges as `collect`, of a model that is open, on samples that were chosen.

    Raises:
        InputError: The model or a sample cannot be used, as `collect`.
    """
    if source.metadata.quantization is not None:
        raise InputError(f"{source.path} is quantized already", hint="loopedge export model.pt")
    check_one_loop(source.graph, source.path)
    graph, factors = source.graph, {}
    seen = survey_of(source.graph)
    for batch in part:
        seen.note(batch)
    warnings = seen.check()
    if options.smoothing is not False:
        factors = _find_factors(graph, iter(part), options)
        graph = graph.clone()
        apply_smoothing(graph, factors)
    observed = _observe(graph, iter(part), options)
    tensors = {
        name: item.model_copy(
            update={"smoothing": factors[name].tolist()} if name in factors else {}
        )
        for name, item in observed.ranges(options).items()
    }
    table = RangeTable(
        weights_sha256=weights_sha256(source.graph),
        loops=observed.loops,
        granularity=options.granularity,
        method=options.method,
        samples=seen.samples,
        data_sha256=seen.sha256,
        lengths=sorted(seen.lengths),
        tensors=tensors,
    )
    warnings += _warnings(table, source.metadata.trained_length)
    if options.granularity == "auto" and observed.loops > 1 and not observed.any_judged:
        warnings.append(UNJUDGED)
    return table.model_copy(update={"warnings": warnings})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observed:
    """What the linears read, by their names: what ranges are fitted on, and what judges them."""

    fitted: dict[str, RowHistograms]
    judged: dict[str, RowHistograms]
    any_judged: bool
    loops: int

    def ranges(self, options: CollectOptions) -> dict[str, TensorRange]:
        """Return the range of each linear."""
        return {
            name: _range(self.fitted[name], self.judged[name], options.granularity, options.method)
            for name in self.fitted
        }


def _observe(graph: ir.Model, batches: Iterator[SampleBatch], options: CollectOptions) -> _Observed:
    """Run the model on the data; with ``auto`` a part of it is held out."""
    loops = _loops(graph, options)
    any_judged = False
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), "the model"),
    ):
        probes = Probes(graph, Path(folder), options)
        fitted, judged = probes.histograms(loops), probes.histograms(loops)
        parts = (
            held_out_parts(batches, fixed=_fixed_batch(graph))
            if options.granularity == "auto"
            else ((batch, False) for batch in batches)
        )
        for batch, held_out in parts:
            any_judged |= held_out
            for name, values in probes.run(batch):
                (judged if held_out else fitted)[name].update(values)
    return _Observed(fitted=fitted, judged=judged, any_judged=any_judged, loops=loops)


def _loops(graph: ir.Model, options: CollectOptions) -> int:
    return options.loops or view_core(graph).iterations or 1


def held_out_parts(
    batches: Iterator[SampleBatch], *, fixed: bool
) -> Iterator[tuple[SampleBatch, bool]]:
    """Yield batches, and whether each judges the ranges that the others give.

    Every fourth batch does. Of fewer batches every fourth sample does, of fewer samples the last. Batches that cannot
    be cut are taken whole, the last judges; where there is one of all, nothing judges.

    Args:
        batches: Samples that run together.
        fixed: The model takes batches of one size alone.
    """
    first = list(islice(batches, HELD_OUT))
    if len(first) == HELD_OUT:
        for step, batch in enumerate(chain(first, batches)):
            yield batch, step % HELD_OUT == HELD_OUT - 1
        return
    sizes = [{(*array.shape, 0)[0] for array in batch.feeds.values()} for batch in first]
    if fixed or any(len(found) != 1 for found in sizes):
        for step, batch in enumerate(first):
            yield batch, 0 < step == len(first) - 1
        return
    total, start = sum(map(max, sizes)), 0
    for batch, found in zip(first, sizes, strict=True):
        places = np.arange(start, start + max(found))
        start += max(found)
        judging = places % HELD_OUT == HELD_OUT - 1 if total >= HELD_OUT else places == total - 1
        for held_out in (False, True):
            rows = judging & (total > 1) if held_out else ~judging | (total == 1)
            if rows.any():
                yield batch.rows(rows), held_out


def _fixed_batch(model: ir.Model) -> bool:
    """Tell whether a model fixes the first axis of an input."""
    return any(
        sizes and isinstance(sizes[0], int)
        for name, sizes in axes_of(model).items()
        if name not in model.graph.initializers
    )


def _find_factors(
    graph: ir.Model, batches: Iterator[SampleBatch], options: CollectOptions
) -> dict[str, npt.NDArray[np.float32]]:
    """Pass over the data once for the largest magnitude of every channel; choose the factors."""
    groups = smoothable(graph)
    largest: dict[str, npt.NDArray[np.float32]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), "the model"),
    ):
        probes = Probes(graph, Path(folder), options)
        for batch in batches:
            for name, values in probes.run(batch):
                if name in groups:
                    rows = np.abs(values.reshape(len(values), -1, values.shape[-1])).max(axis=1)
                    largest[name] = np.maximum(largest.get(name, rows), rows)
    chosen = {name: best_factors(groups[name], rows) for name, rows in largest.items()}
    return {name: factors for name, factors in chosen.items() if (factors != 1).any()}


def linears_by_name(model: ir.Model) -> dict[str, Linear]:
    """Return every linear once, named as in the loop form: ``core.<t>/x`` is ``core/x``."""
    found: dict[str, Linear] = {}
    for item in linears(model):
        found.setdefault(loop_name(item.node), item)
    return found


class Probes:
    """Sessions that give what the linears read, a chunk of them at a time."""

    def __init__(self, model: ir.Model, folder: Path, options: CollectOptions) -> None:
        self._linears = linears_by_name(model)
        self._model, self._folder, self._options = model, folder, options
        self._twins = _same_activation(self._linears, model)
        self._sessions: list[tuple[list[str], Session]] = []

    def histograms(self, loops: int) -> dict[str, RowHistograms]:
        """Return an empty histogram per linear; those of the core have a row per iteration."""
        core = view_core(self._model)
        return {
            name: RowHistograms(loops if core.contains(item.node) else 1)
            for name, item in self._linears.items()
        }

    def run(self, batch: SampleBatch) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Run a batch; yield what each linear read, float32 (rows, ..., channels).

        Raises:
            InputError: What a linear reads is not finite.
        """
        feeds = batch.feeds
        if not self._sessions:
            self._open(feeds)
        mask = feeds.get(MASK)
        for names, session in self._sessions:
            given = session.run(feeds, loops=self._options.loops)
            rows = stack_probed(given, [f"{name}.input" for name in names])
            for name in names:
                _check_finite(rows[f"{name}.input"], mask, name, batch)
                values = _kept(rows[f"{name}.input"], mask)
                for twin in self._twins[name]:
                    yield twin, values

    def _open(self, feeds: Feeds) -> None:
        first = next(iter(feeds.values()))
        tokens = int(np.prod(first.shape[:2]))
        loops = _loops(self._model, self._options)
        chunk: list[str] = []
        chunks, size = [chunk], 0
        for name in self._twins:
            bytes_needed = 4 * tokens * self._width(name) * loops
            if chunk and size + bytes_needed > self._options.chunk_bytes:
                chunk, size = [], 0
                chunks.append(chunk)
            chunk.append(name)
            size += bytes_needed
        for index, names in enumerate(chunks):
            path = self._folder / f"{index}.onnx"
            probed = probe(self._model, [f"{name}.input" for name in names])
            write_scratch(probed, path)
            self._sessions.append((names, Session(path, threads=self._options.threads)))

    def _width(self, name: str) -> int:
        item = self._linears[name]
        stored = item.weight.const_value
        return 1 if stored is None else int(stored.numpy().shape[1 - item.index])


def _same_activation(found: dict[str, Linear], model: ir.Model) -> dict[str, list[str]]:
    """Group linears that read the same value as often (query, key, value): the first stands for all."""
    groups: dict[object, list[str]] = {}
    core = view_core(model)
    for name, item in found.items():
        key = (activation_of(item.node), core.contains(item.node))
        groups.setdefault(key, []).append(name)
    return {group[0]: group for group in groups.values()}


def _kept(
    rows: npt.NDArray[np.float32], mask: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32]:
    """Leave padded positions out: nothing reads what they compute."""
    if mask is None or rows.shape[1:3] != mask.shape:
        return rows
    return rows[:, mask.astype(bool)]


def _check_finite(
    rows: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int64] | None,
    name: str,
    batch: SampleBatch,
) -> None:
    """Refuse a sample that makes what a linear reads infinite or not a number, where it is not padding."""
    wrong = ~np.isfinite(rows)
    if mask is not None and rows.shape[1:3] == mask.shape:
        wrong &= mask.astype(bool).reshape(1, *mask.shape, *[1] * (rows.ndim - 3))
    if not wrong.any():
        return
    place = tuple(int(at) for at in np.argwhere(wrong)[0])
    iteration = f" in iteration {place[0]}" if len(rows) > 1 else ""
    raise InputError(
        f"{batch.where(place[1] if len(place) > 1 else 0)}: {name} reads {rows[place]}{iteration}, which no range holds",
        hint="leave that sample out, or look at the model: its activations overflow float32 there",
    )


def _range(
    fitted: RowHistograms, judged: RowHistograms, granularity: Granularity, method: str
) -> TensorRange:
    low, high = find_ranges(fitted, method)
    if granularity == "per-iteration" or (granularity == "auto" and fitted.rows == 1):
        return TensorRange(low=low.tolist(), high=high.tolist())
    shared_low, shared_high = find_ranges(fitted.pooled(), method)
    rows = fitted.rows
    shared = TensorRange(
        low=np.repeat(shared_low, rows).tolist(),
        high=np.repeat(shared_high, rows).tolist(),
        shared=True,
    )
    if granularity == "shared":
        return shared
    own = expected_noise(judged, low, high).sum()
    together = expected_noise(judged, shared_low, shared_high).sum()
    return shared if together < own else TensorRange(low=low.tolist(), high=high.tolist())


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
