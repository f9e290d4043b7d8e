"""Lines of JSON that hold no pair: the message names the line, the key, and what makes lines of another layout."""

from pathlib import Path

import pytest

from loopedge.data.json_lines import PairFormat, read_at, scan
from loopedge.errors import InputError

GOOD = '{"input": "a", "output": "b"}\n'


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "p.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"input": "a", "input": "c", "output": "b"}', "the key 'input' stands 2 times"),
        ('{"output": "a", "input": "c", "output": "b"}', "the key 'output' stands 2 times"),
        ('{"n": 1, "input": "a", "output": "b", "n": 2}', "the key 'n' stands 2 times"),
        ('{"input": null, "output": "b"}', "'input' is null, a string is needed"),
        ('{"input": "a", "output": 2.5}', "'output' is the number 2.5, a string is needed"),
        ('{"input": ["a"], "output": "b"}', "'input' is a list, a string is needed"),
        ('{"input": {"x": 1}, "output": "b"}', "'input' is an object, a string is needed"),
        ('{"input": false, "output": "b"}', "'input' is false, a string is needed"),
        ("null", " is null, an object with two strings is needed"),
        ("\ufeff" + GOOD, "a byte order mark (U+FEFF) stands before it, files were joined"),
    ],
)
def test_what_is_no_pair_is_named_with_line_and_key(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        list(scan(write(tmp_path, GOOD + line), PairFormat()))
    assert caught.value.message.startswith("p.jsonl: line 2")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_keys_of_inner_objects_may_repeat(tmp_path: Path) -> None:
    line = '{"meta": {"a": 1, "a": 2}, "input": "a", "output": "b"}\n'
    [pair] = scan(write(tmp_path, line), PairFormat())
    assert (pair.source, pair.target) == ("a", "b")


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        (f"[{GOOD.strip()}]", "line 1 is a list", "jq -c '.[]'"),
        (f"[{GOOD.strip()},\n{GOOD.strip()}]", "goes on in the next line", "jq -c '.[]'"),
        ('{\n  "input": "a"\n}', "goes on in the next line", "jq -c ."),
        (GOOD.encode("utf-16"), "is marked as utf-16-le", "iconv -f utf-16le"),
        (GOOD.encode("utf-16-be"), "seems to be utf-16-be", "iconv -f utf-16be"),
        (GOOD.replace("a", "Süd").encode("cp1252"), r"byte 12 \(line 1\), .*cp1252", "-f cp1252"),
        (b"\x1f\x8b\x08", "is compressed with gzip", "gunzip"),
        (b"PAR1", "is a Parquet file", ""),
    ],
)
def test_other_layouts_and_encodings_say_what_makes_lines_of_them(
    tmp_path: Path, content: str | bytes, words: str, hint: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        list(scan(write(tmp_path, content), PairFormat()))
    assert hint in (caught.value.hint or "")


def test_a_mark_before_the_first_line_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() * 2)
    pairs = list(scan(path, PairFormat()))
    assert read_at(path, PairFormat(), [pair.offset for pair in pairs]) == [("a", "b")] * 2
