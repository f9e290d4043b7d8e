"""On a CUDA device: the provider that was asked for runs the model, and agrees with the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import loopedge

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in ort.get_available_providers(),
        reason="this onnxruntime has no CUDAExecutionProvider (pip install 'loopedge[gpu]')",
    ),
]


def test_the_loop_runs_on_cuda_and_agrees_with_the_cpu() -> None:
    session = loopedge.Session(TINY, device="cuda")
    assert session.provider == "CUDAExecutionProvider"
    feeds = {"input_ids": np.arange(8).reshape(1, 8)}
    given = session.run(feeds)["logits"]
    expected = loopedge.Session(TINY).run(feeds)["logits"]
    assert np.allclose(given, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_profile_tells_the_provider() -> None:
    (run,) = loopedge.profile([TINY], device="cuda", runs=5).runs
    assert run.provider == "CUDAExecutionProvider"
    assert run.device == "cuda"
