"""Choosing a quantization on data: which samples it sees, what it refuses, what the file keeps of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, VerificationError
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.passes.windows import unfold_convolutions
from loopedge.quantizer.choice.recorded import read_recorded, unrefined_notes
from loopedge.quantizer.held_out.measurement import HeldOutResult
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.pipeline import RewrittenSource, quantize_source, rewrite_source
from loopedge.quantizer.source import FloatSource
from loopedge.quantizer.timing import TimeRatio
from loopedge.tasks.generated.sorting import SortingTask
from loopedge_calibration import quantization
from loopedge_calibration.choosing import trials
from loopedge_calibration.choosing.search import choose_recipe
from loopedge_calibration.choosing.tried import Chosen
from loopedge_calibration.collector import collect_ranges, observe
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.samples import Samples

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
IDS = np.random.default_rng(0).integers(0, 48, (40, 9))
FEW: dict[str, Any] = {
    "data": {"input_ids": IDS},
    "granularity": "per-iteration",
    "method": "mse",
    "smoothing": False,
    "threads": 1,
}
"""Three candidates."""


@pytest.fixture(autouse=True)
def level_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """No outcome hangs on how fast this machine is: all candidates take as long."""

    def time(self: trials.Trials, written: Sequence[trials.Written]) -> dict[str, TimeRatio]:
        ratio = TimeRatio(median=0.5, low=0.49, high=0.51, busy=1.0)
        return {item.operators: ratio for item in written}

    monkeypatch.setattr(trials.Trials, "time", time)


def chosen(**options: Any) -> Chosen:
    source = FloatSource.open(TINY)
    picked = QuantizeOptions(**{**FEW, **options})
    samples = Samples(picked.data, source.graph, samples=picked.samples, chooses=True)
    return choose_recipe(source, samples, picked)


def test_choosing_never_sees_the_samples_that_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    run = loopedge.Session.run

    def spy(self: loopedge.Session, inputs: Any, *args: Any, **options: Any) -> Any:
        seen.append(np.asarray(inputs["input_ids"]))
        return run(self, inputs, *args, **options)

    monkeypatch.setattr(loopedge.Session, "run", spy)
    found = chosen()
    judging = {tuple(row) for row in IDS[3::4].tolist()}
    rows = {tuple(row) for batch in seen for row in batch.tolist()}
    assert not rows & judging
    assert rows == {tuple(row) for row in IDS.tolist()} - judging
    assert (found.result.source, found.result.samples) == ("data", 10)


@pytest.mark.slow
def test_the_same_data_gives_the_same_choice_whatever_the_clock_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = set()
    for seed in range(2):
        noise = np.random.default_rng(seed)

        def time(
            self: trials.Trials,
            written: Sequence[trials.Written],
            noise: np.random.Generator = noise,
        ) -> dict[str, TimeRatio]:
            ratios = {}
            for item in written:
                median = 0.5 * float(noise.uniform(0.97, 1.03))
                ratios[item.operators] = TimeRatio(
                    median=median, low=0.97 * median, high=1.03 * median, busy=1.1
                )
            return ratios

        monkeypatch.setattr(trials.Trials, "time", time)
        names.add(chosen().result.chosen)
    assert len(names) == 1


def test_a_candidate_that_is_fast_and_wrong_is_never_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its weights are turned around, it takes no time and few bytes: neither counts."""

    def broken(source: FloatSource, recipe: Any, options: Any) -> RewrittenSource:
        made = rewrite_source(source, recipe, options)
        if recipe.scheme == "dynamic":
            for value in made.graph.graph.initializers.values():
                if value.dtype == ir.DataType.INT8 and value.const_value is not None:
                    turned = np.ascontiguousarray(value.const_value.numpy()[::-1])
                    value.const_value = ir.tensor(turned, name=value.name)
        return made

    def time(self: trials.Trials, written: Sequence[trials.Written]) -> dict[str, TimeRatio]:
        fast = TimeRatio(median=0.01, low=0.01, high=0.01, busy=1.0)
        slow = TimeRatio(median=1.0, low=1.0, high=1.0, busy=1.0)
        smallest = min(written, key=lambda item: item.bytes)
        return {item.operators: fast if item is smallest else slow for item in written}

    monkeypatch.setattr(trials, "rewrite_source", broken)
    monkeypatch.setattr(trials.Trials, "time", time)
    found = chosen()
    wrong = next(item for item in found.result.candidates if item.name == "dynamic")
    assert wrong.sqnr_db < 5
    assert wrong.time_ratio == 0.01
    assert wrong.verdict.endswith("at least 15 is asked")
    assert found.recipe.scheme != "dynamic"


@pytest.mark.slow
def test_what_the_check_of_the_file_refuses_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused: list[str] = []

    def once(source: Any, target: Any, recipe: Any, **options: Any) -> Any:
        if not refused:
            refused.append(recipe.scheme)
            raise VerificationError("a linear is wrong")
        return quantize_source(source, target, recipe, **options)

    monkeypatch.setattr(quantization, "quantize_source", once)
    result = loopedge.quantize(TINY, tmp_path / "q.onnx", **FEW, rounding="nearest")
    assert result.choice is not None
    verdicts = [item.verdict for item in result.choice.candidates]
    assert verdicts.count("refused: a linear is wrong") == 1
    assert verdicts.count("chosen") == 1


def test_two_passes_find_the_ranges_that_each_scheme_finds_alone() -> None:
    source = FloatSource.open(TINY)
    part = Samples(FEW["data"], source.graph, samples=128, chooses=True).calibrating
    options = CollectOptions(threads=1)
    both = observe(source, part, options, plain=True, smoothed=True)
    for smoothing in (True, False):
        for method in ("mse", "minmax"):
            alone = collect_ranges(
                source, part, CollectOptions(method=method, smoothing=smoothing, threads=1)
            )
            assert both.table("per-iteration", method, smoothing=smoothing) == alone


@pytest.mark.slow
def test_a_model_that_nothing_is_smoothed_in_has_no_smoothed_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ones(group: Any, rows: Any) -> Any:
        return np.ones(rows.shape[1], np.float32)

    monkeypatch.setattr("loopedge_calibration.collector.best_factors", ones)
    for smoothing in (None, True):
        found = chosen(smoothing=smoothing)
        static = [item for item in found.result.candidates if item.scheme == "static"]
        assert [item.smoothing for item in static if not item.lifted] == [False]


def test_a_time_budget_says_what_was_left_out() -> None:
    source, options = FloatSource.open(TINY), QuantizeOptions(**FEW, budget="5s")
    samples = Samples(options.data, source.graph, samples=128, chooses=True)
    ticks: Iterator[int] = iter(range(0, 10**6, 3))  # each look at the clock takes three seconds
    found = choose_recipe(source, samples, options, clock=lambda: float(next(ticks)))
    spent = [text for text in found.result.left_out if text.endswith("the time budget was spent")]
    assert next(text.partition(":")[0] for text in spent) == "weight-int8"
    assert {item.name for item in found.result.candidates} == {
        "static, per-iteration, mse",
        "dynamic",
    }


def test_one_sample_chooses_on_what_calibrated_and_says_so() -> None:
    found = chosen(data={"input_ids": IDS[:1]})
    assert (found.result.source, found.result.samples) == ("calibrating", 1)
    assert any("chosen on the samples that calibrated" in note for note in found.result.notes)


def quantized(path: Path, **options: Any) -> loopedge.QuantizeResult:
    return loopedge.quantize(TINY, path, force=True, **options)


@pytest.mark.slow
def test_a_recipe_repeats_what_was_chosen(tmp_path: Path) -> None:
    """The named ranges of the source's own data: the same weights and operators, without a search."""
    first = quantized(tmp_path / "first.onnx", **FEW, keep=["core/linear_1"], rounding="nearest")
    assert first.choice is not None
    held = read_recorded(tmp_path / "first.onnx")
    assert held.scheme == first.scheme
    assert set(held.keep) >= {"core/linear_1"}
    data = {"data": FEW["data"], "threads": 1}
    again = quantized(tmp_path / "again.onnx", **data, recipe=tmp_path / "first.onnx")
    assert again.choice is None
    assert (again.scheme, again.weight_only) == (first.scheme, first.weight_only)
    assert again.matmuls == first.matmuls
    assert read_recorded(tmp_path / "again.onnx") == held
    one, other = (
        ir.load(tmp_path / name).graph.initializers for name in ("first.onnx", "again.onnx")
    )
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.const_value is not None
        if not name.startswith("range."):  # those are of the data, of which more calibrates here
            twin = other[name].const_value
            assert twin is not None
            assert np.array_equal(value.const_value.numpy(), twin.numpy()), name


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-int8", "weight-int4"])
def test_every_file_holds_its_recipe(scheme: str, tmp_path: Path) -> None:
    data = FEW["data"] if scheme == "static" else None
    options: dict[str, Any] = {"data": data, "min_sqnr_db": 0, "threads": 1}
    if scheme == "static":
        options |= {"granularity": "shared", "method": "percentile", "smoothing": False}
    quantized(tmp_path / "q.onnx", scheme=scheme, weight_only=["coda/linear"], **options)
    held = read_recorded(tmp_path / "q.onnx")
    assert held.scheme == scheme
    assert held.weight_only == ("coda/linear",)
    assert (held.ranges, held.method) == (
        ("shared", "percentile") if scheme == "static" else (None, None)
    )
    again = quantized(
        tmp_path / "again.onnx", recipe=tmp_path / "q.onnx", data=data, min_sqnr_db=0, threads=1
    )
    assert (tmp_path / "q.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert again.scheme == scheme


@pytest.mark.parametrize(
    ("metric", "max_drop", "lost"),
    [
        ("accuracy", 0.01, "0.02 of accuracy"),
        ("accuracy", 0.03, None),
        ("relative-error", 0.05, "0.1 of relative-error"),
        ("relative-error", 0.2, None),
    ],
)
def test_a_limit_that_the_judging_samples_do_not_hold_is_said(
    metric: str, max_drop: float, lost: str | None
) -> None:
    judged = HeldOutResult(
        source="data", samples=9, sqnr_db=20.0, metric="accuracy", loss=0.02, clipped={}
    )
    notes = quantization.drop_notes(judged, metric, max_drop)
    assert [note for note in notes if lost is not None and note.endswith(lost)] == notes
    assert bool(notes) == (lost is not None)


@pytest.mark.slow
def test_a_recipe_repeats_the_memory_profile_that_places_hang_on(tmp_path: Path) -> None:
    first = quantized(tmp_path / "low.onnx", **FEW, scheme="static", memory="low")
    data = {"data": FEW["data"], "threads": 1, "recipe": tmp_path / "low.onnx"}
    again = quantized(tmp_path / "again.onnx", **data)
    assert [item.treatment for item in first.treatments] == ["dynamic"]
    assert again.treatments == first.treatments
    assert Artifact.open(tmp_path / "again.onnx").metadata.memory == "low"
    named = quantized(tmp_path / "named.onnx", **data, memory="balanced")
    assert named.treatments != first.treatments


def test_a_recipe_of_a_refined_file_says_that_it_does_not_refine(tmp_path: Path) -> None:
    quantized(tmp_path / "q.onnx", data=None, scheme="dynamic", min_sqnr_db=0, threads=1)
    model = ir.load(tmp_path / "q.onnx")
    again = QuantizeOptions(recipe=tmp_path / "q.onnx")
    assert unrefined_notes(again) == []
    metadata = read_metadata(model.metadata_props)
    assert metadata.quantization is not None
    held = metadata.quantization | {"refined": {"steps": 7, "best_step": 5}}
    write_metadata(metadata.model_copy(update={"quantization": held}), model.metadata_props)
    ir.save(model, tmp_path / "q.onnx")
    assert "refine" in unrefined_notes(again)[0]
    assert unrefined_notes(replace(again, refine=7, module="model.pt")) == []


def without_recipe(path: Path) -> Path:
    model = ir.load(TINY)
    ir.save(model, path)
    return path


def other_structure(path: Path) -> Path:
    model = Artifact.open(TINY).fresh_graph()
    unfold_convolutions(model)
    for node in model.graph.all_nodes():
        if node.name == "core/linear_1":
            node.name = "core/gate"
    ir.save(model, path)
    return path


def test_recipes_that_cannot_be_repeated_are_refused(tmp_path: Path) -> None:
    quantized(tmp_path / "q.onnx", scheme="dynamic", threads=1)
    cases: list[tuple[Path, Path, str]] = [
        (TINY, without_recipe(tmp_path / "float.onnx"), "is not quantized: it holds no recipe"),
        (TINY, tmp_path / "missing.onnx", "does not exist"),
        (other_structure(tmp_path / "other.onnx"), tmp_path / "q.onnx", "of another structure"),
    ]
    for model, recipe, words in cases:
        with pytest.raises(InputError, match=words) as refused:
            loopedge.quantize(model, tmp_path / "r.onnx", recipe=recipe)
        assert "\n" not in refused.value.message
        assert not (tmp_path / "r.onnx").exists()
    with pytest.raises(InputError, match="is also a file of recipe"):
        loopedge.quantize(TINY, tmp_path / "q.onnx", recipe=tmp_path / "q.onnx", force=True)


@pytest.mark.slow
def test_limits_are_of_the_files_that_are_written(tmp_path: Path) -> None:
    options = {**FEW, "rounding": "nearest"}
    result = quantized(tmp_path / "any.onnx", **options)
    assert result.choice is not None
    sizes = {item.name: item.bytes for item in result.choice.candidates}
    most = sorted(sizes.values())[0]
    small = quantized(tmp_path / "small.onnx", **options, max_bytes=most)
    assert small.choice is not None
    assert sizes[small.choice.chosen] == most
    assert sum(file.bytes for file in small.files) <= most
    with pytest.raises(loopedge.errors.BudgetError, match="the nearest"):
        quantized(tmp_path / "none.onnx", **options, max_bytes="1KiB")
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.slow
def test_a_count_that_is_an_input_stays_one(tmp_path: Path) -> None:
    source = TINY.with_name("tiny_dynamic.onnx")
    result = loopedge.quantize(
        source, tmp_path / "q.onnx", **FEW, loops=2, rounding="nearest", min_sqnr_db=0
    )
    assert result.choice is not None
    for loops in (1, 2, 3):
        feeds = {"input_ids": IDS[:2], "loops": np.array(loops)}
        exact, found = (
            loopedge.Session(path).run(feeds)["logits"] for path in (source, tmp_path / "q.onnx")
        )
        assert np.linalg.norm(found - exact) < 0.2 * np.linalg.norm(exact)


@pytest.mark.slow
def test_the_task_of_a_model_chooses_by_its_metric(tmp_path: Path) -> None:
    """A generated task draws its samples; what is named for nothing stays dynamic."""
    model = ir.load(TINY)
    task = SortingTask(length=4, vocab=8, seed=0)
    described = read_metadata(model.metadata_props).model_copy(update={"task": task.describe()})
    write_metadata(described, model.metadata_props)
    source = tmp_path / "trained.onnx"
    ir.save(model, source)
    few = {name: value for name, value in FEW.items() if name != "data"}
    options: dict[str, Any] = {**few, "min_sqnr_db": 0, "samples": 32}
    result = loopedge.quantize(source, tmp_path / "q.onnx", scheme="auto", max_drop=0.5, **options)
    choice = result.choice
    assert choice is not None
    assert (choice.metric, choice.source, choice.samples) == ("accuracy", "validation", 512)
    assert all(item.score is not None for item in choice.candidates)
    assert "of accuracy, 0.5 may be lost" in choice.reason
    plain = loopedge.quantize(source, tmp_path / "p.onnx", min_sqnr_db=0, threads=1)
    assert (plain.scheme, plain.choice) == ("dynamic", None)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["n", 4, 24])
def test_files_of_other_tools_are_chosen_for_and_hold_no_recipe(
    batch: str | int, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    weights = [random.normal(size=(16, 16)).astype(np.float32) * 0.3 for _ in range(2)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 5, 16]) for name in "xy"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "w1"], ["y"], name="second"),
        ],
        "g",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)],
    )
    opset = helper.make_opsetid("", 23)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "m.onnx")
    x = random.normal(size=(24, 5, 16)).astype(np.float32)
    options = {**FEW, "data": {"x": x}, "rounding": "nearest"}
    result = loopedge.quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", **options)
    assert result.choice is not None
    assert result.choice.source == ("calibrating" if batch == 24 else "data")
    with pytest.raises(InputError, match="was not written by loopedge: it holds no recipe"):
        loopedge.quantize(tmp_path / "m.onnx", tmp_path / "r.onnx", recipe=tmp_path / "q.onnx")
