"""Caches of integers: how they are stored, what they round, what they cost, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.deployment.decoding.cache_rounding import check_cache_type
from loopedge.deployment.decoding.plain_decoder import PlainDecoder
from loopedge.errors import InputError, VerificationError
from loopedge.graph.decoding.cache.quantized_cache import dequantized, scale_name
from loopedge.runtime.generator import Generator
from loopedge_calibration import cache_scales
from loopedge_calibration.cache_scales import find_scales

if TYPE_CHECKING:
    from loopedge.graph.metadata import Generation

TINY = Path(__file__).parents[1] / "fixtures" / "tiny_dynamic.onnx"
VOCABULARY, CONTEXT, LOOPS = 48, 16, 3
PARTS = ("core.0.key", "core.0.value")
Files = dict[str, Path]


def texts(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (count, CONTEXT))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The tiny model with a cache of floats and of integers."""
    folder = tmp_path_factory.mktemp("caches")
    source = Path(shutil.copy(TINY, folder / "lm.onnx"))
    found = {"source": source}
    for kind in ("float32", "int8", "int4"):
        data = None if kind == "float32" else {"input_ids": texts(40)}
        found[kind] = folder / f"{kind}.generate.onnx"
        loopedge.to_generate(source, found[kind], cache_type=kind, data=data, threads=1)
    return found


def generation_of(path: Path) -> Generation:
    found = Artifact.open(path).metadata.generate
    assert found is not None
    return found


def filled(path: Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a text leaves in the cache: ([loops,] batch, kv heads, tokens, head size)."""
    decoder = PlainDecoder(path, generation_of(path), noise={}, threads=1)
    decoder.start(len(ids), ids.shape[1])
    decoder.run(ids, [ids.shape[1]] * len(ids))
    return decoder.written


def scales_of(path: Path, part: str) -> np.ndarray:
    value = Artifact.open(path).graph.graph.initializers[scale_name(part)].const_value
    assert value is not None
    return value.numpy()


@pytest.mark.parametrize(
    ("kind", "dtype", "size"), [("int8", ir.DataType.INT8, 16), ("int4", ir.DataType.UINT8, 8)]
)
def test_past_and_present_are_integers(
    files: Files, kind: str, dtype: ir.DataType, size: int
) -> None:
    graph = Artifact.open(files[kind]).graph.graph
    cache = [
        value
        for value in (*graph.inputs, *graph.outputs)
        if value.name and value.name.startswith(("past.", "present."))
    ]
    assert len(cache) == 4
    assert {value.dtype for value in cache} == {dtype}
    assert {value.shape[-1] for value in cache if value.shape is not None} == {size}
    exact, rounded = generation_of(files["float32"]), generation_of(files[kind])
    assert rounded.cache_type == kind
    assert exact.bytes_per_token == rounded.bytes_per_token * (4 if kind == "int8" else 8)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_each_iteration_has_scales_of_its_own_stored_once(files: Files, kind: str) -> None:
    for part in PARTS:
        table = scales_of(files[kind], part)
        assert table.shape == (LOOPS, 2, 1, 16)
        assert table.dtype == np.float32
        assert not np.allclose(table[0], table[1], rtol=0.05)
    graph = Artifact.open(files[kind]).graph
    (scan,) = [node for node in graph.graph if node.op_type == "Scan"]
    body = scan.attributes["body"].as_graph()
    rows = [node for node in body if (node.name or "").endswith(".scale")]
    assert [node.op_type for node in rows] == ["Gather", "Gather"]
    assert {node.inputs[1] for node in rows} == {body.inputs[0]}


@pytest.mark.parametrize(("kind", "largest"), [("int8", 127), ("int4", 7)])
def test_what_is_stored_is_the_nearest_step(files: Files, kind: str, largest: int) -> None:
    """Of the first iteration, whose keys and values no rounding has touched yet."""
    ids = texts(3, seed=7)
    exact, rounded = filled(files["float32"], ids), filled(files[kind], ids)
    for part in PARTS:
        scale = scales_of(files[kind], part)[:, :, 0]  # (loops, kv heads, head size)
        steps = scale[0][:, None]
        found = dequantized(rounded[part], scale, 8 if kind == "int8" else 4)[0]
        wanted = np.clip(exact[part][0], -(largest + 1) * steps, largest * steps)
        assert (np.abs(found - wanted) <= 0.501 * steps).all()


@pytest.mark.parametrize(("kind", "least"), [("int8", 40), ("int4", 20)])
@pytest.mark.parametrize("loops", [1, 2, LOOPS])
def test_fewer_loops_take_the_scales_of_the_first_iterations(
    files: Files, kind: str, least: float, loops: int
) -> None:
    ids = texts(1, seed=3)[0]
    found = {}
    for which in ("float32", kind):
        generator = Generator(files[which], loops=loops, threads=1)
        logits = [generator.prefill(ids[:5]), *(generator.step(int(each)) for each in ids[5:])]
        found[which] = np.concatenate(logits)
    noise = found[kind] - found["float32"]
    assert 20 * np.log10(np.linalg.norm(found["float32"]) / np.linalg.norm(noise)) > least


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_in_place_is_what_a_copied_cache_gives(files: Files, kind: str) -> None:
    ids = texts(2, seed=5)
    decoder = PlainDecoder(files[kind], generation_of(files[kind]), noise={}, threads=1)
    decoder.start(2, CONTEXT)
    generator = Generator(files[kind], batch=2, context=CONTEXT, threads=1)
    copied = decoder.run(ids[:, :4], [4, 4])
    assert np.array_equal(generator.prefill(ids[:, :4]), copied)
    for place in range(4, CONTEXT):
        copied = decoder.run(ids[:, place : place + 1], [place + 1] * 2)
        assert np.array_equal(generator.step(ids[:, place]), copied)


def test_the_result_says_what_the_integers_cost(tmp_path: Path, files: Files) -> None:
    result = loopedge.to_generate(
        files["source"],
        tmp_path / "m.onnx",
        cache_type="int8",
        data={"input_ids": texts(40)},
        threads=1,
    )
    loss = result.cache_loss
    assert loss is not None
    assert loss.sqnr_db > 40
    assert loss.cache_sqnr_db > 35
    assert loss.change == pytest.approx(loss.perplexity / loss.float_perplexity - 1)
    assert (loss.texts, loss.tokens, loss.source) == (10, 10 * (CONTEXT - 1), "data")
    assert result.max_rel_error < 1e-4  # of the same graph with floats
    assert result.to_json()["cache_loss"]["sqnr_db"] == loss.sqnr_db


@pytest.mark.parametrize(("form", "cache"), [("unrolled", "per-loop"), ("unrolled", "last-loop")])
def test_iterations_that_are_written_out(
    tmp_path: Path, files: Files, form: Any, cache: Any
) -> None:
    result = loopedge.to_generate(
        files["source"],
        tmp_path / "m.onnx",
        form=form,
        cache=cache,
        cache_type="int8",
        data={"input_ids": texts(12)},
        threads=1,
    )
    assert result.cache_loss is not None
    assert result.cache_loss.sqnr_db > 35
    if cache == "per-loop":
        per_iteration = [scales_of(tmp_path / "m.onnx", f"core.{t}.0.key") for t in range(LOOPS)]
        assert [table.shape for table in per_iteration] == [(2, 1, 16)] * LOOPS
        scanned = scales_of(files["int8"], "core.0.key")
        assert not np.allclose(scanned[0], scanned[1], rtol=0.05)
        assert np.allclose(np.stack(per_iteration), scanned, rtol=0.5)  # of other texts


def test_scales_that_do_not_fit_are_found_out(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far_too_small(*given: Any, **named: Any) -> dict[str, np.ndarray]:
        return {part: table * 1e-3 for part, table in find_scales(*given, **named).items()}

    monkeypatch.setattr(cache_scales, "find_scales", far_too_small)
    with pytest.raises(VerificationError, match="at least 15 dB are asked"):
        loopedge.to_generate(
            files["source"],
            tmp_path / "m.onnx",
            cache_type="int8",
            data={"input_ids": texts(12)},
            threads=1,
        )
    assert list(tmp_path.iterdir()) == []


def test_padding_finds_no_scales(files: Files) -> None:
    """Texts of several lengths give the scales that each gives alone, the largest of them."""
    ids = texts(2, seed=9)
    path, generation = files["float32"], generation_of(files["float32"])
    short, long = ids[0, :4], ids[1]
    together = find_scales(path, generation, [short, long], 8, noise={}, threads=1)
    alone = [
        find_scales(path, generation, [text], 8, noise={}, threads=1) for text in (short, long)
    ]
    for part in PARTS:
        most = np.maximum(alone[0][part], alone[1][part])
        assert (together[part] <= most * (1 + 1e-5)).all()


def test_a_rare_large_value_is_clipped_where_that_is_better() -> None:
    values = np.ones((1, 1, 1000, 2), np.float32) * np.linspace(-1, 1, 1000)[:, None]
    values[0, 0, 0] = 1.6
    largest = np.abs(values).max(axis=-2)
    whole, clipped = (
        cache_scales._squared_error(values, cache_scales._scale(largest, share, 4), 4)
        for share in (1.0, 0.7)
    )
    assert (clipped < whole).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_type": "int8"}, "needs text to find its scales on"),
        ({"cache_type": "int2"}, "not known"),
        ({"data": {"input_ids": texts(4)}}, "this one holds floats"),
        (
            {"cache_type": "int8", "form": "tensorscatter", "data": {"input_ids": texts(4)}},
            "standard operators keep floats",
        ),
        (
            {"cache_type": "int8", "data": {"input_ids": texts(4)[:, :1]}},
            "holds no text of two tokens",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, files: Files, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        loopedge.to_generate(files["source"], tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("version", "fits"), [("1.26.3", False), ("1.27.0", True), ("2.0", True)])
def test_an_old_runtime_is_refused_in_one_line(version: str, fits: bool) -> None:
    if fits:
        check_cache_type("int8", form="scan", data=object(), version=version)
        return
    with pytest.raises(
        InputError, match=r"int8 needs onnxruntime 1\.27, this is 1\.26\.3"
    ) as caught:
        check_cache_type("int8", form="scan", data=object(), version=version)
    assert caught.value.hint == "pip install 'onnxruntime>=1.27'"
