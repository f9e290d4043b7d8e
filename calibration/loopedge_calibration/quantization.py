"""Calibrate and quantize in one go: what ``loopedge quantize`` does."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path

from loopedge.artifact.artifact import artifact_files, open_in_float32
from loopedge.artifact.companions import companions_to_copy
from loopedge.artifact.sources import files_of_model
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, Files, check_paths
from loopedge.files.targets import check_artifact_target, check_target
from loopedge.graph.metadata import read_metadata
from loopedge.quantizer.activations.ranges import Granularity, read_ranges
from loopedge.quantizer.pipeline import QuantizeResult, quantize_by
from loopedge.quantizer.recipe import Recipe
from loopedge.runtime.memory_profiles import refuse_prepared
from loopedge_calibration.budget import BudgetedResult, meet_budget
from loopedge_calibration.collector import collect
from loopedge_calibration.losses import choose_loss
from loopedge_calibration.readers import Samples, data_files

__all__ = ["DEFAULT_SAMPLES", "calibrate_and_quantize", "quantize_static"]

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
    weight_only: Sequence[str] = (),
    block_size: int | None = None,
    reduce_range: bool = False,
    min_coverage: float = 1.0,
    min_sqnr_db: float | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    memory: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> QuantizeResult:
    """Find ranges on data, quantize, and verify: on a task's validation part, else on the samples.

    Args:
        model: Float artifact.
        path: Target.
        data: What `Samples` reads; None: the generated task that the model was trained on.
        scheme: ``static``, ``dynamic``, ``weight-int8`` or ``weight-int4``; default: static where
            there is data or a file of ranges, else dynamic. Weight-only schemes use the data to
            verify on, and for nothing else.
        granularity: As in `collect`.
        method: As in `collect`.
        smoothing: As in `collect`.
        samples: Most samples to run.
        ranges_file: Take these ranges instead of calibrating.
        save_ranges: Also write the ranges to this file.
        ops: As in `loopedge.quantize`, like the rest.
        keep: Linears and embedding tables to leave in float.
        weight_only: Linears whose weights alone are stored in eight bits.
        block_size: Most values that share a scale in a weight-only linear.
        reduce_range: Store weights in seven bits.
        min_coverage: Share of the core's linears that must become int8.
        min_sqnr_db: Floor of the outputs' SQNR; default: as in `loopedge.quantize`.
        max_drop: Largest loss of the metric; the linears that it takes are lifted, see `meet_budget`.
        metric: As in `choose_loss`.
        memory: As in `loopedge.quantize`.
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
    read: dict[str, Files] = {
        "MODEL": files_of_model(model),
        "--data": data_files(data),
        "--ranges-file": ranges_file,
    }
    check_paths(
        inputs=read,
        outputs={"--output": ArtifactTarget(Path(path)), "--save-ranges": save_ranges},
    )
    _check_targets(model, path, save_ranges, force=force)
    if scheme is None:
        scheme = "static" if (data or ranges_file) is not None else "dynamic"
    static = scheme == "static"
    if not static and (ranges_file or save_ranges) is not None:
        raise InputError(
            f"{scheme} takes and gives no ranges",
            hint="leave out --ranges-file and --save-ranges, or --scheme static",
        )
    table, inputs = None, None
    graph = open_in_float32(model)
    metadata = read_metadata(graph.metadata_props)
    refuse_prepared(metadata, model, "quantize")
    beside = companions_to_copy(model, metadata, Path(path))
    check_paths(
        inputs=read,
        outputs={"what stands beside --output": [Path(path).parent / name for name in beside]},
    )
    if static and ranges_file is not None:
        table = read_ranges(ranges_file)
    elif static:
        table = collect(
            model,
            Samples(data, graph, samples=samples, artifact=model),
            granularity=granularity,
            method=method,
            smoothing=smoothing,
            samples=samples,
            threads=threads,
        )
    if data is not None or (static and ranges_file is None):
        held_out = Samples(data, graph, samples=samples, split="validation", artifact=model)
        inputs = list(islice(held_out, VERIFIED_BATCHES))
    recipe = Recipe(
        scheme=scheme,
        table=table,
        ops=ops,
        keep=tuple(keep),
        weight_only=tuple(weight_only),
        block_size=block_size,
        reduce_range=reduce_range,
    )
    recipe.check_options(lifting=max_drop is not None)
    budget = None
    if max_drop is not None:
        recipe.check_model(graph, model)
        loss = choose_loss(model, metric, data=data, samples=samples, threads=threads)
        recipe, budget = meet_budget(model, recipe, loss, max_drop, threads=threads)
    result = quantize_by(
        recipe,
        model,
        path,
        inputs=inputs,
        min_coverage=min_coverage,
        min_sqnr_db=min_sqnr_db,
        memory=memory,
        threads=threads,
        force=force,
    )
    if save_ranges is not None and table is not None:
        table.save(save_ranges, force=force)
    if budget is None:
        return result
    told = {field.name: getattr(result, field.name) for field in fields(result)}
    return BudgetedResult(**told, budget=budget)


def _check_targets(
    model: str | Path, path: str | Path, save_ranges: str | Path | None, *, force: bool
) -> None:
    """Refuse targets that exist."""
    check_artifact_target(Path(path), artifact_files(model), force=force)
    if save_ranges is not None:
        check_target(Path(save_ranges), force=force)


def quantize_static(model: Path, path: Path, data: Path) -> None:
    """Calibrate on all samples of a file and quantize, as `loopedge.study` asks for it.

    Raises:
        InputError: A file cannot be used.
        BudgetError: Not all linears of the core became int8.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    calibrate_and_quantize(model, path, data=data, scheme="static", threads=1, force=True)
