"""Streams of `loopedge.Generator`: how they end, go on and are drawn, side by side and one thread at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.errors import InputError, LoopedgeError
from loopedge.runtime.generator import Generator
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.generators import PROMPT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model() -> GenerateModel:
    return GenerateModel()


@pytest.fixture
def file(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


def test_streams_share_the_session_side_by_side(model: GenerateModel, file: Path) -> None:
    first = Generator(file, threads=1)
    streams = [first, *(first.another() for _ in range(3))]
    assert len({id(stream.file.session.session) for stream in streams}) == 1
    found: dict[int, list[int]] = {}

    def run(place: int) -> None:
        tokens = streams[place].stream([place, 2 * place + 1], new_tokens=30)
        found[place] = [token.id for token in tokens]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: model.greedy([place, 2 * place + 1], 30) for place in range(4)}
    other = first.another(loops=1, context=10, batch=2)
    assert (other.loops, other.context, other.batch) == (1, 10, 2)


def test_two_threads_on_one_generator_are_refused(file: Path) -> None:
    generator = Generator(file, threads=1)
    with generator._use(), pytest.raises(LoopedgeError, match="another thread"):
        generator.prefill(PROMPT)
    generator.prefill(PROMPT)


def test_a_stream_ends_at_an_end_id(tmp_path: Path) -> None:
    tokens = GenerateModel().greedy(PROMPT, 20)
    end = next(token for token in tokens if token != tokens[0])
    model = GenerateModel(end_ids=(end,))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    found = [token.id for token in generator.stream(PROMPT)]
    assert found == tokens[: tokens.index(end)]
    assert generator.ended == "end"
    generator.reset()
    assert len(list(generator.stream(PROMPT, new_tokens=20, end_ids=()))) == 20
    assert generator.ended == "new_tokens"


def test_a_stream_goes_on_where_the_text_ended(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, threads=1)
    first = [token.id for token in generator.stream(PROMPT, new_tokens=6)]
    second = [token.id for token in generator.stream([first[-1], 40], new_tokens=6)]
    assert second == model.greedy([*PROMPT, *first, 40], 6)


def test_a_text_that_is_changed_while_it_is_streamed_is_an_error(file: Path) -> None:
    generator = Generator(file, threads=1)
    for change in (lambda: generator.step(1), lambda: generator.prefill([1]), generator.reset):
        tokens = generator.stream(PROMPT, new_tokens=5)
        next(tokens)
        change()
        with pytest.raises(LoopedgeError, match="was changed while it was streamed"):
            next(tokens)
        generator.reset()
    tokens = generator.stream(PROMPT, new_tokens=3)
    next(tokens)
    assert not generator.change_loops(2)  # from the next token on
    assert len(list(tokens)) == 2


def test_draws_repeat_with_a_seed_and_say_the_models_probability(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, threads=1)
    runs = []
    for seed in (1, 1, 2):
        generator.reset()
        runs.append(list(generator.stream(PROMPT, new_tokens=12, temperature=3.0, seed=seed)))
    assert runs[0] == runs[1] != runs[2]
    text = list(PROMPT)
    for token in runs[0]:
        shares = np.exp(model.logits(text)[-1].astype(np.float64))
        assert token.probability == pytest.approx(
            shares[token.id] / shares.sum(), rel=1e-3, abs=1e-9
        )
        text.append(token.id)


def test_streams_that_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match="the batch is 2"):
        Generator(file, batch=2).stream([1])
    with pytest.raises(InputError, match="temperature is 0"):
        Generator(file).stream([1], temperature=0)
    endless = write_generate_file(GenerateModel(context=None), tmp_path / "e.onnx")
    with pytest.raises(InputError, match="nothing ends the text"):
        Generator(endless).stream([1])


def test_tokens_are_counted_in_whole_numbers(file: Path) -> None:
    generator = Generator(file)
    for options in ({"new_tokens": 1.5}, {"temperature": 1.0, "top_k": 2.5}):
        with pytest.raises(InputError, match="a whole number is needed"):
            generator.stream([1, 2], **options)  # type: ignore[arg-type]
