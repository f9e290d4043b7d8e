"""Profiles of models with an early exit and with Loops inside the core."""

from pathlib import Path

import pytest

import loopedge
from examples.models import hrm_like
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.ties import untied_bytes
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.weights import weight_bytes
from loopedge.report.profile.verdict import verdicts
from tests.parity.models import ROUNDING, make_model, relative_error
from tests.parity.test_inner_loops import Refiner

pytestmark = pytest.mark.long


def test_an_early_exit_tells_how_many_iterations_ran(tmp_path: Path) -> None:
    for name, tolerance in (("early", 100), ("never", 0)):
        path = tmp_path / f"{name}.onnx"
        loopedge.export(make_model("tokens", loops=4), path, exit=f"tolerance={tolerance}")
    paths = [tmp_path / "early.onnx", tmp_path / "never.onnx"]
    result = loopedge.profile(paths, runs=10, processes=1)
    assert [len(run.iterations) for run in result.runs] == [1, 4]
    assert [note for note in result.notes if "iterations" in note] == [
        "early.onnx stopped after 1 of 4 iterations on these inputs: its time is that of so many"
    ]


def test_an_early_exit_has_no_twin_and_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "early.onnx"
    loopedge.export(make_model("tokens"), path, exit="tolerance=0.1")
    with pytest.raises(InputError) as caught:
        loopedge.profile([path], untied=True)
    reason = "a Loop that stops early has no unrolled form: a condition can end Loop core"
    assert caught.value.message == f"{path}: {reason}"
    assert caught.value.hint == "loopedge export model.pt --exit none"


def test_twins_of_inner_loops_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "inner.onnx"
    loopedge.export(Refiner(deep=True).eval(), path, inner="loop")
    result = loopedge.profile([path], untied=True, unrolled=True, runs=10, processes=1)
    tied, unrolled, untied = result.runs
    assert unrolled.weight_bytes == tied.weight_bytes
    assert untied.weight_bytes == 3 * tied.weight_bytes
    for run in result.runs:
        assert [one.iteration for one in run.iterations] == [0, 1, 2]
        assert {op.op: op.count for op in run.ops}["MatMul"] == 3 * (1 + 4 + 4 * 2)


def test_outputs_are_compared_on_the_same_inputs(tmp_path: Path) -> None:
    """Ids go up to the vocabulary in a table of blocks too, else another input would be measured."""
    path = tmp_path / "m.onnx"
    loopedge.export(make_model("tokens", d_model=64), path)
    quantized = [tmp_path / f"{scheme}.onnx" for scheme in ("weight-int8", "weight-int4")]
    for target in quantized:
        loopedge.quantize(path, target, scheme=target.stem)
    result = loopedge.profile(
        [path, *quantized], unrolled=[path], runs=5, processes=1, details=False
    )
    first, int8, int4, unrolled = [run.output_error for run in result.runs]
    assert first is None
    assert unrolled == pytest.approx(0, abs=ROUNDING)
    assert int8 is not None
    assert int4 is not None
    assert 1e-4 < int8 < int4 < 0.5
    (sentence,) = [one for one in verdicts(result) if one.startswith("weight-int8.onnx against")]
    assert f"its outputs differ by {int8:.1e} of their norm" in sentence


def test_inner_loops_of_a_last_iteration_behind_the_loop_are_untied_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = loopedge.export(hrm_like.make(), path, logits="last", inner="loop", exit="none")
    assert result.last_rows.applied
    model = open_artifact(path)
    twin = untie(model)
    assert weight_bytes(twin) == untied_bytes(model)
    assert len(view_core(twin).weights) == result.loops * len(view_core(model).weights)
    write_artifact(twin, tmp_path / "twin.onnx")
    feeds = {
        name: array for name, array in generate_inputs(model, batch=2).items() if name != "loops"
    }
    given, expected = (
        loopedge.Session(tmp_path / name).run(feeds)["logits"] for name in ("twin.onnx", "m.onnx")
    )
    assert relative_error(given, expected) < 1e-3
