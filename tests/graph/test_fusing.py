"""Linears that read the same become one to the bit; rotations that are written out become one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from loopedge.graph.decoding.fusing.products import fuse_products
from loopedge.graph.decoding.fusing.rotary import fuse_rotary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

MICROSOFT = "com.microsoft"
D, WIDTHS, BLOCK = 64, (96, 32, 48), 32
RNG = np.random.default_rng(0)


def weights(kind: str, name: str, width: int) -> dict[str, Array]:
    """Return the stored inputs of a product."""
    if kind == "MatMulNBits":
        return {
            name: RNG.integers(0, 256, (width, D // BLOCK, BLOCK // 2), np.uint8),
            f"{name}.scale": RNG.random((width, D // BLOCK), np.float32),
        }
    if kind == "DynamicQuantizeMatMul":
        return {
            name: RNG.integers(-127, 128, (D, width), np.int8),
            f"{name}.scale": RNG.random(width, np.float32),
        }
    return {name: RNG.standard_normal((D, width), np.float32)}


def product(kind: str, read: str, name: str, width: int) -> onnx.NodeProto:
    """Return a node that gives ``name.output``."""
    inputs = [read, name] if kind == "MatMul" else [read, name, f"{name}.scale"]
    attributes: dict[str, Any] = {}
    if kind == "MatMulNBits":
        attributes = {"K": D, "N": width, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
    domain = "" if kind == "MatMul" else MICROSOFT
    outputs = [f"{name}.output"]
    return helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    stored: Mapping[str, Array],
    outputs: Mapping[str, Sequence[int | str]],
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    opset: int = 23,
) -> onnx.ModelProto:
    """Return a checked model of float32 inputs and outputs, with the shapes of what is between."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (inputs or {"x": ["batch", "sequence", D]}).items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto | ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """Compute every output."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feeds))
    return outputs


def operators(model: ir.Model) -> list[str]:
    """Return what nodes compute, in their order."""
    return [node.op_type for node in model.graph.all_nodes()]


KINDS = ("MatMul", "MatMulNBits", "DynamicQuantizeMatMul")


def three(kind: str, read: Sequence[str] = ("x", "x", "x")) -> onnx.ModelProto:
    """Return three products, by default of the same activations."""
    stored: dict[str, Array] = {}
    for name, width in zip("qkv", WIDTHS, strict=True):
        stored |= weights(kind, f"layer.{name}.weight", width)
    nodes = [
        product(kind, source, f"layer.{name}.weight", width)
        for source, name, width in zip(read, "qkv", WIDTHS, strict=True)
    ]
    outputs: dict[str, list[int | str]] = {
        f"layer.{name}.weight.output": ["batch", "sequence", width]
        for name, width in zip("qkv", WIDTHS, strict=True)
    }
    inputs: dict[str, list[int | str]] = {
        name: ["batch", "sequence", D] for name in dict.fromkeys(read)
    }
    return make_model(nodes, stored, outputs, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, D), (2, 7, D)])
def test_products_of_the_same_activations_become_one_to_the_bit(
    kind: str, shape: tuple[int, ...]
) -> None:
    source = three(kind)
    model = ir.from_proto(source)
    before = sum(value.const_value.nbytes for value in _stored(model))
    assert fuse_products(model)
    assert operators(model) == [kind, "Split"]
    names = {value.name for value in _stored(model)} - {"chunk/widths.96+32+48"}
    assert "layer.q+k+v.weight" in names
    assert len(names) == (1 if kind == "MatMul" else 2)
    assert sum(value.const_value.nbytes for value in _stored(model)) == before + 8 * len(WIDTHS)
    feeds = {"x": RNG.standard_normal(shape).astype(np.float32)}
    for expected, found in zip(run(source, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not fuse_products(model)


def _stored(model: ir.Model) -> list[Any]:
    return list(model.graph.initializers.values())


@pytest.mark.parametrize("kind", KINDS)
def test_iterations_that_are_written_out_share_the_joined_weight(kind: str) -> None:
    stored = weights(kind, "a", D) | weights(kind, "b", D)
    nodes, read = [], "x"
    for iteration in range(2):
        for name in "ab":
            node = product(kind, read, name, D)
            node.name = node.output[0] = f"{name}{iteration}"
            nodes.append(node)
        read = f"sum{iteration}"
        nodes.append(helper.make_node("Add", [f"a{iteration}", f"b{iteration}"], [read], name=read))
    source = make_model(nodes, stored, {read: ["batch", "sequence", D]})
    model = ir.from_proto(source)
    assert fuse_products(model)
    assert operators(model) == [kind, "Split", "Add"] * 2
    products = [node for node in model.graph if node.op_type == kind]
    assert products[0].inputs[1] is products[1].inputs[1]
    feeds = {"x": RNG.standard_normal((1, 3, D)).astype(np.float32)}
    np.testing.assert_array_equal(run(model, feeds)[0], run(source, feeds)[0])


def test_what_is_left_alone() -> None:
    """A weight that something else reads, other activations, zero points, other blocks."""
    apart = ir.from_proto(three("MatMul", ("x", "y", "z")))
    assert not fuse_products(apart)

    shared = three("MatMul")
    shared.graph.node.append(helper.make_node("Transpose", ["layer.q.weight"], ["turned"]))
    shared.graph.output.append(
        helper.make_tensor_value_info("turned", TensorProto.FLOAT, [WIDTHS[0], D])
    )
    assert not fuse_products(ir.from_proto(shared))

    twice = three("MatMul")
    twice.graph.node[1].input[1] = "layer.q.weight"
    twice.graph.output[1].type.tensor_type.shape.dim[2].dim_value = WIDTHS[0]
    assert not fuse_products(ir.from_proto(twice))

    points = three("MatMulNBits")
    for node, width in zip(points.graph.node, WIDTHS, strict=True):
        zero = np.full((width, 1), 0x88, np.uint8)
        points.graph.initializer.append(numpy_helper.from_array(zero, f"{node.name}.zero"))
        node.input.append(f"{node.name}.zero")
    assert not fuse_products(ir.from_proto(points))

    old = three("MatMul")
    old.opset_import[0].version = 12
    assert not fuse_products(ir.from_proto(old))


HEADS, SIZE, LENGTH = 4, 16, 5


def rotated(halves: str, *, joined: bool, tables_equal: bool = True) -> tuple[onnx.ModelProto, Any]:
    """Return a rotation of ``x`` (batch, sequence, heads x size), written out, and its tables at the first positions.

    Args:
        halves: How halves are taken: ``Split`` or ``Slice``.
        joined: Whether heads are joined again behind.
        tables_equal: Whether both halves of a table hold the same.
    """
    half = SIZE // 2
    angles = np.arange(LENGTH)[:, None] * 0.3 ** np.arange(half, dtype=np.float32)
    other = angles if tables_equal else angles + 1
    angles = np.concatenate([angles, other], axis=-1).astype(np.float32)[None, None]
    stored = {
        "split": np.array([0, 0, HEADS, SIZE]),
        "join": np.array([0, 0, -1]),
        "zero": np.array([0]),
        "half": np.array([half]),
        "end": np.array([2**62]),
        "axis": np.array([3]),
    }
    if halves == "Split":
        parts = [helper.make_node("Split", ["t"], ["t1", "t2"], axis=3, num_outputs=2)]
    else:
        parts = [
            helper.make_node("Slice", ["t", "zero", "half", "axis"], ["t1"]),
            helper.make_node("Slice", ["t", "half", "end", "axis"], ["t2"]),
        ]
    nodes = [
        helper.make_node("Cos", ["angles"], ["cos"]),
        helper.make_node("Sin", ["angles"], ["sin"]),
        helper.make_node("Reshape", ["x", "split"], ["apart"]),
        helper.make_node("Transpose", ["apart"], ["t"], perm=[0, 2, 1, 3]),
        *parts,
        helper.make_node("Neg", ["t2"], ["negative"]),
        helper.make_node("Concat", ["negative", "t1"], ["turned"], axis=-1),
        helper.make_node("Mul", ["t", "cos"], ["straight"]),
        helper.make_node("Mul", ["sin", "turned"], ["across"]),
        helper.make_node("Add", ["across", "straight"], ["r"], name="sum"),
    ]
    outputs: dict[str, list[int | str]] = {"r": ["batch", HEADS, "sequence", SIZE]}
    if joined:
        nodes += [
            helper.make_node("Transpose", ["r"], ["back"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["back", "join"], ["result"]),
        ]
        outputs = {"result": ["batch", "sequence", HEADS * SIZE]}
    inputs: dict[str, list[int | str]] = {
        "x": ["batch", "sequence", HEADS * SIZE],
        "angles": ["batch", 1, "sequence", SIZE],
    }
    return make_model(nodes, stored, outputs, inputs), angles


@pytest.mark.parametrize("halves", ["Split", "Slice"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_rotation_becomes_one_node(halves: str, joined: bool) -> None:
    source, angles = rotated(halves, joined=joined)
    model = ir.from_proto(source)
    values = {value.name: value for node in model.graph for value in node.outputs}
    tables = {values["cos"]: np.cos(angles), values["sin"]: np.sin(angles)}
    assert fuse_rotary(model, tables)
    common.RemoveUnusedNodesPass()(model)
    found = operators(model)
    assert found.count("RotaryEmbedding") == 1
    assert not {"Add", "Mul", "Neg", "Concat"} & set(found)
    assert ("Transpose" in found) == (not joined)
    feeds = {
        "x": RNG.standard_normal((2, LENGTH, HEADS * SIZE)).astype(np.float32),
        "angles": np.broadcast_to(angles, (2, *angles.shape[1:])).copy(),
    }
    np.testing.assert_allclose(run(model, feeds)[0], run(source, feeds)[0], atol=1e-6)


def test_rotations_of_another_kind_stay_written_out() -> None:
    source, angles = rotated("Split", joined=True, tables_equal=False)
    model = ir.from_proto(source)
    values = {value.name: value for node in model.graph for value in node.outputs}
    tables = {values["cos"]: np.cos(angles), values["sin"]: np.sin(angles)}
    assert not fuse_rotary(model, tables)  # the halves of a table differ

    source, angles = rotated("Split", joined=True)
    model = ir.from_proto(source)
    assert not fuse_rotary(model, {})  # no tables of positions

    swapped, angles = rotated("Split", joined=True)
    next(node for node in swapped.graph.node if node.op_type == "Neg").input[0] = "t1"
    concat = next(node for node in swapped.graph.node if node.op_type == "Concat")
    concat.input[1] = "t2"
    model = ir.from_proto(swapped)
    values = {value.name: value for node in model.graph for value in node.outputs}
    tables = {values["cos"]: np.cos(angles), values["sin"]: np.sin(angles)}
    assert not fuse_rotary(model, tables)  # (-x1, x2) is no rotation

    old, angles = rotated("Split", joined=True)
    old.opset_import[0].version = 22
    model = ir.from_proto(old)
    values = {value.name: value for node in model.graph for value in node.outputs}
    tables = {values["cos"]: np.cos(angles), values["sin"]: np.sin(angles)}
    assert not fuse_rotary(model, tables)
