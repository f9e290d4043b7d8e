"""Read the ``metadata_props`` of an ONNX file without the rest of it.

A session takes its memory profile from there before it exists. onnx would parse the graph for it,
weights inside the file included, and the measured process must not import onnx at all; so the top
level of the message is walked here, and the graph is skipped.
"""

import mmap
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["mentions", "read_properties"]

METADATA_PROPS = 14  # ModelProto.metadata_props of onnx.proto; an entry has key = 1, value = 2
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10


def read_properties(path: str | Path) -> dict[str, str]:
    """Return the ``metadata_props`` of an ONNX file; memory and time do not grow with its graph.

    Raises:
        ValueError: The file is damaged, or no protocol buffer.
    """
    found: dict[str, str] = {}
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            field, wire = divmod(_varint(file), 8)
            if wire != LENGTH_DELIMITED:
                _skip(file, wire)
                continue
            length = _varint(file)
            if file.tell() + length > size:
                raise ValueError(f"{path} ends in the middle of field {field}")
            if field == METADATA_PROPS:
                key, value = _entry(file, file.tell() + length)
                found[key] = value
            else:
                file.seek(length, os.SEEK_CUR)
    return found


def mentions(path: str | Path, *words: bytes) -> bool:
    """Tell whether each of some words stands anywhere in a file, operators of a graph among them; it is not parsed."""
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(word) >= 0 for word in words)


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    fields = {1: "", 2: ""}
    while file.tell() < end:
        field, wire = divmod(_varint(file), 8)
        if wire != LENGTH_DELIMITED:
            _skip(file, wire)
            continue
        length = _varint(file)
        if file.tell() + length > end:
            raise ValueError("a property ends in the middle")
        fields[field] = file.read(length).decode("utf-8")
    return fields[1], fields[2]


def _skip(file: BinaryIO, wire: int) -> None:
    if wire == VARINT:
        _varint(file)
    elif wire in {FIXED64, FIXED32}:
        file.seek(8 if wire == FIXED64 else 4, os.SEEK_CUR)
    else:
        raise ValueError(f"wire type {wire} is not used by ONNX")


def _varint(file: BinaryIO) -> int:
    value = 0
    for place in range(LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    raise ValueError("a number ends in the middle, or has no end")
