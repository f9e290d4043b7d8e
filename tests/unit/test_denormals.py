"""Denormals are zero while a model runs, and in nothing else of the process."""

import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
from loopedge.runtime.denormals import DenormalsAreZero

KNOWN = platform.system() == "Linux" and platform.machine() == "x86_64"
SMALL = np.full(64, 1e-39, np.float32)


def kept() -> bool:
    """Whether this thread computes with denormals."""
    return bool((SMALL * np.float32(0.5)).all())


def halves(folder: Path) -> Path:
    """Write a file of another tool that halves its input."""
    path = folder / "half.onnx"
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 21]>
        half (float[64] x) => (float[64] y) <float h = {0.5}> { y = Mul (x, h) }"""
    )
    ir.save(model, path)
    return path


def test_the_switch_is_set_within_and_put_back_behind() -> None:
    with DenormalsAreZero():
        assert kept() is not KNOWN
        with DenormalsAreZero():
            assert kept() is not KNOWN
        assert kept() is not KNOWN
    assert kept()
    with pytest.raises(ZeroDivisionError), DenormalsAreZero():
        raise ZeroDivisionError
    assert kept()


def test_another_thread_is_as_it_was() -> None:
    found: list[bool] = []
    with DenormalsAreZero():
        other = threading.Thread(target=lambda: found.append(kept()))
        other.start()
        other.join()
    # A thread starts with the environment of the one that starts it, and ends with it.
    assert len(found) == 1
    assert kept()


def test_a_session_computes_without_them_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    path = halves(tmp_path)
    session = loopedge.Session(path, threads=1)
    assert kept()
    found = session.run({"x": SMALL})["y"]
    assert kept()
    assert found.any() != KNOWN
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert plain.run(None, {"x": SMALL})[0].all()


def test_the_loader_of_a_bundle_does_so_too(tmp_path: Path) -> None:
    loopedge.package(halves(tmp_path), tmp_path / "bundle", clients=("python",))
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import loopedge_bundle, numpy
small = numpy.full(64, 1e-39, numpy.float32)
found = loopedge_bundle.load(threads=1).run(small)["y"]
print(found.any(), (small * numpy.float32(0.5)).all())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "bundle" / "python")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(not KNOWN), "True"]


def test_causal_attention_gives_the_same_outputs(tmp_path: Path) -> None:
    """Masked positions are e^-88 or 0: sums of numbers near 1 do not see which."""
    path = tmp_path / "attention.onnx"
    model = ir.from_onnx_text(
        """<ir_version: 11, opset_import: ["": 23]>
        attention (float[1, 48, 32] q, float[1, 48, 32] k, float[1, 48, 32] v) => (float[1, 48, 32] y) {
          y = Attention <is_causal = 1, q_num_heads = 4, kv_num_heads = 4> (q, k, v)
        }"""
    )
    ir.save(model, path)
    draw = np.random.default_rng(0)
    feeds = {name: draw.normal(size=(1, 48, 32)).astype(np.float32) for name in "qkv"}
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = plain.run(None, feeds)[0]
    found = loopedge.Session(path, threads=1).run(feeds)["y"]
    assert np.abs(found - expected).max() < 1e-30
