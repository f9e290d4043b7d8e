"""On a CUDA device: the provider that was asked for runs the model, and agrees with the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.passes.half import compute_in_float16
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import Run
from loopedge.runtime.cuda import cuda_provider, preload_libraries, unavailable

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
CUDA = "CUDAExecutionProvider"
IDS = np.arange(8).reshape(1, 8)
SIZES = {"batch": 1, "sequence": 8}


def no_cuda() -> str | None:
    """Return why nothing of this file can run here, by onnxruntime alone: a fault of ours is not a reason."""
    if CUDA not in ort.get_available_providers():
        return "this onnxruntime has no CUDAExecutionProvider (the extra 'gpu' has one)"
    preload_libraries()
    try:
        session = ort.InferenceSession(str(TINY), providers=[CUDA], enable_fallback=0)
    except Exception as error:  # onnxruntime raises a kind of its own per failure
        return unavailable(error)
    return None if CUDA in session.get_providers() else unavailable()


REASON = no_cuda()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.npz"
    np.savez(path, input_ids=IDS)
    return path


@pytest.fixture
def expected() -> Any:
    return loopedge.Session(TINY).run({"input_ids": IDS})["logits"]


@pytest.fixture
def unrolled(tmp_path: Path) -> Path:
    path = tmp_path / "unrolled.onnx"
    write_artifact(unroll(open_artifact(TINY)), path)
    return path


def agree(given: Any, expected: Any, tolerance: float = 1e-3) -> bool:
    """TF32 products round to 10 bits, as the default of CUDA devices that have them."""
    return bool(np.abs(given - expected).max() <= tolerance * np.abs(expected).max())


def saved(process: MeasuredProcess, path: Path) -> Any:
    with np.load(process.save_outputs(path)) as stored:
        return stored["logits"]


def test_the_loop_runs_on_cuda_and_agrees_with_the_cpu(expected: Any) -> None:
    session = loopedge.Session(TINY, provider="cuda")
    assert session.provider == CUDA
    assert session.notes == []
    assert agree(session.run({"input_ids": IDS})["logits"], expected)


def test_bound_runs_agree_with_the_cpu(inputs: Path, expected: Any, tmp_path: Path) -> None:
    with MeasuredProcess(ProcessSetup(model=TINY, inputs=inputs, provider=CUDA)) as process:
        products = process.loaded["assigned"][CUDA]
        assert products["MatMul"] == 7
        assert len(process.run(3)) == 3
        assert agree(saved(process, tmp_path / "y.npz"), expected)


def test_a_replayed_graph_agrees_with_the_cpu(
    unrolled: Path, inputs: Path, expected: Any, tmp_path: Path
) -> None:
    setup = ProcessSetup(
        model=unrolled,
        inputs=inputs,
        provider=CUDA,
        cuda_graphs=True,
        dimensions=tuple(SIZES.items()),
    )
    with MeasuredProcess(setup) as process:
        process.run(5)
        assert agree(saved(process, tmp_path / "y.npz"), expected)


def test_float16_agrees_with_the_cpu(inputs: Path, expected: Any, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    write_artifact(compute_in_float16(open_artifact(TINY)), half)
    with MeasuredProcess(ProcessSetup(model=half, inputs=inputs, provider=CUDA)) as process:
        given = saved(process, tmp_path / "y.npz")
    assert given.dtype == np.float32
    assert agree(given, expected, tolerance=1e-2)


def test_a_loop_cannot_be_captured_and_onnxruntime_says_why() -> None:
    preload_libraries()
    with pytest.raises(Exception, match="control flow nodes which can't be supported"):
        ort.InferenceSession(str(TINY), providers=[cuda_provider(graphs=True)], enable_fallback=0)


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    result = loopedge.profile(
        [TINY], provider="cuda", float16=True, cuda_graphs=True, sequence=8, runs=20, processes=1
    )
    assert result.failures == []
    return {run.name: run for run in result.runs}


def test_a_profile_tells_every_form(runs: dict[str, Run]) -> None:
    assert list(runs) == [
        "tiny.onnx",
        "tiny.onnx (unrolled)",
        "tiny.onnx (float16)",
        "tiny.onnx (unrolled, float16)",
        "tiny.onnx (unrolled, CUDA graph)",
        "tiny.onnx (unrolled, float16, CUDA graph)",
    ]
    assert {run.provider for run in runs.values()} == {CUDA}
    replayed = [name for name, run in runs.items() if run.gpu and run.gpu.cuda_graph]
    assert replayed == [name for name in runs if "CUDA graph" in name]


def test_no_product_fell_to_the_cpu(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert run.gpu is not None
        assert [
            node for node in run.gpu.fell_back if node.startswith(("MatMul", "Attention"))
        ] == []


def test_memory_is_reported_by_source(runs: dict[str, Run]) -> None:
    gpu = runs["tiny.onnx"].gpu
    assert gpu is not None
    if gpu.source is None:
        pytest.skip("the driver cannot be asked here (NVML)")
    assert gpu.name
    assert gpu.context_bytes is not None
    assert gpu.context_bytes > 0
    assert gpu.process_bytes is not None
    assert gpu.process_bytes >= gpu.weights_bytes > 0
    assert gpu.activations_bytes is not None
    assert 0 <= gpu.activations_bytes <= gpu.process_bytes
    if gpu.arena_bytes is not None:
        assert gpu.arena_bytes >= gpu.weights_bytes


def test_a_hidden_device_ends_with_five(inputs: Path) -> None:
    for words in (["profile", TINY, "--runs", "3"], ["run", TINY, "--input", inputs]):
        ended = subprocess.run(
            [sys.executable, "-m", "loopedge", *map(str, words), "--provider", "cuda", "--json"],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 5, ended.stderr
        assert "CUDAExecutionProvider does not run" in ended.stderr + ended.stdout
        if ended.stdout.strip():
            json.loads(ended.stdout)
