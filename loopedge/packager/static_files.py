"""What every bundle of a client holds, whatever its model: loaders, programs and pages, copied as they stand."""

import json
import shutil
from pathlib import Path

from loopedge.packager.clients import CLIENTS
from loopedge.packager.manifest import ClientName
from loopedge.runtime import denormals

__all__ = ["FILES", "copy_static", "npm_package"]

FILES = Path(__file__).parent / "files"
RUNTIME_PACKAGE = "onnxruntime-node"
LEFT_OUT = {"__pycache__", "node_modules"}
SHARED: dict[ClientName, dict[str, Path]] = {
    "python": {"python/loopedge_denormals.py": Path(denormals.__file__)}
}
"""Files of loopedge itself that stand alone, by where a client has them."""


def copy_static(clients: tuple[ClientName, ...], folder: Path) -> None:
    """Copy the parts of some clients into a bundle.

    The page of the web comes to stand at the root, so that whoever serves the folder shows it.

    Args:
        clients: Of the bundle.
        folder: The bundle.
    """
    parts = dict.fromkeys(part for client in clients for part in CLIENTS[client].parts)
    for source, target in parts:
        for path in sorted((FILES / source).rglob("*")):
            inside = path.relative_to(FILES / source)
            if path.is_dir() or LEFT_OUT & set(inside.parts):
                continue
            place = folder / target / inside
            if source == "web" and str(inside) == "index.html":
                place = folder / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    for client in clients:
        for inside_bundle, path in SHARED.get(client, {}).items():
            shutil.copyfile(path, folder / inside_bundle)


def npm_package(name: str) -> str:
    """Return an npm package with the version that the loaders were tried with, ``onnxruntime-web@1.30.0``."""
    listed = json.loads((FILES / "node" / "package.json").read_text(encoding="utf-8"))
    known = listed["dependencies"] | listed.get("optionalDependencies", {})
    version = (
        known.get(name) or known[RUNTIME_PACKAGE]
    )  # the packages of ONNX Runtime are of one version
    return f"{name}@{version}"
