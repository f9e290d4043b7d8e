"""Write the Loops of a file out, once per iteration: what ``loopedge unroll`` does."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from onnx_ir.passes import common

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.deployment.separate_check import compare_in_child, tolerated_error
from loopedge.deployment.verification import Difference, Tolerance
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced
from loopedge.files.targets import FileSize, check_artifact_target
from loopedge.graph.core.unrolling import UnrolledLoop, Unrolling, unroll_loops
from loopedge.graph.metadata import MOST_LOOPS
from loopedge.graph.weights import weight_bytes
from loopedge.options import option, option_name
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.memory_profiles import refuse_prepared

__all__ = ["UnrollResult", "unroll"]

UNROLLED_SUFFIX = ".unrolled.onnx"

LONGEST = 32
"""Positions of the longest inputs that the result is compared on, where the source says what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrollResult:
    """The Loops that were written out, and how well the new file agrees with its source.

    ``weight_bytes`` and ``nodes`` are of the new file, those with ``source_`` of the one it was made from. ``inner``
    Loops inside iterations were written out too, ``inner_left`` stay.
    """

    path: str
    source: str
    form: str | None
    loops: list[UnrolledLoop]
    inner: int
    inner_left: int
    opset: int | None
    nodes: int
    source_nodes: int
    weight_bytes: int
    source_weight_bytes: int
    files: list[FileSize]
    source_bytes: int
    max_abs_error: float
    max_rel_error: float
    verified: bool
    cases: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def unroll(
    model: str | Path,
    path: str | Path | None = None,
    *,
    loops: int | None = None,
    inner: Literal["loop", "unrolled"] = "loop",
    threads: int | None = None,
    force: bool = False,
) -> UnrollResult:
    """Write a file whose Loops are written out once per iteration, verified against its source.

    Args:
        model: An ONNX file with a Loop, of any tool.
        path: Target; default: ``NAME.unrolled.onnx`` beside the model.
        loops: Iterations to write where an input chooses them; default: those that the file says.
        inner: What becomes of Loops inside an iteration: they stay, or are written out too.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing file.

    Returns:
        The Loops, nodes and bytes before and after, and the largest error on generated inputs.

    Raises:
        InputError: The model or the target cannot be used, or a Loop cannot be written out.
        VerificationError: The outputs differ from the source's, or ONNX Runtime ends on the new file; nothing is left.
    """
    source = Path(model)
    target = Path(path) if path is not None else source.with_suffix(UNROLLED_SUFFIX)
    if inner not in {"loop", "unrolled"}:
        raise InputError(f"{option_name('inner')} is {inner!r}, not loop or unrolled")
    if loops is not None and not 1 <= loops <= MOST_LOOPS:
        raise InputError(
            f"{option_name('loops')} is {loops:,}, 1 to {MOST_LOOPS:,} are allowed",
            hint=option("loops", 1),
        )
    wanted = _Wanted(loops=loops, inner=inner == "unrolled", threads=threads, force=force)
    return again_if_replaced(source, lambda: _unroll(source, target, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is asked for, as `unroll` takes it."""

    loops: int | None
    inner: bool
    threads: int | None
    force: bool


def _unroll(source: Path, target: Path, wanted: _Wanted) -> UnrollResult:
    """Do as `unroll`; a source that is replaced meanwhile is an error."""
    artifact = _open_source(source)
    check_paths(
        inputs={"MODEL": artifact.needed_files()},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    check_artifact_target(target, artifact.files, force=wanted.force)
    notes = check_whole(source)
    beside = companions_to_copy(source, artifact.metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    unrolling = _write_out(artifact, wanted)
    graph = unrolling.model
    unrolled = time.perf_counter()
    found: list[Difference] = []

    def verify(staged: Path) -> None:
        tolerance = Tolerance(
            relative=tolerated_error(
                artifact.graph, sum(loop.iterations for loop in unrolling.loops)
            ),
            file="the unrolled file",
        )
        found.append(
            compare_in_child(
                artifact,
                staged,
                tolerance,
                longest=LONGEST,
                threads=wanted.threads,
                fixed=unrolling.fixed,
            )
        )
        artifact.check_unchanged()

    files = write_artifact(
        graph, target, sources=artifact.files, force=wanted.force, verify=verify, companions=beside
    )
    verified = time.perf_counter()
    return UnrollResult(
        path=str(target),
        source=str(source),
        form=None if artifact.metadata.foreign else "unrolled",
        loops=unrolling.loops,
        inner=unrolling.inner,
        inner_left=unrolling.inner_left,
        opset=graph.opset_imports.get(""),
        nodes=sum(1 for _ in graph.graph.all_nodes()),
        source_nodes=sum(1 for _ in artifact.graph.graph.all_nodes()),
        weight_bytes=weight_bytes(graph),
        source_weight_bytes=_weight_bytes(artifact),
        files=[FileSize.of(file) for file in files],
        source_bytes=artifact.file_bytes,
        max_abs_error=found[0].max_abs_error,
        max_rel_error=found[0].max_rel_error,
        verified=True,
        cases=found[0].cases,
        notes=[*notes, *_notes(unrolling)],
        seconds={"unroll": unrolled - started, "verify": verified - unrolled},
    )


def _open_source(source: Path) -> Artifact:
    artifact = Artifact.open(source)
    refuse_prepared(artifact.metadata, source, "unroll")
    refuse_cache(artifact.metadata, source, "unroll")
    if artifact.ort_format:
        raise InputError(
            f"{source} is in ORT format, the last step: unroll the .onnx file",
            hint=f"loopedge unroll {source.with_suffix('.onnx')}",
        )
    return artifact


def _write_out(artifact: Artifact, wanted: _Wanted) -> Unrolling:
    """Write the Loops of a graph out.

    Raises:
        InputError: As `unroll_loops`, with the name of the file.
    """
    try:
        return unroll_loops(artifact.graph, wanted.loops, inner=wanted.inner)
    except InputError as error:
        hint = error.hint or f"loopedge inspect {artifact.path}"
        raise InputError(
            f"{artifact.path} cannot be unrolled: {error.message}", hint=hint
        ) from error


def _weight_bytes(artifact: Artifact) -> int:
    """Return the bytes of the weights of the source, those in Constant nodes too."""
    graph = artifact.fresh_graph()
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(graph)
    return weight_bytes(graph)


def _notes(unrolling: Unrolling) -> Iterator[str]:
    """Say what else became of the file."""
    for name, count in unrolling.fixed.items():
        yield f"the input {name} is gone: the file runs as if it held {count}"
    if unrolling.inner_left:
        many = unrolling.inner_left > 1
        yield (
            f"{unrolling.inner_left} Loop{'s' if many else ''} inside stay{'' if many else 's'}; "
            f"{option('inner', 'unrolled')} writes {'them' if many else 'it'} out too"
        )
