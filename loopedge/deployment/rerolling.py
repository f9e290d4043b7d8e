"""Give a file of any tool its loops back: what ``loopedge reroll`` does."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from onnx_ir.passes import common

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.deployment.separate_check import compare_in_child, tolerated_error
from loopedge.deployment.verification import Difference, Tolerance
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced
from loopedge.files.targets import FileSize, check_artifact_target, file_sha256
from loopedge.graph.core.loop_view import loops_among
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.core.selectable_count import make_count_selectable
from loopedge.graph.metadata import ArtifactMetadata, Metadata, read_metadata, write_metadata
from loopedge.graph.passes.simplify import strip_metadata
from loopedge.graph.rolling.outlook.answer import reason_against
from loopedge.graph.rolling.rolled_loop import RolledLoop
from loopedge.graph.rolling.rolling import Rolling, roll
from loopedge.graph.weights import TABLE_PREFIX, weight_bytes
from loopedge.options import option_name
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.memory_profiles import refuse_prepared

__all__ = ["RerollResult", "reroll"]

LOOP_SUFFIX = ".loop.onnx"

LONGEST = 32
"""Positions of the longest inputs that the result is compared on, where the source says what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerollResult:
    """The loops that a file got back, and how well it agrees with its source.

    ``weight_bytes`` and ``nodes`` are of the new file, those with ``source_`` of the one it was made from.
    """

    path: str
    source: str
    loops: list[RolledLoop]
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


def reroll(
    model: str | Path,
    path: str | Path | None = None,
    *,
    inner: Literal["unrolled", "loop"] = "unrolled",
    dynamic_loops: bool = False,
    threads: int | None = None,
    force: bool = False,
) -> RerollResult:
    """Write a file whose repeated layers are Loops, verified against its source.

    Equal weights are found by their content, iterations by proof: no metadata and no names are asked.

    Args:
        model: An ONNX file of any tool.
        path: Target; default: ``NAME.loop.onnx`` beside the model.
        inner: What becomes of loops inside an iteration: written out, or Loops as well.
        dynamic_loops: Make the count an input ``loops``, clamped to 1 .. the rows of the shortest table, without tables
            65,536.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing file.

    Returns:
        The loops, nodes and bytes before and after, and the largest error on generated inputs.

    Raises:
        InputError: The model or the target cannot be used, nothing in the model is a loop, or its count cannot be chosen.
        VerificationError: The outputs differ from the source's, or ONNX Runtime ends on the new file; nothing is left.
    """
    source = Path(model)
    target = Path(path) if path is not None else source.with_suffix(LOOP_SUFFIX)
    if inner not in {"unrolled", "loop"}:
        raise InputError(f"{option_name('inner')} is {inner!r}, not unrolled or loop")
    return again_if_replaced(
        source,
        lambda: _reroll(
            source,
            target,
            inner=inner == "loop",
            dynamic_loops=dynamic_loops,
            threads=threads,
            force=force,
        ),
    )


def _reroll(
    source: Path,
    target: Path,
    *,
    inner: bool,
    dynamic_loops: bool,
    threads: int | None,
    force: bool,
) -> RerollResult:
    """Do as `reroll`; a source that is replaced meanwhile is an error."""
    artifact = _open_source(source)
    check_paths(
        inputs={"MODEL": artifact.needed_files()},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    check_artifact_target(target, artifact.files, force=force)
    notes = check_whole(source)
    beside = companions_to_copy(source, artifact.metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    rolling = roll(artifact.fresh_graph(), inner=inner)
    if not rolling.loops:
        raise _nothing_rolled(artifact, rolling)
    graph = rolling.model
    strip_metadata(graph)
    write_metadata(_described(artifact, rolling), graph.metadata_props)
    if dynamic_loops:
        _choose_count(artifact, rolling)
    metadata = read_metadata(graph.metadata_props)
    rolled = time.perf_counter()
    found: list[Difference] = []

    def verify(staged: Path) -> Metadata:
        tolerance = Tolerance(
            relative=tolerated_error(
                artifact.graph, sum(loop.iterations for loop in rolling.loops)
            ),
            file="the rerolled file",
        )
        found.append(
            compare_in_child(artifact, staged, tolerance, longest=LONGEST, threads=threads)
        )
        artifact.check_unchanged()
        return metadata.model_copy(update={"max_rel_error": found[0].max_rel_error})

    files = write_artifact(
        graph, target, sources=artifact.files, force=force, verify=verify, companions=beside
    )
    verified = time.perf_counter()
    return RerollResult(
        path=str(target),
        source=str(source),
        loops=rolling.loops,
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
        notes=[*notes, *(f"not rolled: {reason}" for reason in rolling.reasons)],
        seconds={"reroll": rolled - started, "verify": verified - rolled},
    )


def _open_source(source: Path) -> Artifact:
    artifact = Artifact.open(source)
    refuse_prepared(artifact.metadata, source, "reroll")
    refuse_cache(artifact.metadata, source, "reroll")
    if artifact.ort_format:
        raise InputError(
            f"{source} is in ORT format, the last step: reroll the .onnx file",
            hint=f"loopedge reroll {source.with_suffix('.onnx')}",
        )
    return artifact


def _nothing_rolled(artifact: Artifact, rolling: Rolling) -> InputError:
    """Say why a file has no loop that could be given back."""
    tried = next(iter(rolling.reasons), None)
    loops = loops_among(artifact.graph.graph)
    if loops:
        besides = f"; besides, {tried}" if tried else ""
        reason = f"it has its Loop already, {loops[0].name}{besides}"
    else:
        reason = reason_against(artifact.graph) or tried or "nothing in it repeats"
    return InputError(
        f"{artifact.path} cannot be rerolled: {reason}", hint=f"loopedge inspect {artifact.path}"
    )


def _choose_count(artifact: Artifact, rolling: Rolling) -> None:
    """Let an input choose how often the only loop runs, in place.

    Raises:
        InputError: It cannot: there are several loops, iterations outside of it, or something else needs the count.
    """
    first = rolling.loops[0]
    outside = first.peeled_first or first.peeled_last
    if len(rolling.loops) == 1 and outside:
        raise _not_selectable(artifact, f"an iteration stands outside of the Loop: {outside}")
    try:
        make_count_selectable(rolling.model)
    except InputError as error:
        raise _not_selectable(artifact, error.message) from error


def _not_selectable(artifact: Artifact, reason: str) -> InputError:
    return InputError(
        f"the loop count of {artifact.path} cannot become an input: {reason}",
        hint=f"leave out {option_name('dynamic_loops')}",
    )


def _weight_bytes(artifact: Artifact) -> int:
    """Return the bytes of the weights of the source, those in Constant nodes too."""
    graph = artifact.fresh_graph()
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(graph)
    return weight_bytes(graph)


def _described(artifact: Artifact, rolling: Rolling) -> Metadata:
    """Return what the new file says of itself: what its source said, and its loops."""
    first = rolling.loops[0]
    cores = {loop.name: loop.iterations for loop in rolling.loops}
    tables = [name for name in rolling.model.graph.initializers if name.startswith(TABLE_PREFIX)]
    known = artifact.metadata
    update: dict[str, Any] = {
        "form": "loop",
        "dynamic_loops": False,
        "optimized": False,
        "tables": tables,
        "source_sha256": file_sha256(artifact.path),
    }
    if known.form == "loop" and known.loops is not None:
        cores = {**(known.cores or {CORE_NAME: known.loops}), **cores}
        update["dynamic_loops"] = known.dynamic_loops
    else:
        update["loops"] = first.iterations
        update["trained_loops"] = known.trained_loops or first.iterations
        if first.tables:
            update["max_loops"] = first.iterations
    if len(cores) > 1:
        update["cores"] = cores
    if not known.foreign:
        return known.model_copy(update=update)
    return ArtifactMetadata(version=loopedge.__version__, **update)
