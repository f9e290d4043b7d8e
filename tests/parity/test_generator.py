"""`loopedge.Generator` on exported models: 500 tokens equal to running the whole text for each, in every form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loopedge
from loopedge.runtime.generator import Generator
from loopedge.runtime.session import Session

torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

VOCABULARY, CONTEXT, TOKENS = 61, 520, 500


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model with random weights, whose loop count is an input."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=16, heads=2, loops=3, vocab_size=VOCABULARY, max_length=CONTEXT, causal=True
    )
    model = loopedge.LoopedTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.35)
    path = tmp_path_factory.mktemp("generator") / "lm.onnx"
    loopedge.export(model, path, dynamic_loops=True)
    return path


def whole(source: Path, ids: list[int], count: int, loops: int = 3) -> list[int]:
    """Return the most likely tokens, each found from the whole text."""
    session = Session(source, threads=1)
    text = list(ids)
    for _ in range(count):
        logits = session.run(np.array([text]), loops=loops)[session.output_names[0]]
        text.append(int(logits[0, -1].argmax()))
    return text[len(ids) :]


@pytest.fixture(scope="module")
def expected(source: Path) -> list[int]:
    tokens = whole(source, [5, 17, 3], TOKENS)
    assert len(set(tokens)) > 5  # the text does not stand still
    return tokens


@pytest.mark.parametrize("form", ["scan", "unrolled", "tensorscatter"])
def test_five_hundred_tokens(source: Path, expected: list[int], tmp_path: Path, form: Any) -> None:
    result = loopedge.to_generate(source, tmp_path / "m.onnx", form=form, threads=1)
    generator = Generator(result.path, threads=1)
    found = generator.stream([5, 17, 3], new_tokens=TOKENS)
    assert [token.id for token in found] == expected
    batch = generator.another(batch=3)
    texts = [[5, 17, 3], [9], expected[:40]]
    logits = batch.prefill(texts)
    for place in range(12):
        alone = generator.another()
        for row, text in enumerate(texts):
            alone.reset()
            np.testing.assert_allclose(logits[row], alone.prefill(text)[0], rtol=2e-4, atol=2e-4)
            text.append((7 * place + row) % VOCABULARY)
        logits = batch.step([text[-1] for text in texts])


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
def test_loops_changed_in_mid_text_are_those_of_whole_texts(source: Path, tmp_path: Path) -> None:
    result = loopedge.to_generate(source, tmp_path / "m.onnx", threads=1)
    generator = Generator(result.path, threads=1)
    session = Session(source, threads=1)
    text = list(range(20))
    generator.prefill(text)
    for loops in (2, 1, 3, 2):
        generator.change_loops(loops)
        for token in (4, 50):
            text.append(token)
            logits = session.run(np.array([text]), loops=loops)[session.output_names[0]]
            np.testing.assert_allclose(
                generator.step(token)[0], logits[0, -1], rtol=2e-4, atol=2e-4
            )
