"""What an artifact takes can be fed by every client: no input has a stored default, and loading one warns of nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact, open_artifact
from loopedge.artifact.seal import drop_seal
from loopedge.errors import InputError
from loopedge.graph.inputs import generate_inputs
from loopedge.inference.run import run_file
from loopedge.profiler.subjects.measured_inputs import profile_feeds
from tests.parity.models import SEVEN_BITS, make_model

pytestmark = pytest.mark.long

LOOPS = 6
EXPORTS: dict[str, dict[str, Any]] = {
    "loop": {},
    "unrolled": {"form": "unrolled"},
    "dynamic": {"dynamic_loops": True},
    "exit": {"exit": "tolerance=0.3"},
    "both": {"exit": "tolerance=0.3", "dynamic_loops": True},
    "float16": {"exit": "tolerance=0.3", "storage": "float16"},
    "low": {"exit": "tolerance=0.3", "memory": "low", "opset": 20},
}
MADE = ("ort", "prepared", "static", "dynamic", "weight-int8", "weight-int4")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every kind that is written."""
    folder = tmp_path_factory.mktemp("kinds")
    model = make_model("padded", loops=LOOPS)
    files = {}
    for name, options in EXPORTS.items():
        files[name] = folder / f"{name}.onnx"
        loopedge.export(model, files[name], **options)
    source = files["both"]
    graph = open_artifact(source)
    data = []
    for seed in range(4):
        feeds = generate_inputs(graph, batch=4, sequence=9, seed=seed)
        data.append({name: feeds[name] for name in ("input_ids", "attention_mask")})
    ranges = loopedge_calibration.collect(source, data)
    for scheme in MADE[2:]:
        files[f"{scheme} int"] = folder / f"{scheme}.int.onnx"
        loopedge.quantize(
            source,
            files[f"{scheme} int"],
            scheme=scheme,
            ranges=ranges if scheme == "static" else None,
            **SEVEN_BITS if scheme in {"static", "dynamic"} else {},
        )
    files["ort"] = folder / "model.ort"
    loopedge.convert(source, files["ort"])
    files["int8 ort"] = folder / "int8.ort"
    loopedge.convert(files["static int"], files["int8 ort"])
    files["prepared"] = folder / "model.prepared.onnx"
    loopedge.prepare(source, files["prepared"])
    return files


def test_no_input_has_a_stored_default_and_no_load_warns(
    written: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for name, path in written.items():
        options = ort.SessionOptions()
        options.log_severity_level = 2  # warnings and what is worse
        capfd.readouterr()
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        assert (name, "".join(capfd.readouterr())) == (name, "")
        assert (name, session.get_overridable_initializers()) == (name, [])
        given = [node.name for node in session.get_inputs()]
        assert ("tolerance" in given) is (name not in {"loop", "unrolled", "dynamic"}), name
        if path.suffix == ".onnx":
            stored = onnx.load(path, load_external_data=False).graph
            assert not {each.name for each in stored.input} & {
                each.name for each in stored.initializer
            }


def feeds_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return inputs as a client that is not ours feeds them: no tolerance, no loop count."""
    made = generate_inputs(open_artifact(path), batch=3, sequence=7)
    return {name: made[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("kind", ["both", "static int", "ort", "int8 ort", "prepared"])
def test_the_tolerance_that_is_fed_is_the_one_that_ends_the_loop(
    kind: str, written: dict[str, Path]
) -> None:
    session = ort.InferenceSession(str(written[kind]), providers=["CPUExecutionProvider"])
    feeds = {**feeds_of(written["both"]), "loops": np.array(LOOPS, np.int64)}
    for tolerance, expected in ((0.0, LOOPS), (1e9, 1)):
        (ran,) = session.run(
            ["iterations"], {**feeds, "tolerance": np.array(tolerance, np.float32)}
        )
        assert ran.tolist() == [expected] * 3
    with pytest.raises(ValueError, match="tolerance"):  # not dropped, not taken for granted
        session.run(["iterations"], feeds)


def test_sessions_of_loopedge_fill_in_what_was_exported(written: dict[str, Path]) -> None:
    feeds = feeds_of(written["both"])
    reference = ReferenceEvaluator(onnx.load(written["low"]))
    exported = {**feeds, "tolerance": np.array(0.3, np.float32)}
    values: Any = reference.run(["iterations"], exported)
    expected = values[0]
    assert expected.max() < LOOPS
    for kind in ("exit", "both", "low", "prepared", "ort"):
        session = loopedge.Session(written[kind])
        assert session.run(feeds)["iterations"].tolist() == expected.tolist()
        assert session.run(exported)["iterations"].tolist() == expected.tolist()
        assert session.run(exported, tolerance=1e9)["iterations"].tolist() == [1] * 3


def test_the_commands_fill_it_in_too(written: dict[str, Path], tmp_path: Path) -> None:
    feeds = feeds_of(written["exit"])
    np.savez(tmp_path / "x.npz", **feeds)  # type: ignore[arg-type]
    ran = int(loopedge.Session(written["exit"]).run(feeds)["iterations"].max())
    assert run_file(written["exit"], tmp_path / "x.npz").loops == ran
    graph = open_artifact(written["exit"])
    for source in (None, tmp_path / "x.npz"):
        measured = profile_feeds(
            graph, written["exit"], source, batch=1, sequence=None, loops=None, seed=0
        ).arrays
        assert measured["tolerance"] == np.float32(0.3)


def test_a_file_with_a_stored_default_is_still_read(
    written: dict[str, Path], tmp_path: Path
) -> None:
    """As files were written before the tolerance became an input like others."""
    older = tmp_path / "older.onnx"
    model = onnx.load(written["exit"])
    model.graph.initializer.append(onnx.helper.make_tensor("tolerance", 1, [], [0.3]))
    properties = {each.key: each.value for each in model.metadata_props}
    drop_seal(properties)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, older)
    feeds = feeds_of(written["exit"])
    new, old = loopedge.Session(written["exit"]), loopedge.Session(older)
    for tolerance in (None, 0.0, 1e9):
        want, have = (session.run(feeds, tolerance=tolerance) for session in (new, old))
        assert have["iterations"].tolist() == want["iterations"].tolist()
    assert not Artifact.open(older).graph.graph.initializers.get("tolerance")
    loopedge.quantize(older, tmp_path / "int8.onnx", scheme="weight-int8")
    session = loopedge.Session(tmp_path / "int8.onnx")
    assert session.optional_inputs == {}
    assert session.run(feeds, tolerance=1e9)["iterations"].tolist() == [1] * 3


def test_a_module_of_anybody_may_have_an_input_of_that_name_where_no_tolerance_ends_it(
    tmp_path: Path,
) -> None:
    add = onnx.helper.make_node("Add", ["x", "tolerance"], ["y"])
    ports = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("x", [2]), ("tolerance", []), ("y", [2]))
    ]
    graph = onnx.helper.make_graph([add], "foreign", ports[:2], ports[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, tmp_path / "foreign.onnx")
    session = loopedge.Session(tmp_path / "foreign.onnx")
    x = np.ones(2, np.float32)
    with pytest.raises(InputError, match="input tolerance is missing"):
        session.run({"x": x})
    with pytest.raises(InputError, match="takes no tolerance"):
        session.run({"x": x}, tolerance=0.1)
    assert session.run({"x": x, "tolerance": np.float32(2)})["y"].tolist() == [3, 3]
