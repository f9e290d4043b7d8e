"""Columns whose level float32 cannot hold: float64 from the table to the forecasts, in PyTorch and in the file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto

import loopedge
from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.deployment.verification import Tolerance, compare_with_source
from loopedge.errors import VerificationError
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.offsets import OutputOffsets
from loopedge.model.checkpoint import load, load_checkpoint, save, write_tensors
from loopedge.model.transformer import LoopedTransformer
from loopedge.runtime.session import Session
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train

pytestmark = pytest.mark.slow

ROWS, CONTEXT, HORIZON = 240, 12, 3
LEVELS = [1e6, 1e8, 1e9, 1e12]
SCALING = ("input_mean", "input_scale", "output_mean", "output_scale")


def wave() -> Any:
    """Return values that float64 holds exactly at any of the levels: whole eighths, swinging by 10."""
    random = np.random.default_rng(0)
    shape = 5 * np.sin(np.arange(ROWS) / 5) + random.normal(size=ROWS) / 2
    return np.rint(shape * 8) / 8


def table(folder: Path, *, target: float = 0.0, covariate: float = 0.0) -> Path:
    values, other = wave(), np.roll(wave(), 7)
    rows = [
        f"{target + y:.3f},{covariate + x:.3f}\n"
        for y, x in zip(values.tolist(), other.tolist(), strict=True)
    ]
    path = folder / f"{target:.0f}-{covariate:.0f}.csv"
    path.write_text("y,x\n" + "".join(rows), encoding="utf-8")
    return path


def task_of(path: Path, **options: Any) -> SeriesTask:
    return SeriesTask.from_file(
        path, targets=["y"], covariates=["x"], context=CONTEXT, horizon=HORIZON, **options
    )


def trained(task: SeriesTask, target: Path, *, steps: int = 20) -> TrainResult:
    fields = make_model_config(task, d_model=16, heads=2, loops=2)
    config = make_train_config(steps=steps, batch_size=8, evaluate_every=steps, samples=64, lr=3e-3)
    return train(task, fields, config, target)


def raw(path: Path) -> Any:
    """Return the table's numbers, read by numpy alone."""
    return np.loadtxt(path, delimiter=",", skiprows=1)


def windows_of(values: Any, stops: Any) -> tuple[Any, Any]:
    inputs = np.stack([values[stop - CONTEXT : stop] for stop in stops])
    return inputs, np.stack([values[stop : stop + HORIZON, :1] for stop in stops])


@torch.no_grad()
def forecasts(model: LoopedTransformer, inputs: Any) -> Any:
    return model(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("role", ["target", "covariate"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_reported_score_is_that_of_the_raw_numbers(
    tmp_path: Path, level: float, role: str
) -> None:
    path = table(tmp_path, **{role: level})
    task = task_of(path)
    result = trained(task, tmp_path / "m.pt")
    values = raw(path)
    inputs, wanted = windows_of(values, task.stops["test"])
    model = load(tmp_path / "m.pt")
    given = forecasts(model, inputs)
    assert model.config.wide
    assert given.dtype == np.float64
    error = given - wanted
    assert result.test["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-9)
    assert result.test["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-9)
    assert 0.1 < np.sqrt(np.mean(error**2)) < 20  # neither 0 nor what float32 makes of the level
    last = np.repeat(inputs[:, -1:, :1], HORIZON, axis=1) - wanted
    assert result.baselines["naive_last"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(last**2)), rel=1e-9
    )


@pytest.mark.parametrize("scaling", ["column", "window"])
def test_a_level_taken_off_by_hand_changes_nothing(tmp_path: Path, scaling: str) -> None:
    plain = task_of(table(tmp_path), scaling=scaling)
    assert not plain.wide
    trained(plain, tmp_path / "plain.pt")
    model = load(tmp_path / "plain.pt")
    inputs, wanted = windows_of(raw(table(tmp_path)), plain.stops["test"])
    expected = forecasts(model, inputs.astype(np.float32))
    for level in LEVELS:
        task = task_of(table(tmp_path, target=level, covariate=level), scaling=scaling)
        wide = LoopedTransformer(make_model_config(task, d_model=16, heads=2, loops=2)).eval()
        weights = model.state_dict()
        wide.load_state_dict({**weights, **{n: wide.get_buffer(n) for n in SCALING}})
        found = task.scaling()
        assert found is not None
        wide.set_scaling(*(torch.from_numpy(getattr(found, name)) for name in SCALING))
        allowed = 1e-5 + 4 * np.finfo(np.float64).eps * level  # 1e-6 of the swing
        given = forecasts(wide, inputs + level)
        np.testing.assert_allclose(given - level, expected, rtol=0, atol=allowed)
        save(wide, tmp_path / "wide.pt", force=True)
        loopedge.export(tmp_path / "wide.pt", tmp_path / "wide.onnx", force=True)
        (written,) = Session(tmp_path / "wide.onnx").run(inputs + level).values()
        np.testing.assert_allclose(written - level, expected, rtol=0, atol=allowed)
        errors = [
            np.sqrt(np.mean((y - z) ** 2)) for y, z in ((given, wanted + level), (expected, wanted))
        ]
        assert errors[0] == pytest.approx(errors[1], rel=1e-5 + 1e-16 * level)


@pytest.fixture(scope="module")
def wide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trained, exported model whose windows are scaled by themselves, padded, with missing values."""
    folder = tmp_path_factory.mktemp("wide")
    path = table(folder, target=1e9, covariate=1e9)
    task = task_of(path, scaling="window", min_context=6, missing="indicator")
    trained(task, folder / "m.pt", steps=60)
    loopedge.export(folder / "m.pt", folder / "m.onnx")
    path.rename(folder / "data.csv")
    return folder / "m.onnx"


def outputs_of(path: Path, feeds: Any) -> Any:
    return Session(path).run(feeds)["outputs"]


def test_the_file_is_float64_outside_and_float32_inside(wide_file: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(wide_file)).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert all(kinds[name] == TensorProto.DOUBLE for name in SCALING)
    assert all(kind == TensorProto.FLOAT for name, kind in kinds.items() if name.endswith("weight"))
    readers = {node.op_type: node for node in graph.node if "inputs" in node.input}
    assert set(readers) == {"Sub", "IsNaN"}
    assert readers["Sub"].input[1] == "input_mean"
    before = [node.op_type for node in graph.node]
    first = next(n for n in graph.node if n.op_type == "MatMul")
    cast = next(n for n in graph.node if first.input[0] in n.output)
    assert cast.op_type == "Cast"
    assert before.index("Sub") < list(graph.node).index(cast)


def test_windows_are_measured_once_outside_of_the_loop(wide_file: Path) -> None:
    graph = onnx.load(wide_file).graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    body = {node.op_type for node in loop.attribute[0].g.node}
    assert not body & {"ReduceSum", "ReduceMean", "Sqrt", "Where", "IsNaN"}
    assert [node.op_type for node in graph.node].count("Sqrt") == 1


@pytest.mark.parametrize(
    "options", [{"form": "unrolled"}, {"opset": 18}, {"opset": 20}, {"storage": "float16"}]
)
def test_every_form_computes_the_same(wide_file: Path, tmp_path: Path, options: Any) -> None:
    other = tmp_path / "o.onnx"
    loopedge.export(wide_file.with_suffix(".pt"), other, **options)
    feeds = generate_inputs(Artifact.open(wide_file).graph, batch=3, sequence=CONTEXT)
    assert feeds["inputs"].dtype == np.float64
    assert np.nanmedian(np.abs(feeds["inputs"] - 1e9)) < 100  # where the data is
    allowed = 1e-2 if "storage" in options else 1e-4
    np.testing.assert_allclose(
        outputs_of(other, feeds) - 1e9, outputs_of(wide_file, feeds) - 1e9, rtol=0, atol=allowed
    )


def test_files_made_of_it_compute_the_same(wide_file: Path, tmp_path: Path) -> None:
    folder = wide_file.parent
    loopedge.unroll(wide_file, tmp_path / "u.onnx")
    loopedge.convert(wide_file, tmp_path / "c.ort")
    loopedge.prepare(wide_file, tmp_path / "p.onnx")
    loopedge.export(folder / "m.pt", tmp_path / "whole.onnx", last_rows=False, form="unrolled")
    loopedge.reroll(tmp_path / "whole.onnx", tmp_path / "r.onnx")
    feeds = generate_inputs(Artifact.open(wide_file).graph, batch=2, sequence=CONTEXT)
    expected = outputs_of(wide_file, feeds)
    for name in ("u.onnx", "c.ort", "p.onnx", "r.onnx"):
        given = outputs_of(tmp_path / name, feeds)
        assert given.dtype == np.float64
        np.testing.assert_allclose(given - 1e9, expected - 1e9, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-int8"])
def test_integers_keep_the_digits(wide_file: Path, tmp_path: Path, scheme: str) -> None:
    result = loopedge.quantize(
        wide_file, tmp_path / "q.onnx", scheme=scheme, data=wide_file.with_name("data.csv")
    )
    assert (
        15 < result.held_out.sqnr_db < 90
    )  # of the windows' swing: of the level it would be far above
    task = task_of(
        wide_file.with_name("data.csv"), scaling="window", min_context=6, missing="indicator"
    )
    batch = next(iter(task.evaluation("validation", 16, 16)))
    feeds = batch.feeds(["inputs", "attention_mask"])
    given, expected = (outputs_of(p, feeds) for p in (tmp_path / "q.onnx", wide_file))
    assert given.dtype == np.float64
    noise = np.sqrt(np.mean((given - expected) ** 2))
    assert 0 < noise < 0.2 * 5


def test_what_is_added_last_is_known_of_each_window(wide_file: Path) -> None:
    graph = Artifact.open(wide_file).graph
    inputs = 1e9 + np.random.default_rng(1).normal(size=(3, CONTEXT, 2))
    mask = np.ones((3, CONTEXT), np.int64)
    mask[1, :5] = 0
    found = OutputOffsets(graph).of("outputs", {"inputs": inputs, "attention_mask": mask})
    assert found is not None
    wanted = [inputs[0, :, 0].mean(), inputs[1, 5:, 0].mean(), inputs[2, :, 0].mean()]
    np.testing.assert_allclose(found[:, 0, 0] - 1e9, np.array(wanted) - 1e9, atol=1e-6)


def test_a_check_sees_a_wrong_forecast_at_any_level(wide_file: Path, tmp_path: Path) -> None:
    spoiled = Artifact.open(wide_file).fresh_graph()
    head = spoiled.graph.initializers["head.weight"]
    assert head.const_value is not None
    head.const_value = ir.tensor(head.const_value.numpy() * 1.01, name="head.weight")
    write_scratch(spoiled, tmp_path / "s.onnx")
    tolerance = Tolerance(relative=1e-4, file="the file")
    source = Artifact.open(wide_file)
    with pytest.raises(VerificationError, match="relative error"):
        compare_with_source(source, tmp_path / "s.onnx", tolerance, longest=CONTEXT, threads=1)


def test_a_session_takes_what_numpy_makes_of_a_table(wide_file: Path) -> None:
    inputs = 1e9 + np.random.default_rng(1).integers(-5, 5, size=(1, CONTEXT, 2))
    mask = np.ones((1, CONTEXT), np.int64)
    whole = outputs_of(wide_file, {"inputs": inputs.astype(np.int64), "attention_mask": mask})
    exact = outputs_of(wide_file, {"inputs": inputs.astype(np.float64), "attention_mask": mask})
    np.testing.assert_array_equal(whole, exact)


def test_a_checkpoint_keeps_the_digits_and_one_from_before_still_loads(wide_file: Path) -> None:
    path = wide_file.with_suffix(".pt")
    checkpoint = load_checkpoint(path)
    task = task_of(
        wide_file.with_name("data.csv"), scaling="window", min_context=6, missing="indicator"
    )
    found = task.scaling()
    assert found is not None
    for name in SCALING:
        stored = checkpoint["state_dict"][name]
        assert stored.dtype == torch.float64
        np.testing.assert_array_equal(stored.numpy(), getattr(found, name))
    old = {**checkpoint, "config": dict(checkpoint["config"])}
    for key in ("wide", "scaling"):
        del old["config"][key]
    old["state_dict"] = {
        name: value.float() if name in SCALING else value
        for name, value in checkpoint["state_dict"].items()
    }
    before = wide_file.with_name("before.pt")
    write_tensors(old, before)
    model = load(before)
    assert not model.config.wide
    assert model.config.scaling == "column"
    assert model.get_buffer("input_mean").dtype == torch.float32
