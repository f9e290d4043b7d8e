"""Targets that may be written, texts that are written whole or not at all, and checksums of files."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loopedge.errors import InputError
from loopedge.files.staging import staged_folder
from loopedge.options import by_face, option

__all__ = [
    "FileSize",
    "check_artifact_target",
    "check_target",
    "file_sha256",
    "write_text_atomic",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSize:
    """A file that was written or read, as results list it."""

    path: str
    bytes: int

    @classmethod
    def of(cls, file: Path) -> "FileSize":
        """Return what a file takes now."""
        return cls(path=str(file), bytes=file.stat().st_size)


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that exists (without ``force``) or cannot be written.

    Raises:
        InputError: The target exists, is a folder, or its folder is missing or not writable.
    """
    if target.is_dir():
        raise InputError(
            f"{target} is a folder, a file name is needed",
            hint=f"name a file{by_face(' with -o', '')}",
        )
    if target.exists() and not force:
        raise InputError(f"{target} exists already", hint=f"add {option('force')} to replace it")
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist", hint=f"mkdir -p {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(
            f"folder {target.parent} cannot be written",
            hint=f"name another{by_face(' with -o', '')}",
        )


def check_artifact_target(target: Path, sources: Iterable[str | Path] = (), *, force: bool) -> None:
    """Refuse a target of an ``.onnx`` file, as `check_target` does.

    Args:
        target: ``NAME.onnx``. Its data file has a name of its content and replaces no other.
        sources: Files that the model is made from: they are never written over.
        force: Replace existing files.

    Raises:
        InputError: As said, or the target is named as ORT format.
    """
    if target.resolve() in {Path(source).resolve() for source in sources}:
        raise InputError(
            f"{target} is a file of the source itself",
            hint=f"name another target{by_face(' with -o', '')}",
        )
    if target.suffix == ".ort":
        raise InputError(
            f"{target} is named as ORT format",
            hint=f"loopedge convert {target.with_suffix('.onnx')} -o {target}",
        )
    check_target(target, force=force)


def write_text_atomic(target: Path, text: str, *, force: bool = True) -> None:
    """Write ``text`` to ``target`` (UTF-8), whole or not at all.

    Raises:
        InputError: As `check_target`, or the disk is full.
    """
    check_target(target, force=force)
    with staged_folder(target) as folder:
        (folder / target.name).write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
