"""The untied twin: own copies, really distinct bytes, nearly the same values."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.ties import untied_bytes
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.metadata import read_metadata
from loopedge.graph.weights import weight_bytes
from loopedge.quantizer.schemes.dynamic import quantize_dynamic
from loopedge.runtime.session import Session
from tests.graph.test_passes import WEIGHT, X, literal, loop_model


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
    assert set(view_core(twin).weights.values()) == {1}
    metadata = read_metadata(twin.metadata_props)
    assert not metadata.foreign
    assert metadata.twin == "untied"

    outputs = []
    for name, graph in (("tied", model), ("twin", twin)):
        ir.save(graph, tmp_path / f"{name}.onnx")
        outputs.append(Session(tmp_path / f"{name}.onnx").run({"x": X})["y"])
    assert np.linalg.norm(outputs[0] - outputs[1]) < 0.05 * np.linalg.norm(outputs[0])


@pytest.mark.parametrize("name", ["FLOAT", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT4"])
@pytest.mark.parametrize("fill", [0, 1])
def test_copies_of_every_type_differ(name: str, fill: int) -> None:
    dtype = ir.DataType[name]
    weight = np.full((8, 16), fill).astype(dtype.numpy())
    model = loop_model(48)
    stored = model.graph.initializers["weight"]
    stored.const_value = ir.Tensor(weight, dtype=dtype)
    twin = untie(model)
    copies = [twin.graph.initializers[f"weight.{t}"].const_value for t in range(48)]
    assert len({copy.tobytes() for copy in copies if copy is not None}) == 48
    for copy in copies:
        assert copy is not None
        assert copy.dtype == dtype
        np.testing.assert_allclose(
            copy.numpy().astype(float),
            weight.astype(float),
            atol=1e-3 if dtype.is_floating_point() else 1,
            rtol=0.05,
        )


def test_the_file_grows_by_the_copies(tmp_path: Path) -> None:
    model = loop_model(48)
    model.graph.initializers["weight"].const_value = ir.tensor(np.zeros((64, 64), np.float32))
    write_artifact(model, tmp_path / "tied.onnx")
    write_artifact(untie(model), tmp_path / "untied.onnx")
    sizes = [
        sum(file.stat().st_size for file in Artifact.open(tmp_path / f"{name}.onnx").files)
        for name in ("tied", "untied")
    ]
    assert sizes[1] - sizes[0] == pytest.approx(47 * 64 * 64 * 4, rel=0.05)
    assert len(list(tmp_path.glob("untied.onnx.*.data"))) == 1


def test_a_foreign_loop_with_a_constant_trip_count() -> None:
    model = loop_model()
    model.metadata_props.clear()
    twin = untie(model)
    assert [name for name in twin.graph.initializers if name.startswith("weight")] == [
        f"weight.{t}" for t in range(3)
    ]


def test_a_foreign_graph_whose_linears_share_a_weight() -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 20]>
        agraph (float[4, 4] x) => (float[4, 4] y) <{literal("w", WEIGHT)}, {literal("v", WEIGHT)}> {{
          a = MatMul (x, w)
          b = MatMul (a, v)
          y = MatMul (b, w)
        }}"""
    )
    assert set(untie(model).graph.initializers) == {"w.0", "v", "w.1"}


def test_a_graph_without_a_known_core_is_refused() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[4] x) => (float[4] y) { y = Exp (x) }"""
    )
    with pytest.raises(InputError, match="no core"):
        untie(model)
