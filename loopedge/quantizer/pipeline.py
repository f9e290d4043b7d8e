"""Quantize an exported model: rewrite, write, verify."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from loopedge.artifact.artifact import (
    artifact_files,
    open_artifact,
    open_in_float32,
    write_artifact,
)
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.artifact.sources import files_of_model
from loopedge.errors import BudgetError, InputError, VerificationError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced, check_unchanged, identity_of
from loopedge.files.targets import check_artifact_target
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.metadata import (
    ITERATIONS_OUTPUT,
    ArtifactMetadata,
    read_metadata,
    write_metadata,
)
from loopedge.graph.positions.last_iteration import LastIterationOutcome
from loopedge.graph.split.activations import shrink_head
from loopedge.graph.weights import weight_bytes
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from loopedge.quantizer.activations.smoothing import rescaled_products
from loopedge.quantizer.compare import Agreement, Feeds, longest_generated
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.last_iteration import (
    compare_whole_and_written,
    take_out_last,
    unchanged_note,
)
from loopedge.quantizer.recipe import Recipe, Rewritten
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS, BlockWeights
from loopedge.quantizer.timing import time_against
from loopedge.runtime.memory_profiles import WISH_NOTE, check_profile, refuse_prepared
from loopedge.runtime.optimizers import nothing_to_optimize
from loopedge.runtime.processor import FAST_INT8, this_processor
from loopedge.runtime.session import Session

__all__ = ["MIN_SQNR_DB", "QuantizeResult", "quantize", "quantize_by"]

MIN_SQNR_DB = 15.0
"""Default floor of the outputs' SQNR; a wrong scale or a wrong weight lies below 10 dB."""

MIN_INT4_SQNR_DB = 10.0
"""The same for four-bit weights: right ones may give 13 dB where a model is deep and untrained."""

RANDOM_ROWS_INT4_DB = 5.0
"""Most that is asked with random timestep rows of four-bit weights; a wrong one shows in its linear."""

MIN_LINEAR_DB = 10.0
"""Floor of what each linear of the core gives in the first iteration: right ones of four bits give 15
and more, a wrong one 0 or less."""

SEVEN_BITS_HINT = "loopedge quantize --reduce-range: products of eight bits may overflow here"

SLOWER = 1.0
"""Time against the float model from which on that is said."""

MIN_WORST_LINEAR_DB = 3.0
"""Floor of what each gives in any iteration, accumulated errors included: a wrong row of a range table
shows here even where gates of zero hide it from the outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeResult:
    """What became int8 and how far the outputs moved."""

    path: str
    scheme: str
    ranges: str | None
    method: str | None
    samples: int | None
    matmuls: dict[str, Any]
    embeddings: dict[str, Any]
    weight_only: list[str]
    sqnr_db: float
    sqnr_db_per_iteration: list[float]
    sqnr_db_random_rows: float | None
    sqnr_db_linears: dict[str, float]
    min_sqnr_db: float
    verified: bool
    last_rows: LastIterationOutcome | None
    time_ratio: float
    weight_bytes: int
    source_weight_bytes: int
    files: list[dict[str, Any]]
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def quantize(
    model: str | Path,
    path: str | Path,
    *,
    scheme: str | None = None,
    ranges: RangeTable | str | Path | None = None,
    ops: str = "microsoft",
    keep: Sequence[str] = (),
    weight_only: Sequence[str] = (),
    block_size: int | None = None,
    reduce_range: bool = False,
    inputs: Sequence[Feeds] | None = None,
    min_coverage: float = 1.0,
    min_sqnr_db: float | None = None,
    memory: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> QuantizeResult:
    """Quantize the linears and embeddings of an exported model and verify the file against its source.

    Args:
        model: An artifact of `loopedge.export`, loop or unrolled, or another float ONNX file.
        path: Target, usually ``model.int8.onnx``.
        scheme: ``static``: activations are rounded with calibrated ranges; ``dynamic``: they are
            measured at run time, no data is needed; ``weight-int8`` and ``weight-int4``: weights
            alone, in blocks. Default: static where ranges are given, else dynamic.
        ranges: A table of `loopedge_calibration.collect`, or its file.
        ops: ``microsoft`` (MatMulIntegerToFloat), or ``standard``: operators of ONNX alone.
        keep: Linears to leave in float, by node name as in the loop form, and embedding tables, by
            their own name.
        weight_only: Linears whose weights alone are stored in eight bits, whatever the scheme, by
            node name; linears that share a weight go together.
        block_size: Most values that share a scale in a weight-only linear; default: 128 in eight
            bits, 32 in four.
        reduce_range: Store weights in seven bits: on processors without VNNI eight can overflow.
        inputs: Batches to verify on; default: generated ones.
        min_coverage: Share of the core's linears that must become int8, 0 to 1; linears kept on
            request do not count as missed.
        min_sqnr_db: Floor of the outputs' SQNR against the float model, in dB; default: 15, with
            four-bit weights 10.
        memory: How sessions keep the weights: ``balanced``, ``low`` or ``mapped`` (docs/memory.md);
            default: as the source says.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing artifact.

    Returns:
        Coverage, SQNR of the outputs and of every iteration's state, bytes, times, and the time of
        one inference against the float model's.

    Raises:
        InputError: The file, an option or the target cannot be used.
        BudgetError: Fewer linears became int8 than asked for.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    read_from = ranges if isinstance(ranges, str | Path) else None
    check_paths(
        inputs={"MODEL": files_of_model(model), "the file of ranges": read_from},
        outputs={"--output": ArtifactTarget(Path(path))},
    )
    table = read_ranges(ranges) if isinstance(ranges, str | Path) else ranges
    recipe = Recipe(
        scheme=scheme or ("static" if table else "dynamic"),
        table=table,
        ops=ops,
        keep=tuple(keep),
        weight_only=tuple(weight_only),
        block_size=block_size,
        reduce_range=reduce_range,
    )
    recipe.check_options()
    return quantize_by(
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


def quantize_by(
    recipe: Recipe,
    model: str | Path,
    path: str | Path,
    *,
    inputs: Sequence[Feeds] | None = None,
    min_coverage: float = 1.0,
    min_sqnr_db: float | None = None,
    memory: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> QuantizeResult:
    """Quantize by a recipe whose options are checked; all else as in `quantize`."""
    return again_if_replaced(
        Path(model),
        lambda: _quantize_by(
            recipe,
            model,
            path,
            inputs=inputs,
            min_coverage=min_coverage,
            min_sqnr_db=min_sqnr_db,
            memory=memory,
            threads=threads,
            force=force,
        ),
    )


def _quantize_by(
    recipe: Recipe,
    model: str | Path,
    path: str | Path,
    *,
    inputs: Sequence[Feeds] | None,
    min_coverage: float,
    min_sqnr_db: float | None,
    memory: str | None,
    threads: int | None,
    force: bool,
) -> QuantizeResult:
    """Do as `quantize_by`; a source that is replaced meanwhile is an error."""
    before = identity_of(Path(model))
    if not 0 <= min_coverage <= 1:
        raise InputError(f"min-coverage is {min_coverage}, allowed is 0 to 1")
    if min_sqnr_db is not None and math.isnan(min_sqnr_db):
        raise InputError("min-sqnr-db is no number", hint="--min-sqnr-db 15")
    four_bits = WEIGHT_BITS.get(recipe.scheme) == 4
    if min_sqnr_db is None:
        min_sqnr_db = MIN_INT4_SQNR_DB if four_bits else MIN_SQNR_DB
    random_db = min(min_sqnr_db, RANDOM_ROWS_INT4_DB) if four_bits else min_sqnr_db
    target = Path(path)
    check_artifact_target(target, artifact_files(model), force=force)
    reference = open_in_float32(model)
    changed = check_whole(model)
    recipe.check_model(reference, model)
    metadata = _metadata_with(read_metadata(reference.metadata_props), memory, model)
    beside = companions_to_copy(model, metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    quantized = reference.clone()
    if metadata is not None:
        write_metadata(metadata, quantized.metadata_props)  # it is verified as it will run
    source_bytes = weight_bytes(reference)
    rewritten = recipe.apply(quantized)
    if metadata is not None:
        shrink_head(quantized, metadata.memory, metadata.trained_length)
    _check_coverage(rewritten.coverage, rewritten.kept, min_coverage, model)
    rows = take_out_last(quantized, model)
    rewrite_seconds = time.perf_counter() - started

    smoothed = recipe.table.factors() if recipe.table else {}
    checked: list[tuple[Agreement, float, float]] = []
    exits: list[str] = []

    def verify(staged: Path) -> ArtifactMetadata | None:
        begun = time.perf_counter()
        agreement = compare_whole_and_written(
            reference,
            open_artifact(staged),
            staged.parent,
            inputs=inputs,
            random_rows=recipe.scheme != "static",
            rescaled=rescaled_products(reference, smoothed),
            moved=rewritten.moved,
            threads=threads,
        )
        hint = SEVEN_BITS_HINT if _may_overflow(recipe) else None
        _check_agreement(agreement, min_sqnr_db, random_db, hint)
        feeds = inputs[0] if inputs else _generated(reference)
        ratio = time_against(Path(model), staged, feeds, threads=threads)
        if metadata is not None and metadata.exit is not None:
            exits.append(_exit_note(Path(model), staged, feeds, threads))
        check_unchanged(Path(model), before)
        checked.append((agreement, ratio, time.perf_counter() - begun))
        if metadata is None:
            return None
        told = _metadata(recipe, rewritten, agreement)
        tables = [name for name in metadata.tables if name in quantized.graph.initializers]
        written = read_metadata(quantized.metadata_props) or metadata
        idle = metadata.memory == "low" and nothing_to_optimize(staged)
        return written.model_copy(
            update={"quantization": told, "tables": tables, "optimized": idle}
        )

    written = time.perf_counter()
    files = write_artifact(
        quantized,
        target,
        sources=artifact_files(model),
        force=force,
        verify=verify,
        companions=beside,
    )
    agreement, time_ratio, verify_seconds = checked[0]
    calibrated = recipe.table if recipe.scheme == "static" else None
    return QuantizeResult(
        path=str(target),
        scheme=recipe.scheme,
        ranges=calibrated.granularity if calibrated else None,
        method=calibrated.method if calibrated else None,
        samples=calibrated.samples if calibrated else None,
        matmuls=rewritten.coverage.to_json(),
        embeddings=rewritten.embeddings.to_json(),
        weight_only=rewritten.weight_only,
        sqnr_db=agreement.sqnr_db,
        sqnr_db_per_iteration=agreement.per_iteration_db,
        sqnr_db_random_rows=agreement.random_rows_db,
        sqnr_db_linears=agreement.linears_db,
        min_sqnr_db=min_sqnr_db,
        verified=True,
        last_rows=rows,
        time_ratio=time_ratio,
        weight_bytes=weight_bytes(quantized),
        source_weight_bytes=source_bytes,
        files=[{"path": str(file), "bytes": file.stat().st_size} for file in files],
        notes=[
            *changed,
            *_notes(recipe, rewritten, metadata, time_ratio),
            *unchanged_note(rows),
            *exits,
        ],
        seconds={
            "rewrite": rewrite_seconds,
            "write": time.perf_counter() - written - verify_seconds,
            "verify": verify_seconds,
        },
    )


def _generated(model: ir.Model) -> Feeds:
    return generate_inputs(model, sequence=longest_generated(model))


def _exit_note(source: Path, quantized: Path, feeds: Feeds, threads: int | None) -> str:
    """Say how often rounding moved an early exit; SQNR is measured over all iterations."""
    before, after = (
        Session(path, threads=threads).run(feeds)[ITERATIONS_OUTPUT] for path in (source, quantized)
    )
    return (
        f"{int((before != after).sum())} of {before.size} rows stop at another iteration than in "
        "float; the SQNR is measured without early exit"
    )


def _metadata(recipe: Recipe, rewritten: Rewritten, agreement: Agreement) -> dict[str, Any]:
    """Return what the artifact tells of its quantization."""
    told: dict[str, Any] = {
        "scheme": recipe.scheme,
        "quantized": len(rewritten.coverage.quantized),
        "total": rewritten.coverage.total,
        "sqnr_db": agreement.sqnr_db,
    }
    table = recipe.table
    if table is not None and recipe.scheme == "static":
        told |= {
            "ranges": table.granularity,
            "method": table.method,
            "samples": table.samples,
            "data_sha256": table.data_sha256,
        }
    if recipe.scheme in WEIGHT_BITS or rewritten.weight_only:
        bits = {8} if rewritten.weight_only else set()
        bits |= {WEIGHT_BITS[recipe.scheme]} if recipe.scheme in WEIGHT_BITS else set()
        sizes = {
            str(each): BlockWeights(each, recipe.block_size).block_size for each in sorted(bits)
        }
        told |= {"weight_only": rewritten.weight_only, "block_size": sizes}
    return told


def _metadata_with(
    metadata: ArtifactMetadata | None, memory: str | None, source: str | Path
) -> ArtifactMetadata | None:
    refuse_prepared(metadata, source, "quantize")
    if memory is None:
        return metadata
    profile = check_profile(memory)
    if metadata is None:
        raise InputError(
            f"{source} was not written by loopedge: it cannot hold a memory profile",
            hint=f"loopedge run --memory {profile}",
        )
    return metadata.model_copy(update={"memory": profile})


def _notes(
    recipe: Recipe, rewritten: Rewritten, metadata: ArtifactMetadata | None, time_ratio: float
) -> list[str]:
    calibrated = recipe.table if recipe.scheme == "static" else None
    notes = [] if calibrated is None else list(calibrated.warnings)
    memory = metadata.memory if metadata else None
    if memory == "mapped":
        notes.append(WISH_NOTE)
    if memory == "low" and (recipe.scheme in WEIGHT_BITS or rewritten.weight_only):
        notes.append(
            "without packing onnxruntime unpacks weight-only linears into floats at each run: memory "
            "profile low takes more memory and two to four times the time, see docs/memory.md"
        )
    if time_ratio >= SLOWER:
        notes.append(
            f"one inference takes {time_ratio:.2f} times as long as the float model's on this "
            "processor: it saves bytes here, no time"
        )
    features = this_processor().features
    if features and FAST_INT8.isdisjoint(features):
        notes.append(
            "this processor has no VNNI, i8mm or dot-product instructions: int8 saves memory here, "
            "but little time"
            + (", and products may overflow: add --reduce-range" if _may_overflow(recipe) else "")
        )
    return notes


def _check_coverage(
    coverage: Coverage, kept: set[str], min_coverage: float, source: str | Path
) -> None:
    core = coverage.core()
    missed = [item for item in core.skipped if item.name not in kept]
    if coverage.quantized and len(missed) <= (1 - min_coverage) * core.total:
        return
    first = missed[0] if missed else None
    raise BudgetError(
        f"{len(core.quantized)} of {core.total} linears of the core of {source} became int8 "
        f"({core.share:.0%}, asked for {min_coverage:.0%})"
        + (f"; first skipped: {first.name}: {first.reason}" if first else ""),
        measured=core.share,
        allowed=min_coverage,
        hint="loopedge quantize --min-coverage 0",
    )


def _may_overflow(recipe: Recipe) -> bool:
    """Tell whether products of eight bits may overflow on this processor, as far as it is known."""
    features = this_processor().features
    slow = bool(features) and FAST_INT8.isdisjoint(features)
    return slow and not recipe.reduce_range and recipe.scheme not in WEIGHT_BITS


def _check_agreement(
    agreement: Agreement, min_sqnr_db: float, random_db: float, hint: str | None
) -> None:
    """Hold floors of SQNR.

    Args:
        agreement: What was measured.
        min_sqnr_db: Floor of the outputs.
        random_db: Floor with random timestep rows.
        hint: What is likely to mend it; None: what to allow or to keep.

    Raises:
        VerificationError: One is missed.
    """
    for name, value, floor in (
        ("outputs", agreement.sqnr_db, min_sqnr_db),
        ("outputs with random timestep rows", agreement.random_rows_db, random_db),
    ):
        if value is not None and not value >= floor:
            raise VerificationError(
                f"the SQNR of the {name} is {value:.1f} dB, at least {floor:.1f} dB is asked",
                measured=value,
                allowed=floor,
                hint=hint or "loopedge quantize --min-sqnr-db to allow less",
            )
    for where, found, floor in (
        ("in the first iteration", agreement.linears_db, MIN_LINEAR_DB),
        ("in its worst iteration", agreement.worst_linears_db, MIN_WORST_LINEAR_DB),
    ):
        for name, value in found.items():
            if not value >= floor:
                raise VerificationError(
                    f"the SQNR of {name} {where} is {value:.1f} dB, at least {floor:.1f} dB is asked",
                    measured=value,
                    allowed=floor,
                    hint=hint or f"loopedge quantize --keep {name}, or calibrate on more data",
                )
