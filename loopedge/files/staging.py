"""Folders in which files are made, and from which they come into place together.

A writer makes its files in a folder beside the target, a stage. It holds a lock on a marker in there as long as
it lives. When the files are done it takes the lock of the target's folder and renames them; the target
itself comes last, and whatever belongs to it has a name of its content. So a reader finds the old target with
its files or the new one with its own, also after a kill between two renames.

What a writer left that was killed is removed by the next one that writes into the same folder: stages
with our marker whose lock no process holds, and files that such a writer was about to add or to drop, unless
a model of the folder names them.
"""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from loopedge.errors import DiskFullError, InputError, LoopedgeError
from loopedge.files.full_disk import is_full_disk
from loopedge.options import by_face, option

try:
    import fcntl
except ImportError:  # Windows: stages are not locked there, and none is removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CONFIG_SUFFIX",
    "CONTENT_DIGITS",
    "Identity",
    "again_if_replaced",
    "check_unchanged",
    "content_name",
    "identity_of",
    "scratch_folder",
    "staged_folder",
]

MARKER = ".loopedge-stage"
"""A stage's file that says whose it is; its writer holds a lock on it. Its lines are names of files."""

FIRST_LINE = "loopedge stage 1"
LONGEST_MARKER = 1 << 16

CONTENT_DIGITS = 16
"""Hex digits of a content's SHA-256 that stand in a file name."""

CONFIG_SUFFIX = "required_operators.config"
"""How the list of operators of an ``.ort`` file ends. Its name holds the digits of that file, not its own."""

BELONGING = re.compile(
    rf".*\.([0-9a-f]{{{CONTENT_DIGITS}}})\.[^/]+$|\.onnx\.data$|\.{re.escape(CONFIG_SUFFIX)}$"
)
"""Names of files that belong to a model: with digits, or as they were called before they had any."""

WEIGHTS = re.compile(rf"\.onnx(\.[0-9a-f]{{{CONTENT_DIGITS}}})?\.data$")
"""Names of data files of graphs."""

MODEL_SUFFIXES = {".onnx", ".ort"}


T = TypeVar("T")
Identity = tuple[int, int, int] | None


def again_if_replaced(path: Path, read: Callable[[], T]) -> T:
    """Read a file and those that it names; once more, where it was replaced while that failed.

    Args:
        path: The file that names the others.
        read: Reads all of them.

    Returns:
        What ``read`` returned.
    """
    before = identity_of(path)
    try:
        return read()
    except (LoopedgeError, OSError):
        if identity_of(path) == before:
            raise
    return read()


def check_unchanged(path: Path, before: Identity) -> None:
    """Refuse a file that was replaced since: what was made from it would be of two versions.

    Args:
        path: The file.
        before: What `identity_of` returned.

    Raises:
        InputError: As said.
    """
    if identity_of(path) != before:
        raise InputError(f"{path} was replaced while it was read", hint="the same command again")


def identity_of(path: Path) -> Identity:
    """Return what distinguishes a file from one that replaces it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def content_name(owner: str, digest: str, rest: str) -> str:
    """Return the name of a file that belongs to ``owner``: ``model.onnx.<16 hex digits>.data``.

    Args:
        owner: What the name begins with.
        digest: SHA-256 of the content, or of the file it belongs to, in hex.
        rest: What the name ends with.
    """
    return f"{owner}.{digest[:CONTENT_DIGITS]}.{rest}"


@contextlib.contextmanager
def staged_folder(
    target: Path,
    *,
    force: bool = True,
    replaced: Callable[[Path], Iterable[str]] | None = None,
) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; move what it holds into place on success.

    Files written into the folder are synced and renamed next to ``target`` when the block ends
    without an exception, ``target`` itself last; otherwise the folder is removed and nothing is left.

    Args:
        target: The file that the others belong to. Those must have a name of their content
            (`content_name`), for they come into place before it.
        force: Replace a target that has come into being meanwhile.
        replaced: Names the files that belong to a target; called with the one that is replaced, when
            no other process writes. They are removed, unless a model of the folder names them.

    Raises:
        InputError: The disk is full, the folder or the target cannot be written, or the target exists.
    """
    try:
        with _stage(target) as folder:
            yield folder
            names = sorted(path.name for path in folder.iterdir() if path.name != MARKER)
            for name in names:
                _sync(folder / name)
            with _locked(target.parent):
                if not force and target.exists():
                    raise InputError(
                        f"{target} exists already", hint=f"add {option('force')} to replace it"
                    )
                dropped = set(replaced(target) if replaced is not None else ()) - set(names)
                _commit(folder, target, names, dropped)
    except OSError as error:
        raise _explain(error, target) from error


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that is removed in any case.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    try:
        with _stage(target) as folder:
            yield folder
    except OSError as error:
        raise _explain(error, target) from error


@contextlib.contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """Make a stage beside ``target``, hold its lock, and remove it; remove what dead writers left."""
    parent = target.parent
    with contextlib.ExitStack() as stack:
        # No process sweeps between the making of a stage and the locking of its marker.
        with _locked(parent) as locked:
            if locked:
                _sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            marker = os.open(folder / MARKER, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            stack.callback(os.close, marker)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)  # while it is still locked
            os.write(marker, f"{FIRST_LINE}\n".encode())
            _lock(marker, wait=False)
        try:
            yield folder
        except (OSError, LoopedgeError) as error:
            if not is_full_disk(error, folder):
                raise
            raise OSError(errno.ENOSPC, "no space left", str(folder)) from error


def _commit(folder: Path, target: Path, names: list[str], dropped: set[str]) -> None:
    """Bring staged files into place, the target last, and remove those that it no longer needs."""
    parent, beside = target.parent, [name for name in names if name != target.name]
    if dropped.union(beside):
        with (folder / MARKER).open("a", encoding="utf-8", errors="surrogateescape") as marker:
            marker.write("".join(f"{json.dumps(name)}\n" for name in sorted(dropped.union(beside))))
        _sync(folder / MARKER)
    placed: list[str] = []
    try:
        for name in beside:
            placed.append(name)
            (folder / name).replace(parent / name)
        if placed:
            _sync_folder(parent)
        if target.name in names:
            (folder / target.name).replace(target)
            _sync_folder(parent)
    except BaseException:
        _remove_unnamed(parent, placed)
        raise
    finally:  # while the old target stands there, it names them
        _remove_unnamed(parent, dropped)


def _sweep(parent: Path) -> None:
    """Remove the stages of writers that have died, and what they were about to add or to drop."""
    with os.scandir(parent) as entries:
        found = [entry.name for entry in entries if _may_be_stage(entry)]
    for name in found:
        folder = parent / name
        try:
            marker = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # not one of ours
            continue
        try:
            lines = os.read(marker, LONGEST_MARKER).decode("utf-8", "surrogateescape").splitlines()
            if lines[:1] == [FIRST_LINE] and _lock(marker, wait=False):
                _remove_unnamed(parent, _names_in(lines[1:]))
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(marker)


def _may_be_stage(entry: "os.DirEntry[str]") -> bool:
    return entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def _names_in(lines: Iterable[str]) -> list[str]:
    """Return the names that a marker lists; a line that was cut off names nothing."""
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            name = json.loads(line)
            if isinstance(name, str):
                found.append(name)
    return found


def _remove_unnamed(folder: Path, names: Iterable[str]) -> None:
    """Remove files that belong to a model, as their names say, where no model of the folder names them."""
    names = {name for name in names if "/" not in name and BELONGING.search(name)}
    if not names:
        return
    models = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in MODEL_SUFFIXES and path.is_file()
    ]
    for name in names:
        if not any(_names(model, name) for model in models):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _names(model: Path, name: str) -> bool:
    """Tell whether a model's file names another: by its name, its content's digits, or its own.

    ORT format holds its weights: what it says of the data file of its source, it does not need.
    """
    if model.suffix.lower() == ".ort" and WEIGHTS.search(name):
        return False
    digits = BELONGING.search(name)
    spelled = (digits[1] if digits and digits[1] else json.dumps(name)[1:-1]).encode()
    try:
        with model.open("rb") as file:
            if name.endswith(f".{CONFIG_SUFFIX}"):
                return hashlib.file_digest(file, "sha256").hexdigest().startswith(spelled.decode())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
                return held.find(spelled) >= 0 or held.find(os.fsencode(name)) >= 0
    except ValueError:  # an empty file
        return False
    except OSError:  # what cannot be read may name it
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, for as long as files come into place; yield whether there are locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor, wait=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; return False where another holds it, or the file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another holds it, or this file system has no locks
        return False
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the entries of a folder, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, target: Path) -> Exception:
    if is_full_disk(error, target.parent):
        return DiskFullError(
            f"no space left on the disk that holds {target.parent}; nothing was written",
            hint=f"free some space or name another folder{by_face(' with -o', '')}",
        )
    if error.filename2 is not None:
        return InputError(
            f"{error.filename2} cannot be replaced: {error.strerror}; nothing was written",
            hint=f"name another target{by_face(' with -o', '')}",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return InputError(
            f"folder {target.parent} cannot be written",
            hint=f"name another{by_face(' with -o', '')}",
        )
    return error
