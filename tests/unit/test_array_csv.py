from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.data.tables.chunks import Selection
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.kinds.csv_file import csv_chunks
from loopedge.errors import InputError
from loopedge.files.arrays import read_array_file
from loopedge.files.csv.cells import MISSING
from loopedge.files.csv.form import CsvForm
from loopedge.files.csv.numbers import read_number_table

if TYPE_CHECKING:
    from pathlib import Path

NAN = np.nan


def write(folder: Path, text: str) -> Path:
    path = folder / "x.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("gone", sorted(MISSING | {"NA", " NaN "}))
def test_a_row_of_missing_values_is_no_header(tmp_path: Path, gone: str) -> None:
    source = write(tmp_path, f"{gone},{gone}\n3,{gone}\n")
    table = read_number_table(source, missing=True, ordered=True)
    np.testing.assert_array_equal(table.values, [[NAN, NAN], [3, NAN]])


def test_missing_values_are_refused_where_the_model_takes_none(tmp_path: Path) -> None:
    source = write(tmp_path, "NA,NA\n1,2\n")
    with pytest.raises(InputError, match=r"row 1 \(line 1\), column 1: the value is missing"):
        read_number_table(source, missing=False, ordered=True)


@pytest.mark.parametrize("text", ["1\n\n3\n", "y\n1\n \n3\n"])
def test_an_empty_line_between_steps_of_one_column_is_refused(tmp_path: Path, text: str) -> None:
    line = text.splitlines().index("3")
    with pytest.raises(InputError, match=rf"row 2 \(line {line}\), .*: the value is missing"):
        read_array_file(write(tmp_path, text), {"inputs": 3})


def test_empty_lines_that_shift_no_time_are_left_out(tmp_path: Path) -> None:
    for text, rank in [("1\n3\n\n \n", 3), ("1\n\n3\n", 2)]:
        [values] = read_array_file(write(tmp_path, text), {"x": rank}).arrays.values()
        np.testing.assert_array_equal(values.ravel(), [1, 3])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_are_those_of_training(tmp_path: Path, separator: str) -> None:
    source = write(tmp_path, "a,b\n1.5,2\n3,4\n".replace(",", separator))
    table = read_number_table(source, missing=False, ordered=True)
    [chunk] = csv_chunks(source, Selection(numbers=("a", "b")), TableFormat(), [])
    np.testing.assert_array_equal(table.values, chunk.numbers)


def test_a_separator_in_quotes_separates_nothing(tmp_path: Path) -> None:
    source = write(tmp_path, '"a, in m, s, or kg";b\n1;2\n')
    table = read_number_table(source, missing=False, ordered=True)
    np.testing.assert_array_equal(table.values, [[1, 2]])
    assert table.header == ("a, in m, s, or kg", "b")


def test_the_order_of_the_file_counts(tmp_path: Path) -> None:
    for text, header in (("1,2\n3,4\n", None), ("x,y\n1,2\n3,4\n", ("x", "y"))):
        table = read_number_table(write(tmp_path, text), missing=False, ordered=True)
        np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])
        assert table.values.dtype == np.int64
        assert table.header == header


def test_it_may_be_compressed_and_written_in_another_way(tmp_path: Path) -> None:
    packed = tmp_path / "x.csv.gz"
    packed.write_bytes(gzip.compress(b"x;y\n1,5;2\n"))
    read = read_array_file(packed, {"inputs": 3}, form=CsvForm(decimal=","))
    np.testing.assert_array_equal(read.arrays["inputs"], [[[1.5, 2]]])
    assert read.header == ("x", "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y,y\n1,2,3\n", "column 'y' stands 2 times"),
        ("x,y\n1,2,3\n", r"row 1 \(line 2\) has 3 values, the header has 2"),
        ("x,y\n1,two\n", r"row 1 \(line 2\), column 'y': 'two' is not a number"),
        ("x,y\n1_000,2\n", r"row 1 \(line 2\), column 'x': '1_000' is not a number"),
    ],
)
def test_tables_that_hold_no_numbers(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_number_table(write(tmp_path, text), missing=False, ordered=True)
