"""Artifacts are whole: what is written beside another file's data does not lean on it."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import artifact_files, open_artifact, write_artifact
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
    assert files == [copy, *data] == artifact_files(copy)
    (tmp_path / "source.onnx.data").unlink()
    expected = Session(TINY).run(IDS)["logits"]
    np.testing.assert_allclose(Session(copy).run(IDS)["logits"], expected, rtol=1e-5, atol=1e-5)
