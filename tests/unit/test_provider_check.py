"""Outputs of a provider against those of the CPU: what passes, what is refused, and what is measured after it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import LoopedgeError, ProviderError, VerificationError
from loopedge.profiler import pipeline, provider_check
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.provider_check import CheckedModel, check_providers, judge
from loopedge.profiler.subjects import building
from loopedge.profiler.subjects.bfloat16 import round_to_bfloat16
from loopedge.profiler.subjects.building import build_models, open_models
from loopedge.runtime.session import untrained_inputs

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "tiny.onnx"
TOY = "ToyExecutionProvider"

Array = npt.NDArray[Any]
SIGNAL = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
NOISE = np.random.default_rng(1).standard_normal(4000).astype(np.float32)


def noisy(db: float, seed: int = 1) -> dict[str, Array]:
    """Return the signal with noise of exactly so many dB below it."""
    noise = np.random.default_rng(seed).standard_normal(len(SIGNAL))
    noise *= np.linalg.norm(SIGNAL) / np.linalg.norm(noise) * 10 ** (-db / 20)
    return {"y": (SIGNAL.astype(np.float64) + noise).astype(np.float32)}


def test_float32_agrees_within_the_tolerance_of_every_check() -> None:
    almost = {"y": SIGNAL + np.float32(0.9e-4) * np.abs(SIGNAL).max()}

    def never() -> None:
        raise AssertionError("nothing has to be computed again")

    found = judge(almost, {"y": SIGNAL}, bfloat16=never)
    assert found.passed
    assert found.limit_db is None
    assert found.max_rel_error == pytest.approx(0.9e-4, rel=1e-2)


@pytest.mark.parametrize(
    ("given", "bfloat16", "limit"),
    [
        (42.0, 41.0, 41.0 - 10 * np.log10(2)),  # 3 dB
        (38.1, 41.0, 41.0 - 10 * np.log10(2)),
        (37.8, 41.0, 41.0 - 10 * np.log10(2)),
        (19.0, 10.0, 20.0),  # a file that bfloat16 spoils allows no more than a tenth of the norm
        (30.0, None, 20.0),
        (19.9, None, 20.0),
    ],
)
def test_a_float_file_may_show_twice_the_noise_of_bfloat16(
    given: float, bfloat16: float | None, limit: float
) -> None:
    rounded = None if bfloat16 is None else noisy(bfloat16, seed=2)
    found = judge(noisy(given), {"y": SIGNAL}, bfloat16=lambda: rounded)
    assert found.compared_with == "cpu"
    assert found.sqnr_db == pytest.approx(given, abs=0.01)
    assert found.limit_db == pytest.approx(limit, abs=0.01)
    assert found.passed == (given >= limit)


@pytest.mark.parametrize(("given", "passes"), [(29.2, True), (28.7, False)])
def test_a_quantized_file_may_lose_one_db_to_the_cpu(given: float, passes: bool) -> None:
    on_cpu = noisy(30.0, seed=3)
    found = judge(noisy(given), on_cpu, exact={"y": SIGNAL}, quantized=True)
    assert found.compared_with == "float"
    assert (found.sqnr_db, found.cpu_sqnr_db) == pytest.approx((given, 30.0), abs=0.01)
    assert found.limit_db == pytest.approx(29.0, abs=0.01)
    assert found.passed == passes


def test_a_quantized_file_on_bfloat16_may_show_both_noises() -> None:
    on_cpu = noisy(40.0, seed=3)
    rounded = {"y": on_cpu["y"] + (noisy(40.0, seed=4)["y"] - SIGNAL)}
    found = judge(
        noisy(36.0), on_cpu, exact={"y": SIGNAL}, bfloat16=lambda: rounded, quantized=True
    )
    allowed = 10**0.1 * 10**-4.0 + 2 * 10**-4.0
    assert found.limit_db == pytest.approx(-10 * np.log10(allowed), abs=0.05)
    assert found.passed


@pytest.mark.parametrize(
    ("recorded", "limit"), [(30.0, 30.0 - 10 * np.log10(2 * 10**0.1)), (None, 20.0)]
)
def test_without_its_float_model_a_quantized_file_is_judged_by_what_it_says_of_itself(
    recorded: float | None, limit: float
) -> None:
    found = judge(noisy(26.0), {"y": SIGNAL}, recorded_db=recorded, quantized=True)
    assert found.compared_with == "cpu"
    assert found.limit_db == pytest.approx(limit, abs=0.01)


@pytest.mark.parametrize(
    "given",
    [
        {"y": SIGNAL[:-1]},
        {"y": np.where(SIGNAL > 2, np.nan, SIGNAL).astype(np.float32)},
        {},
    ],
)
def test_other_shapes_and_values_that_are_not_numbers_never_pass(given: dict[str, Array]) -> None:
    found = judge(given, {"y": SIGNAL}, bfloat16=lambda: noisy(5.0))
    assert not found.passed
    assert found.sqnr_db == float("-inf")


def test_outputs_of_integers_are_equal_or_wrong() -> None:
    assert judge({"y": np.arange(3)}, {"y": np.arange(3)}).passed
    assert not judge({"y": np.arange(3) + 1}, {"y": np.arange(3)}).passed


def test_only_kept_positions_count_and_what_is_added_last_is_no_signal() -> None:
    mask = np.array([[1, 1, 0, 0]])
    exact = np.ones((1, 4, 8), np.float32)
    wrong = exact.copy()
    wrong[:, 2:] = 7.0
    assert judge({"y": wrong}, {"y": exact}, mask=mask).passed
    assert not judge({"y": wrong}, {"y": exact}).passed
    large = {"y": SIGNAL + np.float32(100.0)}
    given = {"y": noisy(30.0)["y"] + np.float32(100.0)}
    hidden = judge(given, large)
    seen = judge(given, large, offsets={"y": np.full_like(SIGNAL, 100.0)})
    assert hidden.sqnr_db > 65
    assert seen.sqnr_db == pytest.approx(30.0, abs=0.1)


def run(model: ir.Model, folder: Path, ids: Array) -> Array:
    target = folder / "m.onnx"
    write_artifact(model, target, force=True)
    with untrained_inputs():
        found: Array = loopedge.Session(target, threads=1).run({"input_ids": ids})["logits"]
    return found


def test_rounding_to_bfloat16_costs_what_eight_bits_cost(tmp_path: Path) -> None:
    graph, ids = open_artifact(TINY), np.arange(8).reshape(1, 8)
    rounded = round_to_bfloat16(graph)
    assert rounded is not None
    exact, given = run(graph, tmp_path, ids), run(rounded, tmp_path, ids)
    error = np.linalg.norm(given - exact) / np.linalg.norm(exact)
    assert 2**-12 < error < 2**-5
    assert not any(node.op_type == "Cast" for node in graph.graph.all_nodes())
    state = next(node for node in rounded.graph if node.op_type == "Loop")
    body = state.attributes["body"].as_graph()
    assert body.outputs[1].producer().op_type == "Cast"  # type: ignore[union-attr]


def test_a_product_of_rounded_factors_is_what_numpy_computes(tmp_path: Path) -> None:
    import ml_dtypes

    text = """<ir_version: 8, opset_import: ["": 18]>
    m (float[2, 3] x, float[3, 4] w) => (float[2, 4] y) { p = MatMul (x, w)  y = Identity (p) }"""
    model = round_to_bfloat16(ir.from_onnx_text(text))
    assert model is not None
    target = tmp_path / "m.onnx"
    ir.save(model, target)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    given = loopedge.Session(target, threads=1).run({"x": x, "w": w})["y"]

    def half(array: Array) -> Array:
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)

    assert np.allclose(given, half(half(x) @ half(w)), rtol=2**-7)
    assert not np.allclose(given, x @ w, rtol=1e-5)


def test_what_has_no_float_product_is_not_rounded() -> None:
    text = '<ir_version: 8, opset_import: ["": 18]> m (float[2] x) => (float[2] y) { y = Abs (x) }'
    assert round_to_bfloat16(ir.from_onnx_text(text)) is None
    old = '<ir_version: 6, opset_import: ["": 11]> m (float[2, 2] x) => (float[2, 2] y) { y = MatMul (x, x) }'
    assert round_to_bfloat16(ir.from_onnx_text(old)) is None


class ToyProcess:
    """A measured process whose provider is a toy: the CPU, with outputs that a test changes."""

    change: Callable[[Array], Array] = staticmethod(lambda array: array)
    refuses: Callable[[Any], bool] = staticmethod(lambda setup: False)

    def __init__(self, setup: Any, **_: Any) -> None:
        self.toy = setup.provider == TOY
        if self.toy and ToyProcess.refuses(setup):
            raise ProviderError(f"{TOY} does not run {setup.model}", hint=f"unroll {setup.model}")
        self.process = MeasuredProcess(provider_check.on_cpu(setup))
        self.loaded = {"assigned": {TOY: {"MatMul": 19}, "CPUExecutionProvider": {"Gelu": 3}}}

    def __enter__(self) -> Self:
        self.process.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.close()

    def run(self, runs: int) -> list[float]:
        return [6.0 if self.toy else 2.0] * runs

    def save_outputs(self, path: Path) -> Path:
        with np.load(self.process.save_outputs(path)) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if self.toy:
            np.savez(path, **{name: ToyProcess.change(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        return path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[ToyProcess]:
    monkeypatch.setattr(provider_check, "MeasuredProcess", ToyProcess)
    monkeypatch.setattr(building, "asked_provider", lambda options: TOY)
    monkeypatch.setattr(pipeline, "find_provider", lambda name, options: None)
    monkeypatch.setattr(ToyProcess, "change", staticmethod(lambda array: array))
    monkeypatch.setattr(ToyProcess, "refuses", staticmethod(lambda setup: False))
    return ToyProcess


def checked(folder: Path, *paths: Path, **options: Any) -> list[CheckedModel | LoopedgeError]:
    chosen = ProfileOptions(sequence=8, runs=3, **options)
    models, _ = build_models(paths, open_models(paths), chosen, folder)
    return check_providers(models, chosen, folder, lambda text: None)


def test_outputs_that_agree_are_timed_in_turns_with_the_cpu(
    toy: type[ToyProcess], tmp_path: Path
) -> None:
    (found,) = checked(tmp_path, TINY)
    assert isinstance(found, CheckedModel)
    against = found.against_cpu
    assert against is not None
    assert (against.cpu_ms, against.time_ratio, against.limit_db) == (2.0, 3.0, None)
    assert found.assigned[TOY] == {"MatMul": 19}
    assert found.notes == [
        "tiny.onnx: 3 of 22 nodes run on the CPU: 3 Gelu",
        f"tiny.onnx: {TOY} takes 3 times as long as the CPU, which takes 2 ms",
    ]


def test_an_engine_that_is_fast_and_wrong_has_no_time(
    toy: type[ToyProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(toy, "change", staticmethod(lambda array: array * np.float32(0.5)))
    timed: list[int] = []
    monkeypatch.setattr(toy, "run", lambda self, runs: timed.append(runs))
    (found,) = checked(tmp_path, TINY)
    assert isinstance(found, VerificationError)
    assert found.measured == pytest.approx(6.02, abs=0.01)  # half of the signal is missing
    assert found.message.startswith(f"{TOY} computes tiny.onnx wrongly, no time is given: 6.0 dB")
    assert found.allowed is not None
    assert timed == []


@pytest.mark.slow
def test_a_model_that_is_refused_leaves_the_others(
    toy: type[ToyProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(toy, "refuses", staticmethod(lambda setup: setup.model == TINY.resolve()))
    refused, twin = checked(tmp_path, TINY, unrolled=True)
    assert isinstance(refused, ProviderError)
    assert refused.message == f"{TOY} does not run {TINY}"
    assert isinstance(twin, CheckedModel)
    monkeypatch.setattr(pipeline, "measure", lambda *_: [LoopedgeError("enough")])
    with pytest.raises(LoopedgeError, match="enough"):
        loopedge.profile([TINY], unrolled=True, provider="toy", sequence=8, runs=3)


def test_where_none_passes_the_first_reason_ends_the_profile(
    toy: type[ToyProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "refuses", staticmethod(lambda setup: True))
    with pytest.raises(ProviderError, match="does not run") as caught:
        loopedge.profile([TINY], provider="toy", sequence=8, runs=3)
    assert caught.value.hint == f"unroll {TINY}"
    monkeypatch.setattr(toy, "refuses", staticmethod(lambda setup: False))
    monkeypatch.setattr(toy, "change", staticmethod(lambda array: -array))
    with pytest.raises(VerificationError, match=r"-6\.0 dB of signal to noise"):
        loopedge.profile([TINY], provider="toy", sequence=8, runs=3)


@pytest.mark.slow
def test_a_quantized_file_is_held_against_its_float_model(
    toy: type[ToyProcess], tmp_path: Path
) -> None:
    target = tmp_path / "q.onnx"
    loopedge.quantize(TINY, target, scheme="dynamic")
    folder = tmp_path / "scratch"
    folder.mkdir()
    _, found = checked(folder, TINY, target)
    assert isinstance(found, CheckedModel)
    assert found.against_cpu is not None
    assert found.against_cpu.compared_with == "float"
    assert found.against_cpu.cpu_sqnr_db == pytest.approx(found.against_cpu.sqnr_db)
    alone = tmp_path / "alone"
    alone.mkdir()
    (found,) = checked(alone, target)
    assert isinstance(found, CheckedModel)
    assert found.against_cpu is not None
    assert found.against_cpu.compared_with == "cpu"


def test_on_the_cpu_nothing_is_compared(tmp_path: Path) -> None:
    (found,) = checked(tmp_path, TINY)
    assert isinstance(found, CheckedModel)
    assert (found.against_cpu, found.assigned, found.notes) == (None, {}, [])
