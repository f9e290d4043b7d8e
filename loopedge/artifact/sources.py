"""The files of an artifact that is read: none of them may be written over by the same command."""

from pathlib import Path

from loopedge.artifact.artifact import artifact_files, open_artifact
from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.artifact.seal import config_path
from loopedge.files.paths import check_text
from loopedge.graph.metadata import ArtifactMetadata, read_metadata

__all__ = ["files_of_model", "source_files"]


def source_files(artifact: str | Path, metadata: ArtifactMetadata | None) -> list[Path]:
    """Return an artifact's file, the data files that it names, and what stands beside it.

    Args:
        artifact: The ``.onnx`` or ``.ort`` file.
        metadata: What it says of itself: its companions.

    Raises:
        InputError: As `loopedge.artifact.artifact.open_artifact`, or its name is no text.
    """
    source = Path(artifact)
    check_text(source, "MODEL")
    beside = [companion.file for companion in (metadata.companions if metadata else {}).values()]
    found = [*artifact_files(source), *(source.parent / name for name in beside)]
    if is_ort_format(source):
        found.append(config_path(source))
    return found


def files_of_model(path: str | Path) -> list[Path]:
    """Return the files of a model that nobody has opened yet; of a ``model.pt`` that is one.

    Raises:
        InputError: As `source_files`.
    """
    if Path(path).suffix == ".pt":
        return [Path(path)]
    return source_files(path, read_metadata(open_artifact(path).metadata_props))
