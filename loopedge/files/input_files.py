"""What stands under a path that a user names: a regular file, or an error that says what instead."""

import errno
import os
import stat
from pathlib import Path

from loopedge.errors import InputError

__all__ = ["check_file", "check_path", "read_bytes"]

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_path(path: str | Path) -> None:
    """Refuse a name that cannot be printed, written as JSON, or handed to ONNX Runtime.

    Raises:
        InputError: The name is not UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", errors="backslashreplace")
        raise InputError(f"{shown} has a name that is not UTF-8", hint="rename it") from error


def check_file(path: str | Path, *, needed: str = "a file", hint: str | None = None) -> Path:
    """Refuse what is not a regular file before it is opened: a pipe or a device may have no end.

    Args:
        path: What the user named; links are followed.
        needed: What must stand there, for the message.
        hint: For a file that does not exist.

    Returns:
        The path.

    Raises:
        InputError: Nothing stands there, or something else; or it cannot be looked at.
    """
    source = Path(path)
    check_path(source)
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise _explain(source, error, hint) from error
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "no file")
        raise InputError(f"{source} is {kind}, {needed} is needed", hint=hint)
    return source


def read_bytes(path: str | Path, *, needed: str = "a file", hint: str | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        InputError: As `check_file`, or it cannot be read.
    """
    source = check_file(path, needed=needed, hint=hint)
    try:
        return source.read_bytes()
    except OSError as error:
        raise _explain(source, error, hint) from error


def _explain(source: Path, error: OSError, hint: str | None) -> InputError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return InputError(f"{source} does not exist", hint=hint)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return InputError(f"{source} cannot be read: permission denied")
    reason = (error.strerror or str(error)).lower()
    return InputError(f"{source} cannot be read: {reason}")
