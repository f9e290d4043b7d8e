from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import loopedge
from tests.parity.models import make_model

Exporter = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Export a kind of model once per session: ``exported("tokens", form="loop")``."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(kind: str, **options: Any) -> Path:
        name = "-".join([kind, *(f"{key}{value}" for key, value in sorted(options.items()))])
        path = folder / f"{name}.onnx"
        loopedge.export(make_model(kind), path, **options)
        return path

    return export
