"""Memory by source on models that onnxruntime really loads: every part where it belongs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.errors import LoopedgeError
from loopedge.profiler.dissection import limits
from loopedge.profiler.dissection import memory_sources as sources
from loopedge.profiler.dissection.limits import measure_limits
from loopedge.profiler.dissection.memory_sources import memory_sources, with_peak
from loopedge.profiler.dissection.pipeline import dissect
from loopedge.profiler.dissection.trace import read_trace
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.processes.soak import judge_soak
from loopedge.profiler.result import MemorySources, SoakPoint
from loopedge.runtime.providers import CPU_PROVIDER

pytestmark = pytest.mark.long

MIB = 1 << 20
D, LOOPS, VOCABULARY, POSITIONS = 256, 4, 8192, 64
CORE_BYTES = 4 * 12 * D * D
TABLE_BYTES = 4 * VOCABULARY * D


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=D, heads=4, loops=LOOPS, vocab_size=VOCABULARY, max_length=POSITIONS
    )
    model = loopedge.LoopedTransformer(config).eval()
    loopedge.export(model, path / "mapped.onnx")
    loopedge.export(model, path / "half.onnx", storage="float16")
    inline = open_artifact(path / "mapped.onnx")
    write_artifact(inline, path / "inline.onnx", external_threshold_bytes=1 << 40)
    np.savez(path / "inputs.npz", input_ids=np.zeros((1, POSITIONS), np.int64))
    return path


def setup(folder: Path, name: str, memory: str) -> ProcessSetup:
    return ProcessSetup(
        model=folder / name,
        inputs=folder / "inputs.npz",
        file_bytes=CORE_BYTES + TABLE_BYTES,
        provider=CPU_PROVIDER,
        threads=1,
        memory=memory,
    )


def take_apart(
    folder: Path, name: str, memory: str, outputs: Sequence[str] = ("logits",)
) -> tuple[MemorySources, MemorySources]:
    model = setup(folder, name, memory)
    with MeasuredProcess(model, trace=folder / "trace") as process:
        process.run(3)
        events = read_trace(process.end_trace())
    found = memory_sources(model, events, Artifact.open(folder / name).files, outputs=outputs)
    for at in found:
        parts = {
            key: value
            for key, value in asdict(at).items()
            if key.endswith("_bytes") and key != "peak_bytes"
        }
        assert sum(parts.values()) == at.peak_bytes
        assert all(value >= 0 for key, value in parts.items() if key != "other_bytes")
        assert abs(at.other_bytes) < max(0.1 * at.peak_bytes, MIB)
    return found


def near(size: float) -> Any:
    return pytest.approx(size, abs=0.6 * MIB)


def test_balanced_packs_what_the_products_read(folder: Path) -> None:
    load, run = take_apart(folder, "mapped.onnx", "balanced")
    assert (load.moment, run.moment) == ("load", "run")
    for at in (load, run):
        assert at.packed_bytes == near(CORE_BYTES)
        assert at.weights_copied_bytes == near(0)
        assert 0.2 * MIB < at.graph_bytes < 4 * MIB
        assert at.runtime_bytes > MIB
    assert load.activations_bytes == 0
    assert load.peak_node is None
    assert run.weights_mapped_bytes == near(TABLE_BYTES), "the tied head reads all of it"
    assert run.activations_bytes > 4 * POSITIONS * VOCABULARY, "at least the logits"
    assert run.peak_node is not None
    assert run.peak_node.startswith("coda/linear"), "where the logits are made"


def test_low_maps_all_weights_and_packs_none(folder: Path) -> None:
    load, run = take_apart(folder, "mapped.onnx", "low")
    assert load.packed_bytes == run.packed_bytes == 0
    assert run.weights_mapped_bytes == near(CORE_BYTES + TABLE_BYTES)
    assert load.weights_mapped_bytes == near(0), "nothing is read before the first run"


def test_weights_inside_the_file_are_copied(folder: Path) -> None:
    _, run = take_apart(folder, "inline.onnx", "low")
    assert run.weights_mapped_bytes == 0
    assert run.weights_copied_bytes == near(CORE_BYTES + TABLE_BYTES)
    _, packed = take_apart(folder, "inline.onnx", "balanced")
    assert packed.packed_bytes == near(CORE_BYTES)
    assert packed.weights_copied_bytes == near(TABLE_BYTES), "what is packed is freed as stored"


def test_float16_storage_is_widened_in_memory(folder: Path) -> None:
    load, _ = take_apart(folder, "half.onnx", "low")
    assert load.weights_copied_bytes == near(CORE_BYTES + TABLE_BYTES)


CACHED = """<ir_version: 10, opset_import: ["": 21]>
step (float[1, 4, P, 64] past_key, float[1, 4, 1, 64] key)
  => (float[1, 4, T, 64] present_key, float[1, 4, T, 64] y) {
  present_key = Concat <axis = 2> (past_key, key)
  y = Tanh (present_key)
}"""


def test_a_cache_is_distinguished_from_the_activations(tmp_path: Path) -> None:
    ir.save(ir.from_onnx_text(CACHED), tmp_path / "cached.onnx")
    past, key = np.zeros((1, 4, 4095, 64), np.float32), np.zeros((1, 4, 1, 64), np.float32)
    np.savez(tmp_path / "inputs.npz", past_key=past, key=key)
    size = 4 * 4 * 4096 * 64
    _, run = take_apart(tmp_path, "cached.onnx", "balanced", outputs=["present_key", "y"])
    assert run.kv_cache_bytes == size
    assert run.activations_bytes == near(size), "the other output"
    _, untold = take_apart(tmp_path, "cached.onnx", "balanced", outputs=["y"])
    assert untold.kv_cache_bytes == 0
    assert untold.activations_bytes == near(2 * size)


def test_other_takes_the_difference_to_a_peak_of_other_processes(folder: Path) -> None:
    load, _ = take_apart(folder, "mapped.onnx", "low")
    moved = with_peak(load, load.peak_bytes + 5)
    assert moved == replace(load, peak_bytes=load.peak_bytes + 5, other_bytes=load.other_bytes + 5)


def test_where_other_processes_take_less_malloc_kept_less(folder: Path) -> None:
    load, _ = take_apart(folder, "mapped.onnx", "low")
    load = replace(load, retained_bytes=10, other_bytes=load.other_bytes - 10)
    for less, retained, other in ((4, 6, 0), (15, 0, -5)):
        moved = with_peak(load, load.peak_bytes - less)
        assert moved.retained_bytes == retained
        assert moved.other_bytes == load.other_bytes + other


def test_a_model_is_taken_apart_in_one_call(folder: Path) -> None:
    found = dissect(setup(folder, "mapped.onnx", "balanced"), Artifact.open(folder / "mapped.onnx"))
    assert len(found.iterations) == LOOPS
    assert found.nodes[CPU_PROVIDER] > 10
    assert found.work is not None
    core = 2 * POSITIONS * 12 * D * D + 4 * POSITIONS * POSITIONS * D
    assert found.work.float_operations == LOOPS * core + 2 * POSITIONS * D * VOCABULARY
    assert found.notes == []
    assert found.sources is not None
    peak = max(one.peak_bytes for one in found.sources) + 1000
    both = found.peak_sources(peak)
    assert both is not None
    assert both[0].peak_bytes == peak
    assert both[1].moment == "run"


def test_without_sources_the_rest_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SMAPS", Path("/nowhere/smaps"))
    found = dissect(setup(folder, "mapped.onnx", "low"), Artifact.open(folder / "mapped.onnx"))
    assert found.sources is None
    assert found.peak_sources(1) is None
    (note,) = found.notes
    assert note.startswith("no memory by source: memory by source needs /proc")
    assert len(found.iterations) == LOOPS


def test_without_proc_it_is_refused_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SMAPS", Path("/nowhere/smaps"))
    model = setup(folder, "mapped.onnx", "low")
    with pytest.raises(LoopedgeError, match="needs /proc/<pid>/smaps"):
        memory_sources(model, [], [model.model])


def test_a_session_that_runs_on_and_on_does_not_leak(folder: Path) -> None:
    model = setup(folder, "mapped.onnx", "balanced")
    points = []
    with MeasuredProcess(model) as process:
        for turn in range(20):
            latencies = process.run(3)
            memory = process.memory()
            points.append(
                SoakPoint(
                    process=0,
                    second=float(turn),
                    runs=3,
                    rss_bytes=memory["rss_bytes"],
                    anon_bytes=memory["anon_bytes"],
                    p50_ms=sorted(latencies)[1],
                )
            )
    found = judge_soak(points, 1.0)
    assert found is not None
    assert not found.leaks


def test_a_runtime_without_integer_products_has_no_limit_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "INT8", limits.INT8.replace("MatMulInteger", "NoSuchProduct"))
    found = measure_limits(1)
    assert found.int8_gops_per_second is None
    assert found.gflops_per_second > 0.1


def test_the_limits_of_this_machine() -> None:
    found = measure_limits(1)
    assert found.gflops_per_second > 0.1
    assert found.int8_gops_per_second is not None
    assert 0.1 < found.gb_per_second < 1000
