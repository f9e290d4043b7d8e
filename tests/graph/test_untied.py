"""The untied twin: own copies, really distinct bytes, nearly the same values."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.errors import InputError
from loopedge.graph.metadata import read_metadata
from loopedge.graph.unrolling import unroll
from loopedge.graph.untied import untie
from loopedge.graph.weights import core_weights, untied_bytes, weight_bytes
from loopedge.quantizer.dynamic import quantize_dynamic
from loopedge.runtime import Session
from tests.graph.test_passes import X, loop_model


@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("int8", [False, True])
def test_every_iteration_has_its_own_bytes(form: str, int8: bool, tmp_path: Path) -> None:
    model = loop_model() if form == "loop" else unroll(loop_model())
    if int8:
        assert quantize_dynamic(model).quantized
    twin = untie(model)
    copies = [
        twin.graph.initializers[f"weight.{t}"].const_value.numpy()  # type: ignore[union-attr]
        for t in range(3)
    ]
    assert len({copy.tobytes() for copy in copies}) == 3
    assert "weight" not in twin.graph.initializers
    assert weight_bytes(twin) == untied_bytes(model)
    assert set(core_weights(twin).values()) == {1}
    metadata = read_metadata(twin.metadata_props)
    assert metadata is not None
    assert metadata.twin == "untied"

    outputs = []
    for name, graph in (("tied", model), ("twin", twin)):
        ir.save(graph, tmp_path / f"{name}.onnx")
        outputs.append(Session(tmp_path / f"{name}.onnx").run({"x": X})["y"])
    assert np.linalg.norm(outputs[0] - outputs[1]) < 0.05 * np.linalg.norm(outputs[0])


def test_a_graph_without_a_known_core_is_refused() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[4] x) => (float[4] y) { y = Exp (x) }"""
    )
    with pytest.raises(InputError, match="no core"):
        untie(model)
