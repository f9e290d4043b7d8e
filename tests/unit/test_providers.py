"""Execution providers by name: those of onnxruntime, those of plug-in packages, and what is refused; none is needed here."""

import json
import pkgutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import loopedge
from loopedge.errors import InputError, ProviderError
from loopedge.options import naming_flags
from loopedge.runtime import providers
from loopedge.runtime import session as runtime
from loopedge.runtime.placement import RECORD_ASSIGNMENT
from loopedge.runtime.providers import (
    add_plug_in,
    find_provider,
    full_name,
    is_plug_in,
    load_plug_in,
    short_name,
)
from loopedge.runtime.session_options import open_session, session_options

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
CPU, OPENVINO, TOY = "CPUExecutionProvider", "OpenVINOExecutionProvider", "ToyExecutionProvider"
IDS = np.arange(8).reshape(1, 8)


def device(provider: str, kind: str = "CPU", **metadata: str) -> Any:
    """Return what `ort.get_ep_devices` lists."""
    hardware = SimpleNamespace(type=SimpleNamespace(name=kind))
    return SimpleNamespace(ep_name=provider, device=hardware, ep_metadata=metadata)


class Plugged:
    """What the fake package and the fake onnxruntime were asked for."""

    def __init__(self) -> None:
        self.registered: list[tuple[str, str]] = []
        self.devices: list[Any] = [device(TOY), device(TOY, "NPU"), device("OtherProvider", "GPU")]


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugged:
    """Install a package onnxruntime_ep_toy, and let onnxruntime take it."""
    state = Plugged()
    module = ModuleType("onnxruntime_ep_toy")
    module.get_ep_names = lambda: [TOY]  # type: ignore[attr-defined]
    module.get_library_path = lambda: "libtoy.so"  # type: ignore[attr-defined]
    (tmp_path / "onnxruntime_ep_toy.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_toy", module)
    monkeypatch.setattr(
        ort,
        "register_execution_provider_library",
        lambda name, path: state.registered.append((name, path)),
    )
    monkeypatch.setattr(ort, "get_ep_devices", lambda: state.devices)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    monkeypatch.setattr(providers, "_registered", set[str]())
    return state


class Options:
    """Session options that remember what was added."""

    def __init__(self, threads: int = 0) -> None:
        self.intra_op_num_threads, self.added = threads, list[Any]()

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.added.append((devices, options))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("cpu", CPU),
        ("CPU", CPU),
        ("cuda", "CUDAExecutionProvider"),
        ("openvino", OPENVINO),
        ("coreml", "CoreMLExecutionProvider"),
        ("XnnpackExecutionProvider", "XnnpackExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("webgpuexecutionprovider", "WebGpuExecutionProvider"),
        ("tpu", "tpu"),
    ],
)
def test_short_names_and_names_of_onnxruntime_are_the_same(said: str, name: str) -> None:
    assert full_name(said) == name
    assert full_name(short_name(name)) == name


@pytest.mark.parametrize("name", ["cpu", "CPUExecutionProvider", "openvino"])
def test_what_onnxruntime_names_itself_needs_no_look_at_packages(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They are looked for at each opening of a session, and that takes longer than to open a small one."""

    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(pkgutil, "iter_modules", fail)
    assert full_name(name).endswith("ExecutionProvider")
    if name != "openvino":
        assert find_provider(name).name == "CPUExecutionProvider"


@pytest.mark.usefixtures("plugged")
def test_a_plug_in_package_is_found_by_the_name_of_its_module() -> None:
    assert find_provider("toy").name == TOY
    assert is_plug_in(TOY)
    assert not is_plug_in(CPU)
    assert not is_plug_in("AzureExecutionProvider")


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tpu", 'provider="cpu"'),
        ("openvino", "pip install onnxruntime-ep-openvino"),
        ("webgpu", "pip install onnxruntime-ep-webgpu"),
        ("CoreMLExecutionProvider", 'provider="cpu"'),
    ],
)
def test_one_that_is_not_there_is_refused_with_those_that_are(name: str, hint: str) -> None:
    with pytest.raises(ProviderError) as caught:
        loopedge.Session(TINY, provider=name)
    assert caught.value.message == (
        f"this onnxruntime ({ort.__version__}) has no execution provider {name!r}, it has azure, cpu, toy"
    )
    assert caught.value.hint == hint


def test_a_plug_in_is_registered_once(plugged: Plugged) -> None:
    load_plug_in(TOY)
    load_plug_in(TOY)
    assert plugged.registered == [(TOY, "libtoy.so")]
    assert is_plug_in(TOY)


def test_a_library_that_onnxruntime_refuses_is_one_line(
    plugged: Plugged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, path: str) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : API version 99 is not supported\nat x.cc"
        )

    monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
    with pytest.raises(ProviderError) as caught:
        load_plug_in(TOY)
    assert caught.value.message.endswith("1 : FAIL : API version 99 is not supported")
    assert plugged.registered == []


def test_an_onnxruntime_without_plug_ins_says_so(
    plugged: Plugged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ort, "register_execution_provider_library")
    with pytest.raises(ProviderError, match=r"which onnxruntime takes from 1\.23 on") as caught:
        load_plug_in(TOY)
    assert caught.value.hint == "pip install -U onnxruntime"


def test_the_first_device_runs_it_or_the_one_of_the_kind_that_is_named(plugged: Plugged) -> None:
    plain, named = Options(), Options()
    add_plug_in(plain, TOY, {"speed": "9"})
    add_plug_in(named, TOY, {"device_type": "NPU"})
    assert plain.added == [([plugged.devices[0]], {"speed": "9"})]
    assert named.added == [([plugged.devices[1]], {})]
    with pytest.raises(ProviderError, match="no device of type 'gpu' here, it finds cpu, npu"):
        add_plug_in(Options(), TOY, {"device_type": "gpu"})


def test_a_plug_in_without_a_device_is_refused(plugged: Plugged) -> None:
    plugged.devices = []
    with pytest.raises(ProviderError, match="finds no device on this machine") as caught:
        loopedge.Session(TINY, provider="toy")
    assert caught.value.hint == 'provider="cpu"'


def test_properties_of_openvino_go_where_it_reads_them(
    plugged: Plugged, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged.devices = [device(OPENVINO, ov_device="CPU")]
    monkeypatch.setattr(providers, "_registered", {OPENVINO})
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU, OPENVINO])
    options = Options(threads=2)
    add_plug_in(options, OPENVINO, {"INFERENCE_PRECISION_HINT": "f32", "other": "x"})
    ((_, given),) = options.added
    assert given["other"] == "x"
    assert json.loads(given["load_config"]) == {
        "CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "2"}
    }
    unset = Options()
    add_plug_in(unset, OPENVINO)
    assert unset.added[0][1] == {}
    own = Options(threads=2)
    add_plug_in(own, OPENVINO, {"load_config": "mine.json"})
    assert own.added[0][1] == {"load_config": "mine.json"}
    with pytest.raises(InputError, match="ignores the option num_of_threads") as caught:
        find_provider("openvino", {"num_of_threads": "1"})
    assert caught.value.hint == "provider_options={'INFERENCE_NUM_THREADS': '1'}"
    with naming_flags(), pytest.raises(InputError) as caught:
        find_provider("openvino", {"precision": "FP32"})
    assert caught.value.hint == "--provider-option INFERENCE_PRECISION_HINT=f32"


def test_the_cpu_takes_no_options() -> None:
    with pytest.raises(InputError, match="takes no options, threads was named"):
        loopedge.Session(TINY, provider="cpu", provider_options={"threads": "1"})


class Assigned:
    """A session of the CPU that says that the toy took some of its nodes."""

    def __init__(self, assigned: dict[str, dict[str, int]]) -> None:
        self.session = ort.InferenceSession(str(TINY), providers=[CPU])
        self.assigned = assigned

    def get_providers(self) -> list[str]:
        return [TOY, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        def nodes(ops: dict[str, int]) -> list[Any]:
            return [SimpleNamespace(op_type=op) for op, count in ops.items() for _ in range(count)]

        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda ops=ops: nodes(ops))
            for name, ops in self.assigned.items()
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


@pytest.mark.usefixtures("plugged")
def test_a_session_on_a_plug_in_runs_and_lists_what_fell_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    found = Assigned({TOY: {"MatMul": 19, "Loop": 1}, CPU: {"Attention": 3, "RMSNormalization": 7}})

    def opened(path: str, options: Any, provider: Any, memory: str) -> Any:
        asked.append((provider, options.get_session_config_entry(RECORD_ASSIGNMENT)))
        return found

    monkeypatch.setattr(runtime, "open_session", opened)
    session = loopedge.Session(TINY, provider="toy", provider_options={"speed": "9"})
    assert asked == [((TOY, {"speed": "9"}), "1")]
    assert session.provider == TOY
    assert session.notes == [
        "3 of 22 matrix products and attentions run on the CPU: 3 Attention",
        "7 of 30 nodes run on the CPU beside them: 7 RMSNormalization",
    ]
    expected = ort.InferenceSession(str(TINY), providers=[CPU]).run(None, {"input_ids": IDS})[0]
    assert np.array_equal(session.run({"input_ids": IDS})["logits"], expected)


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("assigned", "said"),
    [
        ({TOY: {"Add": 2}, CPU: {"MatMul": 7}}, "runs none of the matrix products"),
        ({TOY: {"MatMul": 1}, CPU: {"MatMul": 6, "Loop": 1}}, "does not run the Loop"),
    ],
)
def test_a_session_whose_products_fell_back_is_refused(
    assigned: dict[str, dict[str, int]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "open_session", lambda *_: Assigned(assigned))
    with pytest.raises(ProviderError, match=said):
        loopedge.Session(TINY, provider="toy")


@pytest.mark.usefixtures("plugged")
def test_what_the_provider_cannot_compile_is_its_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("[ONNXRuntimeError] : 11 : EP_FAIL : the toy compiles no Gelu\nat y.cc")

    monkeypatch.setattr(runtime, "open_session", refuse)
    with pytest.raises(ProviderError, match=r"cannot run .*tiny\.onnx: 11 : EP_FAIL : the toy"):
        loopedge.Session(TINY, provider="toy")


@pytest.mark.usefixtures("plugged")
def test_a_damaged_file_is_no_matter_of_the_provider(tmp_path: Path) -> None:
    damaged = tmp_path / "m.onnx"
    damaged.write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be loaded"):
        loopedge.Session(damaged, provider="azure")


def test_built_in_providers_are_named_to_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []

    def remember(path: str, options: Any, *, providers: Any, enable_fallback: int) -> Any:
        handed.append((providers, enable_fallback))
        raise RuntimeError("enough")

    monkeypatch.setattr(ort, "InferenceSession", remember)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU, "XnnpackExecutionProvider"])
    for provider in ("XnnpackExecutionProvider", ("XnnpackExecutionProvider", {"threads": "2"})):
        with pytest.raises(RuntimeError, match="enough"):
            open_session(str(TINY), session_options(1), provider)
    assert handed == [
        (["XnnpackExecutionProvider"], 0),
        ([("XnnpackExecutionProvider", {"threads": "2"})], 0),
    ]
