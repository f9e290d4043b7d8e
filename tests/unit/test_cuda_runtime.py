"""The measured process's CUDA side, run by the CPU provider: the calls are ONNX Runtime's own."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import ProviderError
from loopedge.graph.core.unrolling import unroll
from loopedge.profiler.child import cuda_runtime
from loopedge.profiler.child.cuda_runtime import CudaRuntime

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = np.arange(8).reshape(1, 8)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = "CPUExecutionProvider"
    monkeypatch.setattr(cuda_runtime, "CUDA_PROVIDER", cpu)
    monkeypatch.setattr(cuda_runtime, "cuda_provider", lambda *, graphs: (cpu, {}))
    monkeypatch.setattr(cuda_runtime, "_create_context", lambda: None)


def request(model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    inputs = folder / "x.npz"
    np.savez(inputs, input_ids=IDS)
    return {
        "model": str(model),
        "inputs": str(inputs),
        "threads": 1,
        "provider": "CUDAExecutionProvider",
        "memory": "balanced",
        "optimize": True,
        "cuda_graphs": False,
        "dimensions": {},
    } | options


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("graphs", [False, True])
def test_bound_runs_give_what_plain_runs_give(tmp_path: Path, graphs: bool) -> None:
    runtime = CudaRuntime(request(TINY, tmp_path, cuda_graphs=graphs))
    runtime.load()
    runtime.run()
    runtime.save(tmp_path / "y.npz")
    expected = ort.InferenceSession(str(TINY)).run(None, {"input_ids": IDS})[0]
    with np.load(tmp_path / "y.npz") as stored:
        assert np.array_equal(stored["logits"], expected)


@pytest.mark.usefixtures("on_cpu")
def test_captured_runs_write_into_one_buffer(tmp_path: Path) -> None:
    def addresses(graphs: bool) -> set[int]:
        runtime = CudaRuntime(request(TINY, tmp_path, cuda_graphs=graphs))
        runtime.load()
        held, found = [], set()
        for _ in range(4):
            runtime.run()
            held.append(runtime.binding.get_outputs()[0])
            found.add(held[-1].data_ptr())
        return found

    assert len(addresses(graphs=True)) == 1


@pytest.mark.usefixtures("on_cpu")
def test_operators_are_listed_and_fixed_sizes_leave_no_shapes(tmp_path: Path) -> None:
    unrolled = tmp_path / "unrolled.onnx"
    write_artifact(unroll(open_artifact(TINY)), unrolled)
    counts = []
    for dimensions in ({}, {"batch": 1, "sequence": 8}):
        runtime = CudaRuntime(request(unrolled, tmp_path, dimensions=dimensions))
        runtime.load()
        counts.append(runtime.assigned["CPUExecutionProvider"])
    assert counts[0]["Shape"] == 1
    assert "Shape" not in counts[1]
    assert counts[0]["MatMul"] == counts[1]["MatMul"]


def test_a_failed_device_is_a_provider_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient ; GPU=0 ; x")

    monkeypatch.setattr(cuda_runtime, "_create_context", lambda: None)
    monkeypatch.setattr(cuda_runtime, "open_session", refuse)
    runtime = CudaRuntime(request(TINY, tmp_path))
    with pytest.raises(ProviderError, match=r"driver version is insufficient$"):
        runtime.load()


def test_a_full_device_and_a_bad_model_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cuda_runtime, "_create_context", lambda: None)
    for text in ("CUDA failure 2: out of memory ; GPU=0", "the graph is not valid"):

        def refuse(*_: Any, said: str = text) -> Any:
            raise RuntimeError(said)

        monkeypatch.setattr(cuda_runtime, "open_session", refuse)
        with pytest.raises(RuntimeError, match=text.split(";", maxsplit=1)[0]):
            CudaRuntime(request(TINY, tmp_path)).load()
