"""Quantize an exported model: rewrite, write, verify."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from loopedge.errors import BudgetError, InputError, VerificationError
from loopedge.files import check_target
from loopedge.graph.artifact import open_artifact, write_artifact
from loopedge.graph.metadata import ArtifactMetadata, read_metadata
from loopedge.graph.weights import linears, weight_bytes
from loopedge.quantizer.compare import Agreement, compare
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.dynamic import quantize_dynamic

__all__ = ["MIN_SQNR_DB", "SCHEMES", "QuantizeResult", "quantize"]

SCHEMES = ("dynamic",)
MIN_SQNR_DB = 15.0
"""Default floor of the outputs' SQNR; a wrong scale or a wrong weight lies below 10 dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeResult:
    """What became int8 and how far the outputs moved."""

    path: str
    scheme: str
    ranges: str | None
    matmuls: dict[str, Any]
    sqnr_db: float
    sqnr_db_per_iteration: list[float]
    sqnr_db_random_rows: float | None
    min_sqnr_db: float
    verified: bool
    weight_bytes: int
    source_weight_bytes: int
    files: list[dict[str, Any]]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def quantize(
    model: str | Path,
    path: str | Path,
    *,
    scheme: str = "dynamic",
    min_coverage: float = 1.0,
    min_sqnr_db: float = MIN_SQNR_DB,
    threads: int | None = None,
    force: bool = False,
) -> QuantizeResult:
    """Quantize the linears of an exported model to int8 and verify the file against its source.

    Args:
        model: An artifact of `loopedge.export`, loop or unrolled, or another float ONNX file.
        path: Target, usually ``model.int8.onnx``.
        scheme: ``dynamic``: activations are measured at run time, no data is needed.
        min_coverage: Share of the core's linears that must become int8, 0 to 1.
        min_sqnr_db: Floor of the outputs' SQNR against the float model, in dB.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing artifact.

    Returns:
        Coverage, SQNR of the outputs and of every iteration's state, bytes and times.

    Raises:
        InputError: The file, an option or the target cannot be used.
        BudgetError: Fewer linears became int8 than asked for.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    if scheme not in SCHEMES:
        raise InputError(
            f"scheme {scheme!r} is not known, known are {', '.join(SCHEMES)}",
            hint="--scheme dynamic",
        )
    if not 0 <= min_coverage <= 1:
        raise InputError(f"min-coverage is {min_coverage}, allowed is 0 to 1")
    target = Path(path)
    check_target(target, force=force)
    reference = open_artifact(model)
    if Path(model).resolve() == target.resolve():
        raise InputError(f"{target} is the source itself", hint="name another target with -o")
    metadata = read_metadata(reference.metadata_props)
    _check_float(reference, metadata, model)
    started = time.perf_counter()
    quantized = reference.clone()
    source_bytes = weight_bytes(reference)
    coverage = quantize_dynamic(quantized)
    _check_coverage(coverage, min_coverage, model)
    rewritten = time.perf_counter()

    checked: list[tuple[Agreement, float]] = []

    def verify(staged: Path) -> ArtifactMetadata | None:
        begun = time.perf_counter()
        agreement = compare(reference, open_artifact(staged), staged.parent, threads=threads)
        _check_agreement(agreement, min_sqnr_db)
        checked.append((agreement, time.perf_counter() - begun))
        if metadata is None:
            return None
        recipe = {"scheme": scheme, "sqnr_db": agreement.sqnr_db, **_counts(coverage)}
        return metadata.model_copy(update={"quantization": recipe})

    files = write_artifact(quantized, target, force=force, verify=verify)
    agreement, verify_seconds = checked[0]
    return QuantizeResult(
        path=str(target),
        scheme=scheme,
        ranges=None,
        matmuls=coverage.to_json(),
        sqnr_db=agreement.sqnr_db,
        sqnr_db_per_iteration=agreement.per_iteration_db,
        sqnr_db_random_rows=agreement.random_rows_db,
        min_sqnr_db=min_sqnr_db,
        verified=True,
        weight_bytes=weight_bytes(quantized),
        source_weight_bytes=source_bytes,
        files=[{"path": str(file), "bytes": file.stat().st_size} for file in files],
        seconds={
            "rewrite": rewritten - started,
            "write": time.perf_counter() - rewritten - verify_seconds,
            "verify": verify_seconds,
        },
    )


def _check_float(model: ir.Model, metadata: ArtifactMetadata | None, source: str | Path) -> None:
    hint = "loopedge export model.pt"
    if metadata is not None and metadata.quantization is not None:
        raise InputError(f"{source} is quantized already", hint=hint)
    if not linears(model):
        raise InputError(f"{source} has no float linear: nothing can be quantized", hint=hint)


def _check_coverage(coverage: Coverage, min_coverage: float, source: str | Path) -> None:
    core = coverage.core()
    if core.quantized and core.share >= min_coverage:
        return
    first = core.skipped[0] if core.skipped else None
    raise BudgetError(
        f"{len(core.quantized)} of {core.total} linears of the core of {source} became int8 "
        f"({core.share:.0%}, asked for {min_coverage:.0%})"
        + (f"; first skipped: {first.name}: {first.reason}" if first else ""),
        measured=core.share,
        allowed=min_coverage,
        hint="loopedge quantize --min-coverage 0",
    )


def _check_agreement(agreement: Agreement, min_sqnr_db: float) -> None:
    for name, value in (
        ("outputs", agreement.sqnr_db),
        ("outputs with random timestep rows", agreement.random_rows_db),
    ):
        if value is not None and not value >= min_sqnr_db:
            raise VerificationError(
                f"the SQNR of the {name} is {value:.1f} dB, at least {min_sqnr_db:.1f} dB is asked",
                measured=value,
                allowed=min_sqnr_db,
                hint="loopedge quantize --min-sqnr-db to allow less",
            )


def _counts(coverage: Coverage) -> dict[str, int]:
    return {"quantized": len(coverage.quantized), "total": coverage.total}
