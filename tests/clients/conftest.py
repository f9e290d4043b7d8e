"""What tests of clients share: small models of every kind, and the bundles of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.models import write_model

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def written_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a kind of model of `tests/clients/models.py` when it is first asked for; return its ``.onnx`` file."""
    folder = tmp_path_factory.mktemp("models")
    known: dict[str, Path] = {}

    def written(kind: str) -> Path:
        if kind not in known:
            known[kind] = write_model(kind, folder)
        return known[kind]

    return written


@pytest.fixture(scope="session")
def packaged(
    written_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Make the bundle of a kind of model for web and node when it is first asked for; it must not be changed."""
    import loopedge

    folder = tmp_path_factory.mktemp("bundles")

    def bundle(kind: str) -> Path:
        target = folder / kind
        if not target.exists():
            loopedge.package(written_model(kind), target, clients=("web", "node"), threads=1)
        return target

    return bundle


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """Return the folder of packages that make test-clients sets up for Node."""
    folder = Path(os.environ.get("NODE_CLIENTS", "")).absolute() / "node_modules"
    assert folder.is_dir(), "there are no packages for Node: run make test-clients"
    assert shutil.which("node"), "there is no node: install Node 20 or later"
    return folder
