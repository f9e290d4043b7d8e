"""Convert an ONNX artifact to ORT format, for minimal and mobile builds of ONNX Runtime."""

import errno
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from loopedge.artifact.artifact import files_beside, open_artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.reading.ort_format import ORT_SUFFIX, is_ort_format, required_operators
from loopedge.artifact.seal import check_whole, config_path
from loopedge.artifact.sources import source_files
from loopedge.errors import InputError, LoopedgeError, VerificationError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import (
    CONFIG_SUFFIX,
    again_if_replaced,
    check_unchanged,
    identity_of,
    scratch_folder,
    staged_folder,
)
from loopedge.files.targets import check_target
from loopedge.graph.agreement import TOLERANCE, largest_error, worst
from loopedge.graph.inputs import default_sequence, inputs_to_check
from loopedge.graph.integer_linears import count_integer_linears
from loopedge.graph.metadata import ArtifactMetadata, read_metadata
from loopedge.graph.weights import RANGE_PREFIX, TABLE_PREFIX, weight_bytes
from loopedge.runtime.memory_profiles import refuse_prepared
from loopedge.runtime.session import Session
from loopedge.runtime.session_options import session_options

__all__ = [
    "FLOAT16_NOTE",
    "ConvertResult",
    "check_ort_target",
    "convert",
    "convert_file",
    "write_converted",
]

OPTIMIZATION = "extended"
"""ONNX Runtime does not optimise an ORT format file when it loads it, so the fusions are made now. The
next level ('all') only adds layouts that belong to one kind of processor."""

QUANTIZED_TOLERANCE = 5e-2
"""As `TOLERANCE` for a quantized model: where a float sum differs in its last bit, a rounding can flip, and that
grows through the loop (2e-2 between releases, docs/reach.md)."""

FLOAT16_NOTE = (
    "float16 weights are widened in every inference: ONNX Runtime folds nothing of an ORT format file "
    "when it loads it"
)

FOREIGN_SEQUENCE = 8
"""Positions that a model is checked on that loopedge did not write."""

EXTRA_BYTES = 4096
"""Weights that a conversion may add beside the rows of tables: constants that were folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What a conversion wrote and how well it agrees with its source."""

    path: str
    source: str
    form: str | None
    loops: int | None
    opset: int | None
    optimization: str
    operators: list[str]
    files: list[dict[str, Any]]
    weight_bytes: int
    source_weight_bytes: int
    max_rel_error: float
    verified: bool
    cases: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def convert(
    model: str | Path, path: str | Path, *, threads: int | None = None, force: bool = False
) -> ConvertResult:
    """Convert an ONNX file to ORT format and verify the result against its source.

    Beside the target stands ``NAME.<16 hex digits>.required_operators.config``, the operators and types
    that a reduced build of ONNX Runtime must hold. The digits are of the ``.ort`` file's SHA-256: so the
    rename of that file is the one moment at which the old pair becomes the new one.

    Args:
        model: An artifact of `loopedge.export` or `loopedge.quantize`, or another ONNX file.
        path: Target, ``NAME.ort``.
        threads: Threads of ONNX Runtime during verification.
        force: Replace existing files.

    Returns:
        Files, bytes, operators and the error against the source.

    Raises:
        InputError: The source or the target cannot be used.
        VerificationError: The result computes something else, or holds copies of weights; nothing
            is left.
    """
    source = Path(model)
    return again_if_replaced(
        source, lambda: _convert(source, Path(path), threads=threads, force=force)
    )


def _convert(source: Path, target: Path, *, threads: int | None, force: bool) -> ConvertResult:
    """Do as `convert`; a source that is replaced meanwhile is an error."""
    before = identity_of(source)
    if is_ort_format(source):
        raise InputError(f"{source} is in ORT format already", hint="name the .onnx file")
    graph = open_artifact(source)
    metadata = read_metadata(graph.metadata_props)
    refuse_prepared(metadata, source, "convert")
    check_paths(
        inputs={"MODEL": source_files(source, metadata)},
        outputs={"--output": ArtifactTarget(target)},
    )
    changed = check_whole(source)
    check_ort_target(target, force=force)
    beside = companions_to_copy(source, metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    marks: list[float] = []
    errors: list[float] = []
    notes = [*changed]
    notes += [FLOAT16_NOTE] if metadata is not None and metadata.storage == "float16" else []

    def verify(staged: Path) -> None:
        marks.append(time.perf_counter())
        notes.extend(_check_weights(graph, staged))
        errors.extend(_compare(graph, source, staged, threads))
        check_unchanged(source, before)
        marks.append(time.perf_counter())

    files = _write(source, target, verify, beside, force=force)
    stored = open_artifact(target)
    return ConvertResult(
        path=str(target),
        source=str(source),
        form=metadata.form if metadata else None,
        loops=metadata.loops if metadata else None,
        opset=stored.opset_imports.get(""),
        optimization=OPTIMIZATION,
        operators=sorted(
            {f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in stored.graph.all_nodes()}
        ),
        files=[{"path": str(file), "bytes": file.stat().st_size} for file in files],
        weight_bytes=weight_bytes(stored),
        source_weight_bytes=weight_bytes(graph),
        max_rel_error=max(errors),
        verified=True,
        cases=len(errors),
        notes=notes,
        seconds={"convert": marks[0] - started, "verify": marks[1] - marks[0]},
    )


def write_converted(
    graph: ir.Model,
    target: Path,
    *,
    sources: Iterable[str | Path] = (),
    force: bool = False,
    verify: Callable[[Path], ArtifactMetadata | None],
    companions: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write a graph in ORT format: as ``.onnx`` in a temporary folder, and converted from there.

    Args:
        graph: As for `write_artifact`.
        target: ``NAME.ort``.
        sources: As for `write_artifact`.
        force: Replace existing files.
        verify: Called with the ``.onnx`` file, as by `write_artifact`; what it checks in ORT format
            it converts by `convert_file`.
        companions: As for `write_artifact`.

    Returns:
        The files written, the ``.ort`` first.

    Raises:
        InputError: A target exists or cannot be written.
        VerificationError: As `convert`.
    """
    check_ort_target(target, force=force)
    with scratch_folder(target) as scratch:
        source = scratch / target.with_suffix(".onnx").name
        write_artifact(graph, source, sources=sources, verify=verify, companions=companions)
        result = convert(source, target, force=force)
    return [Path(file["path"]) for file in result.files]


def convert_file(source: Path, target: Path) -> Path:
    """Convert an ONNX file to ORT format, unchecked: all that writes the format calls this.

    Weights that are stored in float16 keep their Casts: folded, they would be float32 in the file.

    Returns:
        ``target``.

    Raises:
        InputError: ONNX Runtime cannot load the source.
    """
    metadata = read_metadata(open_artifact(source).metadata_props)
    options = session_options(threads=1)
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "0")  # would be for ARM alone
    options.add_session_config_entry("session.disable_prepacking", "1")  # nothing runs here
    narrow = metadata is not None and metadata.storage == "float16"
    try:
        ort.InferenceSession(
            str(source),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"] if narrow else None,
        )
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        if shutil.disk_usage(target.parent).free < source.stat().st_size:
            raise OSError(errno.ENOSPC, "no space left", str(target)) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{source} cannot be converted: {reason.removeprefix('[ONNXRuntimeError] : ')}",
            hint=f"loopedge inspect {source}",
        ) from error
    return target


def check_ort_target(target: Path, *, force: bool) -> None:
    """Refuse a target that does not end in ``.ort``, and as `check_target`.

    Raises:
        InputError: As said.
    """
    if not is_ort_format(target):
        raise InputError(
            f"{target} does not end in {ORT_SUFFIX}, by which ONNX Runtime knows the format",
            hint=f"-o {target.with_suffix(ORT_SUFFIX)}",
        )
    check_target(target, force=force)


def _files_beside(target: Path) -> set[str]:
    """Return the names of what stands beside an ``.ort`` file, the list of operators among it."""
    if not target.is_file():
        return set()
    before_digits = f"{target.stem}.{CONFIG_SUFFIX}"
    return {config_path(target).name, before_digits, *files_beside(target)}


def _write(
    source: Path,
    target: Path,
    verify: Callable[[Path], None],
    beside: Mapping[str, bytes],
    *,
    force: bool,
) -> list[Path]:
    with staged_folder(target, force=force, replaced=_files_beside) as folder:
        staged = convert_file(source, folder / target.name)
        if not staged.exists():
            raise LoopedgeError(f"ONNX Runtime did not write {target.name}")
        config_path(staged).write_text(required_operators(staged), encoding="utf-8")
        verify(staged)
        for name, content in beside.items():
            (folder / name).write_bytes(content)
    return [target, config_path(target), *(target.parent / name for name in beside)]


def _check_weights(source: ir.Model, staged: Path) -> list[str]:
    """Hold that each weight is stored once, and none in a body, where it would be copied.

    Of a file that loopedge did not write this is not promised: what it costs becomes a note.
    """
    converted = open_artifact(staged)
    bodies = sum(
        value.const_value.nbytes
        for graph in converted.graph.subgraphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    stored, before = weight_bytes(converted), weight_bytes(source)
    tables = sum(
        value.const_value.nbytes
        for name, value in source.graph.initializers.items()
        if name.startswith((TABLE_PREFIX, RANGE_PREFIX)) and value.const_value is not None
    )
    extra = tables + max(EXTRA_BYTES, before // 50)
    if stored <= (allowed := before + extra) and bodies <= extra:
        return []
    told = (
        f"the ORT format file holds {stored:,} bytes of weights, {bodies:,} of them in a body; "
        f"its source holds {before:,}"
    )
    if read_metadata(source.metadata_props) is None:
        return [told]
    raise VerificationError(told, measured=stored, allowed=allowed)


def _compare(graph: ir.Model, source: Path, staged: Path, threads: int | None) -> list[float]:
    """Return the relative error of each case."""
    metadata = read_metadata(graph.metadata_props)
    tolerance = QUANTIZED_TOLERANCE if count_integer_linears(graph).quantized else TOLERANCE
    first, second = Session(source, threads=threads), Session(staged, threads=threads)
    errors: list[float] = []
    # How many positions a foreign model takes is not known.
    longest = FOREIGN_SEQUENCE if metadata is None else min(default_sequence(graph), 128)
    for check in inputs_to_check(graph, longest):
        expected, given = first.run(check.feeds), second.run(check.feeds)
        error = worst(largest_error(given[name], expected[name]) for name in expected).relative
        if not error <= tolerance:
            raise VerificationError(
                f"the ORT format file differs from {source.name} ({check.name}): relative error "
                f"{error:.2e}, allowed {tolerance:.0e}",
                measured=error,
                allowed=tolerance,
            )
        errors.append(error)
    return errors
