"""Exports with layers in parts: what PyTorch computes, one copy of the weights, and all that follows."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError
from loopedge.exporter.pipeline import ExportResult
from loopedge.graph.core.ties import untied_bytes
from loopedge.graph.core.untied import untie
from loopedge.graph.inputs import generate_inputs
from loopedge.graph.weights import weight_bytes
from tests.parity.models import FLIPS_DB, SEVEN_BITS, make_model, seven_bits

Export = Callable[..., ExportResult]
D, VOCABULARY, LENGTH = 512, 1024, 128
MLP = {"core_layers.0.mlp.up.weight": 4, "core_layers.0.mlp.down.weight": 4}
ATTENTION = {f"core_layers.0.attention.{name}.weight": 2 for name in "qkvo"}


def make() -> loopedge.LoopedTransformer:
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=D, heads=8, loops=3, vocab_size=VOCABULARY, max_length=LENGTH
    )
    model = loopedge.LoopedTransformer(config).eval()
    with torch.no_grad():
        dict(model.named_parameters())["timestep.last.weight"].normal_(0.0, 0.05)
    return model


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export the model once per module and choice."""
    folder, model = tmp_path_factory.mktemp("activations"), make()

    @cache
    def made(**options: Any) -> ExportResult:
        name = "-".join([*map(str, options.values()), "model"])
        return loopedge.export(model, folder / f"{name}.onnx", **options)

    return made


def outputs(path: str | Path, length: int = LENGTH, **options: Any) -> Any:
    feeds = generate_inputs(open_artifact(path), batch=2, sequence=length)
    return loopedge.Session(path, threads=1, **options).run(feeds)["logits"]


def int8(path: str | Path, target: Path, **options: Any) -> Any:
    generator = np.random.default_rng(0)
    samples = [{"input_ids": generator.integers(0, VOCABULARY, (4, 32))} for _ in range(4)]
    ranges = loopedge_calibration.collect(path, samples, threads=1)
    return loopedge.quantize(
        path, target, ranges=ranges, data=samples, threads=1, **options, **SEVEN_BITS
    )


def operators(path: str | Path) -> list[str]:
    return [node.op_type for node in open_artifact(path).graph.all_nodes()]


@pytest.mark.long
@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_parts_compute_what_the_whole_does_with_one_copy(
    export: Export, form: str, memory: str
) -> None:
    whole = export(form=form, memory=memory, activations="whole")
    small = export(form=form, memory=memory)
    assert whole.split_weights == {}
    assert small.split_weights == (MLP | ATTENTION if memory == "low" else MLP)
    assert small.weight_bytes == whole.weight_bytes
    assert ("FusedMatMul" in operators(small.path)) == (memory == "low")
    tied = {weight.name: weight.uses for weight in small.tied_weights}
    for name, parts in small.split_weights.items():
        assert {tied[f"{name}.{i}"] for i in range(parts)} == {3}
        assert name not in tied
    for length in (1, 7, LENGTH):
        exact = outputs(whole.path, length)
        np.testing.assert_allclose(outputs(small.path, length), exact, atol=1e-5 * abs(exact).max())


@pytest.mark.long
def test_the_untied_twin_of_parts_is_as_large_as_that_of_the_whole(export: Export) -> None:
    models = [
        open_artifact(export(form="loop", memory="low", activations=activations).path)
        for activations in ("whole", "small")
    ]
    assert untied_bytes(models[0]) == untied_bytes(models[1])
    assert weight_bytes(untie(models[1])) == untied_bytes(models[1])


@pytest.mark.long
@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_static_int8_covers_all_parts_and_is_no_worse(
    export: Export, tmp_path: Path, memory: str
) -> None:
    whole = int8(
        export(form="loop", memory=memory, activations="whole").path, tmp_path / "whole.onnx"
    )
    small = int8(export(form="loop", memory=memory).path, tmp_path / "small.onnx")
    assert (whole.matmuls["quantized"], whole.matmuls["total"]) == (7, 7)
    parts = 8 * 2 + 1 if memory == "low" else 4 + 8 + 1
    assert (small.matmuls["quantized"], small.matmuls["total"]) == (parts, parts)
    assert small.sqnr_db > whole.sqnr_db - FLIPS_DB
    # A quarter of the rows has a scale of its own; the bytes of the weights are the same.
    assert 0 <= small.weight_bytes - whole.weight_bytes <= 4 * D * 2 * 4 + 4 * D * 4
    assert "FusedMatMul" not in operators(tmp_path / "small.onnx")


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["dynamic", "weight-int8", "weight-int4"])
def test_other_schemes_cover_all_parts(export: Export, tmp_path: Path, scheme: str) -> None:
    results = [
        loopedge.quantize(
            export(form="loop", memory="low", activations=activations).path,
            tmp_path / f"{activations}.onnx",
            scheme=scheme,
            threads=1,
            **seven_bits(scheme),
        )
        for activations in ("whole", "small")
    ]
    assert results[1].matmuls["quantized"] == results[1].matmuls["total"] == 17
    assert results[1].sqnr_db > results[0].sqnr_db - FLIPS_DB


@pytest.mark.long
def test_a_linear_is_kept_with_all_its_parts_and_a_head_stays_in_place(
    export: Export, tmp_path: Path
) -> None:
    source = export(form="loop", memory="low").path
    kept = ["core/linear_5", "coda/linear", "core/linear_4.1"]
    result = loopedge.quantize(source, tmp_path / "kept.onnx", keep=kept, min_coverage=0, threads=1)
    skipped = {item["name"] for item in result.matmuls["skipped"]}
    assert skipped == {*(f"core/linear_5.{i}" for i in range(4)), "coda/linear", "core/linear_4.1"}
    assert "FusedMatMul" in operators(tmp_path / "kept.onnx")
    with pytest.raises(InputError, match=r"no linear core/linear_9"):
        loopedge.quantize(source, tmp_path / "no.onnx", keep=["core/linear_9"], threads=1)


@pytest.mark.long
def test_prepared_and_converted_files_compute_the_same(export: Export, tmp_path: Path) -> None:
    source = export(form="loop", memory="low").path
    prepared = loopedge.prepare(source, tmp_path / "p.onnx", threads=1)
    loopedge.convert(source, tmp_path / "c.ort")
    exact = outputs(source, 9)
    feeds = generate_inputs(open_artifact(source), batch=2, sequence=9)
    for path in (prepared.path, tmp_path / "c.ort"):
        given = loopedge.Session(path, threads=1).run(feeds)["logits"]
        np.testing.assert_allclose(given, exact, atol=1e-5 * abs(exact).max())


@pytest.mark.long
def test_small_models_stay_whole(tmp_path: Path) -> None:
    result = loopedge.export(make_model("tokens"), tmp_path / "tiny.onnx", memory="low")
    assert result.split_weights == {}
    assert "FusedMatMul" not in operators(result.path)


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"activations 'tiny' is not known, allowed are small, whole"
    ):
        loopedge.export(make_model("tokens"), tmp_path / "m.onnx", activations="tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_the_last_position_alone_is_computed_in_parts_too(
    export: Export, tmp_path: Path, memory: str
) -> None:
    every = export(form="loop", memory=memory)
    last = export(form="loop", memory=memory, logits="last")
    assert last.split_weights == every.split_weights
    assert last.weight_bytes == every.weight_bytes
    assert last.last_rows.applied
    names = [node.name or "" for node in open_artifact(last.path).graph.all_nodes()]
    products = [name for name in names if name.startswith("core.last/") and "linear" in name]
    assert len(products) >= len(every.tied_weights) - 1  # the head is behind the core
    for length in (1, 7, LENGTH):
        exact = outputs(every.path, length)[:, -1:]
        found = outputs(last.path, length)
        np.testing.assert_allclose(found, exact, atol=1e-5 * abs(exact).max())
    quantized = int8(last.path, tmp_path / "int8.onnx")
    assert quantized.matmuls["quantized"] == quantized.matmuls["total"]
    assert quantized.weight_bytes < 0.3 * last.weight_bytes
    assert quantized.sqnr_db > 20
