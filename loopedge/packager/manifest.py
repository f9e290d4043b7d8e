"""The manifest of a bundle: everything that a client must know, so that none has to read an ONNX file's metadata.

``manifest.json`` at the root of the bundle is the one source: the loaders of all clients read it, the page of the
bundle and the header of the C client are made from it. Its schema in docs/ is written by
``python -c "from loopedge.packager.manifest import schema_text; print(schema_text(), end='')"``.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = [
    "CHECKSUM_ZEROS",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "ArrayFile",
    "BundleFile",
    "Check",
    "Client",
    "Decoding",
    "Engine",
    "ExternalData",
    "Loops",
    "Manifest",
    "Model",
    "Port",
    "Tokenizer",
    "Tolerance",
    "Vector",
    "manifest_checksum",
    "manifest_schema",
    "schema_text",
]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
CHECKSUM_ZEROS = "0" * 64
"""Stands in place of the manifest's own checksum while it is computed."""

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    if ":" in path or {"", ".", ".."} & set(path.split("/")):
        raise ValueError("a path inside the bundle is needed")
    return path


BundlePath = Annotated[
    str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$"), AfterValidator(_inside)
]
"""A path inside the bundle, with ``/``, relative to its root."""

ClientName = Literal["web", "node", "c", "python"]
Dtype = Literal["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"]
Role = Literal[
    "values", "ids", "mask", "loops", "tolerance", "lengths", "past", "noise",
    "logits", "outputs", "iterations", "present", "other",
]  # fmt: skip
"""What a port is for. ``values`` are raw units (batch, sequence, features), ``ids`` int64 (batch, sequence)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Port(_Part):
    """An input or an output of the model."""

    name: str
    role: Role
    dtype: Dtype
    shape: list[int | str] = Field(description="A number, or the name of an axis that is free.")
    exact_length: int | None = Field(
        default=None, description="Of the axis ``sequence``, where no other is allowed."
    )
    min_length: int | None = Field(
        default=None,
        description="Shorter ones are refused. Of a table with a mask: those that are padded to its context.",
    )
    max_length: int | None = None
    vocabulary: int | None = Field(default=None, description="Ids are 0 to one less than this.")
    deviation: float | None = Field(
        default=None, description="Of role ``noise``: a client draws normal numbers of it."
    )
    any_value: bool = Field(
        default=False,
        description="NaN and infinity pass: the file does not say what its values are.",
    )


class Loops(_Part):
    """How often the core runs.

    Where it is chosen, clients refuse fewer than 1 and more than ``most``, and warn outside of ``range``. A model with a
    cache takes the count from how many rows of its cache are bound: it has no input of role ``loops``.
    """

    trained: int | None
    range: tuple[int, int] = Field(description="Least and most that the training has seen.")
    default: int | None
    dynamic: bool = Field(description="Whether a client chooses, by an input or by its cache.")
    most: int | None = Field(
        default=None, description="More than the tables hold is clamped to this."
    )


class Tolerance(_Part):
    """The relative change that ends the loop of a batch row; an input of role ``tolerance``."""

    default: float
    least: float = 0.0


class Tokenizer(_Part):
    """How text becomes ids."""

    kind: Literal["bytes", "tokenizers"] = Field(
        description="Bytes: an id is a byte of UTF-8. Tokenizers: a tokenizer.json of Hugging Face."
    )
    file: BundlePath | None = None
    separator: int | None = Field(default=None, description="An id that follows the prompt.")
    around: bool = Field(
        default=False,
        description="Whether the tokens that the tokenizer adds around a text are kept.",
    )
    end_ids: list[int] = Field(default_factory=list)


class Decoding(_Part):
    """Of a model that goes on from a cache: its slots, as docs/artifact.md describes them."""

    context: int
    slots: list[dict[str, Any]] = Field(
        description="``name``, ``dtype`` and ``shape`` of past and present, free axes by name."
    )
    new_tokens: int = Field(description="How many the page writes unless it is asked for others.")


class ExternalData(_Part):
    """A file of weights, and the name by which the model asks for it."""

    location: str
    file: BundlePath


class Model(_Part):
    """One form of the model; clients name it by ``id``."""

    id: str
    file: BundlePath
    format: Literal["onnx", "ort"]
    form: Literal["loop", "unrolled", "scan", "tensorscatter"] | None = Field(
        description="Of a file of another tool: whether it holds a Loop or a Scan."
    )
    opset: int | None
    data: list[ExternalData] = Field(default_factory=list)
    config: dict[str, str] = Field(
        default_factory=dict,
        description="Session configuration entries that keep its memory small.",
    )
    memory_pattern: bool = Field(default=True, description="False: switch the memory pattern off.")
    min_runtime: str | None = Field(description="Oldest ONNX Runtime that loads it, ``1.23``.")
    inputs: list[str] = Field(
        default_factory=list, description="Names of the manifest's inputs that this form takes."
    )
    loops: int | None = Field(default=None, description="Iterations, where this form fixes them.")
    scheme: str | None = Field(default=None, description="How it is quantized; null: float.")
    weight_bytes: Count


class Client(_Part):
    """What one client takes."""

    model: str = Field(description="The ``id`` of its model.")
    providers: dict[str, str] = Field(
        default_factory=dict,
        description="By execution provider the ``id`` of its model, where it is another one.",
    )
    entry: BundlePath = Field(description="The file to open, import or include first.")
    runtime: str = Field(description="The package of the runtime, and how it is installed.")
    runtime_files: list[BundlePath] = Field(
        default_factory=list, description="The runtime itself, where it is in the bundle."
    )


class Engine(_Part):
    """An engine that is known to refuse a model or to compute it wrongly."""

    engine: str
    model: str | None = Field(default=None, description="The ``id`` of the model; null: each.")
    verdict: Literal["refuses", "wrong", "slow"]
    reason: str


class ArrayFile(_Part):
    """An array as raw little-endian bytes, row by row."""

    name: str
    dtype: Dtype
    shape: list[int]
    file: BundlePath


class Check(_Part):
    """How far a client's output may be from the expected one.

    ``relative``: max abs(y - e) <= limit * max abs(e). ``sqnr``: 10 log10(sum e^2 / sum (y - e)^2) >= limit, in dB.
    ``equal``: ids of text are the same.
    """

    kind: Literal["relative", "sqnr", "equal"]
    limit: float


class Vector(_Part):
    """Inputs and what must come out.

    Inputs are what a program hands to the loader: a short window comes without a mask, and the loader pads it. Of a model with
    a cache there is ``input_ids`` (1, sequence), perhaps ``loops``; the output is ``logits`` (1, 1, vocabulary) after the last
    token, or with ``text`` the ids ``completion`` (1, tokens) of a greedy completion.
    """

    name: str
    inputs: list[ArrayFile]
    outputs: list[ArrayFile]
    check: Check
    measured: float = Field(description="What the check gave where the bundle was made.")
    text: dict[str, str] | None = Field(
        default=None, description="Of text models: ``prompt`` and the greedy ``completion``."
    )
    last_time: str | None = Field(
        default=None, description="Of the last table row, as the table writes it."
    )


class BundleFile(_Part):
    """A file of the bundle."""

    path: BundlePath
    bytes: Count
    sha256: Sha256


class Manifest(_Part):
    """``manifest.json``."""

    schema_version: int
    loopedge: str = Field(description="Version of loopedge that wrote it.")
    name: str
    checksum: str = Field(description="SHA-256 of this file with these 64 digits as zeros.")
    task: dict[str, Any] | None = Field(
        description="What the model learned, as in the metadata of the file; null where it does not say."
    )
    inputs: list[Port]
    outputs: list[Port]
    loops: Loops | None
    tolerance: Tolerance | None = None
    missing_values: bool = Field(default=False, description="NaN is a missing value, and allowed.")
    tokenizer: Tokenizer | None = None
    decoding: Decoding | None = None
    models: list[Model]
    clients: dict[ClientName, Client]
    engines: list[Engine]
    vectors: list[Vector]
    files: list[BundleFile] = Field(description="Every file of the bundle but this one.")
    notes: list[str] = Field(default_factory=list, description="What is not known, in sentences.")


def manifest_checksum(text: str, stated: str) -> str:
    """Return the checksum of a manifest's text in which ``stated`` stands as its checksum."""
    blank = text.replace(f'"{stated}"', f'"{CHECKSUM_ZEROS}"', 1)
    return hashlib.sha256(blank.encode()).hexdigest()


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a manifest, from its types."""
    schema = Manifest.model_json_schema(mode="serialization")
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    return {"$schema": DIALECT, **schema}


def schema_text() -> str:
    """Return the schema as it stands in docs/manifest.schema.json."""
    return json.dumps(manifest_schema(), indent=2) + "\n"
