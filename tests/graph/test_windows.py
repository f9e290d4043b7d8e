"""Convolutions as linears over windows: the same values, a weight stored once, and back to what they were."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from loopedge.graph.editing import add_initializer, insert_before, make_node, structure
from loopedge.graph.passes.windows import fold_windows, round_before_windows, unfold_convolutions
from loopedge.graph.weights import linears

Array = NDArray[Any]
IN, OUT = 3, 5
GEOMETRIES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "one axis": ((3,), {"pads": [1, 1]}),
    "without padding": ((4,), {}),
    "causal": ((3,), {"pads": [4, 0], "dilations": [2]}),
    "strided": ((3,), {"pads": [1, 1], "strides": [2]}),
    "strided, dilated": ((2,), {"pads": [0, 3], "strides": [3], "dilations": [2]}),
    "upper": ((4,), {"auto_pad": "SAME_UPPER"}),
    "lower": ((4,), {"auto_pad": "SAME_LOWER"}),
    "valid": ((3,), {"auto_pad": "VALID"}),
    "two axes": ((3, 2), {"pads": [1, 0, 1, 1]}),
    "two axes, strided": ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 1], "dilations": [1, 2]}),
    "three axes": ((2, 2, 3), {}),
    "two axes of one": ((1, 1), {}),
    "one, strided": ((1,), {"strides": [2]}),
}


def convolution(
    kernel: tuple[int, ...], attributes: Mapping[str, Any], *, readers: int = 1, bias: bool = True
) -> ir.Model:
    """Return a graph of convolutions that share a weight, the sum of their outputs its output."""
    generator = np.random.default_rng(0)
    sizes = ", ".join(f"L{axis}" for axis in range(len(kernel)))
    shape = ", ".join(map(str, (OUT, IN, *kernel)))
    inputs = ", ".join(f"float[N, {IN}, {sizes}] x{i}" for i in range(readers))
    settings = ", ".join(
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
        for name, value in attributes.items()
    )
    settings = f"<{settings}>" if settings else ""
    nodes = "\n".join(
        f"[conv{i}] y{i} = Conv {settings} (x{i}, w{', b' if bias else ''})" for i in range(readers)
    )
    outputs = ", ".join(f"float[N, {OUT}, ...] y{i}" for i in range(readers)).replace(
        "...", ", ".join(f"M{axis}" for axis in range(len(kernel)))
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        g ({inputs}, float[{shape}] w, float[{OUT}] b) => ({outputs}) {{
            {nodes}
        }}"""
    )
    stored = {
        "w": generator.normal(size=(OUT, IN, *kernel)).astype(np.float32),
        "b": generator.normal(size=OUT).astype(np.float32),
    }
    for value in [value for value in model.graph.inputs if value.name in stored]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(stored[str(value.name)], name=value.name)
        model.graph.register_initializer(value)
    return model


def feeds(axes: int, readers: int = 1) -> dict[str, Array]:
    generator = np.random.default_rng(1)
    shape = (2, IN, *range(9, 9 + axes))
    return {f"x{i}": generator.normal(size=shape).astype(np.float32) for i in range(readers)}


def run(model: ir.Model, inputs: Mapping[str, Array]) -> list[Array]:
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, dict(inputs))
    return outputs


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_values_are_those_of_the_convolution(name: str, bias: bool) -> None:
    kernel, attributes = GEOMETRIES[name]
    model = convolution(kernel, attributes, bias=bias)
    inputs = feeds(len(kernel))
    (exact,) = run(model, inputs)
    assert unfold_convolutions(model)
    assert not unfold_convolutions(model)
    assert "Conv" not in operators(model)
    (item,) = linears(model)
    assert (item.node.name, item.weight.name) == ("conv0", "w")
    assert list(item.weight.shape or ()) == [IN * int(np.prod(kernel)), OUT]
    (given,) = run(model, inputs)
    np.testing.assert_allclose(given, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "two axes of one"])
def test_what_stays_float_becomes_the_convolution_again(name: str, bias: bool) -> None:
    kernel, attributes = GEOMETRIES[name]
    model = convolution(kernel, attributes, bias=bias)
    inputs = feeds(len(kernel))
    (exact,), weight = run(model, inputs), model.graph.initializers["w"].const_value
    assert weight is not None
    unfold_convolutions(model)
    assert fold_windows(model)
    assert not fold_windows(model)
    assert operators(model) == ["Conv"]
    folded = model.graph.initializers["w"].const_value
    assert folded is not None
    np.testing.assert_array_equal(folded.numpy(), weight.numpy())
    np.testing.assert_array_equal(run(model, inputs)[0], exact)


def test_a_shared_weight_stays_one() -> None:
    model = convolution((3,), {"pads": [1, 1]}, readers=3)
    inputs = feeds(1, 3)
    exact = run(model, inputs)
    unfold_convolutions(model)
    assert len({item.weight for item in linears(model)}) == 1
    for given, wanted in zip(run(model, inputs), exact, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
    fold_windows(model)
    assert operators(model) == ["Conv"] * 3
    for given, wanted in zip(run(model, inputs), exact, strict=True):
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize(
    "attributes", [{"group": 3}, {"auto_pad": "SAME_UPPER", "strides": [2]}, {"pads": [-1, 2]}]
)
def test_what_a_linear_cannot_say_stays(attributes: dict[str, Any]) -> None:
    model = convolution((3,), attributes)
    before = structure(model)
    assert not unfold_convolutions(model)
    assert structure(model) == before


def test_a_weight_that_something_else_reads_stays() -> None:
    model = convolution((3,), {})
    weight = model.graph.initializers["w"]
    other = make_node("Identity", [weight], "other")
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])
    assert not unfold_convolutions(model)


@pytest.mark.parametrize("name", ["causal", "strided", "two axes, strided", "without padding"])
def test_rounding_first_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    kernel, attributes = GEOMETRIES[name]
    model = convolution(kernel, attributes)
    unfold_convolutions(model)
    (item,) = linears(model)
    scale = add_initializer(model.graph, "scale", np.array(0.03, np.float32))
    zero = add_initializer(model.graph, "zero", np.array(101, np.uint8))
    parts = [scale, zero]
    rounded = make_node("QuantizeLinear", [item.node.inputs[0], *parts], "conv0.rounded")
    rounded.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    rounded.outputs[0].shape = item.node.inputs[0].shape if item.node.inputs[0] else None
    back = make_node("DequantizeLinear", [rounded.outputs[0], *parts], "conv0.again")
    insert_before(item.node, rounded)
    insert_before(item.node, back)
    item.node.replace_input_with(0, back.outputs[0])
    inputs = feeds(len(kernel))
    (exact,) = run(model, inputs)
    assert round_before_windows(model)
    assert not round_before_windows(model)
    kinds = operators(model)
    assert kinds.index("QuantizeLinear") < kinds.index("Slice")
    assert kinds.count("Concat") == 1
    np.testing.assert_array_equal(run(model, inputs)[0], exact)
