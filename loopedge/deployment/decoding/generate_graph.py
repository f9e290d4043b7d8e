"""The graph of a generate file: rewritten, and what it says of itself."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import onnx_ir as ir

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.graph.core.loop_view import loops_among
from loopedge.graph.core.unrolling import unroll_loops
from loopedge.graph.decoding.cache.skipping import ExitPolicy, run_on, skip_done
from loopedge.graph.decoding.cache.slots import PAST
from loopedge.graph.decoding.decoding import Decoding, DecodingOptions, give_cache
from loopedge.graph.metadata import (
    TOLERANCE_EXIT,
    ArtifactMetadata,
    CacheKind,
    CacheSlot,
    CacheType,
    Generation,
    Metadata,
    write_metadata,
)
from loopedge.graph.passes.simplify import strip_metadata

__all__ = [
    "GenerateForm",
    "GenerateRequest",
    "cached_graph",
    "described",
    "exit_tolerance",
    "file_metadata",
    "rewritten",
]

GenerateForm = Literal["scan", "unrolled", "tensorscatter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """What is asked for, as `loopedge.to_generate` takes it."""

    form: GenerateForm
    cache: CacheKind
    cache_type: CacheType
    data: Any
    samples: int
    exit: ExitPolicy | None
    tolerance: float | None
    threads: int | None
    force: bool

    @property
    def exact(self) -> "GenerateRequest":
        """The same with a cache of floats."""
        return replace(self, cache_type="float32")


def cached_graph(artifact: Artifact, form: GenerateForm) -> tuple[ir.Model, list[str]]:
    """Return the graph that `loopedge.to_generate` writes, with its metadata, and the notes; nothing is compared.

    Args:
        artifact: A model that need not be a file yet; its weights are not read.
        form: As for `loopedge.to_generate`.

    Raises:
        InputError: As `loopedge.to_generate`.

    Unchecked: that what the graph decodes is what the artifact computes.
    """
    wanted = GenerateRequest(
        form=form,
        cache="per-loop",
        cache_type="float32",
        data=None,
        samples=0,
        exit=None,
        tolerance=None,
        threads=None,
        force=False,
    )
    decoding = rewritten(artifact, artifact.fresh_graph(), wanted)
    return decoding.model, list(decoding.notes)


def rewritten(artifact: Artifact, graph: ir.Model, wanted: GenerateRequest) -> Decoding:
    """Give a graph of the artifact a cache.

    Raises:
        InputError: As `give_cache`, with the name of the file.
    """
    try:
        if wanted.form == "unrolled" and loops_among(graph.graph.all_nodes()):
            graph = unroll_loops(graph, inner=True).model
        options = DecodingOptions(
            operators="standard" if wanted.form == "tensorscatter" else "grouped",
            last_loop=wanted.cache == "last-loop",
        )
        if wanted.exit is not None:
            run_on(graph, tolerance=exit_tolerance(artifact, wanted))
        decoding = give_cache(graph, options)
        if wanted.exit is not None:
            skip_done(decoding.model, wanted.exit)
    except InputError as error:
        hint = error.hint or f"loopedge inspect {artifact.path}"
        raise InputError(
            f"{artifact.path} cannot be given a cache: {error.message}",
            hint=hint.replace("MODEL", str(artifact.path)),
        ) from error
    strip_metadata(decoding.model)
    write_metadata(file_metadata(artifact, decoding, wanted), decoding.model.metadata_props)
    return decoding


def exit_tolerance(artifact: Artifact, wanted: GenerateRequest) -> float | None:
    """Return the tolerance of the exit: as asked for, or as exported; None: the model's own halt ends it."""
    exported = artifact.metadata.tolerance
    return exported if wanted.tolerance is None or exported is None else wanted.tolerance


def described(artifact: Artifact, decoding: Decoding, wanted: GenerateRequest) -> Generation:
    """Return what the new file says of its cache."""
    narrow = any(
        value.dtype == ir.DataType.FLOAT16 and (value.name or "").startswith(f"{PAST}.")
        for value in decoding.model.graph.inputs
    )
    return Generation(
        cache=wanted.cache,
        cache_type="float16" if narrow else wanted.cache_type,
        exit=wanted.exit,
        context=decoding.context,
        vocab_size=decoding.vocab_size,
        slots=[CacheSlot(**asdict(slot)) for slot in decoding.slots],
        end_ids=artifact.metadata.end_ids,
    )


def file_metadata(artifact: Artifact, decoding: Decoding, wanted: GenerateRequest) -> Metadata:
    """Return what the new file says of itself."""
    known = artifact.metadata
    repeats = [slot.loops for slot in decoding.slots if slot.loops is not None]
    loops = known.loops or next(iter(repeats), 1)
    update: dict[str, Any] = {
        "form": wanted.form if repeats else "unrolled",
        "loops": loops,
        "trained_loops": known.trained_loops or loops,
        "dynamic_loops": False,
        "optimized": False,
        "generate": described(artifact, decoding, wanted),
    }
    if wanted.exit is not None and (tolerance := exit_tolerance(artifact, wanted)) is not None:
        update["exit"] = f"{TOLERANCE_EXIT}{tolerance!r}"
    if not known.foreign:
        return known.model_copy(update=update)
    return ArtifactMetadata(version=loopedge.__version__, **update)
