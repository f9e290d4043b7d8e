"""Calibrate and quantize in one go: what ``loopedge quantize`` does."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Unpack

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.companions import companions_to_copy
from loopedge.files.paths import ArtifactTarget, Files, check_paths
from loopedge.files.targets import check_artifact_target, check_target
from loopedge.options import option_name, with_keywords
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from loopedge.quantizer.noise import Feeds
from loopedge.quantizer.pipeline import QuantizeResult, quantize_source
from loopedge.quantizer.source import FloatSource, with_source
from loopedge_calibration.budget import BudgetedResult, meet_budget
from loopedge_calibration.collector import collect_ranges
from loopedge_calibration.losses import choose_loss
from loopedge_calibration.options import CalibrationKeywords, CalibrationOptions
from loopedge_calibration.readers import Samples, data_files

__all__ = ["calibrate_and_quantize", "quantize_static"]

VERIFIED_BATCHES = 4


def calibrate_and_quantize(
    model: str | Path,
    path: str | Path,
    *,
    options: CalibrationOptions | None = None,
    **keywords: Unpack[CalibrationKeywords],
) -> QuantizeResult:
    """Find ranges on data, quantize, and verify: on a task's validation part, else on the samples.

    Args:
        model: Float artifact.
        path: Target.
        options: The keywords below as one object; a keyword wins over the object's field.

    Keyword Args:
        data: What `Samples` reads; None: the generated task that the model was trained on.
        scheme: ``static``, ``dynamic``, ``weight-int8`` or ``weight-int4``; default: static where
            there is data or a file of ranges, else dynamic. Weight-only schemes use the data to
            verify on, and for nothing else.
        granularity: As in `collect`, like ``method`` and ``smoothing``.
        samples: Most samples to run; default: 128.
        ranges_file: Take these ranges instead of calibrating.
        save_ranges: Also write the ranges to this file.
        max_drop: Largest loss of the metric; the linears that it takes are lifted, see `meet_budget`.
        metric: As in `choose_loss`.
        ops: As in `loopedge.quantize`, like all others.

    Returns:
        What became int8; a `BudgetedResult` where ``max_drop`` is given.

    Raises:
        InputError: A file or an option cannot be used.
        BudgetError: Fewer linears became int8 than asked for, or ``max_drop`` cannot be met.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    chosen = with_keywords("calibrate_and_quantize", CalibrationOptions, options, keywords)
    return with_source(model, lambda artifact: _quantize(artifact, Path(path), chosen))


def _quantize(artifact: Artifact, target: Path, options: CalibrationOptions) -> QuantizeResult:
    """Send a model that was opened through the stations."""
    source = _check_files(artifact, target, options)
    table = _ranges(source, options)
    inputs = _inputs(source, options)
    recipe = options.recipe(table, lifting=options.max_drop is not None)
    budget = None
    if options.max_drop is not None:
        recipe.check_model(source.graph, source.path)
        loss = choose_loss(
            source,
            options.metric,
            data=options.data,
            samples=options.samples,
            threads=options.threads,
        )
        recipe, budget = meet_budget(
            source, recipe, loss, options.max_drop, threads=options.threads
        )
    result = quantize_source(source, target, recipe, options=options, inputs=inputs)
    if options.save_ranges is not None and table is not None:
        table.save(options.save_ranges, force=options.force)
    if budget is None:
        return result
    known = {field.name: getattr(result, field.name) for field in fields(result)}
    return BudgetedResult(**known, budget=budget)


def _check_files(artifact: Artifact, target: Path, options: CalibrationOptions) -> FloatSource:
    """Refuse files that are read and written, and targets that exist; return what is quantized."""
    read: dict[str, Files] = {
        "MODEL": artifact.needed_files(),
        option_name("data"): data_files(options.data),
        option_name("ranges_file"): options.ranges_file,
    }
    output, ranges = option_name("path"), option_name("save_ranges")
    check_paths(inputs=read, outputs={output: ArtifactTarget(target), ranges: options.save_ranges})
    check_artifact_target(target, artifact.files, force=options.force)
    if options.save_ranges is not None:
        check_target(Path(options.save_ranges), force=options.force)
    source = FloatSource.of(artifact)
    beside = companions_to_copy(source.path, source.metadata, target)
    check_paths(
        inputs=read,
        outputs={f"what stands beside {output}": [target.parent / name for name in beside]},
    )
    return source


def _ranges(source: FloatSource, options: CalibrationOptions) -> RangeTable | None:
    """Return the ranges of a static scheme: from a file, or found on data."""
    if options.calibrates:
        data = Samples(options.data, source.graph, samples=options.samples, artifact=source.path)
        return collect_ranges(source, data, options.collecting())
    return None if options.ranges_file is None else read_ranges(options.ranges_file)


def _inputs(source: FloatSource, options: CalibrationOptions) -> Sequence[Feeds] | None:
    """Return batches to verify on; None where there is no data."""
    if options.data is None and not options.calibrates:
        return None
    held_out = Samples(
        options.data,
        source.graph,
        samples=options.samples,
        split="validation",
        artifact=source.path,
    )
    return list(islice(held_out, VERIFIED_BATCHES))


def quantize_static(model: Path, path: Path, data: Path) -> None:
    """Calibrate on all samples of a file and quantize, as `loopedge.study` asks for it.

    Raises:
        InputError: A file cannot be used.
        BudgetError: Not all linears of the core became int8.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    calibrate_and_quantize(model, path, data=data, scheme="static", threads=1, force=True)
