"""Convert an ONNX artifact to ORT format, for minimal and mobile builds of ONNX Runtime."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from loopedge.artifact.artifact import Artifact, files_beside, open_artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.reading.ort_defaults import leave_out_defaults
from loopedge.artifact.reading.ort_format import ORT_SUFFIX, is_ort_format, required_operators
from loopedge.artifact.seal import check_whole, config_path
from loopedge.deployment.verification import (
    Difference,
    Tolerance,
    compare_with_source,
    described_files,
)
from loopedge.errors import InputError, VerificationError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import (
    CONFIG_SUFFIX,
    again_if_replaced,
    scratch_folder,
    staged_folder,
)
from loopedge.files.targets import FileSize, check_target
from loopedge.graph.agreement import TOLERANCE
from loopedge.graph.integer_linears import count_integer_linears
from loopedge.graph.metadata import Metadata
from loopedge.graph.weights import RANGE_PREFIX, TABLE_PREFIX, weight_bytes
from loopedge.options import option, option_name
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.graph_file import write_graph
from loopedge.runtime.memory_profiles import refuse_prepared
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

LONGEST = 128
"""Positions of the longest inputs that a conversion is verified on."""

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
    files: list[FileSize]
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
    if is_ort_format(source):
        raise InputError(f"{source} is in ORT format already", hint="name the .onnx file")
    artifact = Artifact.open(source)
    metadata = artifact.metadata
    refuse_prepared(metadata, source, "convert")
    refuse_cache(metadata, source, "convert")
    check_paths(
        inputs={"MODEL": artifact.needed_files()},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    notes = check_whole(source)
    check_ort_target(target, force=force)
    beside = companions_to_copy(source, metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    with staged_folder(target, force=force, replaced=_files_beside) as folder:
        staged = convert_file(source, folder / target.name, metadata)
        operators = config_path(staged)
        operators.write_text(required_operators(staged), encoding="utf-8")
        converted = time.perf_counter()
        stored = open_artifact(staged)
        notes += [FLOAT16_NOTE] if metadata.storage == "float16" else []
        notes += _check_weights(artifact, stored)
        difference = _compare(artifact, staged, threads)
        artifact.check_unchanged()
        verified = time.perf_counter()
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        written = [staged, operators, *(folder / name for name in beside)]
        return ConvertResult(
            path=str(target),
            source=str(source),
            form=metadata.form,
            loops=metadata.loops,
            opset=stored.opset_imports.get(""),
            optimization=OPTIMIZATION,
            operators=sorted(
                {f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in stored.graph.all_nodes()}
            ),
            files=described_files(written, target.parent),
            weight_bytes=weight_bytes(stored),
            source_weight_bytes=weight_bytes(artifact.graph),
            max_rel_error=difference.max_rel_error,
            verified=True,
            cases=difference.cases,
            notes=notes,
            seconds={"convert": converted - started, "verify": verified - converted},
        )


def write_converted(
    graph: ir.Model,
    target: Path,
    *,
    sources: Iterable[str | Path] = (),
    force: bool = False,
    verify: Callable[[Path], Metadata | None],
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
    return [Path(file.path) for file in result.files]


def convert_file(source: Path, target: Path, metadata: Metadata) -> Path:
    """Convert an ONNX file to ORT format, unchecked: all that writes the format calls this.

    Weights that are stored in float16 keep their Casts: folded, they would be float32 in the file.

    Args:
        source: The ``.onnx`` file.
        target: The ``.ort`` file.
        metadata: What the source says of itself.

    Returns:
        ``target``.

    Raises:
        InputError: ONNX Runtime cannot load the source.
    """
    options = session_options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    entries = {
        "session.save_model_format": "ORT",
        "session.qdqisint8allowed": "0",  # would be for ARM alone
        "session.disable_prepacking": "1",  # nothing runs here
    }
    kept = ["ConstantFolding"] if metadata.storage == "float16" else []
    write_graph(source, target, options, entries, purpose="converted", disabled=kept)
    leave_out_defaults(target)
    return target


def check_ort_target(target: Path, *, force: bool) -> None:
    """Refuse a target that does not end in ``.ort``, and as `check_target`.

    Raises:
        InputError: As said.
    """
    if not is_ort_format(target):
        raise InputError(
            f"{target} does not end in {ORT_SUFFIX}, by which ONNX Runtime knows the format",
            hint=option("path", str(target.with_suffix(ORT_SUFFIX))),
        )
    check_target(target, force=force)


def _files_beside(target: Path) -> set[str]:
    """Return the names of what stands beside an ``.ort`` file, the list of operators among it."""
    if not target.is_file():
        return set()
    before_digits = f"{target.stem}.{CONFIG_SUFFIX}"
    return {config_path(target).name, before_digits, *files_beside(target)}


def _check_weights(source: Artifact, converted: ir.Model) -> list[str]:
    """Hold that each weight is stored once, and none in a body, where it would be copied.

    Of a file that loopedge did not write this is not promised: what it costs becomes a note.
    """
    bodies = sum(
        value.const_value.nbytes
        for graph in converted.graph.subgraphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    stored, before = weight_bytes(converted), weight_bytes(source.graph)
    tables = sum(
        value.const_value.nbytes
        for name, value in source.graph.graph.initializers.items()
        if name.startswith((TABLE_PREFIX, RANGE_PREFIX)) and value.const_value is not None
    )
    extra = tables + max(EXTRA_BYTES, before // 50)
    if stored <= (allowed := before + extra) and bodies <= extra:
        return []
    problem = (
        f"the ORT format file holds {stored:,} bytes of weights, {bodies:,} of them in a body; "
        f"its source holds {before:,}"
    )
    if source.metadata.foreign:
        return [problem]
    raise VerificationError(problem, measured=stored, allowed=allowed)


def _compare(source: Artifact, staged: Path, threads: int | None) -> Difference:
    quantized = count_integer_linears(source.graph).quantized
    tolerance = Tolerance(
        relative=QUANTIZED_TOLERANCE if quantized else TOLERANCE, file="the ORT format file"
    )
    return compare_with_source(source, staged, tolerance, longest=LONGEST, threads=threads)
