"""What is taken to treat every row alone does: the rows of the result are the result of the rows."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from loopedge.graph.positions.position_inputs import position_inputs

ROWS = [4, 1]
GENERATOR = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def integers(dtype: type, *shape: int) -> np.ndarray[Any, Any]:
    return GENERATOR.integers(0, 100, shape).astype(dtype)


@dataclass
class Case:
    """An operator; ``inputs`` are arrays, those in ``stored`` are initializers."""

    op: str
    inputs: list[np.ndarray[Any, Any]]
    axis: int
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    stored: tuple[int, ...] = ()
    domain: str = ""
    outputs: int = 1


X = floats(2, 6, 8)
INDEX = np.array(1, np.int64)
CASES = {
    "gelu": Case("Gelu", [X], 1, (2, 6, 8)),
    "residual": Case("Add", [X, floats(2, 6, 8)], 1, (2, 6, 8)),
    "bias": Case("Add", [X, floats(8)], 1, (2, 6, 8)),
    "rotary": Case("Mul", [floats(2, 4, 6, 8), floats(6, 8)], 2, (2, 4, 6, 8)),
    "one for all rows": Case("Mul", [X, floats(2, 1, 8)], 1, (2, 6, 8)),
    "where": Case("Where", [X > 0, X, floats()], 1, (2, 6, 8)),
    "softmax": Case("Softmax", [X], 1, (2, 6, 8), {"axis": -1}),
    "rms norm": Case("RMSNormalization", [X, floats(8)], 1, (2, 6, 8), {"axis": -1}),
    "layer norm": Case("LayerNormalization", [X, floats(8), floats(8)], 1, (2, 6, 8)),
    "linear": Case("MatMul", [X, floats(8, 5)], 1, (2, 6, 5), stored=(1,)),
    "tied head": Case("MatMul", [floats(5, 8), floats(2, 8, 6)], 2, (2, 5, 6), stored=(0,)),
    "scores": Case("MatMul", [floats(2, 4, 6, 8), floats(2, 4, 8, 6)], 2, (2, 4, 6, 6)),
    "gemm": Case("Gemm", [floats(6, 8), floats(8, 5), floats(5)], 0, (6, 5)),
    "integer product": Case(
        "MatMulInteger",
        [integers(np.uint8, 2, 6, 8), integers(np.int8, 8, 5), np.array(3, np.uint8)],
        1,
        (2, 6, 5),
        stored=(1,),
    ),
    "scaled integer product": Case(
        "MatMulIntegerToFloat",
        [
            integers(np.uint8, 2, 6, 8),
            integers(np.int8, 8, 5),
            np.array(0.1, np.float32),
            np.abs(floats(5)),
            np.array(3, np.uint8),
        ],
        1,
        (2, 6, 5),
        stored=(1,),
        domain="com.microsoft",
    ),
    "rounding": Case(
        "QuantizeLinear", [X, np.array(0.1, np.float32), np.array(9, np.uint8)], 1, (2, 6, 8)
    ),
    "transpose": Case("Transpose", [X], 2, (2, 8, 6), {"perm": [0, 2, 1]}),
    "heads": Case("Reshape", [X, np.array([0, 0, 2, 4], np.int64)], 1, (2, 6, 2, 4), stored=(1,)),
    "unsqueeze": Case("Unsqueeze", [X, np.array([1], np.int64)], 2, (2, 1, 6, 8), stored=(1,)),
    "squeeze": Case("Squeeze", [floats(2, 1, 6), np.array([1], np.int64)], 1, (2, 6), stored=(1,)),
    "concat": Case("Concat", [X, floats(2, 6, 3)], 1, (2, 6, 11), {"axis": -1}),
    "split": Case("Split", [X], 1, (2, 6, 4), {"axis": 2, "num_outputs": 2}, outputs=2),
    "slice": Case(
        "Slice",
        [X, *(np.array([i], np.int64) for i in (0, 4, 2))],
        1,
        (2, 6, 4),
        stored=(1, 2, 3),
    ),
    "gather behind": Case("Gather", [floats(2, 6, 8, 3), INDEX], 1, (2, 6, 3), {"axis": 2}),
    "gather before": Case("Gather", [floats(2, 3, 6, 8), INDEX], 1, (2, 6, 8), {"axis": 1}),
    "gather by rows": Case(
        "Gather", [floats(9, 8), integers(np.int64, 2, 6) % 9], 1, (2, 6, 8), {"axis": 0}
    ),
    "mean of a row": Case("ReduceMean", [X, np.array([-1], np.int64)], 1, (2, 6, 1), stored=(1,)),
    "sum of heads": Case(
        "ReduceSum",
        [floats(2, 4, 6, 8), np.array([1], np.int64)],
        1,
        (2, 6, 8),
        {"keepdims": 0},
        stored=(1,),
    ),
    "attention": Case(
        "Attention",
        [X, floats(2, 6, 8), floats(2, 6, 8)],
        1,
        (2, 6, 8),
        {"q_num_heads": 2, "kv_num_heads": 2},
    ),
    "masked attention": Case(
        "Attention",
        [*(floats(2, 4, 6, 8) for _ in range(3)), GENERATOR.random((2, 1, 6, 6)) > 0.3],
        2,
        (2, 4, 6, 8),
    ),
}

MIXING = {
    "softmax along the rows": Case("Softmax", [X], 1, (2, 6, 8), {"axis": 1}),
    "mean over the rows": Case(
        "ReduceMean", [X, np.array([1], np.int64)], 1, (2, 1, 8), stored=(1,)
    ),
    "norm over the rows": Case("LayerNormalization", [X, floats(6, 8)], 1, (2, 6, 8), {"axis": 1}),
    "range over the rows": Case(
        "DynamicQuantizeMatMul",
        [X, integers(np.int8, 8, 5), np.abs(floats(5))],
        1,
        (2, 6, 5),
        stored=(1,),
        domain="com.microsoft",
    ),
    "scales by row": Case(
        "QuantizeLinear", [X, np.abs(floats(6)), integers(np.uint8, 6)], 1, (2, 6, 8), {"axis": 1}
    ),
    "concatenated rows": Case(
        "Concat", [floats(2, 3, 8), floats(2, 3, 8)], 1, (2, 6, 8), {"axis": 1}
    ),
    "cumulative sum": Case("CumSum", [X, INDEX], 1, (2, 6, 8), stored=(1,)),
    "joined rows": Case("Reshape", [X, np.array([0, -1], np.int64)], 1, (2, 48), stored=(1,)),
    "rows of a weight": Case("MatMul", [floats(6, 8), floats(2, 8, 5)], 1, (2, 6, 5), stored=(0,)),
    "columns of a weight": Case("MatMul", [X, floats(8, 5)], 2, (2, 6, 5), stored=(1,)),
    "causal with other keys": Case(
        "Attention",
        [X, floats(2, 7, 8), floats(2, 7, 8)],
        1,
        (2, 6, 8),
        {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1},
    ),
}


def node_of(case: Case) -> ir.Node:
    values = []
    for index, array in enumerate(case.inputs):
        tensor = ir.tensor(array, name=f"x{index}")
        values.append(
            ir.Value(
                name=f"x{index}",
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
                const_value=tensor if index in case.stored else None,
            )
        )
    node = ir.node(
        case.op,
        values,
        attributes=case.attributes,
        domain=case.domain,
        num_outputs=case.outputs,
        name="it",
    )
    for index, output in enumerate(node.outputs):
        output.name, output.shape = f"y{index}", ir.Shape(case.shape)
        output.type = ir.TensorType(ir.DataType.FLOAT)
    return node


def run(case: Case, inputs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    node = node_of(Case(**{**vars(case), "inputs": inputs, "stored": ()}))
    for output in node.outputs:
        output.type = ir.TensorType(
            {"QuantizeLinear": ir.DataType.UINT8, "MatMulInteger": ir.DataType.INT32}.get(
                case.op, ir.DataType.FLOAT
            )
        )
        output.shape = None
    given = [value for value in node.inputs if value is not None]
    graph = ir.Graph(
        given, node.outputs, nodes=[node], opset_imports={"": 23, "com.microsoft": 1}, name="g"
    )
    model = ir.to_proto(ir.Model(graph, ir_version=11)).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(
        None, {f"x{index}": array for index, array in enumerate(inputs)}
    )
    return found


@pytest.mark.parametrize("name", CASES)
def test_rows_of_the_result_are_the_result_of_rows(name: str) -> None:
    case = CASES[name]
    places = position_inputs(node_of(case), case.axis)
    assert places is not None
    assert any(place is not None for place in places)
    chosen = [
        array if place is None else np.take(array, ROWS, axis=place)
        for array, place in zip(case.inputs, places, strict=True)
    ]
    for whole, part in zip(run(case, case.inputs), run(case, chosen), strict=True):
        assert np.allclose(np.take(whole, ROWS, axis=case.axis), part, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MIXING)
def test_operators_that_mix_rows_are_not_taken_apart(name: str) -> None:
    case = MIXING[name]
    assert position_inputs(node_of(case), case.axis) is None


def test_a_size_that_is_not_known_is_no_row() -> None:
    case = CASES["residual"]
    node = node_of(case)
    assert node.inputs[1] is not None
    node.inputs[1].shape = ir.Shape([2, None, 8])
    assert position_inputs(node, 1) is None
