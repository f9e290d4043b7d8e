"""ORT format, opsets with their IR versions, and weights stored in float16, against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.artifact.opsets import IR_VERSIONS, check_versions
from loopedge.artifact.seal import config_path
from loopedge.errors import InputError, VerificationError
from loopedge.graph.core.ties import tied_weights
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.graph.weights import weight_bytes
from tests.parity.models import (
    Sizes,
    make_inputs,
    make_model,
    relative_error,
    torch_output,
)

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loopedge.artifact.inspection import Inspection
    from loopedge.model.transformer import LoopedTransformer

    Exporter = Callable[..., Path]

FORMS = ["loop", "unrolled"]


def rounded(model: LoopedTransformer) -> LoopedTransformer:
    """Round what float16 stores; the network of the timestep table is not in the file."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.startswith("timestep."):
                parameter.copy_(parameter.half().float())
    return model


def agreement(path: Path, model: LoopedTransformer) -> float:
    session = loopedge.Session(path, threads=1)
    tensors, feeds = make_inputs(model, Sizes(3, 11))
    (given,) = session.run(feeds).values()
    return relative_error(given, torch_output(model, tensors), feeds.get("attention_mask"))


def body_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for graph in model.graph.subgraphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_ort_format_agrees_and_holds_each_weight_once(form: str, tmp_path: Path) -> None:
    model = make_model("padded")
    path = tmp_path / "model.ort"
    result = loopedge.export(model, path, form=form, format="ort")  # type: ignore[arg-type]
    assert set(tmp_path.iterdir()) == {path, config_path(path)}
    assert [file.path for file in result.files] == [str(path), str(config_path(path))]
    assert agreement(path, model) < 1e-5
    stored = open_artifact(path)
    assert body_bytes(stored) < 64
    found = loopedge.inspect(path)
    assert (found.form, found.loops, found.opset) == (form, 3, 23)
    assert {weight.name for weight in found.tied_weights} == {
        weight.name for weight in result.tied_weights
    }
    if form == "loop":
        assert found.weight_bytes == result.weight_bytes
        assert found.untied_bytes > found.weight_bytes


def test_the_operators_of_a_reduced_build_are_listed_without_paths(
    tmp_path: Path, exported: Exporter
) -> None:
    path = tmp_path / "model.ort"
    loopedge.convert(exported("tokens"), path)
    text = config_path(path).read_text()
    assert "Loop" in text
    assert "Attention" in text
    assert str(tmp_path) not in text
    assert str(tmp_path).encode() not in path.read_bytes()
    for line in text.splitlines()[1:]:
        domain, opset, names = line.split(";", 2)
        assert domain
        assert int(opset) >= 1
        assert names


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
def test_a_selectable_loop_count_survives_the_conversion(
    tmp_path: Path, exported: Exporter
) -> None:
    model = make_model("tokens")
    path = tmp_path / "model.ort"
    loopedge.convert(exported("tokens", dynamic_loops=True), path)
    session = loopedge.Session(path, threads=1)
    tensors, feeds = make_inputs(model, Sizes(2, 5))
    for loops in (1, 3):
        given = session.run(feeds, loops=loops)["logits"]
        assert relative_error(given, torch_output(model, tensors, loops)) < 1e-5
    assert session.run(feeds, loops=9)["logits"].shape == (2, 5, 50)


def test_a_weight_in_the_body_is_refused_in_what_loopedge_wrote(
    tmp_path: Path, exported: Exporter
) -> None:
    model = open_artifact(exported("tokens"))
    core = view_core(model)
    assert isinstance(core, LoopCore)
    body = core.loop.body
    for name, value in list(model.graph.initializers.items()):
        if name.endswith("mlp.up.weight"):
            del model.graph.initializers[name]
            body.register_initializer(value)
    copied = tmp_path / "copied.onnx"
    write_artifact(model, copied)
    with pytest.raises(VerificationError, match="in a body"):
        loopedge.convert(copied, tmp_path / "copied.ort")
    assert not list(tmp_path.glob("copied.*ort*"))
    assert not list(tmp_path.glob("*.config"))
    model.metadata_props.clear()
    foreign = tmp_path / "foreign.onnx"
    write_artifact(model, foreign)
    (note,) = loopedge.convert(foreign, tmp_path / "foreign.ort").notes
    assert "in a body" in note


@pytest.mark.parametrize("ops", ["microsoft", "standard"])
def test_a_quantized_model_is_converted(ops: str, tmp_path: Path, exported: Exporter) -> None:
    small = tmp_path / "model.int8.onnx"
    loopedge.quantize(exported("tokens"), small, ops=ops)
    result = loopedge.convert(small, small.with_suffix(".ort"))
    assert result.max_rel_error < 1e-5
    assert result.weight_bytes == loopedge.inspect(small).weight_bytes
    inspected = loopedge.inspect(result.path)
    assert inspected.int8 == loopedge.inspect(small).int8
    assert inspected.metadata["quantization"]["scheme"] == "dynamic"


@pytest.mark.long
@pytest.mark.parametrize(
    "opset", [18, 20, *(pytest.param(opset, marks=pytest.mark.long) for opset in (21, 22, 23))]
)
def test_the_opset_that_was_asked_for_is_written(opset: int, exported: Exporter) -> None:
    path = exported("padded", opset=opset)
    proto = onnx.load(path)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
    assert proto.ir_version == IR_VERSIONS[opset]
    onnx.checker.check_model(proto, full_check=True)
    other = 23 if opset < 23 else 18
    with pytest.raises(VerificationError, match=f"asked for was opset {other}"):
        check_versions(open_artifact(path), other)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "form"), [("tokens", "loop"), ("series", "unrolled")])
def test_float16_storage_computes_with_the_rounded_weights(
    form: str, kind: str, tmp_path: Path, exported: Exporter
) -> None:
    model, path = make_model(kind), tmp_path / "model.onnx"
    result = loopedge.export(model, path, form=form, storage="float16")  # type: ignore[arg-type]
    before = torch_output(model, make_inputs(model, Sizes(2, 5))[0])
    assert 1e-6 < agreement(path, model) < 5e-3
    assert agreement(path, rounded(make_model(kind))) < 1e-5
    assert result.rounding_error is not None
    assert 1e-6 < result.rounding_error < 5e-3
    np.testing.assert_array_equal(before, torch_output(model, make_inputs(model, Sizes(2, 5))[0]))
    plain = exported(kind) if form == "loop" else exported(kind, form=form)
    assert_stored_in_half(loopedge.inspect(plain), open_artifact(path))


def assert_stored_in_half(plain: Inspection, graph: ir.Model) -> None:
    """Weights of two dimensions in half the bytes, Casts outside the Loop, ties counted alike."""
    large = {
        name
        for name, value in graph.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT16
    }
    tensors = [graph.graph.initializers[name].const_value for name in large]
    saved = sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
    assert plain.weight_bytes - weight_bytes(graph) == saved > 0
    assert {
        weight.name: (weight.uses, weight.bytes * (2 if weight.name in large else 1))
        for weight in tied_weights(graph)
    } == {weight.name: (weight.uses, weight.bytes) for weight in plain.tied_weights}
    assert large >= {weight.name for weight in plain.tied_weights if weight.bytes >= 4096}
    assert not [
        node
        for node in graph.graph.all_nodes()
        if node.graph is not graph.graph
        and any(value is not None and value.dtype == ir.DataType.FLOAT16 for value in node.inputs)
    ]


def test_an_embedding_is_gathered_in_float16(exported: Exporter) -> None:
    table = open_artifact(exported("tokens", storage="float16")).graph.initializers[
        "embedding.weight"
    ]
    assert {node.op_type for node, _ in table.uses()} == {"Gather", "Cast"}  # the head is tied
    assert {
        reader.op_type
        for node, _ in table.uses()
        if node.op_type == "Gather"
        for reader, _ in node.outputs[0].uses()
    } == {"Cast"}


def test_weights_that_float16_cannot_hold_stay_float32(tmp_path: Path) -> None:
    model = make_model("tokens")
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights["core_layers.0.attention.q.weight"][0, 0] = 7e4
        weights["core_layers.0.mlp.up.weight"][3] *= 1e-7
    result = loopedge.export(model, tmp_path / "model.onnx", storage="float16")
    kept = {item["name"]: item["reason"] for item in result.kept_float32}
    assert "65504" in kept["core_layers.0.attention.q.weight"]
    assert "row 3" in kept["core_layers.0.mlp.up.weight"]
    assert len(kept) == 2
    assert len([note for note in result.notes if "stays float32" in note]) == 2
    graph = open_artifact(tmp_path / "model.onnx").graph
    assert {name for name in kept if graph.initializers[name].dtype == ir.DataType.FLOAT} == set(
        kept
    )
    assert agreement(tmp_path / "model.onnx", model) < 5e-3


def test_float16_storage_quantizes_like_float32(tmp_path: Path, exported: Exporter) -> None:
    path, small = exported("tokens", storage="float16"), tmp_path / "model.int8.onnx"
    result = loopedge.quantize(path, small)
    assert result.matmuls["quantized"] == result.matmuls["total"] > 0
    assert "storage" not in loopedge.inspect(small).metadata
    wide = Artifact.open(path).float32_graph()
    assert not [node for node in wide.graph.all_nodes() if node.op_type == "Cast"]
    assert {value.dtype for value in wide.graph.initializers.values()} == {
        ir.DataType.FLOAT,
        ir.DataType.INT64,
        ir.DataType.BOOL,
    }
    _, feeds = make_inputs(make_model("tokens"), Sizes(2, 5))
    expected = loopedge.Session(path).run(feeds)["logits"]
    write_artifact(wide, tmp_path / "wide.onnx")
    given = loopedge.Session(tmp_path / "wide.onnx").run(feeds)["logits"]
    assert relative_error(given, expected) < 1e-5


def test_the_untied_twin_of_float16_storage_has_own_weights(
    tmp_path: Path, exported: Exporter
) -> None:
    path, twin = exported("tokens", storage="float16"), tmp_path / "twin.onnx"
    write_artifact(untie(open_artifact(path)), twin)
    _, feeds = make_inputs(make_model("tokens"), Sizes(2, 5))
    given, expected = (loopedge.Session(each).run(feeds)["logits"] for each in (twin, path))
    assert relative_error(given, expected) < 2e-2
    assert loopedge.inspect(twin).weight_bytes == loopedge.inspect(path).untied_bytes


def test_float16_storage_stays_float16_in_ort_format(tmp_path: Path, exported: Exporter) -> None:
    path = tmp_path / "model.ort"
    result = loopedge.convert(exported("tokens", storage="float16"), path)
    assert result.weight_bytes == result.source_weight_bytes
    assert agreement(path, rounded(make_model("tokens"))) < 1e-5
    assert any("in every inference" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        ({"format": "ort"}, "model.onnx", "does not end in .ort"),
        ({"format": "onnx"}, "model.ort", "named as ORT format"),
        ({"format": "tflite"}, "model.onnx", "format 'tflite' is not known"),
        ({"storage": "bfloat16"}, "model.onnx", "storage 'bfloat16' is not known"),
        ({"opset": 19}, "model.onnx", "opset 19 is not supported"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, object], name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        loopedge.export(make_model("tokens"), tmp_path / name, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_onnx_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        loopedge.convert(tmp_path / "missing.onnx", tmp_path / "missing.ort")
