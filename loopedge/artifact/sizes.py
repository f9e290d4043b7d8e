"""The data file that belongs to a graph, as the graph's file says; without onnx, for sessions read it too."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loopedge.errors import InputError
from loopedge.graph.metadata import FILE_NAME, PREFIX

__all__ = ["AGAIN", "WEIGHTS_KEY", "DataFile", "check_sizes", "described_data", "other_size"]

WEIGHTS_KEY = f"{PREFIX}weights"
AGAIN = "export the model again, or copy all of its files again"


class DataFile(BaseModel):
    """The data file of a graph."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=rf"^{FILE_NAME}$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def check_sizes(path: Path, described: DataFile | None) -> None:
    """Refuse a data file that has another size than the one that its graph was written with.

    Args:
        path: The ``.onnx`` file.
        described: What it says of its data file.

    Raises:
        InputError: As said.
    """
    if described is None:
        return
    data = path.parent / described.file
    if data.is_file() and data.stat().st_size != described.bytes:
        raise InputError(other_size(path, data, described), hint=AGAIN)


def described_data(path: Path, properties: Mapping[str, str]) -> DataFile | None:
    """Return what a graph's file says of its data file; None where it says nothing.

    Raises:
        InputError: It is damaged.
    """
    stored = properties.get(WEIGHTS_KEY)
    if stored is None:
        return None
    try:
        return DataFile.model_validate_json(stored)
    except ValidationError as error:
        raise InputError(
            f"{path}: the loopedge metadata of its weights is damaged", hint=AGAIN
        ) from error


def other_size(path: Path, data: Path, described: DataFile) -> str:
    """Return the message of a data file that has another size than it was written with."""
    return (
        f"{data} has {data.stat().st_size} bytes, {path} was written with {described.bytes}: it is "
        "another artifact's, or damaged"
    )
