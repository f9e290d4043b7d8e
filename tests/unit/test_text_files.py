"""Text files: found, checked, cut into parts and read in pieces; ids that stand in files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopedge.data.id_files import Ids, store_ids
from loopedge.data.text_files import (
    Span,
    check_utf8,
    find_texts,
    read_pieces,
    split_texts,
    whole,
)
from loopedge.errors import InputError
from loopedge.files import encodings

TEXTS = st.lists(st.text(st.sampled_from("ab\nä€😀"), max_size=40), min_size=1, max_size=4)


def write(folder: Path, texts: list[str]) -> list[Path]:
    paths = [folder / f"{place}.txt" for place in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    return paths


@settings(max_examples=60)
@given(texts=TEXTS, size=st.integers(4, 50))
def test_parts_and_pieces_give_the_text_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int
) -> None:
    paths = write(tmp_path_factory.mktemp("texts"), texts)
    parts = split_texts(whole(paths))
    read = {split: "".join(read_pieces(spans, size)) for split, spans in parts.items()}
    assert "".join(read.values()) == "".join(texts)
    total = len("".join(texts).encode())
    # A border lies at most three bytes after its place: a character has four at most.
    assert 0 <= len(read["train"].encode()) - total * 90 // 100 <= 3
    assert 0 <= len((read["train"] + read["validation"]).encode()) - total * 95 // 100 <= 3


@settings(max_examples=60)
@given(texts=TEXTS, data=st.data())
def test_windows_run_across_files(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    ids = Ids(whole(write(tmp_path_factory.mktemp("texts"), texts)), np.uint8)
    expected = np.frombuffer("".join(texts).encode(), np.uint8)
    assert len(ids) == len(expected)
    if not len(ids):
        return
    start = data.draw(st.integers(0, len(ids) - 1))
    count = data.draw(st.integers(1, len(ids) - start))
    np.testing.assert_array_equal(ids.read(start, count), expected[start : start + count])
    windows = ids.windows(np.array([start, 0]), count)
    np.testing.assert_array_equal(windows, [expected[s : s + count] for s in (start, 0)])


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "byte"),
    [(b"abc\xff", 3), ("ab€".encode()[:-1], 2), ("a€".encode() + b"\xe2(b", 4), (b"\x80", 0)],
)
def test_the_first_wrong_byte_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, byte: int, chunk: int
) -> None:
    monkeypatch.setattr(encodings, "CHECKED", chunk)
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.txt is not UTF-8 text: byte {byte} \(line 1\)"):
        check_utf8(path)


def test_a_folder_is_read_in_the_order_of_paths(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.md", "a.TXT", "sub/c.txt", "data.bin", ".git/d.txt", ".hidden.txt"):
        (tmp_path / name).write_text("x")
    names = [path.relative_to(tmp_path).as_posix() for path in find_texts(tmp_path)]
    assert names == ["a.TXT", "b.md", "sub/c.txt"]
    assert find_texts(tmp_path / "data.bin") == [tmp_path / "data.bin"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no text file: none ends in"),
        (lambda path: path.write_bytes(b""), "is empty: it holds no text"),
    ],
)
def test_no_text_is_reported(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "corpus"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=words):
        find_texts(path)


def test_a_file_that_shrinks_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcdef")
    spans = whole([path])
    path.write_text("ab")
    with pytest.raises(InputError, match="was changed while it was read"):
        Ids(spans, np.uint8).read(0, 6)
    with pytest.raises(InputError, match="was changed while it was read"):
        list(read_pieces(spans))


@pytest.mark.parametrize("vocab_size", [300, 70_000])
def test_stored_ids_are_read_again_and_go(vocab_size: int) -> None:
    ids = np.arange(vocab_size)
    stored = store_ids(
        {"train": [ids[:100], ids[100:]], "validation": [ids[:7]], "test": iter([])}, vocab_size
    )
    assert {split: len(part) for split, part in stored.items()} == {
        "train": vocab_size,
        "validation": 7,
        "test": 0,
    }
    np.testing.assert_array_equal(stored["train"].read(90, 200), ids[90:290])
    np.testing.assert_array_equal(stored["validation"].read(0, 7), ids[:7])
    [span] = stored["train"]._spans
    assert span.path.exists()
    del stored
    assert not span.path.parent.exists()


def test_a_sample_is_spread_over_all(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    np.arange(10_000, dtype=np.uint16).tofile(path)
    ids = Ids([Span(path=path, start=0, end=10_000)], np.uint16)
    runs = ids.sample(1000, pieces=10)
    assert sum(map(len, runs)) == 1000
    assert (runs[0][0], runs[-1][-1]) == (0, 9999)
    assert np.concatenate(ids.sample(10_000)).tolist() == list(range(10_000))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    one, two = write(tmp_path, ["\ufeffab\ufeff\n", "\ufeffcd"])
    parts = split_texts(whole(find_texts(tmp_path)))
    assert "".join(piece for spans in parts.values() for piece in read_pieces(spans)) == (
        "ab\ufeff\ncd"
    )
    ids = Ids(whole([one, two]), np.uint8)
    assert bytes(ids.read(0, len(ids)).tolist()).decode() == "ab\ufeff\ncd"
    one.write_text("\ufeff")
    with pytest.raises(InputError, match="is empty"):
        find_texts(one)
