"""What inspect and quantize count is what another program counts, on files of loopedge and of other tools."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import loopedge
from examples.models import relaxed_recursive_like
from tests.parity.foreign_files import FOREIGN, D, write_foreign
from tests.parity.models import make_model, seven_bits
from tests.parity.weight_walker import walk

Exporter = Callable[..., Path]

OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "a tied head": ("tokens", {}),
    "unrolled": ("series", {"form": "unrolled"}),
    "all positions": ("series", {"last_rows": False}),
    "float16": ("tokens", {"storage": "float16"}),
    "loops that are chosen": ("plain", {"dynamic_loops": True}),
    "early exit": ("bidirectional", {"exit": "tolerance=0.3"}),
}


def agreed(path: Path) -> dict[str, int]:
    """Return what both count in a file."""
    walked, shown = asdict(walk(path)), loopedge.inspect(path).to_json()["int8"]
    assert shown == walked
    return walked


def quantized(source: Path, target: Path, scheme: str, **options: Any) -> dict[str, int]:
    """Quantize, hold that the three counts are one, and return it."""
    before = walk(source)
    result = loopedge.quantize(
        source, target, scheme=scheme, min_coverage=0, force=True, **seven_bits(scheme), **options
    )
    found = agreed(target)
    assert found.items() <= result.matmuls.items()
    assert found["total"] == before.total
    assert len(result.matmuls["skipped"]) == found["total"] - found["quantized"]
    return found


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_tools(name: str, tmp_path: Path) -> None:
    source, target = write_foreign(name, tmp_path / "other.onnx"), tmp_path / "q.onnx"
    onnx.checker.check_model(source, full_check=name != "Gemm")
    assert agreed(source)["total"] == FOREIGN[name][1]
    found = quantized(source, target, "dynamic")
    assert found["quantized"] == FOREIGN[name][2]
    x = np.random.default_rng(1).normal(size=(2, 5, D)).astype(np.float32)
    exact, given = (ort.InferenceSession(path).run(None, {"x": x})[0] for path in (source, target))
    assert np.linalg.norm(given - exact) < 0.1 * np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["static", "weight-int8"])
@pytest.mark.parametrize("name", FOREIGN)
def test_values_of_other_tools_files(name: str, scheme: str, tmp_path: Path) -> None:
    """Branches, Scans, functions, matrices of an iteration: what is not seen in calibration finds its range at run time."""
    source, target = write_foreign(name, tmp_path / "other.onnx"), tmp_path / "q.onnx"
    draw = np.random.default_rng(2).normal
    data = {"x": draw(size=(24, 5, D)).astype(np.float32)}
    quantized(source, target, scheme, data=data, as_core=["all"] if scheme == "static" else [])
    x = draw(size=(2, 5, D)).astype(np.float32)
    exact, given = (ort.InferenceSession(path).run(None, {"x": x})[0] for path in (source, target))
    assert np.linalg.norm(given - exact) < 0.1 * np.linalg.norm(exact)
    stored = {each.data_type for each in onnx.load(target).graph.initializer if len(each.dims) > 1}
    assert stored & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


@pytest.mark.long
@pytest.mark.parametrize("name", OWN)
def test_files_of_loopedge(name: str, exported: Exporter, tmp_path: Path) -> None:
    kind, options = OWN[name]
    source = exported(kind, **options)
    agreed(source)
    for scheme in ("dynamic", "weight-int4"):
        quantized(source, tmp_path / "q.onnx", scheme, min_sqnr_db=3)


@pytest.mark.long
@pytest.mark.parametrize("ops", ["microsoft", "standard"])
def test_static_files(ops: str, exported: Exporter, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 50, (24, 12)))
    options = {"data": tmp_path / "x.npz", "ops": ops}
    found = quantized(exported("tokens"), tmp_path / "q.onnx", "static", **options)
    assert found["quantized"] == found["total"] == 7


@pytest.mark.long
def test_a_file_with_chunks(tmp_path: Path) -> None:
    model = make_model("plain", d_model=64, mlp_ratio=16, max_length=512)
    result = loopedge.export(model, tmp_path / "m.onnx", activations="small")
    assert agreed(Path(result.path))["total"] > 7
    quantized(tmp_path / "m.onnx", tmp_path / "q.onnx", "dynamic")


@pytest.mark.long
def test_rows_that_are_matrices(tmp_path: Path) -> None:
    source = tmp_path / "lora.onnx"
    loopedge.export(relaxed_recursive_like.make(), source)
    layers, maps = 2, 7
    assert agreed(source)["total"] == 3 * layers * maps + 1  # the tied weight, A and B; the head
    quantized(source, tmp_path / "q.onnx", "dynamic")
