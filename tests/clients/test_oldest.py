"""Files of opset 18 in ONNX Runtime 1.17: bundles for Python are verified there by their own program."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import loopedge
from tests.clients.models import table_of

if TYPE_CHECKING:
    from collections.abc import Callable

OPSET = 18


@pytest.fixture(scope="session")
def oldest() -> Path:
    """Return the interpreter of the environment that holds ONNX Runtime 1.17."""
    python = Path(os.environ.get("OLDEST_PYTHON", "")).absolute()
    assert python.is_file(), "there is no environment of ONNX Runtime 1.17: run make test-clients"
    return python


def verify(python: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = [python, bundle / "python" / "verify.py", "--threads", "1"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def write_old(kind: str, written_model: Callable[[str], Path], folder: Path) -> Path:
    """Write a model of opset 18; int8 is the forecaster's."""
    source = written_model({"int8": "forecast"}.get(kind, kind)).with_suffix(".pt")
    path = folder / f"{kind}.float.onnx"
    options: dict[str, Any] = {"dynamic_loops": True} if kind == "forecast" else {}
    loopedge.export(source, path, opset=OPSET, **options)
    if kind != "int8":
        return path
    scheme: dict[str, Any] = {"scheme": "static", "reduce_range": True, "min_sqnr_db": 0.0}
    target = folder / "int8.onnx"
    loopedge.quantize(path, target, data=table_of(source.parent), threads=1, **scheme)
    return target


@pytest.mark.parametrize("kind", ["forecast", "gaps", "int8"])
def test_a_bundle_of_opset_18_passes_its_vectors_in_1_17(
    kind: str, oldest: Path, written_model: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    loopedge.package(
        write_old(kind, written_model, tmp_path), bundle, clients=("python",), threads=1
    )
    stated = json.loads((bundle / "manifest.json").read_text())
    assert {model["min_runtime"] for model in stated["models"]} == {"1.17"}
    done = verify(oldest, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["vector"] for one in lines] == [vector["name"] for vector in stated["vectors"]]
    assert all(one["passed"] for one in lines)


def test_a_bundle_of_a_newer_opset_is_refused_in_one_line(
    oldest: Path, written_model: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    loopedge.package(written_model("forecast"), bundle, clients=("python",), threads=1)
    done = verify(oldest, bundle)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "1.23" in line
    assert "1.17.3" in line
