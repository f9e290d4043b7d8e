"""Calibrated int8 inside the loop: ranges, both forms, the optimized graph, bad input."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError, VerificationError
from loopedge.graph.weights import linears
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from tests.parity.models import (
    FLIPS,
    SEVEN_BITS,
    Sizes,
    make_inputs,
    make_model,
    noise_share,
    slow_but,
)

Exporter = Callable[..., Path]
Feeds = dict[str, Any]


def samples(kind: str, batches: int = 6, length: int = 12) -> list[Feeds]:
    model = make_model(kind)
    return [make_inputs(model, Sizes(4, length), seed=seed)[1] for seed in range(batches)]


def turned(ends: list[float]) -> list[float]:
    return [*ends[1:], ends[0]]


def optimized(path: Path, tmp_path: Path) -> list[str]:
    """Return the operators that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options)
    return [node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph.all_nodes()]


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
@pytest.mark.parametrize("kind", slow_but("tokens"))
def test_every_kind_of_model_is_quantized_and_close(
    kind: str, exported: Exporter, tmp_path: Path
) -> None:
    data = samples(kind)
    ranges = loopedge_calibration.collect(exported(kind, dynamic_loops=True), data)
    result = loopedge.quantize(
        exported(kind, dynamic_loops=True),
        tmp_path / "q.onnx",
        ranges=ranges,
        data=data[:2],
        **SEVEN_BITS,
    )
    assert result.scheme == "static"
    skipped = {item["name"] for item in result.matmuls["skipped"]}
    assert skipped == ({"prelude/MatMul_2"} if kind == "series" else set())  # reads raw inputs
    assert result.sqnr_db > 25
    assert min(result.sqnr_db_linears.values()) > 25
    session = loopedge.Session(tmp_path / "q.onnx")
    for loops in (1, 3, 50):  # fewer than calibrated, all, past the table
        assert np.isfinite(session.run(data[0], loops=loops)[session.output_names[0]]).all()


@pytest.mark.slow
def test_both_forms_give_the_same_ranges_and_the_same_outputs(
    exported: Exporter, tmp_path: Path
) -> None:
    data = samples("tokens")
    tables, outputs = [], []
    for form in ("loop", "unrolled"):
        source = exported("tokens", form=form)
        tables.append(loopedge_calibration.collect(source, data, method="minmax"))
        options = {"data": data[:2], **SEVEN_BITS}
        loopedge.quantize(source, tmp_path / f"{form}.onnx", ranges=tables[0], **options)
        session = loopedge.Session(tmp_path / f"{form}.onnx", threads=1)
        outputs.append(session.run(data[0])["logits"])
    loop, unrolled = tables
    assert list(loop.tensors) == list(unrolled.tensors)
    assert loop.weights_sha256 == unrolled.weights_sha256
    for name, found in loop.tensors.items():
        assert found.low == pytest.approx(unrolled.tensors[name].low, rel=1e-5, abs=1e-5)
        assert found.high == pytest.approx(unrolled.tensors[name].high, rel=1e-5, abs=1e-5)
    exact = loopedge.Session(source, threads=1).run(data[0])["logits"]
    assert noise_share(outputs[1], outputs[0], exact) < FLIPS
    # What this bound must catch: ranges that belong to another iteration, though they are much alike.
    moved = {
        name: found.model_copy(update={"low": turned(found.low), "high": turned(found.high)})
        for name, found in loop.tensors.items()
    }
    wrong = loop.model_copy(update={"tensors": moved})
    loopedge.quantize(source, tmp_path / "w.onnx", ranges=wrong, min_sqnr_db=0, **options)
    given = loopedge.Session(tmp_path / "w.onnx", threads=1).run(data[0])["logits"]
    assert noise_share(given, outputs[0], exact) > FLIPS


@pytest.mark.slow
def test_ranges_are_those_of_each_iteration(exported: Exporter) -> None:
    """Against PyTorch: what the first linear reads is the normed state of each iteration."""
    import torch

    from loopedge.model.transformer import rms_norm

    model, data = make_model("tokens"), samples("tokens", batches=2)
    table = loopedge_calibration.collect(exported("tokens"), data, method="minmax", smoothing=False)
    found = table.tensors["core/linear"]
    lows, highs = np.full(3, np.inf), np.full(3, -np.inf)
    with torch.no_grad():
        rows_of = model.timestep_table(3)
        for feeds in data:
            state, context = model.prelude(torch.from_numpy(feeds["input_ids"]))
            for t in range(3):
                row = {name: rows[t] for name, rows in rows_of.items()}
                read = rms_norm(state, row["norm_attention.0"])
                lows[t] = min(lows[t], float(read.min()))
                highs[t] = max(highs[t], float(read.max()))
                state = model.core(state, context, row)
    assert found.low == pytest.approx(lows.tolist(), rel=1e-4)
    assert found.high == pytest.approx(highs.tolist(), rel=1e-4)
    assert len(set(found.high)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("ops", ["microsoft", "standard"])
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_onnxruntime_runs_integer_products_in_the_core(
    form: str, ops: str, exported: Exporter, tmp_path: Path
) -> None:
    data = samples("tokens")
    source = exported("tokens", form=form)
    ranges = loopedge_calibration.collect(source, data)
    result = loopedge.quantize(source, tmp_path / "q.onnx", ranges=ranges, ops=ops, data=data[:2])
    core = 6 * (3 if form == "unrolled" else 1)
    assert result.matmuls["quantized"] == core + 1
    written = ir.load(tmp_path / "q.onnx")
    assert linears(written) == []
    domains = {node.domain for node in written.graph.all_nodes()}
    assert domains == ({"", "com.microsoft"} if ops == "microsoft" else {""})
    kinds = optimized(tmp_path / "q.onnx", tmp_path)
    assert kinds.count("MatMulIntegerToFloat") == core
    assert kinds.count("MatMulNBits" if ops == "microsoft" else "DynamicQuantizeMatMul") == 1
    assert "MatMul" not in kinds
    tables = [name for name in written.graph.initializers if name.startswith("range.core")]
    gated = 0 if (form, ops) == ("unrolled", "standard") else 2
    assert len(tables) == 2 * 4 + gated  # scales and zero points of four activations, two gates
    for name in tables:
        rows = tuple(written.graph.initializers[name].shape or ())
        assert rows == ((3, 32) if name.endswith("gated_scale") else (3,))


def test_a_result_does_not_depend_on_the_rest_of_the_batch(
    exported: Exporter, tmp_path: Path
) -> None:
    data = samples("tokens")
    ranges = loopedge_calibration.collect(exported("tokens"), data)
    loopedge.quantize(
        exported("tokens"), tmp_path / "q.onnx", ranges=ranges, data=data[:2], **SEVEN_BITS
    )
    session = loopedge.Session(tmp_path / "q.onnx", threads=1)
    together = session.run(data[0])["logits"]
    alone = session.run({"input_ids": data[0]["input_ids"][:1]})["logits"]
    exact = loopedge.Session(exported("tokens"), threads=1).run(data[0])["logits"]
    assert noise_share(alone, together[:1], exact[:1]) < FLIPS


def test_granularities(exported: Exporter) -> None:
    data, source = samples("tokens", batches=8), exported("tokens")
    found = {
        name: loopedge_calibration.collect(source, data, granularity=name, method="minmax")
        for name in ("per-iteration", "shared", "auto")
    }
    shared = found["shared"].tensors["core/linear"]
    own = found["per-iteration"].tensors["core/linear"]
    assert shared.shared
    assert len(set(shared.high)) == 1
    assert shared.high[0] == max(own.high)
    assert shared.low[0] == min(own.low)
    assert found["auto"].granularity == "auto"


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("kind", ["tokens", "series"])
def test_smoothing_changes_nothing_but_the_rounding(
    kind: str, opset: int, exported: Exporter, tmp_path: Path
) -> None:
    """Outlier channels: the float model computes the same, the quantized one is closer."""
    from loopedge.quantizer.activations.smoothing import apply_smoothing

    source = tmp_path / "outliers.onnx"
    model = open_artifact(exported(kind, opset=opset, last_rows=False))
    table = model.graph.initializers["timestep.norm_attention.0"]
    assert table.const_value is not None
    rows = table.const_value.numpy().copy()
    rows[:, 3] *= 40  # a channel far out, in every iteration
    table.const_value = ir.tensor(rows, name=table.name)
    for name in "qkv":
        weight = model.graph.initializers[f"core_layers.0.attention.{name}.weight"]
        assert weight.const_value is not None
        values = weight.const_value.numpy().copy()
        values[3] /= 40
        weight.const_value = ir.tensor(values, name=weight.name)
    ir.save(model, source)
    data = samples(kind)
    plain = loopedge_calibration.collect(source, data, smoothing=False)
    smoothed = loopedge_calibration.collect(source, data)
    factors = {
        name: np.array(item.smoothing) for name, item in smoothed.tensors.items() if item.smoothing
    }
    assert any(found.argmax() == 3 for found in factors.values())

    same = ir.load(source)
    apply_smoothing(same, factors)
    ir.save(same, tmp_path / "same.onnx")
    exact, again = (
        loopedge.Session(path).run(data[0]) for path in (source, tmp_path / "same.onnx")
    )
    for name, expected in exact.items():
        assert np.allclose(again[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())

    worst = [
        min(
            loopedge.quantize(
                source,
                tmp_path / "q.onnx",
                ranges=ranges,
                data=data,
                min_sqnr_db=0,
                force=True,
                **SEVEN_BITS,
            ).sqnr_db_linears.values()
        )
        for ranges in (plain, smoothed)
    ]
    # The linear that reads the outlier gains 15 to 20 dB, whether it reaches the outputs or not.
    assert worst[1] > worst[0] + 6


def test_an_iterator_gives_what_its_list_gives(exported: Exporter) -> None:
    data = samples("tokens")
    once = loopedge_calibration.collect(exported("tokens"), iter(data), smoothing=True)
    assert once == loopedge_calibration.collect(exported("tokens"), data)
    assert once.samples == 24


def test_ranges_survive_their_file(exported: Exporter, tmp_path: Path) -> None:
    data, source = samples("tokens"), exported("tokens")
    table = loopedge_calibration.collect(source, data, method="mse")
    table.save(tmp_path / "ranges.json")
    assert read_ranges(tmp_path / "ranges.json") == table
    assert (table.samples, table.lengths) == (24, [12])
    result = loopedge.quantize(
        source, tmp_path / "q.onnx", ranges=tmp_path / "ranges.json", data=data[:2]
    )
    assert (result.ranges, result.method, result.samples) == ("per-iteration", "mse", 24)


def test_few_and_short_samples_are_said(exported: Exporter) -> None:
    table = loopedge_calibration.collect(exported("tokens"), samples("tokens", batches=1))
    assert any("4 samples are few" in warning for warning in table.warnings)
    assert any("longest sample has 12 positions" in warning for warning in table.warnings)


@pytest.mark.slow
def test_files_and_folders_of_samples(exported: Exporter, tmp_path: Path) -> None:
    data = samples("padded", batches=5)
    whole = {name: np.concatenate([feeds[name] for feeds in data]) for name in data[0]}
    np.savez(tmp_path / "all.npz", **whole)  # type: ignore[arg-type]
    np.savez_compressed(tmp_path / "packed.npz", **whole)  # type: ignore[arg-type]
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, feeds in enumerate(data):
        np.savez(folder / f"{index}.npz", **feeds)
    source = exported("padded")
    tables = [
        loopedge_calibration.collect(source, given, method="minmax")
        for given in (data, tmp_path / "all.npz", tmp_path / "packed.npz", folder)
    ]
    for table in tables[1:]:
        assert table.samples == 20
        for name, found in table.tensors.items():
            assert found.low == pytest.approx(tables[0].tensors[name].low, rel=1e-5, abs=1e-6)
            assert found.high == pytest.approx(tables[0].tensors[name].high, rel=1e-5, abs=1e-6)
    limited = loopedge_calibration.collect(source, tmp_path / "all.npz", samples=6)
    assert limited.samples == 6


def test_small_chunks_find_the_same_ranges(exported: Exporter) -> None:
    data, source = samples("tokens"), exported("tokens")
    small = loopedge_calibration.collect(source, data, chunk_bytes=1)
    assert small.tensors == loopedge_calibration.collect(source, data).tensors


@pytest.mark.slow
def test_bad_samples_are_named(exported: Exporter) -> None:
    source, series = exported("tokens"), exported("series")
    x = np.zeros((2, 5, 2), np.float32)
    x[1, 3, 0] = np.nan
    for path, data, words in (
        (source, [], "no sample"),
        (
            source,
            [{"ids": np.zeros((1, 4), np.int64)}],
            "input input_ids is missing; the model takes input_ids",
        ),
        (source, [{"input_ids": np.zeros((1, 4, 1), np.int64)}], "shape"),
        (source, [{"input_ids": np.zeros((1, 4), np.float32)}], "type float32"),
        (
            series,
            [{"inputs": np.zeros((2, 5, 2), np.float32)}, {"inputs": x}],
            "sample 4, position 4, column 1 is nan",
        ),
    ):
        with pytest.raises(InputError, match=words):
            loopedge_calibration.collect(path, data)
    with pytest.raises(InputError, match="method 'median'"):
        loopedge_calibration.collect(source, [], method="median")


@pytest.mark.slow
def test_ranges_of_another_model_or_damaged_ones_are_refused(
    exported: Exporter, tmp_path: Path
) -> None:
    table = loopedge_calibration.collect(exported("tokens"), samples("tokens"))
    target = tmp_path / "q.onnx"
    with pytest.raises(InputError, match="another model"):
        loopedge.quantize(exported("plain"), target, ranges=table)
    foreign = table.model_copy(
        update={
            "tensors": {
                name: item.model_copy(update={"smoothing": [1.0, 2.0]})
                for name, item in table.tensors.items()
            }
        }
    )
    with pytest.raises(InputError, match="this graph cannot"):
        loopedge.quantize(exported("tokens"), target, ranges=foreign)
    fewer = table.model_copy(update={"loops": 2})
    with pytest.raises(InputError, match="hold 2 iterations"):
        loopedge.quantize(exported("tokens"), target, ranges=fewer)
    damaged = json.loads(table.model_dump_json())
    damaged["tensors"]["core/linear"]["low"][0] = 1e9
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="is not a range of float32"):
        loopedge.quantize(exported("tokens"), target, ranges=tmp_path / "damaged.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InputError, match="not a table of ranges"):
        loopedge.quantize(exported("tokens"), target, ranges=tmp_path / "text.json")
    with pytest.raises(InputError, match="does not say what it was trained on"):
        loopedge.quantize(exported("tokens"), target, scheme="static")
    assert not target.exists()


def test_ranges_that_are_far_off_are_refused(exported: Exporter, tmp_path: Path) -> None:
    """A check that wrong ranges would pass is not a check."""
    data = samples("tokens")
    table = loopedge_calibration.collect(exported("tokens"), data)
    content = json.loads(table.model_dump_json())
    name = "core/linear_3"
    content["tensors"][name]["low"] = [low * 0.02 for low in content["tensors"][name]["low"]]
    content["tensors"][name]["high"] = [high * 0.02 for high in content["tensors"][name]["high"]]
    wrong = RangeTable.model_validate(content)
    with pytest.raises(VerificationError, match="SQNR"):
        loopedge.quantize(exported("tokens"), tmp_path / "q.onnx", ranges=wrong, data=data[:2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wrong_row_shows_behind_gates_of_zero(tmp_path: Path) -> None:
    """The untrained stack is the identity: its outputs do not depend on what its linears give."""
    source = tmp_path / "untrained.onnx"
    config = loopedge.LoopedConfig(d_model=32, heads=4, loops=3, vocab_size=50, max_length=16)
    loopedge.export(loopedge.LoopedTransformer(config).eval(), source)
    data = samples("tokens")
    table = loopedge_calibration.collect(source, data, smoothing=False)
    loopedge.quantize(source, tmp_path / "right.onnx", ranges=table, data=data[:2])
    found = table.tensors["core/linear_4"]
    rows = {"low": [*found.low], "high": [*found.high]}
    for ends in rows.values():
        ends[1] *= 1e-3
    wrong = table.tensors | {"core/linear_4": found.model_copy(update=rows)}
    with pytest.raises(VerificationError, match="core/linear_4 in its worst iteration"):
        loopedge.quantize(
            source,
            tmp_path / "wrong.onnx",
            ranges=table.model_copy(update={"tensors": wrong}),
            data=data[:2],
        )
    assert not (tmp_path / "wrong.onnx").exists()


@pytest.mark.slow
def test_a_linear_can_be_kept_in_float(exported: Exporter, tmp_path: Path) -> None:
    data = samples("tokens")
    for form in ("loop", "unrolled"):
        source = exported("tokens", form=form)
        ranges = loopedge_calibration.collect(source, data)
        result = loopedge.quantize(
            source, tmp_path / f"{form}.onnx", ranges=ranges, keep=["core/linear_5"], data=data
        )
        assert {item["reason"] for item in result.matmuls["skipped"]} == {
            "kept in float on request"
        }
    with pytest.raises(InputError, match="no linear core/nothing"):
        loopedge.quantize(source, tmp_path / "x.onnx", ranges=ranges, keep=["core/nothing"])


def test_an_unknown_scheme_never_becomes_another(exported: Exporter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scheme 'weight-int9' is not known"):
        loopedge.quantize(exported("tokens"), tmp_path / "q.onnx", scheme="weight-int9")
    assert list(tmp_path.iterdir()) == []


def test_people_see_what_the_ranges_come_from(exported: Exporter, tmp_path: Path) -> None:
    from rich.console import Console

    from loopedge_cli.quantize_view import quantize_view

    data = samples("tokens")
    ranges = loopedge_calibration.collect(exported("tokens"), data)
    result = loopedge.quantize(
        exported("tokens"), tmp_path / "q.onnx", ranges=ranges, data=data[:2]
    )
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(quantize_view(result))
    assert "static, ranges per-iteration, mse, 24 samples" in console.export_text()


@pytest.mark.slow
def test_a_loop_count_is_held_to_what_the_file_runs(exported: Exporter, tmp_path: Path) -> None:
    """Fewer loops leave rows that no sample reached, more are clamped; a fixed count is refused without data too."""
    data, model = samples("tokens"), exported("tokens", dynamic_loops=True)
    whole, clamped, few = (
        loopedge_calibration.collect(model, data, loops=loops, smoothing=False)
        for loops in (3, 9, 1)
    )
    assert clamped.tensors == whole.tensors
    assert few.loops == clamped.loops == whole.loops == 3
    for name, item in few.tensors.items():
        if name.startswith("core/"):  # what follows the loop reads another state
            assert item.low == whole.tensors[name].low[:1] * 3, name
    assert [note for note in few.warnings if "the samples ran 1 of 3 iterations" in note]
    assert not [note for note in whole.warnings if "the samples ran" in note]
    options = {"scheme": "static", "data": data, "loops": 1, **SEVEN_BITS}
    result = loopedge.quantize(model, tmp_path / "q.onnx", **options)
    assert any("the samples ran 1 of 3 iterations" in note for note in result.notes)
    with pytest.raises(InputError, match="the model runs 3 loops, 2 were asked for"):
        loopedge.quantize(exported("tokens"), tmp_path / "r.onnx", scheme="dynamic", loops=2)
