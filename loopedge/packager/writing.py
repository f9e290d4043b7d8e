"""A bundle on disk: made in a folder beside its target, and renamed when it is whole."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from loopedge.errors import InputError
from loopedge.files.paths import check_name
from loopedge.files.plain_json import finite
from loopedge.files.staging import scratch_folder
from loopedge.files.targets import file_sha256
from loopedge.options import by_face, option, option_name
from loopedge.packager.manifest import (
    CHECKSUM_ZEROS,
    MANIFEST_NAME,
    BundleFile,
    Manifest,
    manifest_checksum,
)

__all__ = ["check_bundle_target", "listed_files", "staged_bundle", "write_manifest"]


def check_bundle_target(target: Path, *, force: bool) -> None:
    """Refuse a target that is no folder, or one that holds something.

    ``force`` replaces a bundle, and no other folder.

    Raises:
        InputError: As said, or the folder above it does not exist or cannot be written.
    """
    check_name(target, option_name("path"), is_output=True)
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist", hint=f"mkdir -p {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"folder {target.parent} cannot be written", hint=_another())
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise InputError(f"{target} is not a folder, a bundle is one", hint=_another())
    if not any(target.iterdir()):
        return
    if not _holds_bundle(target):
        raise InputError(f"{target} holds files that are no bundle", hint=_another())
    if not force:
        raise InputError(
            f"{target} holds a bundle already", hint=f"add {option('force')} to replace it"
        )


def _holds_bundle(folder: Path) -> bool:
    """Tell a bundle from a folder of an app, which may have a ``manifest.json`` of its own."""
    try:
        fields = json.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and {"schema_version", "checksum", "files"} <= fields.keys()


def _another() -> str:
    return f"name another folder{by_face(' with -o', '')}"


@contextlib.contextmanager
def staged_bundle(target: Path, *, force: bool) -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder for a bundle and one for what is dropped; the first becomes the target on success.

    Args:
        target: Of the bundle.
        force: Replace a bundle that stands there.

    Raises:
        InputError: As `check_bundle_target`, also of what came to stand there meanwhile; the disk is full.
    """
    check_bundle_target(target, force=force)
    with scratch_folder(target) as folder:
        made, scratch = folder / "bundle", folder / "scratch"
        made.mkdir()
        scratch.mkdir()
        yield made, scratch
        _sync_all(made)
        check_bundle_target(target, force=force)
        _put(made, target, folder / "replaced")


def _put(made: Path, target: Path, aside: Path) -> None:
    """Rename a bundle to its target; one that stands there is moved aside first, and back where that fails."""
    replaced = target.exists()
    if replaced:
        target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        if replaced:
            aside.rename(target)
        raise


def _sync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as written:
                os.fsync(written.fileno())


def listed_files(folder: Path) -> list[BundleFile]:
    """Return every file of a bundle but its manifest, in the order of their paths."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if path.is_file() and inside != MANIFEST_NAME:
            found.append(
                BundleFile(path=inside, bytes=path.stat().st_size, sha256=file_sha256(path))
            )
    return found


def write_manifest(manifest: Manifest, folder: Path) -> Manifest:
    """Write a manifest with its checksum, and return it."""
    blank = manifest.model_copy(update={"checksum": CHECKSUM_ZEROS})
    fields = finite(blank.model_dump(mode="json"))
    text = json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    checksum = manifest_checksum(text, CHECKSUM_ZEROS)
    written = text.replace(f'"{CHECKSUM_ZEROS}"', f'"{checksum}"', 1)
    (folder / MANIFEST_NAME).write_bytes(written.encode())
    return manifest.model_copy(update={"checksum": checksum})
