"""ONNX files of others: what breaks a rule, or declares more than it holds, is one line and exit 2."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loopedge.artifact.artifact import Artifact, open_artifact
from loopedge.artifact.reading import onnx_check, onnx_file, ort_format
from loopedge.errors import InputError
from loopedge.graph.core.untied import untie
from loopedge.graph.metadata import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Edit = Callable[[onnx.ModelProto], Any]

LOOP = """<ir_version: 9, opset_import: ["": 20]>
looped (float[N, 4] x) => (float[N, 4] y) <int64 trips = {3}, bool go = {1}, float[4, 4] w> {
  [core] y = Loop (trips, go, x) <body = step (int64 i, bool keep, float[N, 4] s) => (bool on, float[N, 4] t) {
    on = Identity (keep)
    t = MatMul (s, w)
  }>
}"""


def looped() -> onnx.ModelProto:
    model = onnx.parser.parse_model(LOOP)
    for item in list(model.graph.initializer):
        if item.name == "w":
            model.graph.initializer.remove(item)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    return model


def stored(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(item for item in model.graph.initializer if item.name == name)
    return found


def set_trips(model: onnx.ModelProto, count: int) -> None:
    stored(model, "trips").CopyFrom(numpy_helper.from_array(np.array(count, np.int64), "trips"))


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def edited(edit: Edit, folder: Path) -> Path:
    model = looped()
    edit(model)
    return save(model, folder)


def _body(model: onnx.ModelProto) -> onnx.GraphProto:
    body: onnx.GraphProto = model.graph.node[0].attribute[0].g
    return body


def _undo(field: Any, *, keep: int = 0) -> None:
    del field[keep:]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: stored(m, "w").dims.__setitem__(0, 5), "holds 64 bytes, its shape"),
        (lambda m: stored(m, "w").dims.__setitem__(0, -4), "which no tensor has"),
        (lambda m: stored(m, "w").dims.__setitem__(0, 2**62), "which no tensor has"),
        (lambda m: stored(m, "w").dims.extend([1] * 40), "which no tensor has"),
        (lambda m: setattr(stored(m, "w"), "data_type", 99), "has the unknown type 99"),
        (lambda m: setattr(stored(m, "w"), "data_type", 0), "is of type UNDEFINED"),
        (
            lambda m: stored(m, "w").CopyFrom(
                onnx.TensorProto(name="w", data_type=8, dims=[1], string_data=[b"x"])
            ),
            "is of type STRING, numbers are needed",
        ),
        (lambda m: m.graph.initializer.append(stored(m, "w")), "two initializers have one name"),
        (lambda m: setattr(stored(m, "w"), "name", ""), "or one has none"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "two inputs have one name"),
        (lambda m: setattr(m.graph.output[0], "name", "z"), "output 'z' .* is made by no node"),
        (lambda m: m.graph.node[0].input.__setitem__(2, "z"), "reads 'z', which nothing before"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "makes 'y', which is there already"),
        (lambda m: setattr(m.graph.node[0], "op_type", ""), "a node has no operator"),
        (lambda m: _undo(m.graph.node[0].attribute), "Loop core lacks its attribute body"),
        (lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]), "of one name"),
        (lambda m: setattr(m.graph.node[0].attribute[0], "type", 2), "body of another type"),
        (lambda m: setattr(m.graph.node[0].attribute[0], "ref_attr_name", "a"), "is in none"),
        (lambda m: _undo(m.graph.node[0].input, keep=2), "has 2 inputs and 1 outputs, its body 3"),
        (lambda m: _undo(_body(m).output), "its body 3 and 0"),
        (lambda m: _undo(_body(m).node[1].input, keep=1), "MatMul has 1 inputs, its operator 2"),
        (lambda m: _body(m).node[1].input.__setitem__(1, ""), "MatMul lacks its input B"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse initializers"),
        (lambda m: m.metadata_props.add(key="loopedge.form", value="[" * 9999), "nested deeper"),
        (lambda m: m.metadata_props.add(key="loopedge.form", value="9" * 9999), "too many digits"),
        (
            lambda m: m.metadata_props.add(key="loopedge.form", value='"spiral"'),
            "version: Field required",
        ),
        (lambda m: set_trips(m, 10**9), "trip count 1,000,000,000, allowed is 1 to 65,536"),
        (lambda m: set_trips(m, 10**18), "trip count 1,000,000,000,000,000,000, allowed"),
    ],
    ids=range(28),
)
def test_what_breaks_a_rule_is_named(edit: Edit, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_artifact(edited(edit, tmp_path))
    assert str(tmp_path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_bit_of_a_name_that_is_flipped(tmp_path: Path) -> None:
    content = looped().SerializeToString().replace(b"trips", b"t\xffips")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its input is not UTF-8 text"):
        open_artifact(tmp_path / "m.onnx")


def test_a_loop_that_its_condition_ends_may_name_any_count(tmp_path: Path) -> None:
    model = looped()
    set_trips(model, 2**63 - 1)
    _body(model).node[0].CopyFrom(helper.make_node("Not", ["keep"], ["on"]))
    assert open_artifact(save(model, tmp_path)).graph.node(0).name == "core"


def test_loops_inside_loops_are_counted_together(tmp_path: Path) -> None:
    model = looped()
    set_trips(model, 2000)
    inner = onnx.NodeProto()
    inner.CopyFrom(model.graph.node[0])
    inner.input[2], inner.output[0] = "s", "t"
    for value, name in zip(inner.attribute[0].g.input, ("i2", "keep2", "s2"), strict=True):
        value.name = name
    inner.attribute[0].g.node[0].CopyFrom(helper.make_node("Identity", ["keep2"], ["on2"]))
    inner.attribute[0].g.node[1].CopyFrom(helper.make_node("MatMul", ["s2", "w"], ["t2"]))
    inner.attribute[0].g.output[0].name, inner.attribute[0].g.output[1].name = "on2", "t2"
    _body(model).node[1].CopyFrom(inner)
    with pytest.raises(InputError, match=r"runs 4,000,000 times .* at most 1,000,000"):
        open_artifact(save(model, tmp_path))


def with_functions(count: int, *, calls_itself: bool = False) -> onnx.ModelProto:
    """Return a model of functions, each of which calls the one before twice."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("l", 1)]
    functions = []
    for number in range(count):
        called = f"f{number - 1}" if number else ("f0" if calls_itself else "Tanh")
        domain = "l" if number or calls_itself else ""
        nodes = [helper.make_node(called, [a], [b], domain=domain) for a, b in ("am", "mc")]
        functions.append(helper.make_function("l", f"f{number}", ["a"], ["c"], nodes, imports))
    model = looped()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node(f"f{count - 1}", ["x"], ["y"], domain="l"))
    model.opset_import.append(imports[1])
    model.functions.extend(functions)
    return model


def test_functions_that_become_large_where_they_are_written_out(tmp_path: Path) -> None:
    assert len(open_artifact(save(with_functions(5), tmp_path)).functions) == 5
    with pytest.raises(InputError, match=r"become 1,099,511,627,776 nodes .* at most 100,000"):
        open_artifact(save(with_functions(40), tmp_path))
    with pytest.raises(InputError, match="its function f0 calls itself"):
        open_artifact(save(with_functions(1, calls_itself=True), tmp_path))


def test_a_node_that_fills_memory_from_a_few_bytes(tmp_path: Path) -> None:
    model = looped()
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 10**6]), "shape"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["large"]))
    with pytest.raises(InputError, match=r"ConstantOfShape .*fills 1,000,000,000,000 values"):
        open_artifact(save(model, tmp_path))


def test_twins_of_many_loops_are_refused(tmp_path: Path) -> None:
    model = looped()
    set_trips(model, 60_000)
    graph = open_artifact(save(model, tmp_path))
    with pytest.raises(InputError, match=r"120,000 nodes, at most 100,000"):
        untie(graph)
    stored(model, "w").CopyFrom(numpy_helper.from_array(np.zeros((512, 512), np.float32), "w"))
    set_trips(model, 10_000)
    with pytest.raises(InputError, match=r"at most 256 copies, or 536,870,912 bytes"):
        untie(open_artifact(save(model, tmp_path)))


def external(folder: Path, location: str = "w.data", **more: str) -> Path:
    """Write a model whose weight stands outside it; the data is what stands there."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = stored(model, "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)

    folder.mkdir(exist_ok=True)
    return edited(edit, folder)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../outside.data", "names external data outside its folder"),
        ("/etc/passwd", "names external data outside its folder"),
        ("sub/../../outside.data", "names external data outside its folder"),
        ("..\\outside.data", "names external data outside its folder"),
        ("C:\\w.data", "names external data outside its folder"),
        ("", "a file is needed"),
        (".", "a file is needed"),
        ("a\0b", "a file is needed"),
        ("link.data", "which is a link out of its folder"),
        ("linked/outside.data", "which is a link out of its folder"),
        ("pipe.data", "is a pipe, a file of external data is needed"),
        ("none.data", "is missing beside the file"),
    ],
)
def test_external_data_outside_the_folder(location: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "outside.data").write_bytes(bytes(64))
    path = external(tmp_path / "model", location)
    (path.parent / "sub").mkdir()
    (path.parent / "link.data").symlink_to(tmp_path / "outside.data")
    (path.parent / "linked").symlink_to(tmp_path)
    os.mkfifo(path.parent / "pipe.data")
    with pytest.raises(InputError, match=words):
        open_artifact(path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"offset": "-1"}, "has the offset '-1'"),
        ({"length": "-64"}, "has the length '-64'"),
        ({"offset": "9" * 40}, "has the offset"),
        ({"offset": str(2**62)}, "is truncated"),
        ({"length": "63"}, "names 63 bytes"),
        ({"offset": "x"}, "has the offset 'x'"),
    ],
)
def test_external_data_that_is_not_there(more: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(64))
    with pytest.raises(InputError, match=words):
        open_artifact(external(tmp_path, **more))


def test_the_cache_of_a_hub_links_model_and_data_into_one_folder(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    external(blobs).rename(blobs / "0123")
    (blobs / "4567").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    os.link(blobs / "4567", tmp_path / "another name")
    (snapshot / "m.onnx").symlink_to("../../blobs/0123")
    (snapshot / "w.data").symlink_to("../../blobs/4567")
    model = open_artifact(snapshot / "m.onnx")
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), np.eye(4))
    assert Artifact.open(snapshot / "m.onnx").files == [snapshot / "m.onnx", snapshot / "w.data"]


@pytest.mark.parametrize(
    ("module", "name"),
    [(onnx_check, "check_tensor"), (onnx_file, "check_loops"), (ort_format, "_node")],
)
@pytest.mark.parametrize("kind", [KeyError, AttributeError, ValueError, RuntimeError])
def test_a_defect_of_a_reader_itself_is_not_called_bad_input(
    module: Any, name: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopedge.deployment.conversion import convert_file

    path = save(looped(), tmp_path)
    if module is ort_format:
        path = convert_file(path, tmp_path / "m.ort", FOREIGN)

    def defect(*arguments: object) -> None:
        raise kind("planted")

    monkeypatch.setattr(module, name, defect)
    with pytest.raises(kind, match="planted"):
        open_artifact(path)


def test_an_ort_file_that_is_damaged_anywhere(tmp_path: Path) -> None:
    from loopedge.deployment.conversion import convert_file

    sound = convert_file(save(looped(), tmp_path), tmp_path / "m.ort", FOREIGN).read_bytes()
    damaged, refused = tmp_path / "damaged.ort", 0
    for place in range(0, len(sound), max(1, len(sound) // 200)):
        damaged.write_bytes(sound[:place] + bytes([sound[place] ^ 0xFF]) + sound[place + 1 :])
        try:
            open_artifact(damaged)
        except InputError:
            refused += 1
    assert refused > 20


def test_the_data_of_a_model_that_is_copied_alone(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(64))
    path = external(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"w\.data is missing beside the file"):
        open_artifact(shutil.copy(path, tmp_path / "other"))
