"""What is reported where CUDA does not run, or runs out of memory; no device is needed."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import loopedge
from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.profiler.child import cuda_runtime
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.runtime import cuda
from loopedge.runtime import session as runtime

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = np.arange(8).reshape(1, 8)
NO_DEVICE = (
    "/src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, Status> "
    "onnxruntime::CudaCall(...) CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; "
    "hostname=somewhere ; file=/src/cuda_execution_provider.cc ; line=282 ; expr=cudaSetDevice(0);"
)
FULL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul "
    "node. Status Message: Failed to allocate memory for requested buffer of size 4294967296"
)


@pytest.fixture
def cuda_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)


def session_that(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError(fails)

    monkeypatch.setattr(runtime, "open_session", refuse)


def test_the_failed_call_is_reported_without_files_and_host_names() -> None:
    message = cuda.cuda_failure(RuntimeError(NO_DEVICE))
    assert message == "CUDA failure 100: no CUDA-capable device is detected"
    assert cuda.unavailable(RuntimeError(NO_DEVICE)) == message
    assert cuda.cuda_failure(RuntimeError("the model is not valid")) is None


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "Available memory of 1024 is smaller than requested bytes of 4096",
    ],
)
def test_a_full_device_is_recognized(text: str) -> None:
    assert cuda.ran_out_of_memory(RuntimeError(text))
    assert not cuda.ran_out_of_memory(RuntimeError(NO_DEVICE))


def test_graphs_are_captured_only_where_asked_for() -> None:
    assert "enable_cuda_graph" not in cuda.cuda_provider()[1]
    assert cuda.cuda_provider(graphs=True)[1]["enable_cuda_graph"] == "1"


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_has_the_arena_that_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handed: list[Any] = []

    def remember(*_: Any, providers: list[Any], **__: Any) -> Any:
        handed.append(providers)
        raise RuntimeError(NO_DEVICE)

    monkeypatch.setattr(ort, "InferenceSession", remember)
    monkeypatch.setattr(cuda_runtime, "_create_context", lambda: None)
    with pytest.raises(ProviderError):
        loopedge.Session(TINY, provider="cuda")
    inputs = tmp_path / "x.npz"
    np.savez(inputs, input_ids=IDS)
    request = {"model": str(TINY), "inputs": str(inputs), "threads": 1, "memory": "balanced"}
    request |= {"provider": "CUDAExecutionProvider", "optimize": True}
    measured = cuda_runtime.CudaRuntime(request | {"cuda_graphs": False, "dimensions": {}})
    with pytest.raises(ProviderError):
        measured.load()
    own, profiled = handed
    assert own == profiled
    assert own == [("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]


def test_what_preloading_prints_stays_off_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: sys.stdout.write("no libcublas"))
    cuda.preload_libraries()
    assert capsys.readouterr().out == ""


def test_a_build_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="built without CUDA") as error:
        loopedge.Session(TINY, provider="cuda")
    assert ".[gpu]" in str(error.value.hint)
    with pytest.raises(ProviderError, match="built without CUDA"):
        loopedge.profile([TINY], provider="cuda")


def test_both_packages_at_once_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "version", lambda name: "1.31.1")
    with pytest.raises(ProviderError, match=r"over those of onnxruntime-gpu 1\.31\.1") as error:
        cuda.check_built_in()
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(error.value.hint)


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    session_that(monkeypatch, NO_DEVICE)
    with pytest.raises(ProviderError) as error:
        loopedge.Session(TINY, provider="cuda")
    assert str(error.value) == (
        "CUDAExecutionProvider does not run: CUDA failure 100: no CUDA-capable device is detected"
    )
    assert error.value.hint == "nvidia-smi, which must list a device"


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_that_fills_the_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    session_that(monkeypatch, FULL)
    with pytest.raises(LoopedgeError, match=r"tiny\.onnx ran out of GPU memory") as error:
        loopedge.Session(TINY, provider="cuda")
    assert type(error.value) is LoopedgeError


@pytest.mark.usefixtures("cuda_built_in")
def test_a_bad_model_is_no_matter_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    session_that(monkeypatch, "the graph is not valid")
    with pytest.raises(InputError, match="cannot be loaded: the graph is not valid"):
        loopedge.Session(TINY, provider="cuda")


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_that_ended_on_the_cpu_is_refused_with_the_missing_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cpu = ort.InferenceSession(str(TINY), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(runtime, "open_session", lambda *_: on_cpu)
    monkeypatch.setattr(cuda, "unavailable", lambda error: "libcublas.so.13: cannot open")
    with pytest.raises(ProviderError, match=r"does not run: libcublas\.so\.13"):
        loopedge.Session(TINY, provider="cuda")


class _Assigned:
    """A session on CUDA as far as its provider goes, and what it tells of its nodes."""

    def __init__(self, session: Any, assigned: dict[str, dict[str, int]]) -> None:
        self.session, self.assigned = session, assigned

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [_Part(name, ops) for name, ops in self.assigned.items()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


class _Part:
    def __init__(self, name: str, ops: dict[str, int]) -> None:
        self.ep_name, self.ops = name, ops

    def get_nodes(self) -> list[Any]:
        class Node:
            def __init__(self, op: str) -> None:
                self.op_type = op

        return [Node(op) for op, count in self.ops.items() for _ in range(count)]


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_whose_products_fell_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = ort.InferenceSession(str(TINY), providers=["CPUExecutionProvider"])
    assigned = {"CUDAExecutionProvider": {"Add": 2}, "CPUExecutionProvider": {"MatMul": 7}}
    monkeypatch.setattr(runtime, "open_session", lambda *_: _Assigned(session, assigned))
    with pytest.raises(ProviderError, match="7 on CPUExecutionProvider"):
        loopedge.Session(TINY, provider="cuda")


@pytest.mark.usefixtures("cuda_built_in")
def test_a_session_tells_which_products_fell(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ort.InferenceSession(str(TINY), providers=["CPUExecutionProvider"])
    assigned = {
        "CUDAExecutionProvider": {"MatMul": 6},
        "CPUExecutionProvider": {"MatMulInteger": 1},
    }
    monkeypatch.setattr(runtime, "open_session", lambda *_: _Assigned(session, assigned))
    (note,) = loopedge.Session(TINY, provider="cuda").notes
    assert note == "1 of 7 matrix products and attentions run on the CPU: 1 MatMulInteger"


def test_the_measured_process_refuses_where_cuda_does_not_run(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    inputs = tmp_path / "x.npz"
    np.savez(inputs, input_ids=IDS)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider does not run"):
        MeasuredProcess(ProcessSetup(model=TINY, inputs=inputs, provider="CUDAExecutionProvider"))


def child_that_says(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> Path:
    """Let a script stand in for the interpreter of the measured process."""
    script = folder / "child"
    said = "".join(f"print({line!r}, flush=True)\n" for line in lines)
    script.write_text(f"#!{sys.executable}\n{said}import sys\nsys.stdin.read()\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            '{"error": "CUDA failure 2: out of memory", "kind": "Fail", "hint": null}',
            LoopedgeError,
            r"tiny\.onnx ran out of GPU memory: CUDA failure 2",
        ),
        (
            '{"error": "/src/a.cc:1 CUDA failure 700: an illegal address ; GPU=0 ; hostname=h", '
            '"kind": "Fail", "hint": null}',
            InputError,
            r"tiny\.onnx cannot be profiled: CUDA failure 700: an illegal address$",
        ),
        (
            '{"error": "libcuda.so.1: cannot open", "kind": "ProviderError", "hint": "install"}',
            ProviderError,
            r"libcuda\.so\.1",
        ),
        (
            '{"provider": "CUDAExecutionProvider", "assigned": '
            '{"CUDAExecutionProvider": {"Add": 1}, "CPUExecutionProvider": {"MatMul": 7}}}',
            ProviderError,
            "runs none of the matrix products",
        ),
        (
            '{"provider": "CPUExecutionProvider", "assigned": {}}',
            ProviderError,
            "CPUExecutionProvider would run",
        ),
    ],
)
def test_what_the_measured_process_says_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answer: str,
    kind: type[LoopedgeError],
    message: str,
) -> None:
    child = child_that_says(monkeypatch, tmp_path, answer)
    with pytest.raises(kind, match=message) as error:
        MeasuredProcess(
            ProcessSetup(model=TINY, inputs=tmp_path / "x.npz", provider="CUDAExecutionProvider"),
            python=child,
        )
    assert type(error.value) is kind


def test_the_parent_looks_before_the_model_is_loaded(tmp_path: Path) -> None:
    inputs = tmp_path / "x.npz"
    np.savez(inputs, input_ids=IDS)
    seen: list[int] = []
    with MeasuredProcess(
        ProcessSetup(model=TINY, inputs=inputs), before_load=seen.append
    ) as measured:
        assert seen == [measured._process.pid]
        assert len(measured.run(2)) == 2
