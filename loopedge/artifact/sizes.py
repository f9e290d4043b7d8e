"""The data file that belongs to a graph, as the graph's file says; without onnx, for sessions read it too."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loopedge.errors import InputError
from loopedge.graph.metadata import FILE_NAME, PREFIX

__all__ = ["AGAIN", "WEIGHTS_KEY", "Weights", "check_sizes", "other_size", "weights_of"]

WEIGHTS_KEY = f"{PREFIX}weights"
AGAIN = "export the model again, or copy all of its files again"


class Weights(BaseModel):
    """The data file of a graph."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=rf"^{FILE_NAME}$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def check_sizes(path: Path, properties: Mapping[str, str]) -> None:
    """Refuse a data file that has another size than the one that its graph was written with.

    Args:
        path: The ``.onnx`` file.
        properties: Its ``metadata_props``.

    Raises:
        InputError: As said, or the metadata of the files is damaged.
    """
    weights = weights_of(path, properties)
    if weights is None:
        return
    data = path.parent / weights.file
    if data.is_file() and data.stat().st_size != weights.bytes:
        raise InputError(other_size(path, data, weights), hint=AGAIN)


def weights_of(path: Path, properties: Mapping[str, str]) -> Weights | None:
    """Return what a graph's file says of its data file; None where it says nothing.

    Raises:
        InputError: It is damaged.
    """
    stored = properties.get(WEIGHTS_KEY)
    if stored is None:
        return None
    try:
        return Weights.model_validate_json(stored)
    except ValidationError as error:
        raise InputError(
            f"{path}: the loopedge metadata of its weights is damaged", hint=AGAIN
        ) from error


def other_size(path: Path, data: Path, weights: Weights) -> str:
    """Return the message of a data file that has another size than it was written with."""
    return (
        f"{data} has {data.stat().st_size} bytes, {path} was written with {weights.bytes}: it is "
        "another artifact's, or damaged"
    )
