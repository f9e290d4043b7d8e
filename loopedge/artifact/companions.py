"""Files that stand beside an artifact and travel with it: the tokenizer of a language model.

Their names come from files that somebody else may have made. None may be a name under which loopedge
writes something of its own, else it would replace what was verified.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from loopedge.errors import InputError
from loopedge.files.paths import CONTENT_NAMED
from loopedge.files.staging import CONTENT_DIGITS, content_name
from loopedge.graph.metadata import FILE_NAME, Companion, Metadata
from loopedge.options import option_name

__all__ = [
    "check_companion_targets",
    "companion_contents",
    "companion_state",
    "companions_to_copy",
    "describe_companions",
    "read_companions",
]

OWN_ENDINGS = (
    "onnx",
    "onnx.data",
    f"onnx{CONTENT_NAMED}",
    "ort",
    "required_operators.config",
    "pt",
    "metrics.jsonl",
    "origins",
)
"""Endings of what loopedge itself writes, as patterns: ``prepared.onnx`` and ``best.pt`` among them."""


def companion_contents(texts: Mapping[str, str], target: Path) -> dict[str, bytes]:
    """Return the files beside an artifact, by name: ``STEM.<16 hex digits>.tokenizer.json``.

    The digits are of the content, so that an artifact and the one that replaces it have files of their own.

    Args:
        texts: What `loopedge.tasks.task.Task.companions` returned, as a checkpoint holds it.
        target: The artifact.

    Raises:
        InputError: A name is that of no file in a folder, or one that loopedge writes itself.
    """
    for name, text in texts.items():
        if not re.fullmatch(FILE_NAME, str(name)) or not isinstance(text, str):
            raise InputError(f"the model names {name!r} as a file beside it, which is none")
        _check_own(f"{target.stem}.{name}", name, target)
    found = {}
    for name, text in texts.items():
        content = text.encode("utf-8")
        found[content_name(target.stem, hashlib.sha256(content).hexdigest(), name)] = content
    return found


def describe_companions(texts: Mapping[str, str], target: Path) -> dict[str, Companion]:
    """Return what the metadata of an artifact says of the files of `companion_contents`."""
    return {
        name: Companion(file=file, sha256=hashlib.sha256(content).hexdigest())
        for name, (file, content) in zip(
            texts, companion_contents(texts, target).items(), strict=True
        )
    }


def companion_state(
    artifact: Path, companion: Companion
) -> Literal["present", "missing", "changed"]:
    """Tell whether a companion stands beside an artifact as it was written."""
    file = artifact.parent / companion.file
    if not file.is_file():
        return "missing"
    same = hashlib.sha256(file.read_bytes()).hexdigest() == companion.sha256
    return "present" if same else "changed"


def read_companions(artifact: str | Path, metadata: Metadata) -> dict[str, str]:
    """Return the texts that an artifact needs, by what they are; empty where it needs none.

    Args:
        artifact: The model's file.
        metadata: What it says of itself.

    Raises:
        InputError: One is missing, or is not the one that the model was written with.
    """
    found = {}
    for name, companion in metadata.companions.items():
        file = Path(artifact).parent / companion.file
        state = companion_state(Path(artifact), companion)
        if state == "missing":
            raise InputError(
                f"{artifact} needs {companion.file} beside it, which is missing",
                hint=f"copy {companion.file} into {file.parent}, or export the model again",
            )
        if state == "changed":
            raise InputError(
                f"{file} is not the one that {artifact} was written with: its sha256 differs",
                hint="export the model again, or copy the file that was written with it",
            )
        try:
            found[name] = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text: byte {error.start}") from error
    return found


def companions_to_copy(artifact: str | Path, metadata: Metadata, target: Path) -> dict[str, bytes]:
    """Return the files that must go beside ``target``, by name: none within the same folder.

    Raises:
        InputError: As `read_companions`, or a name is one that loopedge writes itself.
    """
    if Path(artifact).resolve().parent == target.resolve().parent:
        return {}
    for name, companion in metadata.companions.items():
        _check_own(companion.file, name, target)
    texts = read_companions(artifact, metadata)
    return {metadata.companions[name].file: text.encode("utf-8") for name, text in texts.items()}


def _check_own(file: str, name: str, target: Path) -> None:
    """Refuse a companion that would stand where the artifact, or another file of ours, stands.

    Upper and lower case are one: on some file systems they name the same file.
    """
    artifact = rf"{re.escape(target.name.lower())}(\.data|{CONTENT_NAMED})?"
    ours = any(re.search(rf"(^|\.){ending}$", file.lower()) for ending in OWN_ENDINGS)
    if ours or re.fullmatch(artifact, file.lower()):
        raise InputError(
            f"the model names {name!r} as a file beside it: {file} is a name of loopedge's own files"
        )


def check_companion_targets(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Refuse to write over another file of a companion's name.

    One that is called as its content says is written again, whatever stands there. Those of artifacts that an
    older version wrote have no digits: another model of the folder may need what stands there.

    Raises:
        InputError: As said, or a folder is called so.
    """
    for name, content in contents.items():
        file = folder / name
        if file.is_dir():
            raise InputError(
                f"{file} is a folder, a file must stand there",
                hint=f"{option_name('path')} in another folder",
            )
        digits = hashlib.sha256(content).hexdigest()[:CONTENT_DIGITS]
        if f".{digits}." in name or not file.exists():
            continue
        if file.read_bytes() != content:
            raise InputError(
                f"{file} exists already and is another one",
                hint=f"{option_name('path')} in another folder",
            )
