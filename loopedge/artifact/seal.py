"""What binds the files of an artifact together: names of their content, and checksums in the metadata.

``loopedge.weights`` says which data file belongs to a graph, with its size and SHA-256. ``loopedge.checksum``
is the SHA-256 of the ``.onnx`` file itself, computed with its own digits as zeros, and the file's size.
Both are properties of the file, not of the graph: whoever reads a graph to change it leaves them out.
"""

import hashlib
import json
import mmap
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from loopedge.artifact.companions import read_companions
from loopedge.artifact.properties import read_properties
from loopedge.artifact.reading.ort_format import required_operators
from loopedge.artifact.sizes import AGAIN, WEIGHTS_KEY, DataFile, described_data, other_size
from loopedge.errors import InputError
from loopedge.files.staging import CONFIG_SUFFIX, CONTENT_DIGITS, content_name
from loopedge.files.targets import file_sha256
from loopedge.graph.metadata import PREFIX, Metadata, read_metadata, write_metadata

__all__ = [
    "Seal",
    "check_whole",
    "config_path",
    "drop_seal",
    "examine",
    "examine_ort",
    "is_sealed",
    "name_data",
    "write_sealed",
]

CHECKSUM_KEY = f"{PREFIX}checksum"
BLANK = "0" * 64
EDITED = f"export the model again; where the change is meant, remove {CHECKSUM_KEY} from its metadata_props"
VALUE = re.compile(rb'"([0-9a-f]{64}) ([0-9]{15})"')
CHUNK = 1 << 20
BEFORE_VALUE = 2
"""Bytes between key and value in the file: a tag, and a length below 128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """How an artifact's files agree with its checksums.

    Args:
        state: ``whole``; ``changed``: another program wrote the graph anew, with its checksum of before;
            ``damaged``; ``none``: it holds no checksum.
        reason: What is wrong, where it is not whole.
        hint: What mends it.
    """

    state: Literal["whole", "changed", "damaged", "none"]
    reason: str | None = None
    hint: str = AGAIN


def name_data(model: onnx.ModelProto, path: Path) -> DataFile | None:
    """Give the data file of a model, ``NAME.onnx.data``, the name of its content.

    Args:
        model: What the ``.onnx`` file holds, or is to hold; where it names its data, that is replaced.
        path: Where that file stands, or is to stand.

    Returns:
        The data file; None where there is none.
    """
    data = path.with_name(f"{path.name}.data")
    if not data.exists():
        return None
    digest = file_sha256(data)
    named = data.with_name(content_name(path.name, digest, "data"))
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == data.name:
                entry.value = named.name
    data.rename(named)
    return DataFile(file=named.name, bytes=named.stat().st_size, sha256=digest)


def write_sealed(
    model: onnx.ModelProto, path: Path, metadata: Metadata, data: DataFile | None
) -> None:
    """Write a finished ``.onnx`` file, with its checksums in its metadata; no byte of it may change afterwards.

    Args:
        model: What it holds. Its metadata is replaced.
        path: The file.
        metadata: What it says of itself; that of a foreign file says nothing, and replaces nothing.
        data: Its data file, as `name_data` returned it.
    """
    properties = {item.key: item.value for item in model.metadata_props}
    write_metadata(metadata, properties)
    drop_seal(properties)
    if data is not None:
        properties[WEIGHTS_KEY] = data.model_dump_json()
    # The size stands in the value, in as many digits whatever it is.
    properties[CHECKSUM_KEY] = json.dumps(f"{BLANK} {0:015d}")
    onnx.helper.set_model_props(model, properties)
    content = bytearray(model.SerializeToString())
    start = content.rindex(CHECKSUM_KEY.encode()) + len(CHECKSUM_KEY) + BEFORE_VALUE + 1
    size = start + len(BLANK) + 1
    content[size : size + 15] = f"{len(content):015d}".encode()
    content[start : start + len(BLANK)] = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content)


def is_sealed(properties: Mapping[str, str]) -> bool:
    """Tell whether loopedge wrote the file, its graph its own or that of another tool."""
    return CHECKSUM_KEY in properties


def drop_seal(properties: MutableMapping[str, str]) -> None:
    """Remove what binds the files from properties that go on to another file."""
    for key in (WEIGHTS_KEY, CHECKSUM_KEY):
        properties.pop(key, None)


def check_whole(path: str | Path) -> list[str]:
    """Compare the content of an artifact's files with its checksums: about a second per GB.

    Args:
        path: The ``.onnx`` file; it was opened before, so that it is one.

    Returns:
        Notes: another program has written the graph anew.

    Raises:
        InputError: A file is damaged or missing, or belongs to another artifact.
    """
    source = Path(path)
    found = examine(source)
    if found.state == "damaged":
        raise InputError(found.reason or f"{path} is damaged", hint=found.hint)
    read_companions(source, read_metadata(read_properties(source)))
    return [found.reason] if found.state == "changed" and found.reason else []


def examine(path: Path) -> Seal:
    """Compare the content of an artifact's files with its checksums.

    Args:
        path: The ``.onnx`` file.

    Raises:
        InputError: The metadata of the files is damaged.
    """
    own = _own_state(path)
    try:
        weights = described_data(path, read_properties(path))
    except ValueError as error:
        return Seal(state="damaged", reason=f"{path} is damaged: {error}")
    if own.state == "damaged" or weights is None:
        return own
    data = path.parent / weights.file
    if not data.is_file():
        # A program that wrote the graph anew may have put its weights elsewhere.
        missing = f"{path} needs {weights.file} beside it, which is missing"
        return own if own.state == "changed" else Seal(state="damaged", reason=missing)
    if data.stat().st_size != weights.bytes:
        return Seal(state="damaged", reason=other_size(path, data, weights))
    if file_sha256(data) != weights.sha256:
        return Seal(
            state="damaged",
            reason=f"{data} is damaged, or not the one that {path} was written with: its sha256 differs",
        )
    return own


def config_path(file: Path) -> Path:
    """Return where the list of operators of an ``.ort`` file stands that is there."""
    return file.with_name(content_name(file.stem, file_sha256(file), CONFIG_SUFFIX))


def examine_ort(file: Path) -> Seal:
    """Compare an ``.ort`` file with the checksum in the name of its list of operators, and that with the file."""
    pattern = rf"{re.escape(file.stem)}\.[0-9a-f]{{{CONTENT_DIGITS}}}\.{re.escape(CONFIG_SUFFIX)}"
    known = [path for path in file.parent.iterdir() if re.fullmatch(pattern, path.name)]
    own = config_path(file)
    if own in known:
        if own.read_bytes() == required_operators(file).encode():
            return Seal(state="whole")
        return Seal(state="damaged", reason=f"{own} does not list the operators of {file}")
    if known:
        reason = f"{file} is damaged, or not the one that {known[0].name} was written with"
        return Seal(state="damaged", reason=reason)
    return Seal(state="none", reason=f"no list of operators beside {file} holds its checksum")


def _own_state(path: Path) -> Seal:
    """Compare a ``.onnx`` file with the checksum that stands in it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        place = held.rfind(CHECKSUM_KEY.encode())
        start = place + len(CHECKSUM_KEY) + BEFORE_VALUE
        found = VALUE.match(held, start) if place >= 0 else None
        if place < 0:
            return Seal(state="none", reason=f"{path} holds no checksum")
        if found is None:
            return Seal(state="damaged", reason=f"{path} is damaged: its checksum cannot be read")
        if int(found[2]) != len(held):
            return Seal(
                state="changed",
                reason=f"{path} was changed by another program after loopedge wrote it: it has "
                f"{len(held)} bytes, its checksum is of {int(found[2])}",
            )
        computed = hashlib.sha256()
        for first, last in ((0, found.start(1)), (found.end(1), len(held))):
            for place in range(first, last, CHUNK):
                computed.update(held[place : min(place + CHUNK, last)])
            computed.update(BLANK.encode() if first == 0 else b"")
        if computed.hexdigest() != found[1].decode():
            reason = f"{path} is damaged, or was edited in place: its checksum differs"
            return Seal(state="damaged", reason=reason, hint=EDITED)
    return Seal(state="whole")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a model: of its graph, of all bodies in it, and of its functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
        else:
            for attribute in nodes.pop().attribute:
                yield from (
                    *((attribute.t,) if attribute.HasField("t") else ()),
                    *attribute.tensors,
                )
                graphs += [
                    *((attribute.g,) if attribute.HasField("g") else ()),
                    *attribute.graphs,
                ]
