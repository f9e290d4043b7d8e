"""The files of a bundle: its manifest, and whether each file is the one that the manifest names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
CHUNK = 1 << 20
ZEROS = "0" * 64


class BundleError(Exception):
    """What is wrong with a bundle or with an input, in one line."""


def read_manifest(folder: Path, *, verify: str = "full") -> dict[str, Any]:
    """Return the manifest of a bundle, checked against its own SHA-256.

    Raises:
        BundleError: It is missing, damaged, or of a newer schema.
    """
    if verify not in {"full", "size"}:
        raise BundleError(f"verify is {verify!r}, full or size is needed")
    path = folder / "manifest.json"
    try:
        text = path.read_bytes().decode("utf-8")
        manifest: dict[str, Any] = json.loads(text)
        version, stated = int(manifest["schema_version"]), str(manifest["checksum"])
    except OSError:
        raise BundleError(f"{path} is missing: {folder} is no bundle") from None
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"manifest.json of {folder} is damaged") from None
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"manifest.json has schema {version}, this loader reads {SCHEMA_VERSION}: package the model again, "
            "or take the loader of that bundle"
        )
    blank = text.replace(f'"{stated}"', f'"{ZEROS}"', 1)
    if verify == "full" and hashlib.sha256(blank.encode()).hexdigest() != stated:
        raise BundleError("manifest.json is damaged: its SHA-256 differs")
    for file in manifest["files"]:
        _check_inside(str(file["path"]))
    return manifest


def _check_inside(name: str) -> None:
    """Refuse a path that leads out of the bundle."""
    if "\\" in name or ":" in name or {"", ".", ".."} & set(name.split("/")):
        raise BundleError(f"manifest.json is damaged: {name!r} is no path inside the bundle")


def check_files(
    folder: Path,
    manifest: Mapping[str, Any],
    names: list[str] | None = None,
    *,
    verify: str = "full",
) -> None:
    """Compare files of a bundle with what its manifest says of them.

    Args:
        folder: The bundle.
        manifest: Its manifest.
        names: Paths inside it; default: all.
        verify: As `load`.

    Raises:
        BundleError: One is missing, or another one, or the manifest does not list it.
    """
    listed = {file["path"] for file in manifest["files"]}
    unknown = next((name for name in names or () if name not in listed), None)
    if unknown is not None:
        raise BundleError(f"{unknown} is not in the files of manifest.json")
    for file in manifest["files"]:
        name = file["path"]
        if names is not None and name not in names:
            continue
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{name} is missing")
        size = path.stat().st_size
        if size != file["bytes"]:
            raise BundleError(f"{name} has {size} bytes, {file['bytes']} are needed")
        if verify == "full" and _sha256(path) != file["sha256"]:
            raise BundleError(
                f"{name} is damaged, or belongs to another bundle: its SHA-256 differs"
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
