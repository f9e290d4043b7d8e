"""ORT format: the attributes that releases before the writing one do not know are left out."""

import mmap
import struct
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.artifact.reading.ort_defaults import _remove
from loopedge.graph.inputs import generate_inputs

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
KNOWN = {
    "MatMulNBits": {"K", "N", "accuracy_level", "bits", "block_size"},
    "GatherBlockQuantized": {"bits", "block_size", "gather_axis", "quantize_axis"},
    "DynamicQuantizeMatMul": set(),
    "MatMulIntegerToFloat": set(),
    "FusedMatMul": {"alpha", "transA", "transB", "transBatchA", "transBatchB"},
}
"""What ONNX Runtime 1.24 knows of each operator; `benchmarks/reach/engines.py` loads the files in it."""


@pytest.mark.parametrize("scheme", ["weight-int8", "weight-int4", "dynamic"])
def test_a_converted_file_has_the_attributes_that_older_releases_know(
    scheme: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "q.onnx", tmp_path / "q.ort"
    loopedge.quantize(TINY, source, scheme=scheme, min_sqnr_db=0.0)
    result = loopedge.convert(source, target)
    assert result.max_rel_error < 1e-5
    written = [n for n in open_artifact(target).graph.all_nodes() if n.domain == "com.microsoft"]
    assert written
    for node in written:
        assert set(node.attributes) <= KNOWN[node.op_type], node.op_type
    blocks = [node for node in written if node.op_type == "MatMulNBits"]
    asked = [n for n in ir.load(source).graph.all_nodes() if n.op_type == "MatMulNBits"]
    assert len(blocks) == len(asked)
    for node, before in zip(blocks, asked, strict=True):
        for name, attribute in before.attributes.items():
            assert node.attributes[name].value == attribute.value
    feeds = generate_inputs(open_artifact(TINY), batch=2, sequence=5)
    one, two = (loopedge.Session(path, threads=1).run(feeds)["logits"] for path in (source, target))
    assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_entry_leaves_a_list_and_the_others_lead_where_they_led(index: int) -> None:
    led_to = [40, 64, 52]  # absolute places
    buffer = mmap.mmap(-1, 80)
    struct.pack_into("<I", buffer, 12, 3)
    for place, target in enumerate(led_to):
        struct.pack_into("<I", buffer, 16 + 4 * place, target - (16 + 4 * place))
    _remove(buffer, 16, index)
    (length,) = struct.unpack_from("<I", buffer, 12)
    left = [16 + 4 * i + struct.unpack_from("<I", buffer, 16 + 4 * i)[0] for i in range(length)]
    assert left == [target for place, target in enumerate(led_to) if place != index]
