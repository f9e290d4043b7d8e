"""Where nodes run: recorded by sessions and traces, and refused where the device runs no products."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from loopedge.errors import ProviderError
from loopedge.runtime.placement import (
    RECORD_ASSIGNMENT,
    assigned_operators,
    check_products,
    elsewhere_notes,
    read_placement,
)

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def kernel(
    name: str, op: str, provider: str, at: int, kind: str = "float", shape: tuple[int, ...] = (1, 8)
) -> dict[str, Any]:
    return {
        "name": f"{name}_kernel_time",
        "ts": at,
        "dur": 1,
        "args": {
            "op_name": op,
            "provider": provider,
            "output_type_shape": [{kind: list(shape)}],
        },
    }


def run(start: int) -> dict[str, Any]:
    return {"name": "model_run", "ts": start, "dur": 90}


def test_a_session_tells_its_operators_those_of_the_loop_body_too() -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    session = ort.InferenceSession(str(TINY), options, providers=[CPU])
    (ops,) = assigned_operators(session).values()
    assert ops["Loop"] == 1
    assert ops["MatMul"] == 7
    assert ops["Attention"] == 1


def test_a_model_whose_products_are_all_elsewhere_is_refused() -> None:
    assigned = {CUDA: {"Add": 3, "Loop": 1}, CPU: {"MatMulIntegerToFloat": 6, "Attention": 1}}
    with pytest.raises(ProviderError) as error:
        check_products(assigned, CUDA, "m.onnx", hint="--device cpu")
    assert "runs none of the matrix products and attentions of m.onnx: 7 on CPU" in str(error.value)
    assert error.value.hint == "--device cpu"


def test_one_product_on_the_device_is_enough_and_the_others_are_reported() -> None:
    assigned = {CUDA: {"Attention": 1}, CPU: {"MatMulInteger": 2, "MatMulIntegerToFloat": 4}}
    check_products(assigned, CUDA, "m.onnx", hint="")
    assert elsewhere_notes(assigned, CUDA) == [
        "6 of 7 matrix products and attentions run on the CPU: 2 MatMulInteger, 4 MatMulIntegerToFloat"
    ]
    assert elsewhere_notes({CUDA: {"MatMul": 2}, CPU: {"Shape": 1, "Gather": 3}}, CUDA) == []


def test_other_nodes_on_the_cpu_are_reported_but_for_shapes_and_the_loop_itself() -> None:
    assigned = {CUDA: {"MatMul": 4}, CPU: {"RMSNormalization": 2, "Shape": 3, "Loop": 1}}
    assert elsewhere_notes(assigned, CUDA) == ["2 of 10 nodes run on the CPU: 2 RMSNormalization"]
    both = {CUDA: {"MatMul": 4}, CPU: {"Attention": 1, "Gelu": 2}}
    assert elsewhere_notes(both, CUDA) == [
        "1 of 5 matrix products and attentions run on the CPU: 1 Attention",
        "2 of 7 nodes run on the CPU beside them: 2 Gelu",
    ]


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_a_loop_that_stays_on_the_cpu_with_most_products_is_refused(op: str) -> None:
    assigned = {CUDA: {"MatMul": 1}, CPU: {op: 1, "MatMul": 6, "Attention": 1}}
    with pytest.raises(ProviderError, match=f"does not run the {op} of m.onnx") as error:
        check_products(assigned, CUDA, "m.onnx", hint="")
    assert "1 would run there, 7 on CPUExecutionProvider" in error.value.message
    assert error.value.hint == "loopedge unroll m.onnx"
    check_products({CUDA: {"MatMul": 7}, CPU: {op: 1, "MatMul": 1}}, CUDA, "m.onnx", hint="")
    check_products({CUDA: {op: 1, "MatMul": 1}, CPU: {"MatMul": 6}}, CUDA, "m.onnx", hint="")


def test_a_model_without_products_must_have_a_node_there() -> None:
    check_products({CUDA: {"Add": 1}, CPU: {"Shape": 1}}, CUDA, "m.onnx", hint="")
    with pytest.raises(ProviderError, match=r"none of the nodes of m\.onnx: 2 on CPU"):
        check_products({CPU: {"Add": 2}}, CUDA, "m.onnx", hint="")


def test_what_fell_back_is_distinguished_from_what_belongs_on_the_host() -> None:
    events = [
        run(0),
        kernel("core/linear", "MatMul", CUDA, 1),
        kernel("core/quantize", "DynamicQuantizeLinear", CPU, 2, "uint8"),
        kernel("core/quantize", "DynamicQuantizeLinear", CPU, 3, "uint8"),
        kernel("core/condition", "Identity", CPU, 4, "bool", ()),
        kernel("prelude/shape", "Shape", CPU, 5, "int64", (2,)),
        kernel("mask", "Cast", CPU, 6, "int64", (1, 8)),
        kernel("Memcpy_0", "MemcpyToHost", CUDA, 7, "int64", ()),
        kernel("Memcpy_0", "MemcpyToHost", CUDA, 8, "int64", ()),
        kernel("Memcpy_1", "MemcpyFromHost", CUDA, 9),
    ]
    found = read_placement(events)
    assert [str(node) for node in found.fell_back] == [
        "Cast mask",
        "DynamicQuantizeLinear core/quantize, 2 times",
    ]
    assert [node.op for node in found.host_nodes] == ["Identity", "Shape"]
    assert found.memcpy_nodes == 2
    assert not found.replayed


def test_runs_are_counted_per_inference() -> None:
    events = [run(0), kernel("a", "Add", CPU, 1), run(100), kernel("a", "Add", CPU, 101)]
    (node,) = read_placement(events).fell_back
    assert node.runs == 1


def test_a_replayed_graph_launches_no_node_by_itself() -> None:
    captured = [run(0), kernel("a", "Add", CPU, 1), run(100), kernel("a", "Add", CUDA, 101)]
    found = read_placement([*captured, run(200), run(300)])
    assert found.replayed
    assert [node.runs for node in found.fell_back] == [0.5]
    assert not read_placement(captured).replayed
    assert not read_placement([]).replayed


def test_a_recorded_trace_of_the_cpu_is_read(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "trace")
    session = ort.InferenceSession(str(TINY), options, providers=[CPU])
    session.run(None, {"input_ids": np.arange(8).reshape(1, 8)})
    found = read_placement(json.loads(Path(session.end_profiling()).read_text()))
    ops = {node.op: node.runs for node in found.fell_back if node.name.startswith("core/linear")}
    assert ops == {"MatMul": 3}
    assert {"Shape", "Loop", "Identity"} <= {node.op for node in found.host_nodes}
    assert found.memcpy_nodes == 0
