"""The files of an artifact that is read: none of them may be written over by the same command."""

from pathlib import Path

from loopedge.artifact.artifact import Artifact

__all__ = ["files_of_model"]


def files_of_model(path: str | Path) -> list[Path]:
    """Return the files of a model that is not opened yet; of a ``model.pt`` that is one.

    Raises:
        InputError: As `Artifact.open` and `Artifact.needed_files`.
    """
    if Path(path).suffix == ".pt":
        return [Path(path)]
    return Artifact.open(path, unloadable=True).needed_files()
