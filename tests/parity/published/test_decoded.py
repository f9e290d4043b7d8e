"""Published models with a cache: what is decoded against whole texts, and against transformers with its own cache."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import loopedge
from tests.parity.published.checkpoints import CONFIGS, make_module
from tests.parity.published.test_modules import package_model, tokens
from tests.parity.third_party import relative_error

pytestmark = pytest.mark.long

TOLERANCE = 1e-4
CHUNKS = (5, 1, 1, 17, 1, 2, 1)
NEW_TOKENS = 24
COUNTS = {"dory": (1, 2, 4), "hrm_text": (2,), "huginn": (1, 3)}
"""Loop counts that are run. HRM-Text has learned its number of cycles; Dory is exported for the most it is used with."""

LAST_LOOP = {"n_recurrent_loops": 4, "recurrent_kv_cache_mode": "last_loop"}

Generated = Callable[..., Path]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """Export a model once, and give it a cache of each kind: ``generated("dory", form="unrolled")``."""
    folder = tmp_path_factory.mktemp("published")

    @cache
    def export(kind: str, **options: Any) -> Path:
        path = folder / f"{kind}{''.join(map(str, options.values()))}.onnx"
        loopedge.export(make_module(kind), path, **options)
        return path

    @cache
    def generate(kind: str, loops: int | None = None, **options: Any) -> Path:
        source = export(kind, loops=loops or max(COUNTS[kind]))
        path = folder / f"{source.stem}.{'.'.join(options.values())}.generate.onnx"
        loopedge.to_generate(source, path, **options)
        return path

    return generate


def in_chunks(ids: Tensor) -> Iterator[Tensor]:
    """Yield a text (1, sequence) in parts of `CHUNKS`."""
    yield from torch.split(ids, list(CHUNKS), dim=1)


def whole_logits(module: Any, ids: Tensor, loops: int) -> npt.NDArray[Any]:
    with torch.no_grad():
        logits: Tensor = module(ids, loops=loops)
    return logits.numpy()


@pytest.mark.parametrize("form", ["scan", "unrolled"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_decoded_logits_are_those_of_whole_texts(
    kind: str, form: str, generated: Generated
) -> None:
    """Chunks and lengths cross the window of Dory's sliding layers, 5."""
    path, module = generated(kind, form=form), make_module(kind)
    ids = tokens(sum(CHUNKS), batch=1)
    for loops in COUNTS[kind] if form == "scan" else COUNTS[kind][-1:]:
        expected = whole_logits(module, ids, loops)
        generator = loopedge.Generator(path, loops=loops, threads=1)
        done = 0
        for chunk in in_chunks(ids):
            logits = generator.prefill(chunk[0].numpy())
            done += chunk.shape[1]
            assert relative_error(logits, expected[:, done - 1]) < TOLERANCE, (loops, done)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_token_of_a_long_text_is_decoded_as_the_whole_text_is(
    kind: str, generated: Generated
) -> None:
    """Up to the last position that the model takes."""
    module, loops = make_module(kind), COUNTS[kind][-1]
    ids = tokens(module.max_length, batch=1)
    expected = whole_logits(module, ids, loops)
    generator = loopedge.Generator(generated(kind, form="scan"), threads=1)
    logits = generator.prefill(ids[0, :8].numpy())
    for place in range(8, module.max_length):
        assert relative_error(logits, expected[:, place - 1]) < TOLERANCE, place
        logits = generator.step(int(ids[0, place]))
    assert relative_error(logits, expected[:, -1]) < TOLERANCE


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_of_different_lengths_are_decoded_side_by_side(
    kind: str, generated: Generated
) -> None:
    module, loops, lengths = make_module(kind), COUNTS[kind][-1], (11, 3, 1)
    ids = tokens(16, batch=3)
    generator = loopedge.Generator(generated(kind, form="scan"), batch=3, threads=1)
    logits = generator.prefill([ids[row, :length].tolist() for row, length in enumerate(lengths)])
    expected = whole_logits(module, ids, loops)
    for step in range(5):
        ends = [length + step for length in lengths]
        wanted = expected[np.arange(3), np.array(ends) - 1]
        assert relative_error(logits, wanted) < TOLERANCE, step
        logits = generator.step([int(ids[row, end]) for row, end in enumerate(ends)])


@pytest.mark.parametrize("kind", ["dory", "hrm_text"])
def test_greedy_tokens_are_those_of_transformers(
    kind: str, generated: Generated, tmp_path: Path
) -> None:
    loops = {"dory": {"n_recurrent_loops": 4}, "hrm_text": {}}[kind]
    model = package_model(tmp_path, kind, **loops)
    prompt = tokens(7, batch=1)
    expected = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True)
    generator = loopedge.Generator(generated(kind, form="scan"), threads=1)
    stream = generator.stream(prompt[0].tolist(), new_tokens=NEW_TOKENS, end_ids=())
    assert [token.id for token in stream] == expected[0, prompt.shape[1] :].tolist()


def test_the_last_loops_cache_is_that_of_transformers(generated: Generated, tmp_path: Path) -> None:
    """Earlier loops read the last loop's past and their own chunk: what is computed depends on the chunks."""
    path = generated("dory", form="unrolled", cache="last-loop")
    shared = package_model(tmp_path / "shared", "dory", **LAST_LOOP)
    ids = tokens(sum(CHUNKS), batch=1)
    generator = loopedge.Generator(path, threads=1)
    kept, apart = None, 0.0
    whole, done = whole_logits(make_module("dory"), ids, 4), 0
    for chunk in in_chunks(ids):
        with torch.no_grad():
            output = shared(chunk, cache=kept, use_cache=True)
        kept = output.cache
        done += chunk.shape[1]
        logits = generator.prefill(chunk[0].numpy())
        assert relative_error(logits, output.logits[:, -1].numpy()) < TOLERANCE, done
        apart = max(apart, relative_error(logits, whole[:, done - 1]))
    assert apart > 1e-2  # of random weights: the other cache would not pass
