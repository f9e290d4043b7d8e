"""What a profile refuses before it measures, and what it goes on without."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError, LoopedgeError
from loopedge.graph.inputs import generate_inputs
from loopedge.profiler import machine, pipeline
from loopedge.profiler.dissection.trace import read_trace
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.processes.soak import judge_soak
from loopedge.profiler.result import SoakPoint
from loopedge.profiler.runs import failure_of
from loopedge.profiler.subjects import measured_inputs
from loopedge.profiler.subjects.building import build_models, open_models
from loopedge.profiler.subjects.measured_inputs import profile_feeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopedge.profiler.subjects.profiled_model import ProfiledModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, DYNAMIC = FIXTURES / "tiny.onnx", FIXTURES / "tiny_dynamic.onnx"
HEADER = '<ir_version: 10, opset_import: ["": 21]> '
MOST_POSITIONS = 16


def identity(kind: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEADER} g ({kind} x) => ({kind} y) {{ y = Identity (x) }}")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("string[N]", "holds text, which cannot be guessed"),
        ("bfloat16[N]", "has type BFLOAT16, which numpy does not have"),
        ("float8e4m3fn[N]", "has type FLOAT8E4M3FN, which numpy does not have"),
        ("seq(float[N])", "is not a tensor"),
    ],
)
def test_what_cannot_be_guessed_is_named(kind: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        generate_inputs(identity(kind))


@pytest.mark.parametrize(("kind", "shape"), [("float", ()), ("optional(float[N])", (1,))])
def test_scalars_and_optional_inputs_are_made(kind: str, shape: tuple[int, ...]) -> None:
    assert generate_inputs(identity(kind))["x"].shape == shape


def test_text_is_taken_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array(["a", "bb"]))
    found = feeds_of(identity("string[N]"), tmp_path / "x.npz")
    assert found["x"].tolist() == ["a", "bb"]


def feeds_of(
    graph: ir.Model | Path, input: Path | None = None, **asked: Any
) -> dict[str, np.ndarray]:
    model = open_artifact(graph) if isinstance(graph, Path) else graph
    options = {"batch": 1, "sequence": None, "loops": None, "seed": 0} | asked
    return profile_feeds(model, "model.onnx", input, **options).arrays


@pytest.mark.parametrize(
    ("shape", "asked", "said"),
    [
        ((2, 5), {"batch": 7}, "has batch 2, 7 were asked for"),
        ((2, 5), {"sequence": 1}, "has sequence 5, 1 were asked for"),
        ((1, 17), {}, f"has 17 positions, model.onnx takes at most {MOST_POSITIONS}"),
    ],
)
def test_sizes_that_a_file_does_not_have(
    tmp_path: Path, shape: tuple[int, ...], asked: dict[str, int], said: str
) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.ones(shape, np.int64))
    with pytest.raises(InputError, match=said):
        feeds_of(TINY, tmp_path / "x.npz", **asked)


def test_a_file_may_be_as_it_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.ones((2, 5), np.int64))
    found = feeds_of(TINY, tmp_path / "x.npz", batch=2, sequence=5)
    assert found["input_ids"].shape == (2, 5)


def test_a_file_without_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"input input_ids is missing; .* the file holds nothing"):
        feeds_of(TINY, tmp_path / "x.npz")


def test_inputs_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"batch 100000000000000000000, .* are free"):
        feeds_of(TINY, batch=10**20)
    monkeypatch.setattr(measured_inputs, "free_bytes", lambda: 16 * 3 * MOST_POSITIONS)
    assert feeds_of(TINY, batch=3)["input_ids"].shape == (3, MOST_POSITIONS)
    with pytest.raises(InputError, match="at batch 4"):
        feeds_of(TINY, batch=4)


def test_no_more_loops_than_the_model_runs() -> None:
    assert feeds_of(DYNAMIC, loops=3)["loops"] == 3
    for loops in (4, 10**20):
        with pytest.raises(InputError, match=f"runs at most 3 loops, {loops} were asked for"):
            feeds_of(DYNAMIC, loops=loops)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threads": 10_000}, "threads is 10000"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"untied": ["other.onnx"]}, "other.onnx is to have its untied twin"),
    ],
)
def test_options_that_cannot_be_met(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        loopedge.profile([TINY], **asked)


def test_a_system_without_proc_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(machine, "STATUS", Path("/nowhere/status"))
    with pytest.raises(InputError, match="/proc, which is not mounted"):
        loopedge.profile([TINY])


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.pt does not exist"):
        loopedge.profile([TINY, tmp_path / "nope.pt"])
    (tmp_path / "m.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="is not a PyTorch checkpoint"):
        loopedge.profile([TINY, tmp_path / "m.pt"])


def built(folder: Path, untied: Any) -> list[ProfiledModel]:
    return build_models([TINY], open_models([TINY]), ProfileOptions(untied=untied), folder)[0]


@pytest.mark.parametrize("name", [[str(TINY)], [TINY], str(TINY)])
def test_twins_are_named_as_text_or_as_paths(tmp_path: Path, name: Any) -> None:
    assert [model.twin for model in built(tmp_path, name)] == [None, "untied"]


def test_a_twin_is_called_by_its_name(tmp_path: Path) -> None:
    twin = built(tmp_path, True)[1]
    failure = failure_of(twin, LoopedgeError(f"{twin.setup.model} died"))
    assert failure.reason == "tiny.onnx (untied) died"


def test_a_model_without_inputs_is_profiled(tmp_path: Path) -> None:
    text = f"{HEADER} g () => (float[2] y) <float[2] w = {{1.0, 2.0}}> {{ y = Relu (w) }}"
    ir.save(ir.from_onnx_text(text), tmp_path / "m.onnx")
    (run,) = loopedge.profile([tmp_path / "m.onnx"], runs=1, processes=1, details=False).runs
    assert (run.batch, run.sequence) == (1, None)
    assert run.latency_ms.min > 0


@pytest.mark.parametrize(
    "error", [LoopedgeError("it was killed"), OSError(28, "No space left on device")]
)
def test_lost_limits_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def lose(threads: int) -> Any:
        raise error

    monkeypatch.setattr(pipeline, "measure_limits", lose)
    found = pipeline._measure_limits(built(tmp_path, False))
    limits, notes = found.limits, found.notes
    assert limits == []
    assert notes[0].startswith("no roofline with 1 threads: ")


@pytest.mark.parametrize("text", ['[{"cat" : "Sess', ""])
def test_a_trace_that_was_cut_short(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.json").write_text(text)
    with pytest.raises(LoopedgeError, match="did not write its trace whole"):
        read_trace(tmp_path / "trace.json")


@pytest.fixture
def dying(tmp_path: Path) -> Callable[[str], Path]:
    def write(last: str) -> Path:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\nprintf '{{\"load_sec'\n{last}\n")
        script.chmod(0o755)
        return script

    return write


@pytest.mark.parametrize(
    ("last", "said"), [("kill -9 $$", "killed by SIGKILL"), ("kill -40 $$", "killed by signal 40")]
)
def test_a_process_that_dies_within_its_answer(
    dying: Callable[[str], Path], last: str, said: str
) -> None:
    with pytest.raises(LoopedgeError, match=said):
        MeasuredProcess(ProcessSetup(model=TINY, inputs=TINY, provider=None), python=dying(last))


def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(LoopedgeError, match="no process could be started"):
        MeasuredProcess(
            ProcessSetup(model=TINY, inputs=TINY, provider=None), python=tmp_path / "python"
        )


def test_a_soak_of_hours_is_judged_in_little_memory() -> None:
    turns = 6000
    points = [
        SoakPoint(
            process=0, second=float(i), runs=10, rss_bytes=0, anon_bytes=10_000 * i, p50_ms=1.0
        )
        for i in range(turns)
    ]
    tracemalloc.start()
    try:
        found = judge_soak(points, 12_000.0)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.leaks
    assert found.anon_bytes_per_1000_runs == pytest.approx(1e6)
    assert taken < 100e6  # the pairs of all turns take 460 MB
