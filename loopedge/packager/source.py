"""The model that a bundle is made of: opened once, refused where no client can take it."""

from dataclasses import dataclass
from pathlib import Path

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.properties import read_properties
from loopedge.artifact.seal import check_whole
from loopedge.data.tokenizer import TOKENIZER_FILE
from loopedge.deployment.generating import to_generate
from loopedge.errors import InputError
from loopedge.graph.metadata import Metadata, read_metadata
from loopedge.options import option_name
from loopedge.runtime.memory_profiles import refuse_prepared

__all__ = ["TEXT_TASKS", "Source", "find_reference", "open_source"]

TEXT_TASKS = frozenset({"text", "pairs"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """The model of a bundle.

    Args:
        given: What the caller named.
        artifact: What goes into the bundle: the same, or the file with a cache that was made of it.
        notes: What a person should know of it.
        no_cache: Of a model of text: why it has none.
    """

    given: Artifact
    artifact: Artifact
    notes: tuple[str, ...] = ()
    no_cache: InputError | None = None

    @property
    def metadata(self) -> Metadata:
        """What the file in the bundle says of itself."""
        return self.artifact.metadata

    @property
    def writes_text(self) -> bool:
        """Whether it decodes with a cache."""
        return self.metadata.generate is not None

    @property
    def quantized(self) -> bool:
        """Whether its weights are integers, as its metadata says."""
        return self.metadata.quantization is not None

    @property
    def takes_text(self) -> bool:
        """Whether it was trained on text, or comes with a tokenizer."""
        return _takes_text(self.metadata)


def open_source(
    model: str | Path, scratch: Path, *, name: str, unrolled: bool = False, threads: int | None
) -> Source:
    """Open the model of a bundle; a causal model of text gets a cache.

    Args:
        model: An ``.onnx`` file.
        scratch: Folder for what is made of it.
        name: What it is called in the bundle.
        unrolled: Whether a file with a cache shall hold neither Loop nor Scan.
        threads: Threads of checks.

    Raises:
        InputError: It is prepared for one device, in ORT format, damaged, or not a model.
    """
    path = Path(model)
    if (path / "manifest.json").is_file():
        raise InputError(f"{path} is a bundle, a model is needed", hint=f"loopedge inspect {path}")
    artifact = Artifact.open(path)
    if artifact.ort_format:
        raise InputError(
            f"{path} is in ORT format, the last step: package the .onnx file, the client for C gets ORT format",
            hint=f"loopedge package {path.with_suffix('.onnx')} --for c -o bundle",
        )
    try:
        refuse_prepared(artifact.metadata, path, "package")
    except InputError as refusal:
        raise InputError(refusal.message, hint=f"{refusal.hint} --for web") from None
    notes = check_whole(path)
    if artifact.metadata.foreign:
        notes.append(
            f"{path.name} does not say what it was trained on: names, types and shapes are known, no limits of values, "
            "lengths or loop counts"
        )
    if unrolled and artifact.metadata.form in {"scan", "tensorscatter"}:
        raise InputError(
            f"{path} is one Scan: for a provider without one, name the model that it was made from",
            hint="loopedge package model.onnx",
        )
    if artifact.metadata.generate is not None or not _takes_text(artifact.metadata):
        return Source(given=artifact, artifact=artifact, notes=tuple(notes))
    target = scratch / f"{name}.generate.onnx"
    try:
        made = to_generate(path, target, form="unrolled" if unrolled else None, threads=threads)
    except InputError as refusal:
        way = "" if refusal.hint is None else f" ({refusal.hint})"
        notes.append(
            f"it has no cache, a text is computed anew for each token: {refusal.message}{way}"
        )
        return Source(given=artifact, artifact=artifact, notes=tuple(notes), no_cache=refusal)
    cached = Artifact.open(target)
    return Source(given=artifact, artifact=cached, notes=(*notes, *made.notes))


def _takes_text(metadata: Metadata) -> bool:
    return metadata.task.get("name") in TEXT_TASKS or (
        not metadata.task and TOKENIZER_FILE in metadata.companions
    )


def find_reference(source: Source, asked: str | Path | None) -> Artifact | None:
    """Return the float model that a quantized one is judged against; None: the model is float, or there is none.

    Without being asked for, files beside the model are looked at: one that was exported from the same checkpoint, and takes the
    same inputs.

    Raises:
        InputError: The file that was named is quantized itself, or takes other inputs.
    """
    given = source.given
    if asked is not None:
        found = Artifact.open(asked)
        reason = _unfit(found.metadata, given.metadata) or _other_inputs(found, given)
        if reason is not None:
            raise InputError(
                f"{asked} cannot judge {given.path}: {reason}",
                hint=f"{option_name('reference')} names the float model that it was quantized from",
            )
        return found
    if not source.quantized:
        return None
    checkpoint = given.metadata.checkpoint_sha256
    if checkpoint is None:
        return None
    for path in sorted(given.path.parent.glob("*.onnx")):
        try:
            metadata = read_metadata(read_properties(path))
        except (InputError, ValueError, OSError):
            continue
        if metadata.checkpoint_sha256 != checkpoint or _unfit(metadata, given.metadata):
            continue
        try:
            found = Artifact.open(path)
        except InputError:
            continue
        if _other_inputs(found, given) is None:
            return found
    return None


def _unfit(metadata: Metadata, judged: Metadata) -> str | None:
    """Say why a file is not the float model of another; None where it may be."""
    if metadata.quantization is not None:
        return "it is quantized itself"
    if metadata.prepared is not None:
        return "it is prepared for one device"
    if metadata.generate is not None:
        return "it decodes with a cache; the model that it was made from is needed"
    known = (metadata.checkpoint_sha256, judged.checkpoint_sha256)
    if None not in known and known[0] != known[1]:
        return "it was exported from another checkpoint"
    if metadata.exit != judged.exit:
        return "one of them ends its loop early, or by another tolerance"
    if metadata.loops != judged.loops:
        return f"it runs {metadata.loops} loops, the other {judged.loops}"
    return None


def _other_inputs(found: Artifact, judged: Artifact) -> str | None:
    if judged.metadata.generate is not None:
        return None
    names = [value.name for value in found.graph.graph.inputs]
    needed = [value.name for value in judged.graph.graph.inputs]
    return None if names == needed else f"it takes {', '.join(map(str, names))}"
