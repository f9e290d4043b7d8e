"""Stored weights of equal content, found without holding two of them in memory."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from loopedge.graph.rolling.canonical_passes import tensors
from loopedge.graph.rolling.canonical_passes.content import Contents
from loopedge.graph.rolling.canonical_passes.tensors import reshaped, turned
from loopedge.graph.rolling.copies import EqualCopies, equal_copies


def stored(weights: dict[str, npt.NDArray[np.generic] | ir.TensorProtocol]) -> ir.Model:
    """Return a graph that stores weights and reads none."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Exp (x) }'
    )
    for name, data in weights.items():
        tensor = ir.tensor(data, name=name) if isinstance(data, np.ndarray) else data
        model.graph.register_initializer(
            ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    return model


def draw(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_equal_weights_and_transposes_are_one_group() -> None:
    a, square, other = draw(4, 6), draw(5, 5, seed=1), draw(4, 6, seed=2)
    model = stored(
        {
            "a": a,
            "turned": np.ascontiguousarray(a.T),
            "other": other,
            "again": a.copy(),
            "turned again": np.ascontiguousarray(a.T),
            "square": square,
            "square turned": np.ascontiguousarray(square.T),
            "flat": a.reshape(6, 4),
        }
    )
    assert equal_copies(model) == [
        EqualCopies(
            names=["a", "again"],
            transposed=["turned", "turned again"],
            bytes=a.nbytes,
            saved_bytes=3 * a.nbytes,
        ),
        EqualCopies(
            names=["square"],
            transposed=["square turned"],
            bytes=square.nbytes,
            saved_bytes=square.nbytes,
        ),
    ]


def test_rows_scalars_and_other_types_are_no_copies() -> None:
    model = stored(
        {
            "row": np.ones(8, np.float32),
            "row again": np.ones(8, np.float32),
            "column": np.ones((8, 1), np.float32),
            "column again": np.ones((8, 1), np.float32),
            "float": np.ones((2, 2), np.float32),
            "double": np.ones((2, 2), np.float64),
            "shapes": np.ones((2, 2), np.int64),
            "shapes again": np.ones((2, 2), np.int64),
            "timestep.a": np.ones((3, 3), np.float32),
            "timestep.b": np.ones((3, 3), np.float32),
        }
    )
    assert equal_copies(model) == []


def test_integers_of_quantizers_are_copies() -> None:
    eight = np.random.default_rng(0).integers(-128, 127, (6, 6)).astype(np.int8)
    model = stored({"a": eight, "b": eight.copy(), "c": eight.astype(np.uint8)})
    assert [copies.names for copies in equal_copies(model)] == [["a", "b"]]


def test_what_differs_behind_its_beginning_is_told_apart() -> None:
    a = draw(64, 64)
    b = a.copy()
    b[-1, -1] += 1
    assert equal_copies(stored({"a": a, "b": b})) == []
    turned_b = np.ascontiguousarray(b.T)
    assert equal_copies(stored({"a": a, "b": turned_b})) == []


def test_symmetric_weights_are_equal_first() -> None:
    a = np.eye(8, dtype=np.float32)
    (copies,) = equal_copies(stored({"a": a, "b": a.copy()}))
    assert (copies.names, copies.transposed) == (["a", "b"], [])


def test_weights_of_a_file_are_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 1000)
    a = draw(50, 30)
    model = stored({"a": a, "b": a.copy(), "c": np.ascontiguousarray(a.T)})
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    read = ir.load(tmp_path / "m.onnx")
    tensor = read.graph.initializers["a"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    (copies,) = equal_copies(read)
    assert (copies.names, copies.transposed) == (["a", "b"], ["c"])
    assert tensor.raw is None  # it is mapped no longer


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
def test_turned_tensors_hold_what_numpy_gives(order: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (3, 4, 5)).astype(dtype)
    tensor, wanted = turned(ir.tensor(array), order), np.ascontiguousarray(array.transpose(order))
    contents = Contents()
    np.testing.assert_array_equal(tensor.numpy(), wanted)
    assert tensor.tobytes() == wanted.tobytes()
    assert contents.digest(tensor) == contents.digest(ir.tensor(wanted))
    assert contents.beginning(tensor) == contents.beginning(ir.tensor(wanted))
    back = turned(tensor, np.argsort(order).tolist())
    np.testing.assert_array_equal(back.numpy(), array)
    flat = reshaped(tensor, [60])
    assert contents.digest(flat) == contents.digest(ir.tensor(wanted.reshape(60)))
    np.testing.assert_array_equal(flat.numpy(), wanted.reshape(60))


def test_narrow_integers_are_turned() -> None:
    array = np.random.default_rng(0).integers(-8, 7, (4, 6)).astype(ir.DataType.INT4.numpy())
    tensor = turned(ir.tensor(array, dtype=ir.DataType.INT4), (1, 0))
    wanted = ir.tensor(np.ascontiguousarray(array.T), dtype=ir.DataType.INT4)
    assert tensor.tobytes() == wanted.tobytes()
    assert tensors.digest(tensor) == tensors.digest(wanted)


def test_texts_are_compared_by_their_parts() -> None:
    texts, shape = ([b"ab", b"c"], [b"a", b"bc"]), ir.Shape([2])
    one, other = (ir.StringTensor(each, shape=shape) for each in texts)
    assert tensors.digest(one) != tensors.digest(other)
