"""Bundles at their edges: what would be computed wrongly without a word is refused, or is what other clients compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.errors import InputError, VerificationError
from loopedge.packager.bundle import read_bundle
from loopedge.packager.writing import write_manifest
from loopedge.runtime.generator import Generator
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.bundles import client, package, short_model, tiny
from tests.unit.test_package import renamed

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "The loop"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    package(short_model(folder))
    return folder / "bundle"


@pytest.mark.parametrize(
    "name", ["../short.onnx", "models/../../short.onnx", "/short.onnx", "C:/x", "a//b", "./a"]
)
def test_a_path_that_leads_out_of_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    package(short_model(tmp_path))
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    moved = manifest.files[0].model_copy(update={"path": name})
    write_manifest(manifest.model_copy(update={"files": [moved, *manifest.files[1:]]}), folder)
    with pytest.raises(InputError, match="is damaged: files"):
        read_bundle(folder)
    with pytest.raises(client.BundleError, match="is no path inside the bundle"):
        client.load(folder)


def test_a_file_that_the_manifest_does_not_list_is_not_opened(tmp_path: Path) -> None:
    """Its checksum is that of the manifest as it is, so nothing else tells."""
    package(short_model(tmp_path))
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    for ending in (".onnx", ".bin"):
        files = [file for file in manifest.files if not file.path.endswith(ending)]
        write_manifest(manifest.model_copy(update={"files": files}), folder)
        with pytest.raises(client.BundleError, match=rf"\{ending} is not in the files of manifest"):
            list(client.load(folder).check_vectors())


def test_a_changed_vector_judges_nothing(tmp_path: Path) -> None:
    package(short_model(tmp_path))
    folder = tmp_path / "bundle"
    name = read_bundle(folder).vectors[0].outputs[0].file
    (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    with pytest.raises(client.BundleError, match=rf"^{name} is damaged"):
        list(client.load(folder).check_vectors())


def test_a_text_ends_where_that_of_the_library_does(tmp_path: Path) -> None:
    model = write_generate_file(GenerateModel(context=16), tmp_path / "lm.generate.onnx")
    package(model)
    bundle = client.load(tmp_path / "bundle")
    for length in (14, 15, 16):
        ids = list(range(97, 97 + length))
        expected = [token.id for token in Generator(model).stream(ids, new_tokens=9)]
        assert len(expected) == 17 - length
        assert list(bundle.greedy(ids, 9)) == expected
    assert list(bundle.greedy([97], 0)) == []
    bundle.ports["input_ids"]["max_length"] = None  # as of a file that names no limit
    with pytest.raises(client.BundleError, match="has 17 tokens, the context is 16 positions"):
        bundle.logits(np.full((1, 17), 97))


def test_logits_that_are_no_numbers_are_no_text(tmp_path: Path) -> None:
    model = write_generate_file(GenerateModel(spoiled=98), tmp_path / "lm.generate.onnx")
    package(model, prompt="aaa", new_tokens=1)
    bundle = client.load(tmp_path / "bundle")
    with pytest.raises(client.BundleError, match="gives NaN or infinite logits"):
        list(bundle.greedy([97, 98], 3))


def test_the_name_of_a_provider_may_be_written_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tiny(tmp_path))
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    model = manifest.models[0]
    manifest.clients["python"].providers["openvino"] = "other"
    manifest.models.append(model.model_copy(update={"id": "other"}))
    write_manifest(manifest, folder)
    opened: list[tuple[str, Any]] = []

    def session(path: Any, options: Any, providers: Any = None, **_: Any) -> Any:
        opened.append((str(path), providers))
        return Elsewhere()

    class Elsewhere:
        def get_providers(self) -> list[str]:
            return ["OpenVINOExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider"]
    )
    for name in ("openvino", "OpenVINO", "OpenVINOExecutionProvider"):
        assert client.load(folder, provider=name).model["id"] == "other"
    assert {providers[0] for _, providers in opened} == {"OpenVINOExecutionProvider"}


def test_a_provider_that_gives_way_to_the_cpu_is_refused(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime prints a line and runs on the CPU, where CUDA is built in and finds no GPU."""

    class OnCpu:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", OnCpu)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(client.BundleError, match="cuda was asked for, cpu would run short"):
        client.load(short, provider="cuda")


def test_whole_numbers_keep_their_values(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT32, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 3])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "m.onnx")
    package(tmp_path / "m.onnx")
    bundle = client.load(tmp_path / "bundle")
    assert bundle.run(np.array([[1, 2, 3]]))["y"].tolist() == [[2, 4, 6]]
    with pytest.raises(client.BundleError, match="input x holds 4294967297, int32 is needed"):
        bundle.run(np.array([[1, 2, 2**32 + 1]]))


def test_numbers_of_a_model_that_says_nothing_of_them_may_be_any(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "m.onnx")
    package(tmp_path / "m.onnx", "c", "python")
    manifest = read_bundle(tmp_path / "bundle")
    assert [port.any_value for port in manifest.inputs] == [True]
    values = np.array([[np.nan, -np.inf, 1]], np.float32)
    bundle = client.load(tmp_path / "bundle")
    np.testing.assert_array_equal(bundle.run(values)["y"], values)
    bundle.ports["x"]["any_value"] = False  # an input of loopedge's own that is no window
    with pytest.raises(client.BundleError, match="input x holds nan"):
        bundle.run(values)


def test_a_float_model_of_another_checkpoint_judges_nothing(tmp_path: Path) -> None:
    exact = renamed(tiny(tmp_path), tmp_path / "exact.onnx", checkpoint_sha256="a" * 64)
    loopedge.quantize(exact, tmp_path / "q.onnx", scheme="dynamic")
    other = renamed(exact, tmp_path / "other.onnx", checkpoint_sha256="b" * 64)
    with pytest.raises(InputError, match="it was exported from another checkpoint"):
        package(tmp_path / "q.onnx", reference=other)


def test_noise_as_large_as_the_signal_is_no_quantized_model(tmp_path: Path) -> None:
    """The limit is what was measured, less 1 dB: without a floor it could not fail."""
    exact = tiny(tmp_path)
    loopedge.quantize(exact, tmp_path / "q.onnx", scheme="dynamic")
    stored = onnx.load(tmp_path / "tiny.onnx")
    for weight in stored.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2:
            array = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(-3 * array[::-1].copy(), weight.name))
    onnx.save(stored, tmp_path / "stranger.onnx")
    with pytest.raises(VerificationError, match="of signal to noise to the float model, more than"):
        package(tmp_path / "q.onnx", reference=tmp_path / "stranger.onnx")
    assert not (tmp_path / "bundle").exists()


def test_the_manifest_of_an_app_is_no_bundle(tmp_path: Path) -> None:
    """Web apps have a file of that name; ``force`` would remove the app."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "manifest.json").write_text(json.dumps({"name": "app", "icons": []}), encoding="utf-8")
    with pytest.raises(InputError, match="holds files that are no bundle"):
        package(tiny(tmp_path), path=app, force=True)
    assert [path.name for path in app.iterdir()] == ["manifest.json"]
