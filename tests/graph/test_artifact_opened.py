"""An artifact is opened once: what it answers, whose graph it is, and what its files are."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.metadata import (
    FOREIGN,
    ArtifactMetadata,
    Companion,
    Metadata,
    read_metadata,
    write_metadata,
)
from loopedge.graph.passes.storage import store_float16

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
OWN = ArtifactMetadata(
    version="0",
    form="loop",
    loops=3,
    trained_loops=3,
    companions={"tokenizer.json": Companion(file="m.0.tokenizer.json", sha256="0")},
)


def written(folder: Path, metadata: Metadata = OWN) -> Artifact:
    graph = ir.load(TINY)
    for name in list(graph.metadata_props):
        del graph.metadata_props[name]
    write_metadata(metadata, graph.metadata_props)
    write_artifact(graph, folder / "m.onnx", external_threshold_bytes=0)
    return Artifact.open(folder / "m.onnx")


def proto(graph: ir.Model) -> bytes:
    return bytes(ir.to_proto(graph).SerializeToString(deterministic=True))


def narrow(graph: ir.Model) -> None:
    """Round the weights of a graph to what float16 holds, and store them in it."""
    for name, value in graph.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
            rounded = tensor.numpy().astype(np.float16).astype(np.float32)
            value.const_value = ir.tensor(rounded, name=name)
    assert store_float16(graph)


def test_it_knows_what_its_file_says_and_which_files_belong_to_it(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    (data,) = tmp_path.glob("m.onnx.*.data")
    assert artifact.metadata == OWN
    assert not artifact.metadata.foreign
    assert artifact.files == [tmp_path / "m.onnx", data]
    assert artifact.file_bytes == sum(file.stat().st_size for file in artifact.files)
    assert artifact.needed_files() == [*artifact.files, tmp_path / "m.0.tokenizer.json"]
    assert artifact.data_file is not None
    assert (artifact.data_file.file, artifact.data_file.bytes) == (data.name, data.stat().st_size)
    assert not any(key.endswith(("weights", "checksum")) for key in artifact.graph.metadata_props)


def test_a_file_of_another_tool_has_metadata_that_says_nothing(tmp_path: Path) -> None:
    artifact = written(tmp_path, FOREIGN)
    assert artifact.metadata is FOREIGN
    assert artifact.metadata.foreign
    known = (FOREIGN.form, FOREIGN.loops, FOREIGN.exit, FOREIGN.storage, FOREIGN.prepared)
    assert known == (None,) * 5
    assert (FOREIGN.companions, FOREIGN.task, FOREIGN.memory) == ({}, {}, "balanced")


def test_no_verb_makes_a_foreign_file_say_something_of_itself() -> None:
    properties = {"author": "somebody"}
    write_metadata(FOREIGN.model_copy(update={"memory": "low"}), properties)
    assert properties == {"author": "somebody"}
    assert read_metadata(properties) is FOREIGN


@pytest.mark.parametrize("field", ["loops", "trained_loops", "version"])
def test_a_file_of_loopedge_says_all_that_belongs_to_it(field: str) -> None:
    properties: dict[str, str] = {}
    write_metadata(OWN, properties)
    del properties[f"loopedge.{field}"]
    with pytest.raises(InputError, match=f"metadata of the model is damaged: {field}: Field req"):
        read_metadata(properties)


def test_a_pass_changes_a_graph_of_its_own_and_no_weight_is_copied(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    before = proto(artifact.graph)
    fresh = artifact.fresh_graph()
    assert proto(fresh) == before
    narrow(fresh)
    assert proto(fresh) != before
    assert proto(artifact.graph) == before
    again = artifact.fresh_graph().graph.initializers
    for name, value in artifact.graph.graph.initializers.items():
        assert again[name].const_value is value.const_value


def test_weights_to_work_on_are_float32_whatever_is_stored(tmp_path: Path) -> None:
    stored = ir.load(TINY)
    narrow(stored)
    metadata = OWN.model_copy(update={"storage": "float16", "companions": {}})
    write_metadata(metadata, stored.metadata_props)
    write_artifact(stored, tmp_path / "narrow.onnx")
    artifact = Artifact.open(tmp_path / "narrow.onnx")
    assert artifact.metadata.storage == "float16"
    before = proto(artifact.graph)
    wide = artifact.float32_graph()
    held = {value.dtype for value in wide.graph.initializers.values()}
    assert ir.DataType.FLOAT16 not in held
    assert not read_metadata(wide.metadata_props).storage
    assert proto(artifact.graph) == before


def test_a_file_that_was_replaced_since_is_noticed_without_reading_it(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    artifact.check_unchanged()
    content = artifact.path.read_bytes()
    artifact.path.unlink()
    artifact.path.write_bytes(content)
    with pytest.raises(InputError, match="was replaced while it was read"):
        artifact.check_unchanged()


def test_damaged_metadata_names_the_file(tmp_path: Path) -> None:
    model = onnx.load(TINY)
    onnx.helper.set_model_props(model, {"loopedge.form": '"loop"'})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.onnx: the loopedge metadata of the model is damaged"):
        Artifact.open(tmp_path / "m.onnx")
