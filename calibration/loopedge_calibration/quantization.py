"""Calibrate and quantize in one go: what ``loopedge quantize`` does."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path

import onnx_ir as ir

import loopedge
from loopedge.errors import InputError
from loopedge.files import check_target
from loopedge.graph.artifact import open_artifact
from loopedge.graph.metadata import read_metadata
from loopedge.graph.weights import loop_count
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.dynamic import quantize_dynamic
from loopedge.quantizer.pipeline import MIN_SQNR_DB, QuantizeResult
from loopedge.quantizer.ranges import Granularity, RangeTable, read_ranges, weights_sha256
from loopedge.quantizer.static import quantize_static
from loopedge.quantizer.weights import INT8_LIMIT, REDUCED_LIMIT
from loopedge_calibration.budget import (
    BudgetedResult,
    Rewrite,
    choose_loss,
    keep_within_budget,
)
from loopedge_calibration.collector import collect
from loopedge_calibration.readers import Samples

__all__ = ["DEFAULT_SAMPLES", "calibrate_and_quantize"]

DEFAULT_SAMPLES = 128
VERIFIED_BATCHES = 4


def calibrate_and_quantize(
    model: str | Path,
    path: str | Path,
    *,
    data: str | Path | None = None,
    scheme: str | None = None,
    granularity: Granularity = "per-iteration",
    method: str = "mse",
    smoothing: bool = True,
    samples: int = DEFAULT_SAMPLES,
    ranges_file: str | Path | None = None,
    save_ranges: str | Path | None = None,
    ops: str = "microsoft",
    keep: Sequence[str] = (),
    reduce_range: bool = False,
    min_coverage: float = 1.0,
    min_sqnr_db: float = MIN_SQNR_DB,
    max_drop: float | None = None,
    metric: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> QuantizeResult:
    """Find ranges on data, quantize, and verify: on a task's validation part, else on the samples.

    Args:
        model: Float artifact.
        path: Target.
        data: What `Samples` reads; None: the generated task that the model was trained on.
        scheme: ``static`` or ``dynamic``; default: static where there is data or a file of ranges.
        granularity: As in `collect`.
        method: As in `collect`.
        smoothing: As in `collect`.
        samples: Most samples to run.
        ranges_file: Take these ranges instead of calibrating.
        save_ranges: Also write the ranges to this file.
        ops: As in `loopedge.quantize`, like the rest.
        keep: Linears to leave in float.
        reduce_range: Store weights in seven bits.
        min_coverage: Share of the core's linears that must become int8.
        min_sqnr_db: Floor of the outputs' SQNR.
        max_drop: Largest loss of the metric; the linears that it takes stay in float.
        metric: As in `choose_loss`.
        threads: Threads of ONNX Runtime.
        force: Replace existing files.

    Returns:
        What became int8; a `BudgetedResult` where ``max_drop`` is given.

    Raises:
        InputError: A file or an option cannot be used.
        BudgetError: Fewer linears became int8 than asked for, or ``max_drop`` cannot be met.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    if metric is not None and max_drop is None:
        raise InputError("a metric needs a budget", hint="--max-drop 0.01")
    for target in (path, save_ranges):
        if target is not None:
            check_target(Path(target), force=force)
    if scheme is None:
        scheme = "static" if (data or ranges_file) is not None else "dynamic"
    static = scheme == "static"
    table, inputs = None, None
    if static and ranges_file is not None:
        table = read_ranges(ranges_file)
    elif static:
        table = collect(
            model,
            Samples(data, open_artifact(model), samples=samples),
            granularity=granularity,
            method=method,
            smoothing=smoothing,
            samples=samples,
            threads=threads,
        )
    if static and (ranges_file is None or data is not None):
        held_out = Samples(data, open_artifact(model), samples=samples, split="validation")
        inputs = list(islice(held_out, VERIFIED_BATCHES))
    budget = None
    if max_drop is not None:
        _check_source(model, table)
        budget = keep_within_budget(
            model,
            _rewrite(table, ops=ops, limit=REDUCED_LIMIT if reduce_range else INT8_LIMIT),
            choose_loss(model, metric, data=data, samples=samples, threads=threads),
            max_drop,
            keep=keep,
            threads=threads,
        )
        keep = [*keep, *(item.name for item in budget.kept)]
    result = loopedge.quantize(
        model,
        path,
        scheme=scheme,
        ranges=table,
        ops=ops,
        keep=keep,
        reduce_range=reduce_range,
        inputs=inputs,
        min_coverage=min_coverage,
        min_sqnr_db=min_sqnr_db,
        threads=threads,
        force=force,
    )
    if save_ranges is not None and table is not None:
        table.save(save_ranges, force=force)
    if budget is None:
        return result
    told = {field.name: getattr(result, field.name) for field in fields(result)}
    return BudgetedResult(**told, budget=budget)


def _rewrite(table: RangeTable | None, *, ops: str, limit: int) -> Rewrite:
    def rewrite(graph: ir.Model, kept: Mapping[str, str]) -> Coverage:
        if table is None:
            return quantize_dynamic(graph, keep=kept, limit=limit)
        return quantize_static(graph, table, ops=ops, keep=kept, limit=limit)

    return rewrite


def _check_source(model: str | Path, table: RangeTable | None) -> None:
    """Refuse what `loopedge.quantize` would refuse, before the trials."""
    graph = open_artifact(model)
    metadata = read_metadata(graph.metadata_props)
    if metadata is not None and metadata.quantization is not None:
        raise InputError(f"{model} is quantized already", hint="loopedge export model.pt")
    if table is not None and (
        table.weights_sha256 != weights_sha256(graph) or table.loops != loop_count(graph)
    ):
        raise InputError(
            f"the ranges belong to another model than {model}",
            hint="calibrate again: loopedge quantize --data samples.npz",
        )
