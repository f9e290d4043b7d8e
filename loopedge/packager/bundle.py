"""A bundle that stands on disk: read, checked and described, without running its model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loopedge.errors import InputError, VerificationError
from loopedge.files.json_text import parse_json
from loopedge.files.targets import FileSize, file_sha256
from loopedge.files.validation import validation_problem
from loopedge.packager.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Manifest,
    manifest_checksum,
)

__all__ = ["BundleInspection", "inspect_bundle", "is_bundle", "read_bundle"]

AGAIN = "package the model again: loopedge package MODEL.onnx --for web -o BUNDLE --force"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleInspection:
    """What a bundle holds. ``verified``: whether all files were compared with their SHA-256; without it, with their sizes."""

    path: str
    name: str
    schema_version: int
    loopedge: str
    clients: dict[str, Any]
    models: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    loops: dict[str, Any] | None
    engines: list[dict[str, Any]]
    vectors: list[dict[str, Any]]
    files: list[FileSize]
    bundle_bytes: int
    verified: bool
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def is_bundle(path: str | Path) -> bool:
    """Tell a bundle: a folder with a manifest."""
    return (Path(path) / MANIFEST_NAME).is_file()


def read_bundle(path: str | Path) -> Manifest:
    """Return the manifest of a bundle, compared with its own checksum.

    Raises:
        InputError: There is none, it is damaged, or of a newer schema.
    """
    file = Path(path) / MANIFEST_NAME
    if not file.is_file():
        raise InputError(f"{path} is no bundle: it holds no {MANIFEST_NAME}", hint=AGAIN)
    try:
        text = file.read_bytes().decode("utf-8")
        fields = parse_json(text)
    except (ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is damaged: {error}", hint=AGAIN) from error
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"{file} is no manifest of a bundle: it lacks schema_version", hint=AGAIN)
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{file} has schema version {version}, {SCHEMA_VERSION} is read here",
            hint="a newer version of loopedge reads it",
        )
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"{file} is damaged: {validation_problem(error)}", hint=AGAIN) from error
    if manifest_checksum(text, manifest.checksum) != manifest.checksum:
        raise InputError(f"{file} is damaged: its SHA-256 differs", hint=AGAIN)
    return manifest


def inspect_bundle(path: str | Path, *, verify: bool = False) -> BundleInspection:
    """Return what a bundle holds, its files compared with what the manifest says of them.

    Args:
        path: The folder.
        verify: Compare the SHA-256 of all files; without it, their sizes.

    Raises:
        InputError: As `read_bundle`.
        VerificationError: A file is missing or another one.
    """
    folder, manifest = Path(path), read_bundle(path)
    for file in manifest.files:
        stands = folder / file.path
        if not stands.is_file():
            raise VerificationError(f"{stands} is missing", hint=AGAIN)
        size = stands.stat().st_size
        if size != file.bytes:
            raise VerificationError(
                f"{stands} has {size} bytes, {file.bytes} are needed", hint=AGAIN
            )
        if verify and file_sha256(stands) != file.sha256:
            raise VerificationError(f"{stands} is damaged: its sha256 differs", hint=AGAIN)
    fields = manifest.model_dump(mode="json")
    own = FileSize.of(folder / MANIFEST_NAME)
    files = [FileSize(path=str(folder / file.path), bytes=file.bytes) for file in manifest.files]
    return BundleInspection(
        path=str(path),
        name=manifest.name,
        schema_version=manifest.schema_version,
        loopedge=manifest.loopedge,
        clients=fields["clients"],
        models=fields["models"],
        inputs=fields["inputs"],
        outputs=fields["outputs"],
        loops=fields["loops"],
        engines=fields["engines"],
        vectors=fields["vectors"],
        files=[own, *files],
        bundle_bytes=own.bytes + sum(file.bytes for file in files),
        verified=verify,
        notes=manifest.notes,
    )
