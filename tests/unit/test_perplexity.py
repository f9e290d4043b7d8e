"""Perplexity of files against a plain computation: a bigram model in a graph of one Gather."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import loopedge
from loopedge.errors import InputError
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "the loop keeps its weights, and the weights keep the loop. é\n" * 12
TASK = {"name": "text", "tokenizer": "bytes", "tokenizer_sha256": None, "vocab_size": 256}
CONTEXT = 16


def write_bigrams(path: Path, seed: int, **properties: Any) -> np.ndarray:
    """Write a model whose logits are rows of a table; return the table, float32 (256, 256)."""
    table = np.random.default_rng(seed).standard_normal((256, 256)).astype(np.float32)
    ids = helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info(
        "logits", onnx.TensorProto.FLOAT, ["batch", "sequence", 256]
    )
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"])],
        "bigrams",
        [ids],
        [logits],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    said = {"version": "0", "form": "loop", "loops": 1, "trained_loops": 1, "task": TASK}
    for name, value in (said | {"trained_length": CONTEXT} | properties).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"loopedge.{name}", json.dumps(value)
    onnx.save(model, path)
    return table


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def bigrams(tmp_path: Path) -> Path:
    write_bigrams(tmp_path / "first.onnx", 0)
    return tmp_path / "first.onnx"


def exact(table: np.ndarray, windows: int) -> tuple[float, float]:
    """Return mean nats and accuracy of the first windows of the text, in float64."""
    ids = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int64)[: windows * CONTEXT + 1]
    rows = table.astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    nats = -rows[ids[:-1], ids[1:]].mean()
    return float(nats), float((rows.argmax(axis=1)[ids[:-1]] == ids[1:]).mean())


def test_it_is_that_of_a_plain_computation(tmp_path: Path, text: Path) -> None:
    table = write_bigrams(tmp_path / "first.onnx", 0)
    found = loopedge.evaluate(tmp_path / "first.onnx", text)
    windows = (len(TEXT.encode()) - 1) // CONTEXT
    nats, accuracy = exact(table, windows)
    (each,) = found.evaluations
    assert (found.windows, found.context, found.tokens) == (windows, CONTEXT, windows * CONTEXT)
    assert found.text_bytes == found.tokens  # a byte is a token
    assert each.perplexity == pytest.approx(np.exp(nats), rel=1e-5)
    assert each.bits_per_byte == pytest.approx(nats / np.log(2), rel=1e-5)
    assert each.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert (each.mode, each.loops, each.change, each.iterations) == ("windows", None, None, None)


def test_a_second_model_is_compared_with_the_first(
    tmp_path: Path, bigrams: Path, text: Path
) -> None:
    write_bigrams(tmp_path / "second.onnx", 1)
    first, second, same = loopedge.evaluate(
        [bigrams, tmp_path / "second.onnx", bigrams], text
    ).evaluations
    assert first.change is None
    assert second.change == pytest.approx(second.perplexity / first.perplexity - 1, rel=1e-6)
    assert second.change_error is not None
    assert 0 < second.change_error < 1
    assert (same.change, same.change_error) == (0.0, 0.0)


def test_fewer_windows_are_spread_over_the_text(bigrams: Path, text: Path) -> None:
    found = loopedge.evaluate(bigrams, text, samples=3, context=5)
    assert (found.windows, found.context, found.tokens) == (3, 5, 15)
    assert loopedge.evaluate(bigrams, text, samples=1).evaluations[0].change_error is None


def test_the_result_is_plain_json(bigrams: Path, text: Path) -> None:
    found = loopedge.evaluate(bigrams, text, samples=2).to_json()
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 0}, "context is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"loops": 0}, "loops asks for 0"),
        ({"loops": []}, "loops asks for none"),
        ({"loops": 3}, "runs 1 loops, 3 were asked for"),
        ({"context": 10_000}, "needs 10001"),
        ({"tolerance": 0.1}, "takes no tolerance"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    bigrams: Path, text: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        loopedge.evaluate(bigrams, text, **options)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"task": {"name": "sorting"}}, "was trained on the task 'sorting': it has no perplexity"),
        ({"task": {}}, "on something it does not say"),
        ({"max_length": 8}, "takes at most 8 positions"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    tmp_path: Path, text: Path, properties: dict[str, Any], words: str
) -> None:
    write_bigrams(tmp_path / "other.onnx", 0, **properties)
    with pytest.raises(InputError, match=words):
        loopedge.evaluate(tmp_path / "other.onnx", text)


def test_files_that_are_not_there_are_refused(tmp_path: Path, bigrams: Path, text: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        loopedge.evaluate(tmp_path / "none.onnx", text)
    with pytest.raises(InputError, match="does not exist"):
        loopedge.evaluate(bigrams, tmp_path / "none.txt")
    with pytest.raises(InputError, match="no model is named"):
        loopedge.evaluate([], text)


def uncached(model: GenerateModel, windows: int, context: int, loops: int | None = None) -> float:
    """Return the perplexity of evenly spread windows of the text, each computed whole."""
    ids = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int64)
    last = (len(ids) - 1) // context - 1
    nats = []
    for start in np.linspace(0, last, windows).round().astype(int) * context:
        window = ids[start : start + context + 1]
        rows = model.logits(window[:-1].tolist(), loops).astype(np.float64)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        nats.append(-rows[np.arange(context), window[1:]].mean())
    return float(np.exp(np.mean(nats)))


@pytest.mark.parametrize(("windows", "loops"), [(3, None), (3, 2), (11, None)])
def test_a_cache_is_fed_token_by_token(
    tmp_path: Path, text: Path, windows: int, loops: int | None
) -> None:
    model = GenerateModel(properties={"trained_length": 12})
    path = write_generate_file(model, tmp_path / "m.generate.onnx")
    found = loopedge.evaluate(path, text, samples=windows, loops=loops)
    (each,) = found.evaluations
    assert (each.mode, each.loops, found.tokens) == ("cache", loops, windows * 12)
    assert each.perplexity == pytest.approx(uncached(model, windows, 12, loops), rel=1e-4)


def test_a_cache_that_takes_no_tolerance_says_so(tmp_path: Path, text: Path) -> None:
    path = write_generate_file(GenerateModel(), tmp_path / "m.generate.onnx")
    with pytest.raises(InputError, match="takes no tolerance"):
        loopedge.evaluate(path, text, context=8, samples=1, tolerance=0.1)
