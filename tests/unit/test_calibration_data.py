"""Data that cannot calibrate is named with its sample, and refused or reported; the rest splits into two parts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import loopedge
import loopedge_calibration
from loopedge.errors import InputError, LoopedgeError
from loopedge.graph.inputs import generate_inputs, input_specs
from loopedge_calibration.observers import METHODS
from loopedge_calibration.readers import BATCH
from loopedge_calibration.roles import HELD_OUT
from loopedge_calibration.samples import Part, Samples, all_samples

GENERATOR = np.random.default_rng(0)
GOOD = GENERATOR.standard_normal((32, 6, 4)).astype(np.float32)
IDS = GENERATOR.integers(0, 50, (32, 6))


def small_model(path: Path, *, ids: bool = False, mask: bool = False, batch: Any = "batch") -> Path:
    """Write two linears with an exponential between them, which large inputs overflow."""
    generator = np.random.default_rng(1)
    sizes = {"w1": (4, 16), "w2": (16, 8), "table": (50, 4)}
    stored = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    stored.append(numpy_helper.from_array(np.array([2]), "last"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "sequence", 4])]
    nodes = []
    if ids:
        inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, "sequence"])]
        nodes = [
            helper.make_node("Unsqueeze", ["ids", "last"], ["wide"]),
            helper.make_node("Squeeze", ["wide", "last"], ["rows"]),
            helper.make_node("Gather", ["table", "rows"], ["x"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Exp", ["a"], ["e"]),
        helper.make_node("MatMul", ["e", "w2"], ["y"], name="second"),
    ]
    if mask:
        kind = TensorProto.INT64
        inputs.append(helper.make_tensor_value_info("attention_mask", kind, [batch, "sequence"]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["kept3"]),
            helper.make_node("Mul", ["y", "kept3"], ["out"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["y"], ["out"]))
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, "sequence", 8])
    graph = helper.make_graph(nodes, "g", inputs, [output], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def with_sample(values: Any, at: int) -> np.ndarray:
    changed = GOOD.copy()
    changed[at] = values
    return changed


def masked(*rows: int) -> np.ndarray:
    mask = np.ones((32, 6), np.int64)
    mask[list(rows)] = 0
    return mask


REFUSED: dict[str, tuple[dict[str, bool], Any, str]] = {
    "all zeros": ({}, {"x": GOOD * 0}, "the data does not vary: x is 0 in all of 24 samples"),
    "constant": ({}, {"x": np.full_like(GOOD, 3)}, "x is 3 in all of 24 samples"),
    "one id": ({"ids": True}, {"ids": np.full((32, 6), 7)}, "ids is 7 in all of 24 samples"),
    "one sample over and over": (
        {},
        {"x": GOOD[[0] * 16]},
        "all 12 samples looked at are the same one",
    ),
    "no number at all": ({}, {"x": GOOD * np.nan}, "sample 1, position 1, column 1 is nan"),
    "one that is not finite": (
        {},
        {"x": with_sample(np.inf, 16)},
        "sample 17, position 1, column 1 is inf",
    ),
    "one that overflows": ({}, {"x": with_sample(80, 16)}, "sample 17: second reads inf"),
    "one that overflows where it judges": (
        {},
        {"x": with_sample(80, 19)},
        "sample 20: second reads inf",
    ),
    "masked throughout": (
        {"mask": True},
        {"x": GOOD, "attention_mask": masked(*range(32))},
        "attention_mask: sample 1 keeps none of its positions",
    ),
    "one masked throughout": (
        {"mask": True},
        {"x": GOOD, "attention_mask": masked(9)},
        "attention_mask: sample 10 keeps none of its positions",
    ),
    "an id below 0": (
        {"ids": True},
        {"ids": np.where(np.arange(32)[:, None] == 8, -1, IDS)},
        "sample 9, position 1 is -1, the model takes ids from 0 to 49",
    ),
    "an ignored target": (
        {"ids": True},
        {"ids": np.where(np.arange(32)[:, None] == 8, -100, IDS)},
        "sample 9, position 1 is -100, the model takes ids from 0 to 49",
    ),
    "an id past the vocabulary": (
        {"ids": True},
        {"ids": np.where(np.arange(32)[:, None] == 8, 50, IDS)},
        "sample 9, position 1 is 50, the model takes ids from 0 to 49",
    ),
    "no sample": ({}, {"x": GOOD[:0]}, "the data holds no sample"),
    "no position": ({}, {"x": GOOD[:, :0]}, "input x is empty: shape"),
    "no array": ({}, {}, "the data holds no sample"),
    "no batch": ({}, [], "the data holds no sample"),
    "no data": ({}, 5, "the data holds int, a path, arrays by input or batches"),
    "a list of numbers": ({}, [1.0, 2.0], "the data holds float, a path, arrays by input"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_calibrate_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    inputs, data, words = REFUSED[kind]
    model = small_model(tmp_path / "m.onnx", **inputs)
    with pytest.raises(InputError, match=words) as refused:
        loopedge.quantize(model, tmp_path / "q.onnx", data=data, scheme="static", min_coverage=0)
    assert "\n" not in refused.value.message
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("scheme", ["dynamic", "weight-int8"])
def test_what_cannot_judge_is_refused_under_every_scheme(tmp_path: Path, scheme: str) -> None:
    model = small_model(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="the data does not vary"):
        loopedge.quantize(
            model, tmp_path / "q.onnx", data={"x": GOOD * 0}, scheme=scheme, min_coverage=0
        )


NOTED = {
    "a column that does not vary": (
        GOOD * np.array([1, 1, 0, 1], np.float32),
        "input x: column 3 does not vary in the samples",
    ),
    "a quiet part": (GOOD * 1e-3, "input x is quiet: its deviation is 0.00"),
    "one sample": (GOOD[:1], "nothing could be held out"),
}


@pytest.mark.parametrize("kind", NOTED)
def test_what_may_mislead_is_noted(tmp_path: Path, kind: str) -> None:
    values, words = NOTED[kind]
    model = small_model(tmp_path / "m.onnx")
    options: dict[str, Any] = {"scheme": "static", "min_coverage": 0, "min_sqnr_db": -50}
    result = loopedge.quantize(model, tmp_path / "q.onnx", data={"x": values}, **options)
    assert any(note.startswith(words) for note in result.notes), result.notes
    expected = "calibrating" if kind == "one sample" else "data"
    assert result.held_out.source == expected


def numbers(part: Part) -> list[float]:
    return [float(value) for batch in part for value in batch.feeds["x"][:, 0, 0]]


def counted(samples: int) -> np.ndarray:
    """Return samples that say their number."""
    values = np.random.default_rng(2).standard_normal((samples, 2, 4)).astype(np.float32)
    values[:, 0, 0] = np.arange(samples)
    return values


def folder_of(tmp_path: Path, values: np.ndarray) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    cuts = [0, 7, 7 + len(values) // 2, len(values)]
    for number in range(3):
        np.savez(folder / f"{number}.npz", x=values[cuts[number] : cuts[number + 1]])
    return folder


def sources(tmp_path: Path, values: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Yield the same samples in every way that they can be handed over."""
    np.savez(tmp_path / "c.npz", x=values)
    np.savez_compressed(tmp_path / "small.npz", x=values)
    np.savez(tmp_path / "turned.npz", x=np.asfortranarray(values))
    np.savez(tmp_path / "unnamed.npz", values)
    np.save(tmp_path / "x.npy", np.asfortranarray(values))
    for name in ("c.npz", "small.npz", "turned.npz", "unnamed.npz", "x.npy"):
        yield name, tmp_path / name
    yield "folder", folder_of(tmp_path, values)
    yield "arrays", {"x": values}
    yield "a bare array", values
    yield "batches", [{"x": part} for part in np.array_split(values, 9)]
    yield "an iterator", iter([{"x": part} for part in np.array_split(values, 9)])
    yield "lists", {"x": values.tolist()}
    yield "float64", {"x": values.astype(np.float64)}


def test_every_way_of_handing_samples_over_splits_them_alike(tmp_path: Path) -> None:
    """Every fourth sample judges, at most as many as asked for, evenly spread over all files."""
    model, most = ir.load(small_model(tmp_path / "m.onnx")), 20
    places = np.arange(100)
    judging = places[places % HELD_OUT == HELD_OUT - 1]
    others = np.setdiff1d(places, judging)
    expected = [
        part[np.linspace(0, len(part) - 1, most).round().astype(int)].tolist()
        for part in (others, judging)
    ]
    for name, data in sources(tmp_path, counted(100)):
        samples = Samples(data, model, samples=most)
        held_out = samples.held_out(calibrates=True)
        found = [float(value) for feeds in held_out.batches for value in feeds["x"][:, 0, 0]]
        assert [numbers(samples.calibrating), found] == expected, name
        assert (held_out.kind, held_out.samples) == ("data", most), name
        assert (held_out.calibrating, held_out.calibrating_of) == (most, 75), name
        assert all(len(feeds["x"]) <= 2 * BATCH for feeds in held_out.batches), name


def test_integers_are_taken_as_run_takes_them(tmp_path: Path) -> None:
    model, values = ir.load(small_model(tmp_path / "m.onnx")), np.arange(96).reshape(4, 6, 4)
    (batch,) = all_samples({"x": values}, model, None)
    assert batch.feeds["x"].dtype == np.float32
    np.testing.assert_array_equal(batch.feeds["x"], values)


def test_a_sample_that_calibrates_never_judges(tmp_path: Path) -> None:
    values = counted(40)
    values[3], values[7] = values[0], values[1]  # the fourth and the eighth would judge
    held_out = Samples(
        {"x": values}, ir.load(small_model(tmp_path / "m.onnx")), samples=99
    ).held_out(calibrates=True)
    assert held_out.samples == 8
    assert held_out.places[0][0] == "sample 12"


@pytest.mark.parametrize(
    ("count", "calibrating", "judging"),
    [(1, [0], []), (2, [0], [1]), (3, [0, 1], [2]), (4, [0, 1, 2], [3])],
)
def test_few_samples(
    tmp_path: Path, count: int, calibrating: list[int], judging: list[int]
) -> None:
    model = ir.load(small_model(tmp_path / "m.onnx"))
    samples = Samples({"x": counted(count)}, model, samples=99)
    assert numbers(samples.calibrating) == calibrating
    held_out = samples.held_out(calibrates=True)
    found = [float(value) for feeds in held_out.batches for value in feeds["x"][:, 0, 0]]
    assert found == (judging or calibrating)
    assert held_out.kind == ("data" if judging else "calibrating")


def test_a_model_of_a_fixed_batch_gets_whole_batches(tmp_path: Path) -> None:
    model = ir.load(small_model(tmp_path / "m.onnx", batch=4))
    values = counted(32)
    for data in ({"x": values}, [{"x": part} for part in np.array_split(values, 8)]):
        samples = Samples(data, model, samples=99)
        assert [len(batch.feeds["x"]) for batch in samples.calibrating] == [4] * 6
        assert numbers(samples.calibrating)[:4] == [0, 1, 2, 3]
        (judging, _) = samples.held_out(calibrates=True).batches
        assert judging["x"][:, 0, 0].tolist() == [12, 13, 14, 15]


def test_what_clips_is_counted_by_tensor(tmp_path: Path) -> None:
    """Ranges of quiet samples: how many of the held-out values lie outside is counted here by hand."""
    model, whole = small_model(tmp_path / "m.onnx"), {"as_core": ["all"], "threads": 1}
    table = loopedge_calibration.collect(
        model,
        {"x": GOOD * 0.3},
        method="minmax",
        smoothing=False,
        **whole,  # type: ignore[arg-type]
    )
    result = loopedge.quantize(
        model,
        tmp_path / "q.onnx",
        data={"x": GOOD},
        ranges=table,
        min_coverage=0,
        min_sqnr_db=-50,
        **whole,  # type: ignore[arg-type]
    )
    found = table.tensors["first"]
    half = (found.high[0] - found.low[0]) / 255 / 2
    held_out = GOOD[HELD_OUT - 1 :: HELD_OUT]
    outside = (held_out < found.low[0] - 2 * half) | (held_out > found.high[0] + 2 * half)
    assert result.held_out.clipped["first"] == [pytest.approx(outside.mean(), abs=0.005)]
    assert outside.mean() > 0.2
    assert result.warning is not None
    assert "lie outside its range" in result.warning
    assert result.notes[0] == f"WARNING: {result.warning}"
    assert result.to_json()["warning"] == result.warning


def test_the_names_of_methods_are_those_that_exist() -> None:
    assert set(METHODS) == set(loopedge.quantizer.options.METHODS)


def test_ids_are_followed_through_what_keeps_values(tmp_path: Path) -> None:
    (spec,) = input_specs(ir.load(small_model(tmp_path / "m.onnx", ids=True)))
    assert spec.ids == 50


def test_no_error_names_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails on a copy fails on the model, for who reads of it."""
    model = small_model(tmp_path / "m.onnx")

    def fail(self: loopedge.Session, inputs: Any, *args: Any, **options: Any) -> Any:
        raise LoopedgeError(f"{self.path} failed to run: of a test")

    monkeypatch.setattr(loopedge.Session, "run", fail)
    for options in (
        {},
        {"scheme": "static"},
        {"scheme": "dynamic"},
        {"scheme": "dynamic", "max_drop": 0.5},
    ):
        with pytest.raises(LoopedgeError, match="failed to run") as failed:
            loopedge.quantize(
                model, tmp_path / "q.onnx", data={"x": GOOD}, min_coverage=0, **options
            )
        assert str(failed.value) in {
            "the model failed to run: of a test",
            f"{model} failed to run: of a test",
        }


def test_a_folder_without_samples_is_named_so(tmp_path: Path) -> None:
    model, empty = small_model(tmp_path / "m.onnx"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"empty holds no \.npz and no text"):
        loopedge.quantize(model, tmp_path / "q.onnx", data=empty)


def test_axes_of_one_name_get_one_size_in_all_generated_inputs() -> None:
    """A scan's state (n, 4) and its steps (t, n, 4): `t` is the first free axis there, `n` what it is elsewhere."""
    shapes: dict[str, list[Any]] = {"state": ["n", 4], "steps": ["t", "n", 4]}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("Add", ["state", "steps"], ["y"])], "g", inputs, [output]
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    )
    made = generate_inputs(model, batch=3, sequence=7)
    assert {name: array.shape for name, array in made.items()} == {
        "state": (3, 4),
        "steps": (3, 3, 4),
    }
