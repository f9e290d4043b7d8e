"""Graphs of other tools whose names are those that loopedge would make up: the outputs stay those of the source."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.untied import untie
from loopedge.graph.weights import weight_bytes
from loopedge.inference.run import run_file
from loopedge.profiler.subjects.measured_inputs import profile_feeds

Array = NDArray[Any]
SCHEMES = ("static", pytest.param("dynamic", marks=pytest.mark.slow), "weight-int8")
D = 32


def weight(seed: int) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(D, D)) / np.sqrt(D)
    return np.asarray(drawn, np.float32)


def written(text: str, stored: Mapping[str, Array], path: Path) -> Path:
    """Write a graph in ONNX's text form, which takes neither points nor slashes: ``__`` and ``_of_`` stand for them."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 21]>\n{text}')
    for value in [v for v in model.graph.inputs if named(v) in stored]:
        model.graph.inputs.remove(value)
        name = named(value)
        value.const_value = ir.tensor(stored[name], name=name)
        value.name = name
        model.graph.register_initializer(value)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.inputs:
            value.name = named(value)
        for node in graph:
            node.name = spelt(node.name)
            for output in node.outputs:
                output.name = named(output)
    ir.save(model, path)
    return path


def named(value: ir.Value) -> str:
    return spelt(value.name)


def spelt(name: str | None) -> str:
    return (name or "").replace("__", ".").replace("_of_", "/")


def relative_error(given: Array, exact: Array) -> float:
    return float(np.linalg.norm(given - exact) / np.linalg.norm(exact))


def quantized(source: Path, scheme: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs of the quantized model; seven bits give the same on every processor."""
    target = source.with_suffix(f".{scheme}.onnx")
    static, blocks = scheme == "static", scheme == "weight-int8"
    ranges = loopedge_calibration.collect(source, [feeds], smoothing=False) if static else None
    loopedge.quantize(source, target, scheme=scheme, ranges=ranges, reduce_range=not blocks)
    return loopedge.Session(target).run(feeds)


def drawn(*shape: int) -> Array:
    return np.random.default_rng(9).normal(size=shape).astype(np.float32)


TAKEN = f"""
other (float[batch, sequence, {D}] x, float[{D}, {D}] w, float[{D}] w__scale, float[1] range__lin__scale,
       float[2] loopedge__iteration__0)
  => (float[batch, sequence, {D}] y) {{
    [lin] lin__scale__output = MatMul (x, w)
    [lin__rounded] scaled = Mul (lin__scale__output, w__scale)
    lin__rounded__output = Mul (scaled, range__lin__scale)
    [lin__scale] three = ReduceSum <keepdims = 0> (loopedge__iteration__0)
    y = Mul (lin__rounded__output, three)
}}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_of_scales_that_are_taken(scheme: str, tmp_path: Path) -> None:
    w, scale, x = weight(0), drawn(D), drawn(16, 5, D)
    stored = {
        "w": w,
        "w.scale": scale,
        "range.lin.scale": np.array([2.0], np.float32),
        "loopedge.iteration.0": np.array([1.0, 2.0], np.float32),
    }
    source = written(TAKEN, stored, tmp_path / "taken.onnx")
    exact = x @ w * scale * 2 * 3
    assert relative_error(quantized(source, scheme, {"x": x})["y"], exact) < 0.03


INPUT_OF_A_NAME = f"""
other (float[batch, sequence, {D}] x, float[{D}] w__scale, float[{D}, {D}] w) => (float[batch, sequence, {D}] y) {{
    [lin] p = MatMul (x, w)
    y = Add (p, w__scale)
}}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_input_that_is_called_as_the_scales_of_a_weight(scheme: str, tmp_path: Path) -> None:
    source = written(INPUT_OF_A_NAME, {"w": weight(0)}, tmp_path / "input.onnx")
    x, added = drawn(16, 5, D), np.full(D, 0.5, np.float32)
    assert loopedge.inspect(source).weight_bytes == 4 * D * D
    feeds = {"x": x, "w.scale": added}
    assert relative_error(quantized(source, scheme, feeds)["y"], x @ weight(0) + added) < 0.03


SHADOWED = f"""
other (float[batch, sequence, {D}] x, float[{D}, {D}] w, float[{D}, {D}] head) => (float[batch, sequence, {D}] y)
<int64 n = {{3}}, bool go = {{1}}> {{
    z = Loop (n, go, x) <body = step (int64 i, bool c, float[batch, sequence, {D}] before)
      => (bool d, float[batch, sequence, {D}] after) {{
        d = Identity (c)
        [lin] w__scale = MatMul (before, w)
        range__lin__scale = Tanh (w__scale)
        after = Add (range__lin__scale, before)
    }}>
    [out] y = MatMul (z, head)
}}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_values_of_a_body_that_would_hide_what_is_made_up_outside(
    scheme: str, tmp_path: Path
) -> None:
    w, head, x = weight(0), weight(1), drawn(16, 5, D)
    source = written(SHADOWED, {"w": w, "head": head}, tmp_path / "shadowed.onnx")
    state = x
    for _ in range(3):
        state = np.tanh(state @ w) + state
    assert relative_error(quantized(source, scheme, {"x": x})["y"], state @ head) < 0.03


LAYERS = f"""
other (float[batch, sequence, {D}] x, float[{D}, {D}] range__weight, float[{D}, {D}] timestep__weight)
  => (float[batch, sequence, {D}] y) <int64 n = {{1}}, bool go = {{1}}> {{
    [core__0_of_lin] p = MatMul (x, range__weight)
    q = Mul (p, p)
    [core__1_of_lin] r = MatMul (q, timestep__weight)
    y = Loop (n, go, r) <body = step (int64 i, bool c, float[batch, sequence, {D}] before)
      => (bool d, float[batch, sequence, {D}] after) {{
        d = Identity (c)
        [core__1_of_lin] after = MatMul (before, range__weight)
    }}>
}}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_that_are_called_as_iterations_and_weights_as_tables(
    scheme: str, tmp_path: Path
) -> None:
    """What each reads has another range: one for all would round the third to a few steps."""
    first, second, x = weight(0), 30 * weight(1), drawn(16, 5, D)
    stored = {"range.weight": first, "timestep.weight": second}
    source = written(LAYERS, stored, tmp_path / "layers.onnx")
    assert weight_bytes(open_artifact(source)) == first.nbytes + second.nbytes
    exact = np.square(x @ first) @ second @ first
    assert relative_error(quantized(source, scheme, {"x": x})["y"], exact) < 0.05


OPTIONS = f"""
other (float[batch, sequence, {D}] loops, float[batch, {D}] tolerance, int64[sequence] iteration, float[batch, sequence] key_mask,
       float[{D}, {D}] w)
  => (float[batch, sequence, {D}] iterations) {{
    [lin] p = MatMul (loops, w)
    one = Constant <value = int64[1] {{1}}> ()
    two = Constant <value = int64[1] {{2}}> ()
    rows = Unsqueeze (tolerance, one)
    kept = Unsqueeze (key_mask, two)
    q = Mul (p, kept)
    times = CastLike (iteration, key_mask)
    column = Unsqueeze (times, one)
    moved = Add (q, column)
    iterations = Add (moved, rows)
}}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inputs_and_outputs_that_are_called_as_those_of_loopedge(
    scheme: str, tmp_path: Path
) -> None:
    source = written(OPTIONS, {"w": weight(0)}, tmp_path / "options.onnx")
    feeds = {
        "loops": drawn(7, 7, D),
        "tolerance": drawn(7, D),
        "iteration": np.arange(7),
        "key_mask": np.ones((7, 7), np.float32),
    }
    exact = feeds["loops"] @ weight(0) + feeds["tolerance"][:, None]
    exact = exact + feeds["iteration"][:, None].astype(np.float32)
    assert relative_error(loopedge.Session(source).run(feeds)["iterations"], exact) < 1e-5
    assert relative_error(quantized(source, scheme, feeds)["iterations"], exact) < 0.03


def test_data_called_loops_is_run_and_measured_as_data(tmp_path: Path) -> None:
    source = written(OPTIONS, {"w": weight(0)}, tmp_path / "options.onnx")
    feeds: dict[str, Any] = {
        "loops": drawn(7, 7, D),
        "tolerance": drawn(7, D),
        "iteration": np.arange(7),
        "key_mask": np.ones((7, 7), np.float32),
    }
    np.savez(tmp_path / "x.npz", **feeds)
    run_file(source, tmp_path / "x.npz", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as stored:
        assert np.array_equal(
            stored["iterations"], loopedge.Session(source).run(feeds)["iterations"]
        )
    sizes: dict[str, Any] = {"batch": 1, "sequence": None, "loops": None, "seed": 0}
    measured = profile_feeds(open_artifact(source), source, tmp_path / "x.npz", **sizes).arrays
    assert all(np.array_equal(measured[name], array) for name, array in feeds.items())
    with pytest.raises(InputError, match="runs a fixed number of loops, 3 were asked for"):
        loopedge.Session(source).run(feeds, loops=3)


def test_a_weight_that_is_listed_as_an_input_first_is_calibrated(tmp_path: Path) -> None:
    """Files of IR version 3 list each initializer among the inputs."""
    text = f"""other (float[{D}, {D}] w, float[batch, sequence, {D}] x) => (float[batch, sequence, {D}] y) {{
        [one] y = MatMul (x, w)
    }}"""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 21]>\n{text}')
    listed = model.graph.inputs[0]
    listed.const_value = ir.tensor(weight(0), name="w")
    model.graph.register_initializer(listed)
    ir.save(model, tmp_path / "m.onnx")
    samples = [{"x": drawn(2, 7, D)} for _ in range(2)]
    ranges = loopedge_calibration.collect(tmp_path / "m.onnx", samples)
    assert ranges.samples == 4


TIED = f"""
other (float[batch, sequence, {D}] x, float[{D}, {D}] w, float[{D}, {D}] w__0) => (float[batch, sequence, {D}] y) {{
    [one] p = MatMul (x, w)
    [two] q = MatMul (p, w)
    [three] y = MatMul (q, w__0)
}}"""


def test_the_copies_of_an_untied_twin_leave_other_weights_alone(tmp_path: Path) -> None:
    stored = {"w": weight(0), "w.0": weight(1)}
    source = written(TIED, stored, tmp_path / "tied.onnx")
    twin, x = tmp_path / "twin.onnx", drawn(2, 5, D)
    write_artifact(untie(open_artifact(source)), twin)
    exact = x @ stored["w"] @ stored["w"] @ stored["w.0"]
    assert relative_error(loopedge.Session(twin).run({"x": x})["y"], exact) < 1e-4
    assert len(ir.load(twin).graph.initializers) == 3
