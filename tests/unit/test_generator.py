"""`loopedge.Generator` on files written by hand: equal to a computation without a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.errors import InputError, LoopedgeError
from loopedge.runtime.decoding.cached_texts import CachedTexts
from loopedge.runtime.generator import Generator
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.generators import PROMPT, close

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture
def model() -> GenerateModel:
    return GenerateModel()


@pytest.fixture
def file(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


KINDS: dict[str, dict[str, Any]] = {
    "scan": {},
    "all places": {"places": ("prelude", "core", "coda")},
    "window": {"window": 5},
    "unrolled": {"form": "unrolled", "places": ("core", "coda")},
    "one loop": {"loops": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_without_a_cache(tmp_path: Path, kind: str) -> None:
    model = GenerateModel(**KINDS[kind])
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    text: list[int] = []
    for chunk in ([3], [200, 7, 7, 9, 1], [2], [5], list(range(20, 32))):
        logits = generator.prefill(chunk)
        text += chunk
        close(logits[0], model.logits(text)[-1])
    for token in (1, 255, 0):
        logits = generator.step(token)
        text.append(token)
        close(logits[0], model.logits(text)[-1])
    assert generator.lengths.tolist() == [len(text)]
    generator.reset()
    found = [token.id for token in generator.stream(PROMPT, new_tokens=30)]
    assert found == model.greedy(PROMPT, 30)


def last_loop_logits(model: GenerateModel, chunks: list[list[int]]) -> NDArray[Any]:
    """Return the logits after the last chunk, where earlier loops see the last loop's past and their own chunk."""
    from tests.graph.generate_files import HEAD_SIZE, HEADS, KV_HEADS, WIDTH

    weights = model.weights
    past = {side: np.zeros((0, KV_HEADS, HEAD_SIZE), np.float32) for side in "kv"}
    done = 0
    state = np.zeros((0, WIDTH), np.float32)
    for chunk in chunks:
        length = len(chunk)
        state = weights["table"][chunk] + weights["places"][done : done + length]
        now = past
        for t in range(model.loops):
            state = state + weights["steps"][t]
            new = {
                side: (state @ weights[f"core.{side}"]).reshape(length, KV_HEADS, HEAD_SIZE)
                for side in "kv"
            }
            now = {side: np.concatenate([past[side], new[side]]) for side in "kv"}
            queries = (state @ weights["core.q"]).reshape(length, HEADS, HEAD_SIZE)
            keys, values = (np.repeat(now[side], HEADS // KV_HEADS, axis=1) for side in "kv")
            scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(HEAD_SIZE)
            hidden = np.arange(done + length)[None, :] > done + np.arange(length)[:, None]
            scores = np.where(hidden, -np.inf, scores)
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares /= shares.sum(axis=-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", shares, values).reshape(length, WIDTH)
            state = np.tanh(state + mixed @ weights["core.o"])
        past, done = now, done + length
    last: NDArray[Any] = state[-1] @ weights["head"]
    return last


def test_last_loop_shares_one_buffer_among_the_iterations(tmp_path: Path) -> None:
    model = GenerateModel(form="unrolled", cache="last-loop")
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    per_loop = GenerateModel(form="unrolled")
    other = Generator(write_generate_file(per_loop, tmp_path / "p.onnx"), threads=1)
    assert other.cache_bytes == 3 * generator.cache_bytes
    chunks = [PROMPT, [5], [6, 7, 8], [9]]
    for place, chunk in enumerate(chunks):
        close(generator.prefill(chunk)[0], last_loop_logits(model, chunks[: place + 1]))


@pytest.mark.parametrize(("kind", "error"), [("float16", 5e-3), ("int8", 0.1), ("int4", 0.7)])
def test_narrow_caches_are_near(tmp_path: Path, kind: Any, error: float) -> None:
    model = GenerateModel(cache_type=kind)
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    float32 = Generator(write_generate_file(GenerateModel(), tmp_path / "f.onnx"), threads=1)
    assert float32.cache_bytes == {"float16": 2, "int8": 4, "int4": 8}[kind] * generator.cache_bytes
    text = list(PROMPT)
    close(generator.prefill(PROMPT)[0], model.logits(text)[-1], error)
    for token in (1, 2, 3):
        text.append(token)
        close(generator.step(token)[0], model.logits(text)[-1], error)


def test_a_batch_of_different_lengths(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, batch=3, threads=1)
    texts = [[1, 2, 3, 4, 5], [9], [7, 7, 7]]
    logits = generator.prefill(texts)
    for round_ in range(12):
        close(logits, np.stack([model.logits(text)[-1] for text in texts]))
        tokens = logits.argmax(axis=1) if round_ % 2 else np.array([round_, 3, 200])
        for text, token in zip(texts, tokens, strict=True):
            text.append(int(token))
        logits = generator.step(tokens)
    assert generator.lengths.tolist() == [17, 13, 15]
    more = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]  # token by token: the cache holds something
    logits = generator.prefill(more)
    texts = [text + new for text, new in zip(texts, more, strict=True)]
    close(logits, np.stack([model.logits(text)[-1] for text in texts]))
    assert generator.texts == texts
    with pytest.raises(InputError, match="different lengths"):
        generator.prefill([[1, 2], [3], [4]])
    generator.reset()
    array = np.array([[1, 2], [3, 4], [5, 6]])
    close(generator.prefill(array), np.stack([model.logits(row)[-1] for row in array.tolist()]))


def test_buffers_grow_as_the_text_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.STEP", 4)
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.CHUNK", 7)
    model = GenerateModel(context=50, places=("prelude", "core"))
    file = write_generate_file(model, tmp_path / "m.onnx")
    growing, whole = Generator(file, threads=1), Generator(file, context=50, threads=1)
    sizes = {growing.cache_bytes}
    text: list[int] = []
    for chunk in ([1], [2], [3], [4], [5], list(range(20)), [6, 7]):
        text += chunk
        for generator in (growing, whole):
            close(generator.prefill(chunk)[0], model.logits(text)[-1])
        sizes.add(growing.cache_bytes)
    position = sum(
        2 * 4 * 2 * 8 * slots for slots in (1, 3)
    )  # float32 keys and values of two heads of 8
    assert sizes == {positions * position for positions in (4, 8, 28)}
    assert whole.cache_bytes == 50 * position
    growing.prefill(range(23))  # the context is no multiple of the steps
    assert growing.cache_bytes == 50 * position
    assert len(growing.texts[0]) == 50
    with pytest.raises(InputError, match="context is 50 positions"):
        growing.step(1)
    assert growing.lengths.tolist() == [50]


def test_without_memory_to_grow_the_text_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.STEP", 4)
    model = GenerateModel(places=("prelude", "core"))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    generator.prefill([1, 2, 3, 4])
    zeros, made = np.zeros, []

    def scarce(shape: Any, *given: Any) -> Any:
        made.append(shape)
        if len(made) == 3:  # two buffers are larger by then
            raise MemoryError
        return zeros(shape, *given)

    with monkeypatch.context() as patch:
        patch.setattr("loopedge.runtime.decoding.cache_buffers.np.zeros", scarce)
        with pytest.raises(LoopedgeError, match="there is no memory for a cache of 8 positions"):
            generator.step(5)
    assert generator.texts == [[1, 2, 3, 4]]
    close(generator.step(5)[0], model.logits([1, 2, 3, 4, 5])[-1])
    generator.reset()
    close(generator.prefill([7, 8])[0], model.logits([7, 8])[-1])


def test_up_to_the_limit_of_the_context(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, context=12, threads=1)
    found = list(generator.stream(PROMPT))
    assert [token.id for token in found] == model.greedy(PROMPT, 5)
    assert generator.ended == "context"
    assert generator.lengths.tolist() == [12]
    generator.reset()
    close(generator.prefill(list(range(12)))[0], model.logits(list(range(12)))[-1])
    with pytest.raises(InputError, match="context is 12 positions") as caught:
        generator.step(1)
    assert caught.value.hint == "context=48"
    generator.reset()
    with pytest.raises(InputError, match="the text has 13 tokens and the context is 12"):
        generator.prefill(list(range(13)))
    assert generator.lengths.tolist() == [0]


def test_fewer_loops_are_exact_at_once_and_more_compute_the_text_again(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, loops=4, threads=1)
    text = list(PROMPT)
    close(generator.prefill(text)[0], model.logits(text, 4)[-1])
    again = []
    for loops, token in [(4, 1), (2, 2), (1, 3), (2, 4), (4, 5), (3, 6), (4, 7), (4, 8)]:
        again.append(generator.change_loops(loops))
        text.append(token)
        close(generator.step(token)[0], model.logits(text, loops)[-1])
        assert generator.loops == loops
        assert generator.texts == [text]
    assert again == [False, False, False, True, True, False, True, False]
    generator.change_loops(2)
    generator.reset()
    assert not generator.change_loops(4)
    close(generator.prefill(text)[0], model.logits(text, 4)[-1])


def test_loops_lowered_before_a_text_are_those_it_was_computed_with(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, threads=1)
    assert not generator.change_loops(1)  # nothing is there to be computed again
    generator.prefill(PROMPT)
    assert generator.change_loops(3)
    close(generator.step(3)[0], model.logits([*PROMPT, 3], 3)[-1])
    generator.reset()
    assert not generator.change_loops(2)
    assert not generator.change_loops(3)
    close(generator.prefill(PROMPT)[0], model.logits(PROMPT, 3)[-1])


def test_with_a_layer_behind_the_core_every_change_computes_the_text_again(tmp_path: Path) -> None:
    model = GenerateModel(places=("prelude", "core", "coda"))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    generator.prefill(PROMPT)
    assert generator.change_loops(1)
    close(generator.step(3)[0], model.logits([*PROMPT, 3], 1)[-1])


def test_a_batch_changes_its_loops(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, loops=1, batch=2, threads=1)
    texts = [[1, 2, 3], [4]]
    generator.prefill(texts)
    assert generator.change_loops(4)
    logits = generator.step([5, 6])
    close(
        logits, np.stack([model.logits([*t, n], 4)[-1] for t, n in zip(texts, (5, 6), strict=True)])
    )


def test_logits_are_the_callers_own(file: Path) -> None:
    generator = Generator(file, threads=1)
    first = generator.prefill(PROMPT)
    kept = first.copy()
    second = generator.step(7)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    generator.lengths[:] = 99
    generator.texts[0].append(1)
    assert generator.lengths.tolist() == [len(PROMPT) + 1]


def test_a_generator_says_what_it_is(file: Path) -> None:
    generator = Generator(file, threads=1)
    generator.prefill([1, 2])
    assert repr(generator) == f"<Generator {file}: loops=3, batch=1, context=48, lengths=[2]>"


def test_a_prompt_that_fails_half_way_leaves_the_text_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(file)
    generator.prefill([1, 2, 3])
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.CHUNK", 2)
    run = CachedTexts._run_chunk
    calls: list[int] = []

    def fail_second(texts: CachedTexts, rows: list[Any]) -> Any:
        calls.append(len(rows[0]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(texts, rows)

    monkeypatch.setattr(CachedTexts, "_run_chunk", fail_second)
    with pytest.raises(KeyboardInterrupt):
        generator.prefill([4, 5, 6, 7])
    assert generator.texts == [[1, 2, 3]]
    other = Generator(file)
    other.prefill([1, 2, 3])
    np.testing.assert_allclose(generator.step(4), other.step(4), rtol=1e-4, atol=1e-4)
