"""Weights alone, rounded by data: what is summed up, what chooses, what is written; no torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import loopedge
from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.integer_weights.blocks import quantize_blocks
from loopedge.graph.weights import linears
from loopedge.quantizer.held_out.measurement import measure_held_out
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.probes import linears_by_name, same_activation
from loopedge_calibration.readers import SampleBatch
from loopedge_calibration.rounding import contest as contest_module
from loopedge_calibration.rounding import edges, station
from loopedge_calibration.rounding.candidates import Candidate, Rounder, subjects_of
from loopedge_calibration.rounding.contest import Contest, Entry
from loopedge_calibration.rounding.hessians import collect_hessians
from loopedge_calibration.rounding.weightings import WEIGHTINGS, IterationErrors
from loopedge_calibration.samples import CHOSE_TOO
from tests.graph.chained_loops import COUNTS, X, write_chained
from tests.parity.models import Sizes, make_inputs, make_model

Array = np.ndarray[Any, Any]
TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = np.random.default_rng(0).integers(0, 48, (32, 9))
LOOPS = 3
FEW = (Candidate(weighting="uniform"), Candidate(weighting="output-error"))


def batches(ids: Array, size: int = 8) -> list[SampleBatch]:
    return [
        SampleBatch(feeds={"input_ids": ids[at : at + size]}, numbers=tuple(range(at, at + size)))
        for at in range(0, len(ids), size)
    ]


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    real = station.round_weights

    def with_few(*arguments: Any, **keywords: Any) -> Any:
        return real(*arguments, **{"candidates": FEW, **keywords})

    monkeypatch.setattr("loopedge_calibration.quantization.round_weights", with_few)


def read_in_iterations(node: str) -> Array:
    """Return what a linear of the core reads, (iterations, ..., inputs): from the graph that is written out, by hand."""
    model = ir.to_proto(unroll(ir.load(TINY)))
    inputs = {each.name: each.input[0] for each in model.graph.node}
    names = [inputs[f"core.{t}/{node}"] for t in range(LOOPS)]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    found = ort.InferenceSession(model.SerializeToString()).run(names, {"input_ids": IDS})
    return np.stack(found)


@pytest.mark.parametrize("node", ["linear", "linear_3", "linear_5"])
def test_hessians_are_sums_over_what_is_read_in_each_iteration(node: str, tmp_path: Path) -> None:
    errors = IterationErrors(by_core={"core": [0.4, 0.2, 0.1]})
    found = collect_hessians(
        FloatSource.open(TINY).graph,
        batches(IDS),
        tmp_path,
        CollectOptions(),
        groups={f"core/{node}": WEIGHTINGS},
        errors=errors,
    )[f"core/{node}"]
    read = read_in_iterations(node)
    rows = read.reshape(LOOPS, -1, read.shape[-1]).astype(np.float64)
    by_iteration = np.einsum("tni,tnj->tij", rows, rows)
    squares = np.square(read[:, :8]).mean(axis=(1, 2, 3))  # of the first batch
    share = np.array([1, 0.5, 0.25])
    expected = {
        "uniform": np.ones(3),
        "normalised": 1 / squares,
        "tempered": share / squares,
        "output-error": share**2 / squares,
    }
    assert found.rows == rows.shape[0] * rows.shape[1]
    for weighting, weights in expected.items():
        exact = np.einsum("t,tij->ij", weights, by_iteration)
        given = found.sums[weighting]  # type: ignore[index]
        np.testing.assert_allclose(given, exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())


def test_padded_positions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "masked.onnx"
    float_, int_ = TensorProto.FLOAT, TensorProto.INT64
    weight = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "linear"),
         helper.make_node("Cast", ["attention_mask"], ["m"], to=float_),
         helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
         helper.make_node("Mul", ["y", "m3"], ["outputs"])],
        "g",
        [helper.make_tensor_value_info("x", float_, ["b", "s", 4]),
         helper.make_tensor_value_info("attention_mask", int_, ["b", "s"])],
        [helper.make_tensor_value_info("outputs", float_, ["b", "s", 16])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([2]), "last")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )
    x = np.random.default_rng(1).normal(size=(5, 6, 4)).astype(np.float32)
    mask = (np.arange(6) < np.array([6, 4, 3, 2, 1])[:, None]).astype(np.int64)
    batch = SampleBatch(feeds={"x": x, "attention_mask": mask}, numbers=(1, 2, 3, 4, 5))
    found = collect_hessians(
        FloatSource.open(path).graph,
        [batch],
        tmp_path,
        CollectOptions(),
        groups={"linear": ("uniform",)},
        errors=IterationErrors(by_core={}),
    )["linear"]
    kept = x[mask.astype(bool)]
    np.testing.assert_allclose(found.sums["uniform"], kept.T @ kept, rtol=1e-5)
    assert found.rows == mask.sum()


def rounder(
    source: FloatSource, scheme: str, samples: list[SampleBatch], **options: Any
) -> Rounder:
    quantized = source.graph.clone()
    Recipe(scheme=scheme).apply(quantized)
    subjects, unseen = subjects_of(source.graph, quantized)
    assert not unseen
    errors = IterationErrors(by_core={})
    return Rounder(source.graph, subjects, samples, CollectOptions(), errors=errors, **options)


@pytest.mark.parametrize("scheme", ["weight-int4", "weight-int2"])
def test_less_memory_gives_the_same_weights(scheme: str) -> None:
    source = FloatSource.open(TINY)
    way = Candidate(weighting="normalised")
    whole = rounder(source, scheme, batches(IDS)).round([way])[way]
    parts = rounder(source, scheme, batches(IDS), hessian_bytes=4 * 40**2).round([way])[way]
    assert (
        set(whole) == set(parts) == {i.weight.name for i in linears_by_name(source.graph).values()}
    )
    for name, blocks in whole.items():
        assert np.array_equal(blocks.values, parts[name].values)
        assert np.array_equal(blocks.scales, parts[name].scales)


def test_where_all_weightings_do_not_fit_the_first_stands_for_them() -> None:
    source = FloatSource.open(TINY)
    ways = [Candidate(weighting="uniform"), Candidate(weighting="normalised")]
    found = rounder(source, "weight-int4", batches(IDS), hessian_bytes=100).round(ways)
    for name, blocks in found[ways[0]].items():
        assert np.array_equal(blocks.values, found[ways[1]][name].values)


def test_linears_that_share_a_weight_count_together(tmp_path: Path) -> None:
    """Two Loops read the same weights: what either reads is in the sum."""
    source = FloatSource.open(write_chained(tmp_path / "m.onnx", own=True, shared=True))
    quantized = source.graph.clone()
    Recipe(scheme="weight-int4").apply(quantized)
    subjects, _ = subjects_of(source.graph, quantized)
    by_name = {subject.weight.name: subject.groups for subject in subjects}
    groups = same_activation(linears_by_name(source.graph), source.graph)
    assert by_name["down0"] == ("core/down", "core2/down")
    assert len(by_name["leave"]) == 1
    assert {group for own in by_name.values() for group in own} == set(groups)
    way, samples = (
        Candidate(weighting="uniform"),
        [SampleBatch(feeds={"inputs": X}, numbers=tuple(range(24)))],
    )
    found = rounder(source, "weight-int4", samples).round([way])[way]
    sums = collect_hessians(
        source.graph, samples, tmp_path, CollectOptions(),
        groups=dict.fromkeys(by_name["down0"], ("uniform",)), errors=IterationErrors(by_core={}),
    )  # fmt: skip
    assert [sums[group].rows for group in by_name["down0"]] == [
        X.shape[0] * X.shape[1] * t for t in COUNTS
    ]
    hessian = sum(sums[group].sums["uniform"].astype(np.float64) for group in by_name["down0"])
    weight = next(s.rows for s in subjects if s.weight.name == "down0")
    error = {
        kind: weight - blocks.floats()
        for kind, blocks in (
            ("data", found["down0"]),
            ("nearest", quantize_blocks(weight, bits=4, block_size=32)),
        )
    }
    costs = {kind: float(np.sum(each @ hessian * each)) for kind, each in error.items()}
    assert costs["data"] < 0.8 * costs["nearest"]


@pytest.mark.parametrize(
    "scheme",
    [
        "weight-int4",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("weight-int2", "weight-int8")),
    ],
)
def test_the_file_holds_what_was_chosen(
    scheme: str, few_candidates: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(edges, "worth_bytes", lambda *arguments: False)
    path, options = (
        tmp_path / "q.onnx",
        {"scheme": scheme, "data": {"input_ids": IDS}, "threads": 1},
    )
    result = loopedge.quantize(TINY, path, **options)  # type: ignore[arg-type]
    found = result.rounding
    assert found is not None
    measured = {item.name: item.sqnr_db for item in found.candidates}
    assert next(iter(measured)) == "nearest"
    assert measured[found.chosen] == max(measured.values())  # there is no task
    assert (found.samples, found.choosing, result.held_out.samples) == (16, 8, 8)
    assert (found.weights, found.nearest, found.positions) == (7, [], 16 * 9)
    kept = Artifact.open(path).metadata.quantization
    assert kept is not None
    assert kept["rounding"] == json.loads(json.dumps(found.summary))
    assert loopedge.inspect(path).to_json()["metadata"]["quantization"]["rounding"] == found.summary
    nearest = loopedge.quantize(TINY, tmp_path / "n.onnx", rounding="nearest", **options)  # type: ignore[arg-type]
    assert nearest.rounding is None
    assert nearest.weight_bytes == result.weight_bytes
    without = loopedge.quantize(TINY, tmp_path / "w.onnx", scheme=scheme)
    stored = [
        {
            name: value.const_value.numpy()
            for name, value in ir.load(each).graph.initializers.items()
            if value.const_value
        }
        for each in (path, tmp_path / "n.onnx", tmp_path / "w.onnx")
    ]
    same = [np.array_equal(stored[0][name], stored[1][name]) for name in stored[0]]
    assert all(np.array_equal(stored[1][name], stored[2][name]) for name in stored[1])
    if scheme != "weight-int8":
        assert found.method == "gptq"
        assert result.sqnr_db > nearest.sqnr_db + 1
        assert not all(same)
    assert without.rounding is None


def head_bits(path: Path) -> dict[str, int]:
    """Return the bits of every product with blocks, by node."""
    return {
        node.name or "": node.attributes["bits"].as_int()
        for node in ir.load(path).graph.all_nodes()
        if node.op_type == "MatMulNBits"
    }


@pytest.mark.slow
def test_a_head_stands_in_eight_bits_where_they_are_worth_their_bytes(
    few_candidates: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[float, int]] = []

    def worth(gain_db: float, more_bytes: int, limits: Any) -> bool:
        asked.append((gain_db, more_bytes))
        return True

    monkeypatch.setattr(edges, "worth_bytes", worth)
    path, options = tmp_path / "q.onnx", {"data": {"input_ids": IDS}, "threads": 1}
    result = loopedge.quantize(TINY, path, scheme="weight-int4", **options)  # type: ignore[arg-type]
    found = result.rounding
    assert found is not None
    assert found.lifted == result.weight_only == ["coda/linear"]
    assert {name: bits for name, bits in head_bits(path).items() if bits == 8} == {"coda/linear": 8}
    measured = {item.name: item.sqnr_db for item in found.candidates}
    won = measured["nearest, coda/linear in eight bits"] - measured["nearest"]
    head = next(item.weight for item in linears(ir.load(TINY)) if item.node.name == "coda/linear")
    assert asked == [(pytest.approx(won), int(np.prod(head.shape.numpy())) // 2)]  # type: ignore[union-attr]
    assert any(note.startswith("coda/linear stands in eight bits") for note in result.notes)
    again = loopedge.quantize(TINY, tmp_path / "r.onnx", recipe=path, **options)  # type: ignore[arg-type]
    assert again.weight_only == ["coda/linear"]
    first, second = (ir.load(each).graph.initializers for each in (path, tmp_path / "r.onnx"))
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.const_value is not None
        kept = second[name].const_value
        assert kept is not None
        np.testing.assert_array_equal(value.const_value.numpy(), kept.numpy())


def test_a_file_for_earlier_releases_gets_no_blocks_of_eight_bits(
    few_candidates: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(edges, "worth_bytes", lambda *arguments: True)
    monkeypatch.setattr(edges, "BLOCKS_OPSET", 99)
    path, data = tmp_path / "q.onnx", {"input_ids": IDS}
    result = loopedge.quantize(TINY, path, scheme="weight-int4", data=data, threads=1)
    assert result.rounding is not None
    assert result.rounding.lifted == []
    assert set(head_bits(path).values()) == {4}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"weight_only": ["coda/linear"]}, {"keep": ["coda/linear"]}])
def test_a_head_that_is_named_stays_as_it_was_named(
    options: dict[str, Any], few_candidates: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(edges, "worth_bytes", lambda *arguments: True)
    path, data = tmp_path / "q.onnx", {"input_ids": IDS}
    result = loopedge.quantize(TINY, path, scheme="weight-int4", data=data, **options)
    assert result.rounding is not None
    assert result.rounding.lifted == []
    assert head_bits(path).get("coda/linear") == (8 if "weight_only" in options else None)


def test_the_samples_that_choose_neither_calibrate_nor_judge(
    few_candidates: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, set[bytes]] = {}

    def rows(feeds: list[Any]) -> set[bytes]:
        return {row.tobytes() for each in feeds for row in each["input_ids"]}

    class Spied(Contest):
        def __init__(self, source: FloatSource, choosing: Any, **options: Any) -> None:
            seen["chose"] = rows(choosing.batches)
            super().__init__(source, choosing, **options)

    def spied(model: ir.Model, samples: Any, *arguments: Any, **options: Any) -> Any:
        seen["calibrated"] = rows([batch.feeds for batch in samples])
        return collect_hessians(model, samples, *arguments, **options)

    def judging(source: Path, written: Path, held_out: Any, **options: Any) -> Any:
        seen["judged"] = rows(held_out.batches)
        return real(source, written, held_out, **options)

    real = measure_held_out
    monkeypatch.setattr(station, "Contest", Spied)
    monkeypatch.setattr("loopedge_calibration.rounding.candidates.collect_hessians", spied)
    monkeypatch.setattr("loopedge.quantizer.check.measure_held_out", judging)
    twice = np.concatenate([IDS, IDS[:9]])  # some samples stand in two parts
    loopedge.quantize(TINY, tmp_path / "q.onnx", scheme="weight-int4", data={"input_ids": twice})
    assert set(seen) == {"chose", "calibrated", "judged"}
    assert all(seen.values())
    assert not seen["chose"] & seen["calibrated"]
    assert not seen["judged"] & (seen["chose"] | seen["calibrated"])


class Counted:
    """Stands for a task: a batch adds a number, the score is their mean, and more is better."""

    class task:  # noqa: N801
        metric = "mean"
        higher_is_better = True

    def tally(self, number: int, outputs: Any) -> Any:
        return float(number)

    def score(self, tallies: list[Any]) -> float:
        return float(np.mean(tallies))

    def loss(self, exact: float, given: float) -> float:
        return exact - given


@pytest.mark.parametrize(
    ("better", "chosen"),
    [
        ([0.5] * 8, "less noise"),  # nothing is known of the metric
        ([0.9, 0.1] * 4, "less noise"),  # it differs by chance
        ([0.6, 0.62] * 4, "better metric"),
    ],
)
def test_the_metric_decides_where_it_moves_beyond_its_noise(
    better: list[float], chosen: str
) -> None:
    held_out = HeldOut(
        kind="data",
        batches=[{"input_ids": IDS[at : at + 1]} for at in range(8)],
        places=[(f"sample {at}",) for at in range(8)],
        judge=Counted(),  # type: ignore[arg-type]
    )
    contest = Contest(FloatSource.open(TINY), held_out, threads=1)
    assert (contest.samples, contest.metric, contest.float_score) == (8, "mean", 3.5)
    even: Any = [0.5] * 8
    moved: Any = better
    entries = [
        Entry(name="nearest", sqnr_db=10.0, score=0.5, tallies=even),
        Entry(name="less noise", sqnr_db=20.0, score=0.5, tallies=even),
        Entry(name="better metric", sqnr_db=15.0, score=float(np.mean(better)), tallies=moved),
        Entry(name="broken", sqnr_db=float("-inf"), score=0.5, tallies=even),
    ]
    assert contest.best(entries).name == chosen


def test_outputs_that_would_not_fit_are_compared_on_fewer_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = [{"input_ids": IDS[at : at + 2]} for at in range(0, 32, 2)]
    held_out = HeldOut(kind="data", batches=batches, places=[("a", "b")] * 16)
    source = FloatSource.open(TINY)
    assert Contest(source, held_out, threads=1).samples == 32
    assert Contest(source, held_out, positions=90, threads=1).samples == 10
    monkeypatch.setattr(
        contest_module, "OUTPUT_BYTES", 3 * 2 * 9 * 48 * 4
    )  # logits of three batches
    assert Contest(source, held_out, threads=1).samples == 6


@pytest.mark.slow
@pytest.mark.parametrize("data", [IDS[:1], IDS[:3]])
def test_few_samples(data: Array, few_candidates: None, tmp_path: Path) -> None:
    result = loopedge.quantize(
        TINY, tmp_path / "q.onnx", scheme="weight-int4", data={"input_ids": data}
    )
    assert result.rounding is not None
    assert result.rounding.choosing >= 1
    assert result.verified
    assert CHOSE_TOO in result.notes


@pytest.mark.slow
def test_an_early_exit_is_no_noise_to_those_that_choose(tmp_path: Path) -> None:
    model, found = make_model("tokens", loops=6), []
    _, feeds = make_inputs(model, Sizes(16, 9))
    held_out = HeldOut(kind="data", batches=[feeds], places=[("one",) * 16])
    for name, end in (("whole", "none"), ("ends", "tolerance=0.3")):
        path = tmp_path / f"{name}.onnx"
        loopedge.export(model, path, exit=end)
        if name == "ends":
            assert loopedge.Session(path).run(feeds)["iterations"].min() < 6
        contest = Contest(FloatSource.open(path), held_out, threads=1)
        found.append(contest.measure("nearest", Recipe(scheme="weight-int4")).sqnr_db)
    assert found[1] == pytest.approx(found[0], abs=0.1)


@pytest.mark.slow
def test_both_forms_are_rounded_alike(few_candidates: None, tmp_path: Path) -> None:
    write_artifact(unroll(Artifact.open(TINY).graph), tmp_path / "u.onnx")
    found = []
    for source in (TINY, tmp_path / "u.onnx"):
        path = tmp_path / "q.onnx"
        result = loopedge.quantize(
            source, path, scheme="weight-int4", data={"input_ids": IDS}, force=True
        )
        assert result.rounding is not None
        found.append((result.rounding.chosen, result.sqnr_db))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=0.5)


@pytest.mark.slow
def test_a_budget_lifts_on_top_of_it(few_candidates: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "scheme": "weight-int4",
        "data": {"input_ids": IDS},
        "metric": "relative-error",
    }
    plain = loopedge.quantize(TINY, tmp_path / "p.onnx", **{**options, "metric": None})
    error = 10 ** (-plain.sqnr_db / 20)
    result = loopedge.quantize(TINY, tmp_path / "q.onnx", max_drop=0.75 * error, **options)
    assert result.budget is not None
    assert result.budget.loss_int8 == pytest.approx(error, rel=0.05)
    lifted = {item.name for item in result.budget.lifted}
    assert 0 < len(lifted) < 7
    graphs = [ir.load(tmp_path / name).graph.initializers for name in ("p.onnx", "q.onnx")]
    for name, item in linears_by_name(FloatSource.open(TINY).graph).items():
        first, second = (graph[item.weight.name or ""].const_value for graph in graphs)
        assert first is not None
        assert second is not None
        same = np.array_equal(first.numpy(), second.numpy())
        assert same == (name not in lifted)


def test_a_recipe_rounds_as_was_chosen() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)
    chosen = quantize_blocks(rows + 1, bits=4, block_size=16)
    recipe = Recipe(scheme="weight-int4", rounded={"w": chosen})
    np.testing.assert_array_equal(recipe.round_weight("w", rows.T, 1), chosen.floats().T)
    np.testing.assert_array_equal(recipe.round_weight("w", rows, 0), chosen.floats())
    other = quantize_blocks(rows, bits=4, block_size=32).floats()
    np.testing.assert_array_equal(recipe.round_weight("v", rows, 0), other)


def test_a_linear_that_cannot_be_seen_is_rounded_to_nearest(
    few_candidates: None, tmp_path: Path
) -> None:
    """One in a branch of an If: a note names it."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[b, 7, 64] x) => (float[b, 7, 64] outputs)
        <float[64, 64] w1, float[64, 64] w2, bool yes = {1}> {
          h = MatMul (x, w1)
          a = Tanh (h)
          outputs = If (yes) <
            then_branch = t () => (float[b, 7, 64] y) { y = MatMul (a, w2) },
            else_branch = e () => (float[b, 7, 64] z) { z = Identity (a) }
          >
        }"""
    )
    generator = np.random.default_rng(0)
    for stored in [each for each in model.graph.initializer if each.name in {"w1", "w2"}]:
        model.graph.initializer.remove(stored)
    for name in ("w1", "w2"):
        weight = generator.normal(size=(64, 64)).astype(np.float32) / 8
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, tmp_path / "m.onnx")
    x = generator.normal(size=(16, 7, 64)).astype(np.float32)
    result = loopedge.quantize(
        tmp_path / "m.onnx", tmp_path / "q.onnx", scheme="weight-int4", data={"x": x}
    )
    assert result.rounding is not None
    assert (result.rounding.weights, result.rounding.nearest) == (1, ["w2"])
    assert any("w2: rounded to nearest" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounding": "best"}, "rounding 'best' is not known, known are data, nearest"),
        ({"rounding": "data", "scheme": "dynamic"}, "dynamic rounds weights to nearest"),
        ({"rounding": "data", "scheme": "weight-int4"}, "does not say what it was trained on"),
        (
            {"scheme": "weight-int2", "block_size": 256},
            "256 is not known of two bits, known are 32, 64, 128",
        ),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        loopedge.quantize(TINY, tmp_path / "q.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_data_that_does_not_vary_is_refused(tmp_path: Path) -> None:
    same = {"input_ids": np.tile(IDS[:1], (8, 1))}
    with pytest.raises(InputError, match="are the same one"):
        loopedge.quantize(TINY, tmp_path / "q.onnx", scheme="weight-int4", data=same)
    assert list(tmp_path.iterdir()) == []
