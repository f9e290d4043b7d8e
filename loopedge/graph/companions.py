"""Files that stand beside an artifact and travel with it: the tokenizer of a language model."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from loopedge.errors import InputError
from loopedge.graph.metadata import FILE_NAME, ArtifactMetadata, Companion

__all__ = [
    "check_companion_targets",
    "companion_contents",
    "companion_state",
    "companions_to_copy",
    "describe_companions",
    "read_companions",
]


def companion_contents(texts: Mapping[str, str], target: Path) -> dict[str, bytes]:
    """Return the files beside an artifact, by name: ``tokenizer.json`` is ``STEM.tokenizer.json``.

    Args:
        texts: What `loopedge.tasks.task.Task.companions` returned, as a checkpoint holds it.
        target: The artifact.

    Raises:
        InputError: A name is that of no file in a folder.
    """
    for name, text in texts.items():
        if not re.fullmatch(FILE_NAME, str(name)) or not isinstance(text, str):
            raise InputError(f"the model names {name!r} as a file beside it, which is none")
    return {f"{target.stem}.{name}": text.encode("utf-8") for name, text in texts.items()}


def describe_companions(texts: Mapping[str, str], target: Path) -> dict[str, Companion]:
    """Return what the metadata of an artifact tells of the files of `companion_contents`."""
    return {
        name: Companion(file=file, sha256=hashlib.sha256(content).hexdigest())
        for name, (file, content) in zip(
            texts, companion_contents(texts, target).items(), strict=True
        )
    }


def companion_state(artifact: Path, told: Companion) -> Literal["present", "missing", "changed"]:
    """Tell whether a companion stands beside an artifact as it was written."""
    file = artifact.parent / told.file
    if not file.is_file():
        return "missing"
    same = hashlib.sha256(file.read_bytes()).hexdigest() == told.sha256
    return "present" if same else "changed"


def read_companions(artifact: str | Path, metadata: ArtifactMetadata | None) -> dict[str, str]:
    """Return the texts that an artifact needs, by what they are; empty where it needs none.

    Args:
        artifact: The model's file.
        metadata: What it says of itself.

    Raises:
        InputError: One is missing, or is not the one that the model was written with.
    """
    found = {}
    for name, told in (metadata.companions if metadata else {}).items():
        file = Path(artifact).parent / told.file
        state = companion_state(Path(artifact), told)
        if state == "missing":
            raise InputError(
                f"{artifact} needs {told.file} beside it, which is missing",
                hint=f"copy {told.file} into {file.parent}, or export the model again",
            )
        if state == "changed":
            raise InputError(
                f"{file} is not the one that {artifact} was written with: its sha256 differs",
                hint="export the model again, or copy the file that was written with it",
            )
        try:
            found[name] = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is no UTF-8 text: byte {error.start}") from error
    return found


def companions_to_copy(
    artifact: str | Path, metadata: ArtifactMetadata | None, target: Path
) -> dict[str, bytes]:
    """Return the files that must go beside ``target``, by name: none within the same folder.

    Raises:
        InputError: As `read_companions`.
    """
    if metadata is None or Path(artifact).resolve().parent == target.resolve().parent:
        return {}
    texts = read_companions(artifact, metadata)
    return {metadata.companions[name].file: text.encode("utf-8") for name, text in texts.items()}


def check_companion_targets(folder: Path, contents: Mapping[str, bytes], *, force: bool) -> None:
    """Refuse to write over another file of a companion's name, without ``force``.

    Raises:
        InputError: As said, or a folder is called so.
    """
    for name, content in contents.items():
        file = folder / name
        if file.is_dir():
            raise InputError(f"{file} is a folder, a file must stand there", hint="-o elsewhere")
        if file.exists() and not force and file.read_bytes() != content:
            raise InputError(
                f"{file} exists already and is another one", hint="add --force to replace it"
            )
