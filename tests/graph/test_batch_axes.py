"""Which axis of an input holds samples: what the graph says, never the first one by habit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.inputs import axes_of, first_samples, generate_inputs, sample_count
from loopedge.quantizer import timing
from tests.graph.test_passes import parse

D = 16
X = np.ones((5, 3, D), np.float32)


def recurrent(axes: str) -> ir.Model:
    """Return a model of another tool: its first axis is a fixed window, and a state has no samples at all."""
    weight = np.eye(D, dtype=np.float32)
    return parse(
        f"""<ir_version: 9, opset_import: ["": 20]>
        g (float[{axes}, {D}] x, float[2, {D}] state, float gain) => (float[{axes}, {D}] y) {{
          p = MatMul (x, w)
          row = ReduceSum <keepdims = 0> (state, zero)
          q = Add (p, row)
          y = Mul (q, gain)
        }}""",
        w=weight,
        zero=np.array([0], np.int64),
    )


FEEDS = {"x": X, "state": np.ones((2, D), np.float32), "gain": np.array(2, np.float32)}


@pytest.mark.parametrize(
    ("axes", "shape", "count"),
    [
        ("5, batch", (5, 1, D), 3),
        ("5, batch_size", (5, 1, D), 3),
        ("batch, sequence", (1, 3, D), 5),
        ("5, N", (5, 3, D), 5),
        ("5, 3", (5, 3, D), 5),
    ],
)
def test_samples_are_cut_where_the_graph_names_their_axis(
    axes: str, shape: tuple[int, ...], count: int
) -> None:
    named = axes_of(recurrent(axes))
    cut = first_samples(FEEDS, named, 1)
    assert {name: array.shape for name, array in cut.items()} == {
        "x": shape,
        "state": (2, D),
        "gain": (),
    }
    assert sample_count(FEEDS, named) == count


def test_nothing_is_cut_where_a_size_is_computed_from_the_batch() -> None:
    named: dict[str, list[Any]] = {"x": ["batch", 4], "flat": ["batch*4"]}
    feeds = {"x": np.ones((2, 4)), "flat": np.ones(8)}
    assert first_samples(feeds, named, 1)["x"].shape == (2, 4)


@pytest.mark.parametrize(("axes", "shape"), [("5, batch", (5, 1, D)), ("5, N", (5, 3, D))])
def test_timing_runs_a_model_whose_first_axis_is_no_batch(
    axes: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ir.save(recurrent(axes), tmp_path / "m.onnx")
    ran = []
    runner = timing.session_runner

    def remember(session: Any, feeds: Any) -> Any:
        ran.append(feeds["x"].shape)
        return runner(session, feeds)

    monkeypatch.setattr(timing, "session_runner", remember)
    monkeypatch.setattr(timing, "SECONDS", 1e-4)
    ratio = timing.time_against(tmp_path / "m.onnx", tmp_path / "m.onnx", FEEDS, threads=1)
    assert 0 < ratio.low <= ratio.median <= ratio.high
    assert ran == [shape, shape]


def test_an_input_called_loops_is_the_count_only_where_it_is_one() -> None:
    text = """<ir_version: 9, opset_import: ["": 20]>
        g (int64 loops, float[N] tolerance) => (float[N] y) {
          times = CastLike (loops, tolerance)
          y = Mul (times, tolerance)
        }"""
    made = generate_inputs(parse(text), batch=4, loops=7)
    assert made["loops"].item() == 7
    assert made["tolerance"].shape == (4,)
    data = text.replace("int64 loops", "int64[3] loops")
    assert generate_inputs(parse(data), loops=7)["loops"].shape == (3,)


def test_ids_are_drawn_whatever_their_name_and_masks_keep_all() -> None:
    text = """<ir_version: 9, opset_import: ["": 20]>
        g (int64[N, M] masked_ids, int64[N, M] mask) => (float[N, M, 2] y) {
          rows = Gather <axis = 0> (table, masked_ids)
          last = Unsqueeze (mask, axis)
          kept = CastLike (last, rows)
          y = Mul (rows, kept)
        }"""
    table = np.zeros((50, 2), np.float32)
    made = generate_inputs(parse(text, table=table, axis=np.array([2])), batch=4, sequence=9)
    assert made["mask"].all()
    assert len(np.unique(made["masked_ids"])) > 10
