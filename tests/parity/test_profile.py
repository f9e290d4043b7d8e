"""Profiles of small real models: keys, twins, given inputs, what the child imports."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import loopedge
from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.profiler.pipeline import ProfileResult
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from tests.parity.models import make_model

Exporter = Callable[..., Path]


@pytest.fixture(scope="module")
def result(exported: Exporter) -> ProfileResult:
    models = [exported("tokens"), exported("series", form="unrolled")]
    return loopedge.profile(models, untied=True, sequence=8, runs=5, processes=1)


@pytest.mark.slow
def test_runs_stand_in_the_order_of_the_arguments_with_twins_after_them(
    result: ProfileResult,
) -> None:
    profile = json.loads(json.dumps(result.to_json()))
    assert profile["schema_version"] == 3
    assert [(run["form"], run["twin"]) for run in profile["runs"]] == [
        ("loop", None),
        ("unrolled", None),
        ("unrolled", "untied"),
        ("unrolled", "untied"),
    ]
    for run in profile["runs"]:
        assert run["provider"] == "CPUExecutionProvider"
        assert list(run["nodes"]) == ["CPUExecutionProvider"]
        assert run["load_seconds"] > 0
        assert run["rss_peak_bytes"] >= run["rss_load_bytes"] > 0
        assert 0 < run["latency_ms"]["min"] <= run["latency_ms"]["p50"] <= run["latency_ms"]["p99"]
        assert sum(op["share"] for op in run["ops"]) == pytest.approx(1.0)
    loop, _, untied, _ = profile["runs"]
    assert {"MatMul", "Attention"} <= {op["op"] for op in loop["ops"]}
    counts = {op["op"]: op["count"] for op in loop["ops"]}
    assert counts["Attention"] == 3, "one per iteration"
    assert counts["Loop"] == 1
    core = 12 * 32 * 32 * 4
    assert untied["weight_bytes"] - loop["weight_bytes"] == 2 * core
    assert untied["file_bytes"] - loop["file_bytes"] > 2 * core


@pytest.mark.slow
def test_given_inputs_and_loops(exported: Exporter, tmp_path: Path) -> None:
    path = exported("tokens", dynamic_loops=True)
    np.savez(tmp_path / "x.npz", input_ids=np.ones((2, 5), np.int64))
    (run,) = loopedge.profile([path], input=tmp_path / "x.npz", loops=2, runs=5, processes=1).runs
    assert (run.batch, run.sequence, run.loops) == (2, 5, 2)
    assert {op.op: op.count for op in run.ops}["Attention"] == 2
    np.savez(tmp_path / "y.npz", other=np.ones((2, 5), np.int64))
    with pytest.raises(InputError, match="input_ids"):
        loopedge.profile([path], input=tmp_path / "y.npz")


def test_bad_input(exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported("tokens")
    with pytest.raises(InputError, match="no model"):
        loopedge.profile([])
    with pytest.raises(InputError, match="runs 3 loops"):
        loopedge.profile([path], loops=5)
    with pytest.raises(InputError, match="at most 16"):
        loopedge.profile([path], sequence=17)
    with pytest.raises(InputError, match="seconds is 0"):
        loopedge.profile([path], seconds=0)
    with pytest.raises(InputError, match="does not exist"):
        loopedge.profile([tmp_path / "missing.onnx"])
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        loopedge.profile([path], provider="cuda")


def test_a_model_that_does_not_load_is_one_clear_line(exported: Exporter, tmp_path: Path) -> None:
    model = ir.load(exported("tokens"))
    next(node for node in model.graph.all_nodes() if node.op_type == "Gelu").op_type = "Gelu2"
    ir.save(model, tmp_path / "unknown.onnx")
    with pytest.raises(InputError, match="cannot be profiled"):
        loopedge.profile([tmp_path / "unknown.onnx"])


def test_a_killed_process_is_said_so(exported: Exporter, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.ones((1, 5), np.int64))
    with MeasuredProcess(
        ProcessSetup(model=exported("tokens"), inputs=tmp_path / "x.npz")
    ) as process:
        assert len(process.run(2)) == 2
        process._process.kill()
        process._process.wait()
        with pytest.raises(LoopedgeError, match="killed by SIGKILL"):
            process.run(1)


def test_the_measured_process_imports_nothing_heavy() -> None:
    code = (
        "import sys, loopedge.profiler.child.main, numpy, onnxruntime\n"
        "print([m for m in ('torch', 'onnx', 'onnx_ir', 'pydantic', 'rich') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.slow
def test_tying_saves_memory_that_can_be_seen(tmp_path: Path) -> None:
    model = make_model("tokens", loops=8, d_model=512, heads=8)
    loopedge.export(model, tmp_path / "tied.onnx")
    tied, untied = loopedge.profile(
        [tmp_path / "tied.onnx"], untied=True, runs=5, details=False
    ).runs
    core = 12 * 512 * 512 * 4
    assert untied.file_bytes - tied.file_bytes > 6.9 * core
    assert untied.anon_bytes - tied.anon_bytes > 6.5 * core
    assert tied.anon_bytes < 1.15 * tied.weight_bytes + 8 * 2**20
