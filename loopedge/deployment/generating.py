"""Give a language model a cache: what ``loopedge to-generate`` does."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.deployment.decoding.cache_check import CacheLoss
from loopedge.deployment.decoding.cache_rounding import (
    SAMPLES,
    check_cache_type,
    rounding,
)
from loopedge.deployment.decoding.exit_check import check_exit
from loopedge.deployment.decoding.generate_check import compare_with_source
from loopedge.deployment.decoding.generate_graph import (
    GenerateForm,
    GenerateRequest,
    described,
    file_metadata,
    rewritten,
)
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced
from loopedge.files.targets import FileSize, check_artifact_target
from loopedge.graph.decoding.cache.skipping import ExitPolicy
from loopedge.graph.metadata import (
    CacheKind,
    CacheSlot,
    CacheType,
    Metadata,
    read_metadata,
    write_metadata,
)
from loopedge.graph.weights import weight_bytes
from loopedge.options import option, option_name
from loopedge.runtime.memory_profiles import refuse_prepared

if TYPE_CHECKING:
    from loopedge.deployment.decoding.decode_check import DecodeDifference

__all__ = ["GENERATE_SUFFIX", "GenerateResult", "to_generate"]

GENERATE_SUFFIX = ".generate.onnx"

CACHES: tuple[str, ...] = get_args(CacheKind)
FORMS: tuple[str, ...] = get_args(GenerateForm)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateResult:
    """A file that decodes with a cache, and how well it agrees with its source.

    ``cache_bytes_per_token`` are those of one row at ``loops`` iterations; ``max_rel_error`` and ``sqnr_db`` of decoded
    logits against those of whole texts, ``tokens`` of them in ``cases`` texts and rows. Where the cache holds integers, those
    are of the same graph with one of floats, and ``cache_loss`` says what the integers cost.
    """

    path: str
    source: str
    form: str
    cache: str
    cache_type: str
    exit: str | None
    loops: int
    context: int | None
    slots: list[CacheSlot]
    cache_bytes_per_token: int
    opset: int | None
    nodes: int
    source_nodes: int
    weight_bytes: int
    files: list[FileSize]
    max_abs_error: float
    max_rel_error: float
    sqnr_db: float
    cache_loss: CacheLoss | None
    verified: bool
    cases: int
    tokens: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self) | {"slots": [slot.model_dump() for slot in self.slots]}


def to_generate(
    model: str | Path,
    path: str | Path | None = None,
    *,
    form: GenerateForm | None = None,
    cache: CacheKind = "per-loop",
    cache_type: CacheType = "float32",
    data: Any = None,
    samples: int = SAMPLES,
    exit: ExitPolicy | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
    force: bool = False,
) -> GenerateResult:
    """Write a file that decodes a language model with a cache, verified against its source.

    The graph is rewritten, whatever made it and whether it is quantized or not: quantize first.

    Args:
        model: A causal language model, token ids (batch, sequence) to logits (batch, sequence, vocabulary).
        path: Target; default: ``NAME.generate.onnx`` beside the model.
        form: ``scan``: the weights of the core once, and a Scan. ``unrolled``: its iterations written out.
            ``tensorscatter``: a Scan of standard operators, opset 24. Default: ``scan``, for ``last-loop`` ``unrolled``.
        cache: ``per-loop``: each iteration keeps its own keys and values, as recomputation has them (default).
            ``last-loop``: all iterations read those of the last one, and their own of the chunk; for models that are
            trained so. What is computed depends on the chunks then.
        cache_type: Of keys and values: ``float32``; ``int8`` or ``int4``, with a scale for each channel of each
            iteration, which is found on data (onnxruntime 1.27).
        data: Text to find scales on, as `loopedge.quantize` takes data: the text of the task, or ids in ``.npz``.
        samples: Texts that calibrate, at most.
        exit: For a model with an early exit: each token ends for itself, one text at a time. What the iterations that
            it skips keep for later tokens: ``copy``: keys and values of the last that ran; ``holes``: zeros.
        tolerance: With ``exit``: another tolerance than the exported one.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing file.

    Returns:
        The slots of the cache, and the largest error of decoded logits.

    Raises:
        InputError: The model or the target cannot be used: it is not causal, or its attention is not recognised.
        VerificationError: What is decoded differs from what the source computes; nothing is left.
    """
    source = Path(model)
    target = Path(path) if path is not None else source.with_suffix(GENERATE_SUFFIX)
    form = form or ("scan" if cache == "per-loop" else "unrolled")
    for name, value, known in (("form", form, FORMS), ("cache", cache, CACHES)):
        if value not in known:
            raise InputError(
                f"{option_name(name)} is {value!r}, not known",
                hint=" or ".join(option(name, each) for each in known),
            )
    if cache == "last-loop" and form != "unrolled":
        raise InputError(
            f"{option('cache', cache)} shares one slot among all iterations: they are written out",
            hint=f"{option('form', 'unrolled')} {option('cache', cache)}",
        )
    check_cache_type(cache_type, form=form, data=data)
    check_exit(exit, tolerance, form=form, cache_type=cache_type)
    wanted = GenerateRequest(
        form=form,
        cache=cache,
        cache_type=cache_type,
        data=data,
        samples=samples,
        exit=exit,
        tolerance=tolerance,
        threads=threads,
        force=force,
    )
    return again_if_replaced(source, lambda: _to_generate(source, target, wanted))


def _to_generate(source: Path, target: Path, wanted: GenerateRequest) -> GenerateResult:
    """Do as `to_generate`; a source that is replaced meanwhile is an error."""
    artifact = _open_source(source, wanted.tolerance, exits=wanted.exit is not None)
    check_paths(
        inputs={"MODEL": artifact.needed_files()},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    check_artifact_target(target, artifact.files, force=wanted.force)
    notes = check_whole(source)
    beside = companions_to_copy(source, artifact.metadata, target)
    check_companion_targets(target.parent, beside)
    started = time.perf_counter()
    decoding = rewritten(artifact, artifact.fresh_graph(), wanted.exact)
    graph, generation = decoding.model, described(artifact, decoding, wanted)
    found: list[DecodeDifference] = []
    losses: list[CacheLoss] = []
    with rounding(
        artifact,
        graph,
        described(artifact, decoding, wanted.exact),
        wanted.cache_type,
        wanted.data,
        samples=wanted.samples,
        threads=wanted.threads,
    ) as rounded:
        if rounded is not None:
            rounded.apply(graph)
            write_metadata(file_metadata(artifact, decoding, wanted), graph.metadata_props)
            notes += rounded.notes
        metadata = read_metadata(graph.metadata_props)
        made = time.perf_counter()

        def verify(staged: Path) -> Metadata:
            found.append(compare_with_source(artifact, staged, decoding, rounded, wanted))
            if rounded is not None:
                losses.append(rounded.measure(staged, generation, threads=wanted.threads))
            artifact.check_unchanged()
            return metadata.model_copy(update={"max_rel_error": found[0].max_rel_error})

        files = write_artifact(
            graph,
            target,
            sources=artifact.files,
            force=wanted.force,
            verify=verify,
            companions=beside,
        )
    assert metadata.loops is not None
    assert metadata.form is not None
    return GenerateResult(
        path=str(target),
        source=str(source),
        form=metadata.form,
        cache=generation.cache,
        cache_type=generation.cache_type,
        exit=generation.exit,
        loops=metadata.loops,
        context=generation.context,
        slots=generation.slots,
        cache_bytes_per_token=generation.bytes_per_token,
        opset=graph.opset_imports.get(""),
        nodes=sum(1 for _ in graph.graph.all_nodes()),
        source_nodes=sum(1 for _ in artifact.graph.graph.all_nodes()),
        weight_bytes=weight_bytes(graph),
        files=[FileSize.of(file) for file in files],
        max_abs_error=found[0].max_abs_error,
        max_rel_error=found[0].max_rel_error,
        sqnr_db=found[0].sqnr_db,
        cache_loss=losses[0] if losses else None,
        verified=True,
        cases=found[0].cases,
        tokens=found[0].tokens,
        notes=[*notes, *decoding.notes, *_exit_notes(found[0].iterations, metadata.loops)],
        seconds={"rewrite": made - started, "verify": time.perf_counter() - made},
    )


def _exit_notes(iterations: float | None, loops: int) -> list[str]:
    """Say how early tokens leave: a rule that never holds, or always, saves or computes nothing."""
    if iterations is None:
        return []
    return [f"tokens of a random text ran {iterations:.2f} of {loops} loops in the mean"]


def _open_source(source: Path, tolerance: float | None, *, exits: bool) -> Artifact:
    artifact = Artifact.open(source)
    metadata = artifact.metadata
    refuse_prepared(metadata, source, "to-generate")
    if artifact.ort_format:
        raise InputError(
            f"{source} is in ORT format, the last step: start from the .onnx file",
            hint=f"loopedge to-generate {source.with_suffix('.onnx')}",
        )
    if metadata.generate is not None:
        raise InputError(
            f"{source} decodes with a cache already",
            hint=f"loopedge generate {source} --prompt ...",
        )
    if exits and metadata.exit is None:
        raise InputError(
            f"{source} has no early exit", hint="loopedge export model.pt --exit tolerance=0.1"
        )
    if exits and tolerance is not None and metadata.tolerance is None:
        raise InputError(
            f"{source} ends by a halt of its own, it takes no tolerance",
            hint=f"leave out {option_name('tolerance')}",
        )
    for said, option_text in (
        (metadata.exit is not None and not exits, "--exit none"),
        (metadata.last_rows is not None, "--no-last-rows"),
        (metadata.logits == "last", "--logits all"),
    ):
        if said:
            raise InputError(
                f"{source} was exported in a form that no cache can be given to",
                hint=f"loopedge export model.pt --task generate, or loopedge export model.pt {option_text}",
            )
    return artifact
