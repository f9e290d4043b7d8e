"""Give a language model a cache: what ``loopedge to-generate`` does."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact, write_scratch
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.deployment.cache_check import CacheLoss
from loopedge.deployment.cache_rounding import (
    SAMPLES,
    CacheRounding,
    check_cache_type,
    rounding,
)
from loopedge.deployment.decode_check import DecodeDifference, LastLoop, compare_decoding, tolerated
from loopedge.deployment.exit_check import check_exit, compare_exits, never_done
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.scratch import never_named
from loopedge.files.staging import again_if_replaced
from loopedge.files.targets import FileSize, check_artifact_target
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
    read_metadata,
    write_metadata,
)
from loopedge.graph.passes.simplify import strip_metadata
from loopedge.graph.timestep_rows import random_rows
from loopedge.graph.weights import TABLE_PREFIX, weight_bytes
from loopedge.options import option, option_name
from loopedge.runtime.memory_profiles import refuse_prepared

__all__ = ["GENERATE_SUFFIX", "GenerateResult", "cached_graph", "to_generate"]

GENERATE_SUFFIX = ".generate.onnx"

GenerateForm = Literal["scan", "unrolled", "tensorscatter"]
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
    wanted = _Wanted(
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


def cached_graph(artifact: Artifact, form: GenerateForm) -> tuple[ir.Model, list[str]]:
    """Return the graph that `to_generate` writes, with its metadata, and the notes; nothing is compared.

    Args:
        artifact: A model that need not be a file yet; its weights are not read.
        form: As for `to_generate`.

    Raises:
        InputError: As `to_generate`.

    Unchecked: that what the graph decodes is what the artifact computes.
    """
    wanted = _Wanted(
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
    decoding = _rewritten(artifact, artifact.fresh_graph(), wanted)
    return decoding.model, list(decoding.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is asked for, as `to_generate` takes it."""

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
    def exact(self) -> "_Wanted":
        """The same with a cache of floats."""
        return replace(self, cache_type="float32")


def _to_generate(source: Path, target: Path, wanted: _Wanted) -> GenerateResult:
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
    decoding = _rewritten(artifact, artifact.fresh_graph(), wanted.exact)
    graph, generation = decoding.model, _described(artifact, decoding, wanted)
    found: list[DecodeDifference] = []
    losses: list[CacheLoss] = []
    with rounding(
        artifact,
        graph,
        _described(artifact, decoding, wanted.exact),
        wanted.cache_type,
        wanted.data,
        samples=wanted.samples,
        threads=wanted.threads,
    ) as rounded:
        if rounded is not None:
            rounded.apply(graph)
            write_metadata(_metadata(artifact, decoding, wanted), graph.metadata_props)
            notes += rounded.notes
        metadata = read_metadata(graph.metadata_props)
        rewritten = time.perf_counter()

        def verify(staged: Path) -> Metadata:
            found.append(_compare_exact(artifact, staged, decoding, rounded, wanted))
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
        notes=[*notes, *decoding.notes],
        seconds={"rewrite": rewritten - started, "verify": time.perf_counter() - rewritten},
    )


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


def _rewritten(artifact: Artifact, graph: ir.Model, wanted: _Wanted) -> Decoding:
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
            run_on(graph, tolerance=_tolerance(artifact, wanted))
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
    write_metadata(_metadata(artifact, decoding, wanted), decoding.model.metadata_props)
    return decoding


def _tolerance(artifact: Artifact, wanted: _Wanted) -> float | None:
    """Return the tolerance of the exit: as asked for, or as exported; None: the model's own halt ends it."""
    exported = artifact.metadata.tolerance
    return exported if wanted.tolerance is None or exported is None else wanted.tolerance


def _described(artifact: Artifact, decoding: Decoding, wanted: _Wanted) -> Generation:
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


def _metadata(artifact: Artifact, decoding: Decoding, wanted: _Wanted) -> Metadata:
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
        "generate": _described(artifact, decoding, wanted),
    }
    if wanted.exit is not None and (tolerance := _tolerance(artifact, wanted)) is not None:
        update["exit"] = f"{TOLERANCE_EXIT}{tolerance!r}"
    if not known.foreign:
        return known.model_copy(update=update)
    return ArtifactMetadata(version=loopedge.__version__, **update)


def _compare_exact(
    source: Artifact,
    written: Path,
    decoding: Decoding,
    rounded: CacheRounding | None,
    wanted: _Wanted,
) -> DecodeDifference:
    """Compare the file, or where its cache holds integers the same graph with floats, with its source."""
    exact = wanted.exact
    if wanted.exit is not None:
        return _compare_exits(source, written, decoding, wanted)
    file = written if rounded is None else rounded.exact
    found = _compare(source, file, _described(source, decoding, exact), exact)
    _compare_other_rows(source, written.parent, exact)
    return found


def _compare_exits(
    source: Artifact, written: Path, decoding: Decoding, wanted: _Wanted
) -> DecodeDifference:
    """Compare a file that is never done with whole texts, and what the exits skip with that."""
    never = replace(wanted, exit=None)
    with _scratch(written.parent, source.path) as folder:
        running = never_done(source, folder / "never.onnx")
        plain = _rewritten(running, running.fresh_graph(), never)
        file, generation = folder / "plain.onnx", _described(running, plain, never)
        write_scratch(plain.model, file)
        found = _compare(running, file, generation, never)
        _compare_other_rows(running, folder, never)
        own = (written, _described(source, decoding, wanted))
        compare_exits(
            (file, generation),
            own,
            wanted.exit or "copy",
            noise=source.metadata.random_inputs,
            threads=wanted.threads,
        )
    return found


def _compare(
    source: Artifact, written: Path, generation: Generation, wanted: _Wanted
) -> DecodeDifference:
    """Compare decoded logits with those of whole texts, or of `LastLoop` where these depend on the chunks."""
    allowed = tolerated(source.graph)
    if wanted.cache == "per-loop":
        return compare_decoding(source, written, generation, allowed, threads=wanted.threads)
    own = replace(wanted, cache="per-loop")
    decoding = _rewritten(source, source.fresh_graph(), own)
    with _scratch(written.parent, source.path) as folder:
        path = folder / "per-loop.onnx"
        write_scratch(decoding.model, path)
        own_generation = _described(source, decoding, own)
        compare_decoding(source, path, own_generation, allowed, threads=wanted.threads)
        reference = LastLoop(path, own_generation, threads=wanted.threads)
        return compare_decoding(
            source, written, generation, allowed, reference=reference, threads=wanted.threads
        )


@contextmanager
def _scratch(beside: Path, source: Path) -> Iterator[Path]:
    """Yield a folder for copies of a model, on the disk of another file: their names are those of none that is written."""
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.", dir=beside) as name,
        never_named(Path(name), source),
    ):
        yield Path(name)


def _compare_other_rows(artifact: Artifact, beside: Path, wanted: _Wanted) -> None:
    """Compare once more with random timestep rows: an untrained stack hides its attention behind gates of zero."""
    tables = {
        name: value.const_value.numpy()
        for name, value in artifact.graph.graph.initializers.items()
        if name.startswith(TABLE_PREFIX) and value.const_value is not None
    }
    if not tables:
        return
    rows = random_rows(tables, np.random.default_rng(0))
    with _scratch(beside, artifact.path) as folder:
        source, decoded = folder / "rows.onnx", folder / "rows.generate.onnx"
        write_scratch(_with_tables(artifact.fresh_graph(), rows), source)
        other = Artifact.open(source)
        decoding = _rewritten(other, other.fresh_graph(), wanted)
        write_scratch(decoding.model, decoded)
        _compare(other, decoded, _described(other, decoding, wanted), wanted)


def _with_tables(model: ir.Model, tables: Mapping[str, np.ndarray[Any, Any]]) -> ir.Model:
    for name, table in tables.items():
        model.graph.initializers[name].const_value = ir.tensor(table, name=name)
    return model
