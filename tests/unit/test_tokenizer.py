"""Tokenizers: bytes, a JSON of the user's, and byte-pair encoding that is trained."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tokenizer import (
    ByteTokenizer,
    JsonTokenizer,
    choose_tokenizer,
    described_tokenizer,
    read_tokenizer,
    train_tokenizer,
)
from loopedge.errors import InputError, MissingExtraError

TEXT = "the loop runs the block, and the block runs the loop. Größe 10 €\n" * 20


@pytest.fixture(scope="module")
def trained() -> JsonTokenizer:
    return train_tokenizer([TEXT], 280)


@pytest.mark.slow
@given(text=st.text(max_size=30))
def test_both_give_the_text_again(trained: JsonTokenizer, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    for tokenizer in (ByteTokenizer(), trained):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int64
        assert tokenizer.decode(ids.tolist()) == text
        sizes = tokenizer.token_bytes()
        assert sizes is not None
        assert sizes[ids].sum() == len(text.encode())
        assert ids.size == 0 or ids.max() < tokenizer.vocab_size


def test_training_merges_and_stays_within_the_size(trained: JsonTokenizer) -> None:
    assert trained.vocab_size == 280
    assert len(trained.encode(TEXT)) < len(TEXT.encode()) / 2
    assert train_tokenizer(["ab"], 1000).vocab_size == 257  # no more pairs to merge


def test_equal_texts_give_equal_tokenizers_in_another_process(trained: JsonTokenizer) -> None:
    program = (
        "import sys; from loopedge.data.tokenizer import train_tokenizer\n"
        "text = sys.stdin.buffer.read().decode()\n"
        "sys.stdout.write(train_tokenizer([text], 280).companions()['tokenizer.json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=TEXT.encode(), capture_output=True, check=True
    )
    assert done.stdout.decode() == trained.companions()["tokenizer.json"]


def test_pieces_are_encoded_like_the_whole(trained: JsonTokenizer) -> None:
    lines = TEXT.splitlines(keepends=True)
    for tokenizer in (ByteTokenizer(), trained):
        joined = np.concatenate(list(tokenizer.encode_pieces(lines)))
        assert tokenizer.decode(joined.tolist()) == TEXT


def test_what_a_person_sees_of_a_token(trained: JsonTokenizer) -> None:
    assert [ByteTokenizer().show(i) for i in (65, 10, 0xE2)] == ["A", "0x0a", "0xe2"]
    [the] = trained.encode(" the")
    assert trained.show(int(the)) == " the"
    part = int(trained.encode("€")[0])
    assert trained.show(part) not in {"", "\ufffd"}


def test_truncation_padding_and_templates_of_a_file_are_left_out(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "[CLS]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 3)])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(tmp_path / "words.json"))
    found = read_tokenizer(tmp_path / "words.json")
    assert found.encode("a b a c").tolist() == [1, 2, 1, 0]
    assert found.token_bytes() is None
    assert (found.vocab_size, found.name) == (4, "tokenizer.json")
    [text] = found.companions().values()
    assert text == (tmp_path / "words.json").read_text()
    assert described_tokenizer(
        {"tokenizer": "tokenizer.json", "companions": found.companions()}
    ).encode("b").tolist() == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "is not a tokenizer of the tokenizers library"),
        (b"no json", "is not a tokenizer of the tokenizers library"),
        (b"\xff", "byte 0 is not UTF-8"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match="both given"):
        choose_tokenizer("t.json", 300, [])
    for size in (256, 1_000_001):
        with pytest.raises(InputError, match="allowed is 257 to 1000000"):
            choose_tokenizer(None, size, [TEXT])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert choose_tokenizer(None, None, []).name == "bytes"
    with pytest.raises(MissingExtraError, match="extra 'text'") as caught:
        choose_tokenizer(None, 300, [TEXT])
    assert (
        caught.value.hint == "in a clone of loopedge: pip install -c constraints.txt -e '.[text]'"
    )
    with pytest.raises(MissingExtraError):
        JsonTokenizer(json.dumps({}))


def test_a_description_without_its_tokenizer() -> None:
    with pytest.raises(InputError, match=r"its tokenizer\.json is not there"):
        described_tokenizer({"tokenizer": "tokenizer.json"})
