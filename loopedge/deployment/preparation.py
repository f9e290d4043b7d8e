"""Pack a model's weights into a file for the device that this runs on: what ``loopedge prepare`` does."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, files_beside, open_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.reading.onnx_file import parse_onnx
from loopedge.artifact.seal import check_whole, name_data, write_sealed
from loopedge.artifact.sizes import DataFile
from loopedge.deployment.verification import Tolerance, compare_with_source, described_files
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.staging import again_if_replaced, staged_folder
from loopedge.files.targets import FileSize, check_artifact_target
from loopedge.graph.metadata import Prepared
from loopedge.graph.operators import WEIGHT_PLACES
from loopedge.options import option_name
from loopedge.runtime.decoding.refusals import refuse_cache
from loopedge.runtime.graph_file import data_entries, write_graph
from loopedge.runtime.memory_profiles import PREPARED_SUFFIX, refuse_prepared, this_device
from loopedge.runtime.session_options import session_options

__all__ = ["NotPacked", "PrepareResult", "prepare"]

TOLERANCE = 1e-6
"""Largest allowed max |y - ref| / max |ref|: the same kernels run, what was measured is 0."""

EXTERNAL_BYTES = 1024
"""Initializers of as many bytes go into the data file, where alone they can be mapped."""

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
    files: list[FileSize]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """A file with packed weights that was written, and what stands in it."""

    path: Path
    data: DataFile | None
    packed: dict[str, int]
    not_packed: list[NotPacked]


def _prepare(source: Path, target: Path, *, threads: int | None, force: bool) -> PrepareResult:
    """Do as `prepare`; a source that is replaced meanwhile is an error."""
    artifact = _open_source(source)
    notes = check_whole(source)
    device = this_device()
    check_paths(
        inputs={"MODEL": artifact.needed_files()},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    check_artifact_target(target, artifact.files, force=force)
    beside = companions_to_copy(source, artifact.metadata, target)
    check_companion_targets(target.parent, beside)
    with staged_folder(target, force=force, replaced=files_beside) as folder:
        started = time.perf_counter()
        packed = _write_packed(artifact, folder / target.name, device)
        written = time.perf_counter()
        tolerance = Tolerance(
            relative=TOLERANCE, file="the prepared file", hint=f"loopedge run {source} --memory low"
        )
        difference = compare_with_source(
            artifact,
            packed.path,
            tolerance,
            longest=LONGEST,
            memory=("balanced", "mapped"),
            threads=threads,
        )
        verified = time.perf_counter()
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        artifact.check_unchanged()
        data = [folder / packed.data.file] if packed.data else []
        return PrepareResult(
            path=str(target),
            source=str(source),
            memory="mapped",
            **device.model_dump(include={"onnxruntime", "architecture", "processor", "features"}),
            packed=len(packed.packed),
            packed_bytes=sum(packed.packed.values()),
            not_packed=packed.not_packed,
            max_abs_error=difference.max_abs_error,
            max_rel_error=difference.max_rel_error,
            verified=True,
            cases=difference.cases,
            source_bytes=artifact.file_bytes,
            files=described_files(
                [packed.path, *data, *(folder / name for name in beside)], target.parent
            ),
            notes=[*notes, *_notes(artifact, packed)],
            seconds={"prepare": written - started, "verify": verified - written},
        )


def _open_source(source: Path) -> Artifact:
    """Open what is to be prepared.

    Raises:
        InputError: Another tool wrote it, it is prepared already, or in ORT format.
    """
    artifact = Artifact.open(source)
    if artifact.metadata.foreign:
        raise InputError(
            f"{source} was not written by loopedge: it cannot hold what it was prepared for",
            hint=f"loopedge inspect {source}",
        )
    refuse_prepared(artifact.metadata, source, "prepare")
    refuse_cache(artifact.metadata, source, "prepare")
    if artifact.ort_format:
        raise InputError(
            f"{source} is in ORT format, which holds no packed weights",
            hint=f"loopedge prepare {source.with_suffix('.onnx')}",
        )
    return artifact


def _write_packed(artifact: Artifact, staged: Path, device: Prepared) -> _Packed:
    """Let onnxruntime write the graph that it would run, its weights packed beside it.

    Raises:
        InputError: onnxruntime packs none.
    """
    entries = {
        "session.save_external_prepacked_constant_initializers": "1",
        **data_entries(staged, least_bytes=EXTERNAL_BYTES),
    }
    write_graph(artifact.path, staged, session_options(1), entries, purpose="prepared")
    proto = parse_onnx(staged)
    data = name_data(proto, staged)
    packed = dict(_packed_bytes(proto.graph))
    if not packed:
        raise InputError(
            f"onnxruntime {device.onnxruntime} packs no weight of {artifact.path} on this processor: "
            "there is nothing to prepare",
            hint=f"loopedge run {artifact.path} --memory low",
        )
    # What was stored in float16 was widened to be packed.
    update = {"memory": "mapped", "prepared": device, "storage": None}
    write_sealed(proto, staged, artifact.metadata.model_copy(update=update), data)
    not_packed = _not_packed(open_artifact(staged), set(packed))
    return _Packed(path=staged, data=data, packed=packed, not_packed=not_packed)


def _notes(artifact: Artifact, packed: _Packed) -> list[str]:
    widened = [WIDENED] if artifact.metadata.storage == "float16" else []
    return widened + [
        f"the weight {item.weight} of {item.name} is not packed: {item.reason}"
        for item in packed.not_packed
        if item.reason not in {AS_STORED, SMALL}
    ]


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
