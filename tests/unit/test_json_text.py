"""JSON of others: what would break whatever comes after is refused where it is read."""

from pathlib import Path

import pytest

from loopedge.errors import InputError
from loopedge.files.json_text import parse_json, plain_problem, read_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: Expecting value"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ("9" * 5000, "too many digits"),
        (str(2**63), "too many digits"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
    ],
)
def test_what_cannot_be_handed_on(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_what_can() -> None:
    text = '{"a": [1, -9223372036854775808, 1.5, NaN, null, true, "\\u00e9"], "b": {}}'
    assert parse_json(text)["b"] == {}
    assert parse_json("[" * 64 + "]" * 64)


def test_one_list_in_many_places_has_an_end() -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    assert plain_problem(value) is not None
    assert plain_problem({"a": {1: 2}}) == "a key is not text"
    assert plain_problem({"a": b"x"}) == "it holds a bytes"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"{\xff}")
    with pytest.raises(
        InputError, match=r"r\.json is not a thing: it is not a text file in UTF-8, byte 1"
    ):
        read_json(tmp_path / "r.json", needed="a thing")
