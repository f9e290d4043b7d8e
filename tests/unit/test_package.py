"""`loopedge.package`: what stands in a bundle, what must come out of it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError, VerificationError
from loopedge.graph.metadata import Prepared, write_metadata
from loopedge.packager import pipeline
from loopedge.packager.bundle import read_bundle
from loopedge.packager.clients import (
    CLIENTS,
    PROVIDERS,
    ModelTraits,
    check_provider,
    known_engines,
)
from loopedge.packager.options import PackageOptions
from loopedge.packager.vectors.checking import client_module
from tests.table_models import TASK, repeating_model
from tests.unit.bundles import SHORT, array_of, client, package, short_model, tiny

if TYPE_CHECKING:
    from pathlib import Path


def renamed(source: Path, target: Path, **known: Any) -> Path:
    """Write a model again with other metadata."""
    artifact = Artifact.open(source)
    graph = artifact.fresh_graph()
    write_metadata(artifact.metadata.model_copy(update=known), graph.metadata_props)
    write_artifact(graph, target)
    return target


def plain_outputs(model: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run a model with ONNX Runtime alone."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_vectors_hold_what_the_model_computes(tmp_path: Path) -> None:
    model = tiny(tmp_path, dynamic=True)
    result = package(model)
    manifest = read_bundle(tmp_path / "bundle")
    names = [vector.name for vector in manifest.vectors]
    assert names == ["whole", "batch of 3", "one position", "loops 1", "loops 3"]
    for vector in manifest.vectors:
        feeds = {each.name: array_of(tmp_path / "bundle", each) for each in vector.inputs}
        feeds.setdefault("loops", np.array(3))
        expected = plain_outputs(model, feeds)["logits"]
        [output] = vector.outputs
        found = array_of(tmp_path / "bundle", output)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert (vector.check.kind, vector.check.limit) == ("relative", 1e-5)
        assert vector.measured <= 1e-5
    assert [each["name"] for each in result.to_json()["vectors"]] == names


def test_vectors_of_tables_are_whole_short_and_padded(tmp_path: Path) -> None:
    package(short_model(tmp_path))
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    shapes = {v.name: {each.name: each.shape for each in v.inputs} for v in manifest.vectors}
    assert shapes == {
        "whole": {"inputs": [1, 4, 2]},
        "batch of 3": {"inputs": [3, 4, 2]},
        "short": {"inputs": [1, 2, 2]},
        "half": {"inputs": [1, 3, 2]},
        "padded": {"inputs": [2, 4, 2], "attention_mask": [2, 4]},
    }
    short = next(vector for vector in manifest.vectors if vector.name == "short")
    given = array_of(folder, short.inputs[0])
    found = {each.name: array_of(folder, each) for each in short.outputs}
    np.testing.assert_array_equal(found["seen"][0, :2], [[7, 8], [7, 8]])
    np.testing.assert_array_equal(found["seen"][:, 2:], given)
    np.testing.assert_array_equal(found["kept"], [[0, 0, 1, 1]])


def test_the_manifest_says_what_goes_in(tmp_path: Path) -> None:
    package(short_model(tmp_path), name="pump-7")
    manifest = read_bundle(tmp_path / "bundle")
    assert (manifest.name, manifest.models[0].file) == ("pump-7", "models/pump-7.onnx")
    ports = {port.name: port for port in manifest.inputs}
    assert (ports["inputs"].role, ports["inputs"].dtype) == ("values", "float32")
    assert (ports["inputs"].min_length, ports["inputs"].max_length) == (2, 4)
    assert (ports["attention_mask"].role, ports["attention_mask"].dtype) == ("mask", "int64")
    assert manifest.task is not None
    assert manifest.task == SHORT
    assert manifest.loops is not None
    assert (manifest.loops.default, manifest.loops.dynamic) == (1, False)
    other = tmp_path / "other"
    other.mkdir()
    package(repeating_model(other / "whole.onnx", TASK))
    [port] = read_bundle(other / "bundle").inputs
    assert (port.exact_length, port.max_length) == (4, None)


def test_ids_loops_and_releases_are_described(tmp_path: Path) -> None:
    package(tiny(tmp_path, dynamic=True))
    manifest = read_bundle(tmp_path / "bundle")
    ids, loops = manifest.inputs
    assert (ids.role, ids.vocabulary, ids.max_length) == ("ids", 48, 16)
    assert (loops.role, loops.shape) == ("loops", [])
    assert manifest.loops is not None
    assert manifest.loops.model_dump() == {
        "trained": 3,
        "range": (3, 3),
        "default": 3,
        "dynamic": True,
        "most": 3,
    }
    [model] = manifest.models
    assert (model.opset, model.min_runtime, model.loops) == (23, "1.23", None)
    assert model.inputs == ["input_ids", "loops"]
    engines = {engine.engine: engine.verdict for engine in manifest.engines}
    assert engines["tract 0.23"] == "refuses"
    assert engines["onnxruntime OpenVINO plug-in"] == "refuses"


@pytest.mark.parametrize(
    ("opset", "clients", "said"),
    [(28, ("node", "c"), True), (28, ("c", "python"), False), (23, ("web", "node"), False)],
)
def test_a_model_that_is_newer_than_the_packages_of_npm_says_so(
    tmp_path: Path, opset: int, clients: tuple[str, ...], said: bool
) -> None:
    path = repeating_model(tmp_path / "m.onnx", TASK)
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    result = package(path, *clients)
    found = [note for note in result.notes if "needs ONNX Runtime 1.32" in note]
    assert len(found) == said
    assert all("models/m.onnx" in note and note.endswith("opset=26") for note in found)


def test_a_newer_file_of_another_tool_is_for_that_tool_to_write(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, ir_version=13, opset_imports=[helper.make_opsetid("", 28)])
    onnx.save(model, tmp_path / "m.onnx")
    notes = package(tmp_path / "m.onnx", "node").notes
    assert any(
        note.endswith("up to 26: the tool that wrote it has to write that") for note in notes
    )


@pytest.mark.parametrize(
    ("opset", "refused"), [(20, False), (22, False), (23, True), (None, False)]
)
def test_the_plug_in_of_openvino_takes_a_loop_of_older_operators(
    opset: int | None, refused: bool
) -> None:
    """As it was measured: docs/profiling.md."""
    loop = ModelTraits(
        model="m",
        forms=frozenset({"loop"}),
        scheme=None,
        opset=opset,
        standard=True,
        tied_table=False,
    )
    found = {engine.engine for engine in known_engines(loop)}
    assert ("onnxruntime OpenVINO plug-in" in found) is refused


@pytest.mark.parametrize(
    ("scheme", "slow"), [("weight-int8", True), ("static", False), (None, False)]
)
def test_weights_in_blocks_are_slow_in_a_browser(scheme: str | None, slow: bool) -> None:
    """As it was measured: benchmarks/results/clients."""
    model = ModelTraits(
        model="m",
        forms=frozenset({"loop"}),
        scheme=scheme,
        opset=23,
        standard=False,
        tied_table=False,
    )
    found = {engine.engine for engine in known_engines(model) if engine.verdict == "slow"}
    assert ("onnxruntime-web, WebAssembly" in found) is slow


@pytest.mark.slow
def test_each_client_gets_its_form(tmp_path: Path) -> None:
    result = package(tiny(tmp_path, dynamic=True), "python", "c", "web")
    manifest = read_bundle(tmp_path / "bundle")
    taken = {name: (each.model, each.providers) for name, each in manifest.clients.items()}
    assert taken == {
        "web": ("loop", {"webgpu": "unrolled"}),
        "c": ("ort", {}),
        "python": ("loop", {}),
    }
    models = {model.id: model for model in manifest.models}
    assert set(models) == {"loop", "unrolled", "ort"}
    assert (models["unrolled"].loops, models["unrolled"].inputs) == (3, ["input_ids"])
    assert models["ort"].config["session.use_ort_model_bytes_for_initializers"] == "1"
    graph = onnx.load(tmp_path / "bundle" / models["unrolled"].file).graph
    assert "Loop" not in {node.op_type for node in graph.node}
    assert models["unrolled"].weight_bytes == models["loop"].weight_bytes  # stored once
    files = {file.path for file in manifest.files}
    assert any(name.endswith(".required_operators.config") for name in files)
    assert {"index.html", "c/loopedge_model.h", "javascript/loopedge.mjs", "README.md"} <= files
    assert [client.entry in files for client in manifest.clients.values()] == [True] * 3
    assert {model.id: model.clients for model in result.models} == {
        "loop": ["web", "python"],
        "unrolled": ["web/webgpu"],
        "ort": ["c"],
    }
    for model in models.values():
        loaded = client.load(tmp_path / "bundle", model=model.id)
        assert all(vector["passed"] for vector in loaded.check_vectors())


def test_c_alone_needs_no_onnx_file(tmp_path: Path) -> None:
    package(tiny(tmp_path), "c")
    folder = tmp_path / "bundle" / "models"
    assert sorted(path.suffix for path in folder.iterdir()) == [".config", ".ort"]


@pytest.mark.slow
def test_a_provider_without_loop_gets_the_unrolled_form(tmp_path: Path) -> None:
    package(tiny(tmp_path), provider="OpenVINOExecutionProvider")
    manifest = read_bundle(tmp_path / "bundle")
    assert manifest.clients["python"].providers == {"openvino": "unrolled"}
    assert client.load(tmp_path / "bundle").model["id"] == "loop"


def test_small_weights_are_in_the_file_and_large_ones_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.packager.models.SINGLE_FILE_BYTES", 1000)
    package(tiny(tmp_path), "node")
    folder = tmp_path / "bundle"
    [model] = [each for each in read_bundle(folder).models if each.id == "loop"]
    [data] = model.data
    assert data.file == f"models/{data.location}"
    assert (folder / data.file).stat().st_size > 1000
    monkeypatch.setattr("loopedge.packager.models.SINGLE_FILE_BYTES", 10**7)
    package(tiny(tmp_path), "node", force=True)
    assert read_bundle(folder).models[0].data == []


@pytest.mark.slow
def test_a_quantized_model_is_judged_by_its_float_model(tmp_path: Path) -> None:
    exact = tiny(tmp_path)
    loopedge.quantize(exact, tmp_path / "q.onnx", scheme="dynamic")
    result = package(tmp_path / "q.onnx", reference=exact)
    assert result.reference == str(exact)
    folder = tmp_path / "bundle"
    vectors = read_bundle(folder).vectors
    [many] = [vector for vector in vectors if vector.name == "batch of 32"]
    for vector in vectors:
        feeds = {each.name: array_of(folder, each) for each in vector.inputs}
        wanted = plain_outputs(exact, feeds)["logits"].astype(np.float64)
        given = plain_outputs(tmp_path / "q.onnx", feeds)["logits"].astype(np.float64)
        sqnr = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())
        assert vector.check.kind == "sqnr"
        assert vector.measured == pytest.approx(sqnr, abs=0.05)
        assert vector.check.limit == pytest.approx(min(vector.measured, many.measured) - 1)
        np.testing.assert_allclose(
            array_of(folder, vector.outputs[0]), wanted, rtol=1e-5, atol=1e-4
        )


@pytest.mark.slow
def test_the_float_model_is_found_by_its_checkpoint(tmp_path: Path) -> None:
    exact = renamed(tiny(tmp_path), tmp_path / "exact.onnx", checkpoint_sha256="a" * 64)
    loopedge.quantize(exact, tmp_path / "q.onnx", scheme="dynamic")
    renamed(exact, tmp_path / "another.onnx", checkpoint_sha256="b" * 64)
    assert package(tmp_path / "q.onnx").reference == str(exact)
    exact.unlink()
    result = package(tmp_path / "q.onnx", path=tmp_path / "second")
    assert result.reference is None
    assert any("no float model was at hand" in note for note in result.notes)
    [check] = {(v.check, v.limit) for v in result.vectors}
    assert check == ("relative", 5e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quantized", "other loops", "other inputs"])
def test_a_file_that_cannot_judge_is_refused(tmp_path: Path, kind: str) -> None:
    exact = tiny(tmp_path)
    loopedge.quantize(exact, tmp_path / "q.onnx", scheme="dynamic")
    words = {
        "quantized": "it is quantized itself",
        "other loops": "it runs 5 loops, the other 3",
        "other inputs": "it takes input_ids, loops",
    }
    judges = {
        "quantized": lambda: tmp_path / "q.onnx",
        "other loops": lambda: renamed(exact, tmp_path / "r.onnx", loops=5),
        "other inputs": lambda: tiny(tmp_path, dynamic=True),
    }
    with pytest.raises(InputError, match=words[kind]):
        package(tmp_path / "q.onnx", reference=judges[kind]())
    assert not (tmp_path / "bundle").exists()


def foreign(path: Path, kind: int = TensorProto.FLOAT) -> Path:
    """Write y = x + x, of another tool."""
    ports = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g", ports[:1], ports[1:]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


def test_a_model_of_another_tool_is_packaged_with_what_is_known(tmp_path: Path) -> None:
    result = package(foreign(tmp_path / "f.onnx"), "c", "python")
    manifest = read_bundle(tmp_path / "bundle")
    assert (manifest.task, manifest.loops, manifest.tokenizer) == (None, None, None)
    [port] = manifest.inputs
    assert (port.role, port.shape, port.vocabulary) == ("other", ["n", 3], None)
    assert any("does not say what it was trained on" in note for note in manifest.notes)
    assert manifest.notes == result.notes
    assert {model.min_runtime for model in manifest.models} == {"1.17"}
    found = client.load(tmp_path / "bundle").run(np.array([[1.0, 2.0, 3.0]], np.float32))
    np.testing.assert_array_equal(found["y"], [[2, 4, 6]])


@pytest.mark.slow
def test_a_loop_of_another_tool_is_written_out_for_webgpu(tmp_path: Path) -> None:
    from tests.cli.test_foreign_loops import X, expected, looped

    result = package(looped(tmp_path / "f.onnx", 4), "web")
    assert {model.id: model.form for model in result.models} == {
        "model": "loop",
        "unrolled": "unrolled",
    }
    for identity in ("model", "unrolled"):
        bundle = client.load(tmp_path / "bundle", model=identity)
        [found] = bundle.run(X[:2]).values()
        np.testing.assert_allclose(found, expected(4)[:2], rtol=1e-4, atol=1e-5)
    plain = tmp_path / "plain"
    plain.mkdir()
    result = package(foreign(plain / "f.onnx"), "web")
    assert [(model.id, model.form) for model in result.models] == [("model", "unrolled")]
    assert not any("no unrolled form" in note for note in result.notes)


def test_what_no_client_can_feed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x is bfloat16: clients take arrays of float32"):
        package(foreign(tmp_path / "b.onnx", TensorProto.BFLOAT16))
    assert not (tmp_path / "bundle").exists()


def test_a_wide_model_takes_and_gives_float64(tmp_path: Path) -> None:
    package(repeating_model(tmp_path / "w.onnx", TASK | {"wide": True}), "c", "python")
    folder = tmp_path / "bundle"
    assert [port.dtype for port in read_bundle(folder).inputs] == ["float64"]
    window = np.full((1, 4, 2), 1e9) + np.arange(8).reshape(1, 4, 2) / 3
    np.testing.assert_array_equal(client.load(folder).run(window)["seen"], window)


def test_an_early_exit_has_a_vector_that_never_ends(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    artifact = Artifact.open(model)
    graph = artifact.fresh_graph()
    import onnx_ir as ir

    tolerance = ir.Value(
        name="tolerance", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([])
    )
    graph.graph.inputs.append(tolerance)
    known = artifact.metadata.model_copy(update={"exit": "tolerance=0.25"})
    write_metadata(known, graph.metadata_props)
    write_artifact(graph, tmp_path / "exits.onnx")
    package(tmp_path / "exits.onnx")
    folder = tmp_path / "bundle"
    manifest = read_bundle(folder)
    assert manifest.tolerance is not None
    assert manifest.tolerance.default == 0.25
    [never] = [vector for vector in manifest.vectors if vector.name == "tolerance 0"]
    assert array_of(folder, never.inputs[-1]).tolist() == 0
    bundle = client.load(folder)
    bundle.run(np.array([[1]]), tolerance=0.5)
    with pytest.raises(client.BundleError, match="at least 0"):
        bundle.run(np.array([[1]]), tolerance=-1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clients": ("phone",)}, "client 'phone' does not exist; there are web, node, c, python"),
        ({"clients": ()}, "a bundle is for a client"),
        ({"provider": "abacus"}, "provider 'abacus' is not known; there are cpu"),
        ({"provider": "webnn"}, "provider webnn is found in web, the bundle is for python"),
        ({"name": "../up"}, r"name is '\.\./up': letters"),
        ({"name": ""}, "name is ''"),
        ({"new_tokens": 0}, "1 to 1024 are allowed"),
        ({"packages": "here"}, "which is not asked for"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PackageOptions(**({"clients": ("python",)} | options))


def test_clients_stand_once_in_the_order_of_the_table() -> None:
    chosen = PackageOptions(clients=("python", "web", "python"))
    assert chosen.clients == ("web", "python")
    named: Any = "c"
    assert PackageOptions(clients=named).clients == ("c",)


def test_the_tables_of_clients_and_providers_agree() -> None:
    for facts in CLIENTS.values():
        assert set(facts.providers) <= set(PROVIDERS)
    for name, provider in PROVIDERS.items():
        assert check_provider(f"{name}ExecutionProvider", ["web", "node", "c", "python"]) == name
        assert set(provider.clients) <= set(CLIENTS)
        assert provider.reason
    for name in ort.get_all_providers():  # also those that the table lacks
        short = name.lower().removesuffix("executionprovider")
        assert check_provider(name, ["web", "node", "c", "python"]) == short


@pytest.mark.parametrize(
    ("clients", "words"), [(("web",), "package needs the model"), (("python",), "package needs")]
)
def test_a_prepared_file_is_refused(tmp_path: Path, clients: tuple[str, ...], words: str) -> None:
    made = Prepared(onnxruntime="1", architecture="a", processor="p", features=[])
    model = renamed(tiny(tmp_path), tmp_path / "m.prepared.onnx", prepared=made)
    with pytest.raises(InputError, match=words) as refusal:
        package(model, *clients)
    assert refusal.value.hint == f"loopedge package {tmp_path / 'm.onnx'} --for web"
    assert not (tmp_path / "bundle").exists()


def test_ort_format_and_bundles_are_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    loopedge.convert(model, tmp_path / "tiny.ort")
    with pytest.raises(InputError, match="is in ORT format, the last step") as refusal:
        package(tmp_path / "tiny.ort", "c")
    assert refusal.value.hint is not None
    assert "tiny.onnx --for c" in refusal.value.hint
    package(model)
    with pytest.raises(InputError, match="is a bundle, a model is needed"):
        package(tmp_path / "bundle", path=tmp_path / "again")
    with pytest.raises(InputError, match=r"no\.onnx"):
        package(tmp_path / "no.onnx", path=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_targets_that_hold_something_are_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="holds files that are no bundle"):
            package(model, path=folder, force=force)
    with pytest.raises(InputError, match=r"notes\.txt is not a folder"):
        package(model, path=folder / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        package(model, path=tmp_path / "no" / "bundle")
    with pytest.raises(InputError, match=r"of MODEL lies in"):
        package(model, path=tmp_path, force=True)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert package(model, path=empty).path == str(empty)
    with pytest.raises(InputError, match="holds a bundle already"):
        package(model, path=empty)
    package(model, path=empty, force=True, name="second")
    assert read_bundle(empty).name == "second"
    assert [path.name for path in (empty / "models").iterdir()] == ["second.onnx"]


@pytest.mark.parametrize("before", [False, True])
def test_a_bundle_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    model = tiny(tmp_path)
    if before:
        package(model)
    stands = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def fail(*_: Any) -> Any:
        raise OSError(28, "No space left on device", "x")

    for place in ("write_vector", "page_text", "write_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, place, fail)
            with pytest.raises(InputError, match="no space left"):
                package(model, force=True)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stands


def test_a_form_that_computes_something_else_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = client_module().Bundle.run_vector

    def wrong(self: Any, *words: Any) -> Any:
        return {name: array * 1.01 for name, array in honest(self, *words).items()}

    monkeypatch.setattr(client_module().Bundle, "run_vector", wrong)
    with pytest.raises(
        VerificationError, match=r"tiny\.onnx fails the test vector 'whole'"
    ) as found:
        package(tiny(tmp_path))
    assert found.value.measured == pytest.approx(0.01, rel=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_the_result_names_every_file(tmp_path: Path) -> None:
    result = package(tiny(tmp_path))
    folder = tmp_path / "bundle"
    sizes = {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert {file.path: file.bytes for file in result.files} == sizes
    assert (result.bundle_bytes, result.runtime_bytes) == (sum(sizes.values()), 0)
    assert json.loads(json.dumps(result.to_json())) == result.to_json()
    assert {field.name for field in dataclasses.fields(result)} == set(result.to_json())
