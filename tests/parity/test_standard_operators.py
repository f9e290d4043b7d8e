"""``--ops standard``: no operator of ONNX Runtime in the file, whatever the scheme, and the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError
from loopedge.graph.weights import linears
from tests.parity.models import FLIPS, SEVEN_BITS, Sizes, make_inputs, make_model, noise_share

Exporter = Callable[..., Path]


def domains(path: Path) -> set[str]:
    """Return the domains of all nodes, in bodies and functions too, and those that the file imports."""
    proto = onnx.load(path, load_external_data=False)
    found = {item.domain for item in proto.opset_import}
    waiting = [*proto.graph.node, *(node for each in proto.functions for node in each.node)]
    while waiting:
        node = waiting.pop()
        found.add(node.domain)
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]
    return found


def optimized(path: Path, folder: Path) -> list[str]:
    """Return the operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    ort.InferenceSession(path, options)
    return [node.op_type for node in ir.load(folder / "optimized.onnx").graph.all_nodes()]


@pytest.mark.parametrize(
    ("kind", "scheme", "options"),
    [
        ("tokens", "dynamic", {}),
        ("plain", "dynamic", {"memory": "low"}),
        ("tokens", "static", {}),
        pytest.param("series", "dynamic", {}, marks=pytest.mark.slow),
        pytest.param("series", "static", {}, marks=pytest.mark.slow),
    ],
)
def test_no_scheme_leaves_an_operator_of_onnxruntime(
    kind: str, scheme: str, options: dict[str, Any], exported: Exporter, tmp_path: Path
) -> None:
    source, written = exported(kind), tmp_path / "q.onnx"
    feeds = make_inputs(make_model(kind), Sizes(4, 9))[1]
    ranges = loopedge_calibration.collect(source, [feeds]) if scheme == "static" else None
    result = loopedge.quantize(
        source,
        written,
        scheme=scheme,
        ops="standard",
        ranges=ranges,
        data=[feeds],
        **options,
        **SEVEN_BITS,
    )
    raw = 1 if (kind, scheme) == ("series", "static") else 0  # what reads raw inputs stays float
    assert result.matmuls["quantized"] == result.matmuls["total"] - raw > 0
    assert domains(written) == {""}
    assert len(linears(ir.load(written))) == raw


@pytest.mark.parametrize("form", ["loop", pytest.param("unrolled", marks=pytest.mark.slow)])
def test_dynamic_standard_computes_what_dynamicquantizematmul_does(
    form: str, exported: Exporter, tmp_path: Path
) -> None:
    source = exported("tokens", form=form)
    feeds = make_inputs(make_model("tokens"), Sizes(2, 9))[1]
    outputs = {}
    for ops in ("microsoft", "standard"):
        path = tmp_path / f"{ops}.onnx"
        loopedge.quantize(source, path, ops=ops, **SEVEN_BITS)
        outputs[ops] = loopedge.Session(path, threads=1).run(feeds)["logits"]
    exact = loopedge.Session(source, threads=1).run(feeds)["logits"]
    assert noise_share(outputs["standard"], outputs["microsoft"], exact) < FLIPS
    # Queries, keys and values are products of one rounded activation; the others are fused whole.
    kinds, bodies = optimized(tmp_path / "standard.onnx", tmp_path), 3 if form == "unrolled" else 1
    assert kinds.count("MatMulIntegerToFloat") == 3 * bodies
    assert kinds.count("DynamicQuantizeLinear") == bodies
    assert kinds.count("DynamicQuantizeMatMul") == 3 * bodies + 1
    assert not {"MatMulInteger", "MatMul"} & set(kinds)


@pytest.mark.slow
def test_a_float_head_that_stays_is_not_written_as_fusedmatmul(tmp_path: Path) -> None:
    """With the memory profile low the scores of a tied float head come from an operator of ONNX Runtime."""
    source = tmp_path / "wide.onnx"
    loopedge.export(
        make_model("tokens", vocab_size=4200, max_length=128, d_model=16), source, memory="low"
    )
    for ops in ("microsoft", "standard"):
        path = tmp_path / f"{ops}.onnx"
        loopedge.quantize(source, path, ops=ops, keep=["coda/linear"], **SEVEN_BITS)
        kinds = {node.op_type for node in ir.load(path).graph.all_nodes()}
        assert ("FusedMatMul" in kinds) == (ops == "microsoft")
    assert domains(path) == {""}


def test_operators_that_a_foreign_model_brings_are_named(
    exported: Exporter, tmp_path: Path
) -> None:
    model = open_artifact(exported("plain"))
    gelu = next(node for node in model.graph.all_nodes() if node.op_type == "Gelu")
    gelu.domain = "com.microsoft"
    gelu.attributes.clear()
    model.opset_imports["com.microsoft"] = 1
    model.metadata_props.clear()
    ir.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign.onnx holds .*com.microsoft \(1 Gelu\)"):
        loopedge.quantize(tmp_path / "foreign.onnx", tmp_path / "q.onnx", ops="standard")
    assert not (tmp_path / "q.onnx").exists()
    loopedge.quantize(tmp_path / "foreign.onnx", tmp_path / "q.onnx", **SEVEN_BITS)
