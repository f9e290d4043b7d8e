"""Ids back to text one at a time: the joined pieces are the decoded whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tokenizer import ByteTokenizer, JsonTokenizer, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loopedge.data.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the extra 'text'")

TEXT = "the loop keeps its weights, h\N{LATIN SMALL LETTER E WITH ACUTE}llo \N{EARTH GLOBE EUROPE-AFRICA} "


def words_with_bytes() -> JsonTokenizer:
    """A tokenizer as SentencePiece's: words carry their space, what is unknown is bytes, the first space is dropped."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<unk>", *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    made.train_from_iterator(["the loop keeps its weights. " * 20], trainer)
    return JsonTokenizer(made.to_str())


@pytest.fixture(scope="module", params=["bytes", "byte level", "words"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bytes":
        return ByteTokenizer()
    return words_with_bytes() if request.param == "words" else train_tokenizer([TEXT * 20], 300)


def streamed(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    stream = tokenizer.stream(prompt)
    return [*(stream.add(token) for token in ids), stream.rest()]


def test_a_text_comes_back(tokenizer: Tokenizer) -> None:
    pieces = streamed(tokenizer, tokenizer.encode(TEXT).tolist())
    assert "".join(pieces) == TEXT
    assert "\ufffd" not in "".join(pieces)
    assert pieces[-1] == ""
    assert sum(bool(piece) for piece in pieces) > 5


def test_a_text_goes_on_behind_its_prompt(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).tolist()
    before = tokenizer.encode("the loop").tolist()
    assert ids[: len(before)] == before
    assert "the loop" + "".join(streamed(tokenizer, ids[len(before) :], before)) == TEXT


def test_a_character_that_does_not_end_is_shown_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the \N{MAHJONG TILE EAST WIND}").tolist()
    pieces = streamed(tokenizer, ids[:-1])
    assert "".join(pieces[:-1]).rstrip() == "the"  # a token may hold the space and the first byte
    assert set(pieces[-1].lstrip()) == {"\ufffd"}


@given(st.lists(st.integers(-2, 400), max_size=30))
def test_any_ids_are_some_text(ids: list[int]) -> None:
    for made in MADE:
        pieces = streamed(made, ids)
        assert (
            "".join(pieces).replace("\ufffd", "").strip()
            == made.decode(ids).replace("\ufffd", "").strip()
        )


MADE: list[Any] = [ByteTokenizer(), train_tokenizer([TEXT * 20], 300)]
