"""Where the external data of a model may stand: in its own folder, and nowhere else.

A location is text from the file. Absolute, with ``..``, or through a link it would let a model name any file
of the machine: listed, hashed, copied into twins.
"""

from pathlib import Path, PurePosixPath, PureWindowsPath

from loopedge.errors import InputError
from loopedge.files.input_files import check_file

__all__ = ["external_file"]


def external_file(model: Path, location: str) -> Path:
    """Return the file that holds a model's external data, as it stands beside the model.

    Links are followed into the folder of the model, or into that of the file which the model's own name
    links to: caches of model hubs link both into one folder.

    Args:
        model: The ``.onnx`` file.
        location: What it names.

    Raises:
        InputError: The location leads out of these folders, or no file stands there.
    """
    parts = PurePosixPath(location).parts
    outside = (
        location.startswith(("/", "\\"))
        or PureWindowsPath(location).drive
        or ".." in parts
        or ".." in PureWindowsPath(location).parts
    )
    if not parts or not location.isprintable():
        raise InputError(
            f"{model}: the location of external data is {location!r}, a file is needed"
        )
    if outside:
        raise InputError(
            f"{model} names external data outside its folder: {location}",
            hint="put the data beside the model, and name it by its name alone",
        )
    file = model.parent / location
    if not file.exists():
        raise InputError(
            f"{model}: external data {location} is missing beside the file",
            hint=f"copy {location} into {model.parent}",
        )
    folders = {model.parent.resolve(), model.resolve().parent}
    if not any(file.resolve().is_relative_to(folder) for folder in folders):
        raise InputError(
            f"{model} names external data {location}, which is a link out of its folder",
            hint=f"copy the data itself into {model.parent}",
        )
    return check_file(file, needed="a file of external data")
