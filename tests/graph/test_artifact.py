"""Artifacts are whole: what is written beside another file's data does not lean on it."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.runtime.session import Session

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = {"input_ids": np.arange(12).reshape(2, 6)}


@pytest.mark.parametrize("threshold", [0, 2**30])
def test_a_model_that_was_read_from_external_data_stands_alone(
    tmp_path: Path, threshold: int
) -> None:
    source = tmp_path / "source.onnx"
    ir.save(ir.load(TINY), source, external_data="source.onnx.data", size_threshold_bytes=256)
    copy = tmp_path / "copy.onnx"
    files = write_artifact(open_artifact(source), copy, external_threshold_bytes=threshold)
    data = sorted(tmp_path.glob("copy.onnx.*.data"))
    assert len(data) == (1 if threshold == 0 else 0)
    assert files == [copy, *data] == Artifact.open(copy).files
    (tmp_path / "source.onnx.data").unlink()
    expected = Session(TINY).run(IDS)["logits"]
    np.testing.assert_allclose(Session(copy).run(IDS)["logits"], expected, rtol=1e-5, atol=1e-5)


def test_a_constant_of_another_files_data_is_written_into_the_new_file(tmp_path: Path) -> None:
    """Such a file would name data that is not its own, and could not be read again."""
    shift = np.arange(4096, dtype=np.float32)
    (tmp_path / "w.data").write_bytes(shift.tobytes())
    tensor = onnx.TensorProto(
        name="shift",
        data_type=onnx.TensorProto.FLOAT,
        dims=[4096],
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, text in (("location", "w.data"), ("offset", "0"), ("length", str(shift.nbytes))):
        tensor.external_data.add(key=key, value=text)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["shift"], value=tensor),
            onnx.helper.make_node("Add", ["x", "shift"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4096])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4096])],
    )
    model = onnx.helper.make_model(graph, ir_version=10)
    model.opset_import[0].version = 21
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    copy = tmp_path / "copy.onnx"
    assert write_artifact(open_artifact(tmp_path / "m.onnx"), copy) == [copy]
    (tmp_path / "w.data").unlink()
    assert Artifact.open(copy).files == [copy]
    x = np.ones(4096, np.float32)
    assert np.array_equal(Session(copy).run({"x": x})["y"], shift + 1)
