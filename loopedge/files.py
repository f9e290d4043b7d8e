"""Write files so that they appear whole or not at all."""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from loopedge.errors import InputError

__all__ = [
    "check_artifact_target",
    "check_target",
    "file_sha256",
    "remove_stages",
    "staged_folder",
    "write_text_atomic",
]

LEAST_FREE_BYTES = 1 << 20


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that exists (without ``force``) or cannot be written.

    Raises:
        InputError: The target exists, is a folder, or its folder is missing or not writable.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder, a file name is needed", hint="name a file with -o")
    if target.exists() and not force:
        raise InputError(f"{target} exists already", hint="add --force to replace it")
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist", hint=f"mkdir -p {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"folder {target.parent} cannot be written", hint="name another with -o")


def check_artifact_target(target: Path, sources: Iterable[str | Path] = (), *, force: bool) -> None:
    """Refuse a target of an ``.onnx`` file, or of the data file beside it, as `check_target` does.

    Args:
        target: ``NAME.onnx``; ``NAME.onnx.data`` is written too, where weights are large.
        sources: Files that the model is made from: they are never written over.
        force: Replace existing files.

    Raises:
        InputError: As said, or the target is named as ORT format.
    """
    data = target.with_name(f"{target.name}.data")
    taken = {Path(source).resolve() for source in sources}
    for file in (target, data):
        if file.resolve() in taken:
            raise InputError(
                f"{file} is a file of the source itself", hint="name another target with -o"
            )
    if target.suffix == ".ort":
        raise InputError(
            f"{target} is named as ORT format",
            hint=f"loopedge convert {target.with_suffix('.onnx')} -o {target}",
        )
    check_target(target, force=force)
    if data.exists() and not force:
        raise InputError(f"{data} exists already", hint="add --force to replace it")


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; move what it holds into place on success.

    Files written into the folder are synced and renamed next to ``target`` when the block ends
    without an exception (``target`` itself last, so that whoever sees it sees its data files too);
    otherwise the folder is removed and nothing is left.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    stage: tempfile.TemporaryDirectory[str] | None = None
    try:
        stage = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
        folder = Path(stage.name)
        yield folder
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            with (folder / name).open("rb") as written:
                os.fsync(written.fileno())
        for name in sorted(names, key=lambda name: name == target.name):
            (folder / name).replace(target.parent / name)
    except OSError as error:
        raise _explain(error, target) from error
    finally:
        if stage is not None:
            stage.cleanup()


def remove_stages(target: Path) -> None:
    """Remove the temporary folders that writers of ``target`` left when they were killed."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.{'[a-z0-9_]' * 8}"):
        shutil.rmtree(left, ignore_errors=True)


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


def _explain(error: OSError, target: Path) -> Exception:
    # numpy writes arrays without saying why it could not.
    full = error.errno is None and shutil.disk_usage(target.parent).free < LEAST_FREE_BYTES
    if error.errno == errno.ENOSPC or full:
        return InputError(
            f"no space left on the disk that holds {target.parent}; nothing was written",
            hint="free some space or name another folder with -o",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return InputError(f"folder {target.parent} cannot be written", hint="name another with -o")
    return error
