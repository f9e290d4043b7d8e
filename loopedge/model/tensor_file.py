"""Read what ``torch.save`` wrote: plain values and tensors that the file really holds, and no code."""

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.files.input_files import check_file

__all__ = ["check_tensors", "read_saved"]

LARGEST_PICKLE = 64 << 20
"""Bytes of a file's pickle; its tensors stand beside that."""
SHARES = 2
"""Times that the bytes of a file may be read: tied tensors share theirs."""
DTYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16}
OTHERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def read_saved(path: str | Path, *, needed: str, hint: str | None, code_hint: str) -> Any:
    """Return what a file holds, read with ``weights_only=True``.

    Args:
        path: What ``torch.save`` wrote.
        needed: What must stand there, for messages: ``a PyTorch checkpoint``.
        hint: For a file that does not exist.
        code_hint: For a file that holds code.

    Raises:
        InputError: The file is missing or damaged, holds code, or becomes larger than it is.
    """
    source = check_file(path, needed=needed, hint=hint)
    _check_container(source, needed, code_hint)
    try:
        with warnings.catch_warnings():
            # A foreign pickle is refused below, in one line.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(source, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise _code(source, code_hint) from error
        raise InputError(f"{source} is not {needed} or is damaged") from error
    except DAMAGES as error:
        raise InputError(f"{source} is not {needed} or is damaged") from error


DAMAGES = (
    *(RuntimeError, EOFError, ValueError, LookupError, OSError, struct.error, TypeError),
    *(AttributeError, AssertionError, NotImplementedError, OverflowError, MemoryError),
)
"""What the restricted unpickler of PyTorch raises for bytes that are not a checkpoint; it alone is guarded."""


def _code(source: Path, hint: str) -> InputError:
    return InputError(
        f"{source} holds pickled code, which is never run: only plain tensors are read", hint=hint
    )


def _check_container(source: Path, needed: str, code_hint: str) -> None:
    """Refuse what is not an archive of stored members: PyTorch compresses nothing, and no pickle is that large."""
    try:
        with source.open("rb") as stream:
            start = stream.read(2)
        if start[:1] == pickle.PROTO:
            raise _code(source, code_hint)
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise InputError(f"{source} is not {needed} or is truncated") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(
                f"{source} is not {needed}: its member {member.filename!a} is compressed or encrypted"
            )
        if member.filename.endswith("data.pkl") and member.file_size > LARGEST_PICKLE:
            raise InputError(
                f"{source} is not {needed}: its pickle has {member.file_size:,} bytes, at most "
                f"{LARGEST_PICKLE:,} are read"
            )


def check_tensors(tensors: Any, source: str | Path) -> dict[str, Tensor]:
    """Return a dictionary of tensors by name, each dense and held by the file.

    Raises:
        InputError: It is none, or a tensor is sparse, quantized, of another kind of numbers, has no values (on
            the device meta), or the tensors take more bytes than the file has.
    """
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise InputError(f"{source} holds no dictionary of tensors")
    total = 0
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: {name} is {type(value).__name__}, a tensor is needed")
        kind = _unusual(value)
        if kind is not None:
            raise InputError(f"{source}: tensor {name} is {kind}, dense numbers are needed")
        total += value.numel() * value.element_size()
    if isinstance(source, Path) and total > (allowed := SHARES * source.stat().st_size):
        raise InputError(
            f"{source}: its tensors take {total:,} bytes, the file can hold {allowed:,}: a tensor repeats "
            "its values"
        )
    return tensors


def _unusual(value: Tensor) -> str | None:
    """Say what sets a tensor apart from plain numbers in memory."""
    if value.layout is not torch.strided:
        return "sparse"
    if value.is_quantized:
        return "quantized"
    if value.device.type == "meta":
        return "on the device meta, without values"
    if value.dtype not in DTYPES | OTHERS:
        return str(value.dtype).removeprefix("torch.")
    return None
