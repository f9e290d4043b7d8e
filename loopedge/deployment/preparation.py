"""Pack a model's weights into a file for the device that this runs on: what ``loopedge prepare`` does."""

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from loopedge.artifact.artifact import artifact_files, files_beside, open_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.artifact.seal import check_whole, name_weights, seal
from loopedge.artifact.sources import source_files
from loopedge.errors import InputError, LoopedgeError, VerificationError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced, check_unchanged, identity_of, staged_folder
from loopedge.files.targets import check_artifact_target
from loopedge.graph.agreement import largest_error, worst
from loopedge.graph.inputs import default_sequence, inputs_to_check
from loopedge.graph.metadata import ArtifactMetadata, read_metadata, write_metadata
from loopedge.graph.operators import WEIGHT_PLACES
from loopedge.runtime.memory_profiles import PREPARED_SUFFIX, refuse_prepared, this_device
from loopedge.runtime.session import Session
from loopedge.runtime.session_options import session_options

__all__ = ["NotPacked", "PrepareResult", "prepare"]

Array = npt.NDArray[Any]

TOLERANCE = 1e-6
"""Largest allowed max |y - ref| / max |ref|: the same kernels run, what was measured is 0."""

EXTERNAL_BYTES = 1024
"""Initializers of as many bytes go into the data file, where alone they can be mapped."""

LEAST_FREE_BYTES = 64 * 1024

LONGEST = 64  # positions of generated inputs: equality hardly depends on them, the time does
PACKED_KEY = "prepacked_"  # external_data entries of onnxruntime: key|offset;length;checksum|...

WIDENED = "the weights were stored in float16: they stand in the file as float32, and packed"
AS_STORED = "the product reads it as it is stored, in every profile"
SMALL = f"it has less than {EXTERNAL_BYTES} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPacked:
    """A matrix product whose stored weight stands in the file as it was."""

    name: str
    weight: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What was packed, for which device, and how far the outputs moved."""

    path: str
    source: str
    memory: str
    onnxruntime: str
    architecture: str
    processor: str
    features: list[str]
    packed: int
    packed_bytes: int
    not_packed: list[NotPacked]
    max_abs_error: float
    max_rel_error: float
    verified: bool
    cases: int
    source_bytes: int
    files: list[dict[str, Any]]
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def prepare(
    model: str | Path,
    path: str | Path | None = None,
    *,
    threads: int | None = None,
    force: bool = False,
) -> PrepareResult:
    """Write a file whose packed weights are mapped, for this processor and this onnxruntime.

    A session on it runs as fast as on the source and keeps the packed weights in pages of the file,
    which the kernel may drop and read again, instead of in memory of its own. On another processor
    or another version of onnxruntime the file is refused: run this on the device, and again after
    each update.

    Args:
        model: An artifact of `loopedge.export` or `loopedge.quantize`.
        path: Target; default: ``model.prepared.onnx`` beside the model.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing file.

    Returns:
        What was packed, and the largest error against the source on generated inputs.

    Raises:
        InputError: The model or the target cannot be used, or nothing in it can be packed.
        VerificationError: The outputs differ from the source's; nothing is left.
    """
    source = Path(model)
    target = Path(path) if path is not None else source.with_suffix(PREPARED_SUFFIX)
    return again_if_replaced(source, lambda: _prepare(source, target, threads=threads, force=force))


def _prepare(source: Path, target: Path, *, threads: int | None, force: bool) -> PrepareResult:
    """Do as `prepare`; a source that is replaced meanwhile is an error."""
    before = identity_of(source)
    graph = open_artifact(source)
    metadata = read_metadata(graph.metadata_props)
    if metadata is None:
        raise InputError(
            f"{source} was not written by loopedge: it cannot hold what it was prepared for",
            hint=f"loopedge inspect {source}",
        )
    refuse_prepared(metadata, source, "prepare")
    if is_ort_format(source):
        raise InputError(
            f"{source} is in ORT format, which holds no packed weights",
            hint=f"loopedge prepare {source.with_suffix('.onnx')}",
        )
    notes = check_whole(source)
    device = this_device()
    check_paths(
        inputs={"MODEL": source_files(source, metadata)},
        outputs={"--output": ArtifactTarget(target)},
    )
    data_files = artifact_files(source)
    check_artifact_target(target, data_files, force=force)
    beside = companions_to_copy(source, metadata, target)
    check_companion_targets(target.parent, beside)
    with (
        staged_folder(target, force=force, replaced=files_beside) as folder,
        _full_disk_told(folder),
    ):
        started = time.perf_counter()
        staged = folder / target.name
        _pack(source, staged)
        weights = name_weights(staged)
        proto = onnx.load(staged, load_external_data=False)
        packed = dict(_packed_bytes(proto.graph))
        not_packed = _not_packed(open_artifact(staged), set(packed))
        if not packed:
            raise InputError(
                f"onnxruntime {device.onnxruntime} packs no weight of {source} on this processor: "
                "there is nothing to prepare",
                hint=f"loopedge run {source} --memory low",
            )
        # What was stored in float16 was widened to be packed.
        told = metadata.model_copy(update={"memory": "mapped", "prepared": device, "storage": None})
        _store(proto, told, staged)
        written = time.perf_counter()
        errors = _verify(source, staged, graph, threads=threads)
        verified = time.perf_counter()
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        seal(staged, weights)
        check_unchanged(source, before)
    return PrepareResult(
        path=str(target),
        source=str(source),
        memory="mapped",
        **device.model_dump(include={"onnxruntime", "architecture", "processor", "features"}),
        packed=len(packed),
        packed_bytes=sum(packed.values()),
        not_packed=not_packed,
        max_abs_error=max(absolute for absolute, _ in errors),
        max_rel_error=max(relative for _, relative in errors),
        verified=True,
        cases=len(errors),
        source_bytes=sum(file.stat().st_size for file in data_files),
        files=[
            {"path": str(file), "bytes": file.stat().st_size}
            for file in (*artifact_files(target), *(target.parent / name for name in beside))
        ],
        notes=[
            *notes,
            *([WIDENED] if metadata.storage == "float16" else []),
            *(
                f"the weight {item.weight} of {item.name} is not packed: {item.reason}"
                for item in not_packed
                if item.reason not in {AS_STORED, SMALL}
            ),
        ],
        seconds={"prepare": written - started, "verify": verified - written},
    )


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Tell a full disk from other failures: onnxruntime does not say why it could not write."""
    try:
        yield
    except LoopedgeError as error:
        if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, "no space left") from error
        raise


def _pack(source: Path, staged: Path) -> None:
    """Let onnxruntime write the graph that it would run, its weights packed beside it."""
    options = session_options(1)
    options.optimized_model_filepath = str(staged)
    for key, value in (
        ("session.save_external_prepacked_constant_initializers", "1"),
        ("session.optimized_model_external_initializers_file_name", f"{staged.name}.data"),
        (
            "session.optimized_model_external_initializers_min_size_in_bytes",
            str(EXTERNAL_BYTES),
        ),
    ):
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{source} cannot be prepared: {reason[0].removeprefix('[ONNXRuntimeError] : ')}",
            hint=f"loopedge inspect {source}",
        ) from error
    if not staged.is_file():
        raise LoopedgeError(f"onnxruntime {ort.__version__} wrote no file for {source}")


def _packed_bytes(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Yield the weights that were packed into the file, those of Loop bodies too, and their bytes."""
    for tensor in graph.initializer:
        blobs = [
            blob
            for entry in tensor.external_data
            if entry.key.startswith(PACKED_KEY)
            for blob in entry.value.split("|")[1:]
        ]
        if blobs:
            yield tensor.name, sum(int(blob.split(";")[1]) for blob in blobs)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _packed_bytes(attribute.g)


def _not_packed(model: ir.Model, packed: set[str]) -> list[NotPacked]:
    """List the matrix products whose stored weight was not packed into the file."""
    found = []
    for node in model.graph.all_nodes():
        places = WEIGHT_PLACES.get(node.op_type)
        if places is None:
            continue
        for place in dict.fromkeys((places[0], 0)):
            value = node.inputs[place] if place < len(node.inputs) else None
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or len(tensor.shape) < 2 or value.name in packed:
                continue
            found.append(
                NotPacked(
                    name=node.name or node.op_type,
                    weight=value.name or "",
                    bytes=tensor.nbytes,
                    reason=_reason(tensor.nbytes, in_weight_slot=place == places[0]),
                )
            )
    return found


def _reason(size: int, *, in_weight_slot: bool) -> str:
    if not in_weight_slot:
        return AS_STORED
    return SMALL if size < EXTERNAL_BYTES else "onnxruntime does not pack it, or not into a file"


def _store(proto: onnx.ModelProto, metadata: ArtifactMetadata, staged: Path) -> None:
    properties = {item.key: item.value for item in proto.metadata_props}
    write_metadata(metadata, properties)
    onnx.helper.set_model_props(proto, properties)
    staged.write_bytes(proto.SerializeToString())


def _verify(
    source: Path, staged: Path, graph: ir.Model, *, threads: int | None
) -> list[tuple[float, float]]:
    """Compare the outputs on generated inputs; the sessions live one after the other.

    Returns:
        The largest absolute and relative error of each case.

    Raises:
        VerificationError: An output differs by more than `TOLERANCE`.
    """
    checks = inputs_to_check(graph, min(default_sequence(graph), LONGEST))
    feeds = [check.feeds for check in checks]
    expected = _outputs(source, feeds, "balanced", threads)
    given = _outputs(staged, feeds, "mapped", threads)
    errors = []
    for check, want, have in zip(checks, expected, given, strict=True):
        error = worst(largest_error(have[name], want[name]) for name in want)
        if not error.relative <= TOLERANCE:
            raise VerificationError(
                f"the prepared file differs from {source} ({check.name}): "
                f"relative error {error.relative:.2e}, allowed {TOLERANCE:.0e}",
                measured=error.relative,
                allowed=TOLERANCE,
                hint=f"loopedge run {source} --memory low",
            )
        errors.append((error.absolute, error.relative))
    return errors


def _outputs(
    path: Path, feeds: list[dict[str, Array]], memory: str, threads: int | None
) -> list[dict[str, Array]]:
    session = Session(path, threads=threads, memory=memory)
    return [session.run(each) for each in feeds]
