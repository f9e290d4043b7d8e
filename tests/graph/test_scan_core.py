"""A core that is a Scan: seen as other forms are, written out, untied, inspected, refused where it cannot be used."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.scans.scan_core import ScanCore
from loopedge.graph.core.scans.written_out import write_out_scans
from loopedge.graph.core.ties import tied_weights, untied_bytes
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import view_core
from loopedge.graph.weights import stored_bytes, weight_bytes
from loopedge.profiler.caches import cache_levels, smallest_that_holds
from loopedge.profiler.subjects.weight_reads import weight_reads
from tests.graph.generate_files import GenerateModel, write_generate_file

LOOPS = 3
IDS = np.array([5, 1, 200, 7, 7])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    model = GenerateModel(loops=LOOPS, places=("prelude", "core", "coda"))
    return write_generate_file(model, folder / "lm.generate.onnx")


@pytest.fixture(scope="module")
def graph(path: Path) -> ir.Model:
    return open_artifact(path)


def test_the_scan_is_the_core(graph: ir.Model) -> None:
    core = view_core(graph)
    assert isinstance(core, ScanCore)
    assert core.form == "scan"
    assert core.iterations == LOOPS
    assert len(core.states) == 1
    inside = [node for node in core.nodes if node.op_type == "GroupQueryAttention"]
    outside = [node for node in graph.graph if node.op_type == "GroupQueryAttention"]
    assert len(inside) == 1
    assert len(outside) == 2
    assert core.contains(inside[0])
    assert not core.contains(outside[0])
    assert core.number_at(inside[0]) is core.scan.iteration
    assert not core.inner_loops
    assert core.context


def test_its_weights_are_read_in_each_iteration(graph: ir.Model) -> None:
    weights = view_core(graph).weights
    assert {name for name in weights if name.startswith("core.")} == {
        f"core.{part}" for part in "qkvo"
    }
    assert set(weights.values()) == {LOOPS}
    assert {weight.name for weight in tied_weights(graph)} >= {"core.q", "core.o"}
    stored = sum(stored_bytes(graph.graph.initializers[name]) for name in weights)
    assert untied_bytes(graph) - weight_bytes(graph) == (LOOPS - 1) * stored


def logits(path: Path) -> Any:
    generator = loopedge.Generator(path, threads=1)
    first = generator.prefill(IDS)
    return np.concatenate([first, generator.step(3), generator.step(9)])


@pytest.mark.parametrize("rewrite", [write_out_scans, untie])
def test_iterations_written_out_decode_the_same(
    rewrite: Callable[[ir.Model], ir.Model], path: Path, graph: ir.Model, tmp_path: Path
) -> None:
    twin = rewrite(graph)
    target = tmp_path / "twin.onnx"
    write_artifact(twin, target)
    assert np.abs(logits(target) - logits(path)).max() < 1e-4
    cores = Cores(twin)
    assert not cores.scans
    assert cores.count == LOOPS
    names = {value.name for value in twin.graph.inputs}
    assert {f"past.core.{t}.0.key" for t in range(LOOPS)} < names
    assert "past.core.0.key" not in names
    assert view_core(graph).form == "scan"  # the source is as it was


def test_what_products_read_for_a_token(graph: ir.Model) -> None:
    reads, once = weight_reads(graph), weight_reads(graph, 1)
    assert reads.distinct == once.distinct == once.total
    assert reads.total == once.total + (LOOPS - 1) * reads.block
    untied = weight_reads(untie(graph))
    assert untied.total == untied.distinct == reads.total
    assert untied.block == reads.block


def test_an_inspection_says_what_the_cache_takes(path: Path) -> None:
    found = loopedge.inspect(path)
    assert found.form == "scan"
    assert [(core.form, core.iterations) for core in found.cores] == [("scan", LOOPS)]
    heads, size = 2, 8
    assert found.cache_bytes_per_token == 2 * 4 * heads * size * (LOOPS + 2)
    assert found.rolling.command is None
    assert found.untied_bytes > found.weight_bytes


@pytest.mark.parametrize(
    ("verb", "instead"),
    [
        ("quantize", r"loopedge quantize .*lm\.onnx && loopedge to-generate .*lm\.int8\.onnx"),
        ("reroll", r"loopedge reroll .*lm\.onnx && loopedge to-generate .*lm\.loop\.onnx"),
        ("unroll", r"loopedge to-generate .*lm\.onnx --form unrolled"),
        ("convert", r"loopedge convert .*lm\.onnx"),
        ("prepare", r"loopedge prepare .*lm\.onnx"),
    ],
)
def test_what_needs_the_model_without_a_cache(
    verb: str, instead: str, path: Path, tmp_path: Path
) -> None:
    suffix = ".ort" if verb == "convert" else ".onnx"
    with pytest.raises(InputError, match="decodes with a cache") as caught:
        getattr(loopedge, verb)(path, tmp_path / f"out{suffix}")
    assert caught.value.hint is not None
    assert re.fullmatch(instead, caught.value.hint)


@pytest.mark.slow
def test_a_profile_measures_a_token_behind_a_text(path: Path) -> None:
    result = loopedge.profile([path], untied=True, sequence=20, runs=6, processes=1, details=False)
    tied, untied = result.runs
    assert tied.decoding is not None
    assert untied.decoding is not None
    assert (tied.sequence, tied.batch, tied.loops) == (20, 1, LOOPS)
    assert tied.decoding.prompt_tokens_per_second is not None
    assert tied.decoding.prompt_tokens_per_second > 0
    assert tied.decoding.tokens_per_second == pytest.approx(1000 / tied.latency_ms.p50)
    assert tied.decoding.weight_bytes == untied.decoding.weight_bytes
    assert tied.decoding.distinct_bytes < untied.decoding.distinct_bytes
    assert tied.decoding.cache_bytes == untied.decoding.cache_bytes == 20 * 2 * 4 * 2 * 8 * 5
    assert untied.output_error is not None
    assert untied.output_error < 1e-3
    (fewer,) = loopedge.profile([path], loops=1, runs=2, processes=1, details=False).runs
    assert fewer.decoding is not None
    assert fewer.decoding.weight_bytes == tied.decoding.distinct_bytes


def test_a_profile_refuses_what_the_file_does_not_take(path: Path) -> None:
    for options, says in (
        ({"sequence": 49}, "at most 48 positions"),
        ({"loops": 5}, "at most 4 loops"),
        ({"input": "x.npz"}, "one token behind a text"),
    ):
        with pytest.raises(InputError, match=says):
            loopedge.profile([path], **options)


def test_the_caches_of_a_processor_are_read(tmp_path: Path) -> None:
    for place, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "x", "?")]
    ):
        folder = tmp_path / f"index{place}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n", encoding="ascii")
    levels = cache_levels(tmp_path)
    assert levels == {"L1": 48 << 10, "L2": 2 << 20}
    assert smallest_that_holds(1 << 20, levels) == "L2"
    assert smallest_that_holds(1 << 10, levels) == "L1"
    assert smallest_that_holds(3 << 20, levels) is None
    assert cache_levels(tmp_path / "missing") == {}
