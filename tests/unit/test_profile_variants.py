"""Variants of a profile: with packed weights, computed in float16, replayed as a CUDA graph."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import InputError, ProviderError
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.passes.half import compute_in_float16
from loopedge.profiler import pipeline
from loopedge.profiler.comparison.matching import pairs_of
from loopedge.profiler.labels import run_labels
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.result import GpuMemory
from loopedge.profiler.subjects import building
from loopedge.profiler.subjects.building import build_models, open_models
from loopedge.profiler.subjects.variants import (
    CAPTURE_NOTE,
    add_variants,
    looped_models,
    unpacked_note,
)
from loopedge.report.profile.cautions import cautions
from loopedge.report.profile.verdict import verdicts
from loopedge.runtime.memory_profiles import this_device
from loopedge.units import ratio_text
from tests.unit.profiles import make_result, make_run

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, DYNAMIC = FIXTURES / "tiny.onnx", FIXTURES / "tiny_dynamic.onnx"
QUICK: dict[str, Any] = {"runs": 3, "processes": 1, "sequence": 8}


def built(folder: Path, *paths: Path, unrolled: bool = True) -> list[Any]:
    options = ProfileOptions(provider="cuda", unrolled=unrolled, sequence=8)
    return build_models(paths, open_models(paths), options, folder)[0]


@pytest.mark.parametrize("path", [TINY, DYNAMIC])
def test_float16_computes_nearly_the_same_in_half_the_weights(path: Path, tmp_path: Path) -> None:
    graph = open_artifact(path)
    half = compute_in_float16(graph)
    kinds = {
        value.dtype
        for value in half.graph.initializers.values()
        if value.dtype is not None and value.dtype.is_floating_point()
    }
    assert kinds == {ir.DataType.FLOAT16}
    assert graph.graph.initializers["embedding.weight"].dtype == ir.DataType.FLOAT
    metadata = read_metadata(half.metadata_props)
    assert not metadata.foreign
    assert metadata.form == "loop"
    target = tmp_path / "half.onnx"
    ir.save(half, target)
    feeds = {"input_ids": np.arange(8).reshape(1, 8)}
    expected = loopedge.Session(path).run(feeds)["logits"]
    given = loopedge.Session(target).run(feeds)["logits"]
    assert given.dtype == np.float32
    error = np.abs(given - expected).max() / np.abs(expected).max()
    assert 0 < error < 5e-3


def test_weights_outside_the_file_are_converted_too(tmp_path: Path) -> None:
    graph = open_artifact(TINY)
    expected = compute_in_float16(graph).graph.initializers["embedding.weight"].const_value
    ir.save(graph, tmp_path / "m.onnx", external_data="m.onnx.data", size_threshold_bytes=0)
    half = compute_in_float16(open_artifact(tmp_path / "m.onnx"))
    given = half.graph.initializers["embedding.weight"].const_value
    assert expected is not None
    assert given is not None
    assert np.array_equal(given.numpy(), expected.numpy())


@pytest.mark.slow
def test_a_float16_profile_tells_its_type() -> None:
    found = loopedge.profile([TINY], float16=True, unrolled=True, details=False, **QUICK)
    names = [(run.name, run.compute, run.twin) for run in found.runs]
    assert names == [
        ("tiny.onnx", "float32", None),
        ("tiny.onnx (unrolled)", "float32", "unrolled"),
        ("tiny.onnx (float16)", "float16", None),
        ("tiny.onnx (unrolled, float16)", "float16", "unrolled"),
    ]
    assert found.runs[2].weight_bytes < 0.6 * found.runs[0].weight_bytes


def test_a_quantized_model_has_no_float16_twin(tmp_path: Path) -> None:
    target = tmp_path / "q.onnx"
    loopedge.quantize(TINY, target, scheme="dynamic")
    with pytest.raises(InputError, match="a quantized model has no float16 twin"):
        loopedge.profile([target], float16=True, **QUICK)
    models, failures = add_variants(
        built(tmp_path, TINY, target, unrolled=False), tmp_path, float16=True, cuda_graphs=False
    )
    assert [model.name for model in models] == ["tiny.onnx", "q.onnx", "tiny.onnx (float16)"]
    assert [failure.name for failure in failures] == ["q.onnx (float16)"]
    folder = tmp_path / "low"
    folder.mkdir()
    low = [replace(model, traits=("low",)) for model in models[:2]]
    _, failures = add_variants(low, folder, float16=True, cuda_graphs=False)
    assert [failure.name for failure in failures] == ["q.onnx (low, float16)"]


@pytest.mark.slow
def test_a_cuda_graph_is_taken_of_what_holds_no_loop(tmp_path: Path) -> None:
    models, failures = add_variants(built(tmp_path, TINY), tmp_path, float16=True, cuda_graphs=True)
    assert failures == []
    captured = [model for model in models if model.setup.cuda_graphs]
    assert [model.name for model in captured] == [
        "tiny.onnx (unrolled, CUDA graph)",
        "tiny.onnx (unrolled, float16, CUDA graph)",
    ]
    assert dict(captured[0].setup.dimensions) == {"batch": 1, "sequence": 8}
    assert captured[0].setup.model == models[1].setup.model
    assert looped_models(open_models([TINY, models[1].setup.model])) == [TINY]


def test_a_float16_variant_is_optimized_though_its_source_is_not(tmp_path: Path) -> None:
    (model, *_) = built(tmp_path, TINY)
    idle = replace(model, setup=replace(model.setup, optimize=False))
    found, _ = add_variants([idle], tmp_path, float16=True, cuda_graphs=False)
    assert [one.setup.optimize for one in found] == [False, True]


def of_profile(folder: Path, memory: str) -> list[Any]:
    options = ProfileOptions(memory=memory, sequence=8)
    return build_models([TINY], open_models([TINY]), options, folder)[0]


def test_a_model_of_profile_low_is_measured_packed_too(tmp_path: Path) -> None:
    models = of_profile(tmp_path, "low")
    found, failures = add_variants(
        models, tmp_path, float16=False, cuda_graphs=False, balanced=True
    )
    assert failures == []
    assert [(one.name, one.setup.memory) for one in found] == [
        ("tiny.onnx (low)", "low"),
        ("tiny.onnx (balanced)", "balanced"),
    ]
    assert found[0].setup.model == found[1].setup.model
    # An optimized file opens without optimizers as low alone.
    idle = replace(models[0], setup=replace(models[0].setup, optimize=False))
    again, _ = add_variants([idle], tmp_path, float16=False, cuda_graphs=False, balanced=True)
    assert [one.setup.optimize for one in again] == [False, True]


def test_what_low_costs_is_asked_of_what_runs_as_low_alone(tmp_path: Path) -> None:
    for memory in ("low", "balanced"):
        (tmp_path / memory).mkdir()
    (note,) = unpacked_note(of_profile(tmp_path / "low", "low"))
    assert note.startswith("tiny.onnx: memory profile low packs no weights")
    assert "balanced=True measures it" in note
    models = of_profile(tmp_path / "balanced", "balanced")
    assert unpacked_note(models) == []
    with pytest.raises(InputError, match="no model runs with memory profile low") as error:
        add_variants(models, tmp_path, float16=False, cuda_graphs=False, balanced=True)
    assert error.value.hint == 'memory="low" balanced=True'


@pytest.mark.slow
def test_a_profile_says_what_low_costs_here() -> None:
    found = loopedge.profile([TINY], memory="low", balanced=True, details=False, **QUICK)
    low, packed = found.runs
    assert (low.memory, packed.memory) == ("low", "balanced")
    assert not [note for note in found.notes if "packs no weights" in note]
    (said,) = verdicts(found)
    ratio = ratio_text(packed.time_ratio / low.time_ratio)
    assert said.startswith("tiny.onnx (balanced) against tiny.onnx (low): ")
    assert f"{ratio} the time" in said


def test_a_cuda_graph_needs_the_device() -> None:
    with pytest.raises(InputError, match="needs a CUDA device") as error:
        loopedge.profile([TINY], cuda_graphs=True)
    assert error.value.hint == 'provider="cuda" cuda_graphs=True'


def gpu_memory(**fields: Any) -> GpuMemory:
    known: dict[str, Any] = {
        "name": "NVIDIA Test",
        "process_bytes": 100,
        "context_bytes": 200,
        "weights_bytes": 50,
        "workspace_bytes": 20,
        "activations_bytes": 30,
        "memcpy_nodes": 1,
        "cuda_graph": False,
        "fell_back": [],
    }
    return GpuMemory(**known | fields)


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the device be named cuda and its processes run on the CPU."""
    monkeypatch.setattr(building, "asked_provider", lambda options: "CPUExecutionProvider")
    monkeypatch.setattr(pipeline, "find_provider", lambda name, options: None)


@pytest.mark.slow
@pytest.mark.usefixtures("pretended_cuda")
def test_a_profile_holds_what_the_gpu_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(setup: Any, weight_bytes: int) -> tuple[GpuMemory, list[str]]:
        return gpu_memory(cuda_graph=setup.cuda_graphs, weights_bytes=weight_bytes), ["a note"]

    monkeypatch.setattr(pipeline, "measure_gpu", measured)
    found = loopedge.profile([TINY], provider="cuda", cuda_graphs=True, **QUICK)
    kinds = [(run.twin, run.gpu.cuda_graph) for run in found.runs if run.gpu]
    assert kinds == [(None, False), ("unrolled", False), ("unrolled", True)]
    assert all(run.gpu and run.gpu.weights_bytes == run.weight_bytes for run in found.runs)
    assert found.notes == [CAPTURE_NOTE, "a note"]


@pytest.mark.usefixtures("pretended_cuda")
def test_a_model_that_cuda_does_not_run_ends_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ProviderError("CUDAExecutionProvider was asked for and runs none")

    monkeypatch.setattr(pipeline, "measure_gpu", refuse)
    with pytest.raises(ProviderError, match="runs none"):
        loopedge.profile([TINY], provider="cuda", **QUICK)


def test_only_nodes_that_compute_data_are_a_caution() -> None:
    fallen = [f"Cast x{index}" for index in range(7)]
    runs = [
        make_run(provider="CUDAExecutionProvider", nodes={"CPUExecutionProvider": 9}, gpu=gpu)
        for gpu in (gpu_memory(host_nodes=["Shape s"]), gpu_memory(fell_back=fallen))
    ]
    notes = [text for text in cautions(make_result(*runs)) if "CPU" in text]
    (only,) = notes
    assert only.endswith(
        "7 nodes fell back to the CPU: Cast x0; Cast x1; Cast x2; Cast x3; Cast x4; and 2 more."
    )


def test_variants_of_two_profiles_belong_together_by_how_they_ran() -> None:
    runs = [
        make_run(name="m.onnx", compute=compute, cuda_graph=graph)
        for compute in ("float32", "float16")
        for graph in (False, True)
    ]
    again = [replace(run) for run in reversed(runs)]
    pairs = pairs_of(make_result(*runs), make_result(*again))
    assert [(one.compute, one.cuda_graph) for one, _ in pairs] == [
        (other.compute, other.cuda_graph) for _, other in pairs
    ]
    assert len(set(run_labels(runs))) == 4


def test_a_prepared_file_has_no_float16_twin(tmp_path: Path) -> None:
    graph = open_artifact(TINY)
    metadata = read_metadata(graph.metadata_props)
    assert not metadata.foreign
    write_metadata(metadata.model_copy(update={"prepared": this_device()}), graph.metadata_props)
    prepared = tmp_path / "m.prepared.onnx"
    ir.save(graph, prepared)
    with pytest.raises(InputError, match="is prepared for one device"):
        loopedge.profile([prepared], float16=True, **QUICK)


def test_a_weight_that_somebody_still_looks_at_is_converted_too(tmp_path: Path) -> None:
    """Graphs share the tensors of the file that they come from."""
    write_artifact(open_artifact(TINY), tmp_path / "m.onnx", external_threshold_bytes=0)
    graph = open_artifact(tmp_path / "m.onnx")
    tensor = graph.graph.initializers["embedding.weight"].const_value
    assert tensor is not None
    seen = tensor.numpy()
    half = compute_in_float16(graph).graph.initializers["embedding.weight"].const_value
    assert half is not None
    assert np.array_equal(half.numpy(), seen.astype(np.float16))
    assert np.array_equal(tensor.numpy(), seen)
