"""What a refusal of data tells: the column, the place, and a hint that can be run."""

import json
from pathlib import Path
from typing import Any

import pytest

from loopedge.data.json_lines import PairFormat, scan
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.text_files import check_utf8
from loopedge.errors import InputError
from loopedge.tasks.pairs import PairsTask


def test_where_no_pair_is_short_enough_the_length_is_to_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"input": "a long one", "output": "b"}) + "\n")
    with pytest.raises(InputError, match="1 longer than length=5") as caught:
        PairsTask.from_jsonl(path, length=5, skip_long=True)
    assert caught.value.hint == "raise length"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"input": "a\x01"}', "Invalid control character at column 13"),
        ('{"input": "a"', "Expecting ',' delimiter at column 15"),
        ("{]", "double quotes at column 2"),
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "a number has too many digits"),
    ],
)
def test_what_is_no_json_is_reported_to_the_end(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        list(scan(path, PairFormat()))
    assert caught.value.message.startswith("pairs.jsonl: line 1 is not JSON: ")
    assert caught.value.message.endswith(said)


@pytest.mark.parametrize("purpose", ["label", "group", "time"])
def test_a_parquet_column_that_is_no_text_is_named(tmp_path: Path, purpose: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({"x": [1.0, 2.0], "kind": [b"a", b"\xff"]}), path)
    named: Any = {purpose: "kind"}
    with pytest.raises(InputError, match="column 'kind' holds values that are not UTF"):
        read_table(path, Selection(numbers=("x",), **named))


def test_the_hint_of_another_encoding_can_be_run_as_it_is(tmp_path: Path) -> None:
    table, text = tmp_path / "data.csv", tmp_path / "data.txt"
    for path in (table, text):
        path.write_bytes(b"gr\xfcn\n1\n")
    with pytest.raises(InputError) as caught:
        read_table(table, Selection(numbers=("x",)))
    assert (
        caught.value.hint
        == f"form=TableFormat(encoding='cp1252'), or iconv -f cp1252 -t utf-8 {table} > utf8.csv"
    )
    with pytest.raises(InputError) as caught:
        check_utf8(text)
    assert caught.value.hint == f"iconv -f cp1252 -t utf-8 {text} > utf8.txt"


def test_source_and_target_are_two_keys(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"input": "a", "output": "b"}) + "\n")
    with pytest.raises(InputError, match="source and target are both 'input'"):
        PairsTask.from_jsonl(path, source="input", target="input")
