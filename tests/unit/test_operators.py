"""The table of operators says of each what onnx's own evaluator and schemas show."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.defs import OpSchema, get_schema
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

from loopedge.graph.operators import (
    ELEMENTWISE,
    LINEARS,
    PRODUCTS,
    WEIGHT_PLACES,
    Fact,
    having,
)

Array = NDArray[Any]
OPSET = 24
X = np.random.default_rng(0).uniform(1.1, 1.9, (4, 3)).astype(np.float32)
LOGIC = {"And", "Or", "Xor", "Not"}


def schema(name: str) -> OpSchema | None:
    try:
        return get_schema(name, OPSET)
    except onnx.defs.SchemaError:
        return None  # of ONNX Runtime alone


def evaluate(name: str, *arrays: Array, **attributes: Any) -> Array:
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = [
        make_tensor_value_info(given, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for given, array in zip(names, arrays, strict=True)
    ]
    output = make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    graph = make_graph([make_node(name, names, ["y"], **attributes)], "one", inputs, [output])
    model = make_model(graph, opset_imports=[make_opsetid("", OPSET)])
    feeds = dict(zip(names, arrays, strict=True))
    outputs: Any = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(outputs[0])


def arguments(name: str) -> list[Array]:
    """Return inputs whose values differ from position to position."""
    x: Array = X - 1 if name in {"Acos", "Asin"} else X
    x = x > 1.5 if name in LOGIC else x
    if name in having(Fact.UNARY):
        return [x]
    if name == "Where":
        return [X > 1.5, X, -X]
    if name == "Clip":
        return [X, np.array(1.3, np.float32), np.array(1.6, np.float32)]
    other = np.roll(X, 1, axis=0)
    return [x, other > 1.5 if name in LOGIC else other]


@pytest.mark.parametrize("name", sorted(name for name in ELEMENTWISE if schema(name)))
def test_elementwise_operators_mix_nothing(name: str) -> None:
    """A part of the output is the output of that part of the inputs, along both axes."""
    attributes: dict[str, Any] = {"to": onnx.TensorProto.DOUBLE} if name == "Cast" else {}
    attributes |= {"fmod": 1} if name == "Mod" else {}
    arrays = arguments(name)
    whole = evaluate(name, *arrays, **attributes)
    assert whole.shape == X.shape
    for part in (np.s_[1:3], np.s_[:, 1:2]):
        parts = [array[part] if array.ndim else array for array in arrays]
        assert np.array_equal(evaluate(name, *parts, **attributes), whole[part])


@pytest.mark.parametrize("name", sorted(having(Fact.REDUCTION)))
def test_reductions_take_their_axes_as_an_input(name: str) -> None:
    reduced = evaluate(name, X, np.array([0]), keepdims=0)
    assert reduced.shape == (3,)
    assert np.array_equal(evaluate(name, X[:, :2], np.array([0]), keepdims=0), reduced[:2])


@pytest.mark.parametrize("name", sorted(having(Fact.SOFTMAX)))
def test_softmax_and_its_like_mix_along_their_axis_alone(name: str) -> None:
    whole = evaluate(name, X, axis=1)
    assert whole.shape == X.shape
    assert np.allclose(evaluate(name, X[2:], axis=1), whole[2:])
    assert not np.allclose(evaluate(name, X[:, :2], axis=1), whole[:, :2])


def test_weights_stand_where_schemas_have_a_matrix() -> None:
    assert WEIGHT_PLACES.keys() == having(Fact.MATMUL)
    for name, places in WEIGHT_PLACES.items():
        found = schema(name)
        assert len(set(places)) == len(places) > 0
        if found is not None:
            assert all(found.inputs[place].name in {"A", "B", "a", "b"} for place in places)
    assert {WEIGHT_PLACES[name] for name in LINEARS} == {(1, 0)}


def test_each_product_computes_in_one_kind_of_numbers() -> None:
    kinds = [having(fact) for fact in (Fact.FLOAT, Fact.INT8, Fact.BLOCKS)]
    assert frozenset().union(*kinds) == PRODUCTS | having(Fact.RECURRENT)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    assert having(Fact.MATMUL | Fact.INT8) == {
        *(
            "MatMulInteger",
            "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul",
            "QLinearMatMul",
            "QGemm",
        )
    }
    assert having(Fact.MATMUL | Fact.BLOCKS) == {"MatMulNBits", "MatMulBnb4"}


def test_a_product_that_takes_its_range_of_all_positions_is_not_alone() -> None:
    assert having(Fact.RANGED) == {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
