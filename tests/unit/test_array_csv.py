from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.data.chunks import Selection
from loopedge.data.csv_file import csv_chunks
from loopedge.errors import InputError
from loopedge.files.array_csv import read_number_table
from loopedge.files.arrays import read_array_file
from loopedge.files.cells import MISSING

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
    [chunk] = csv_chunks(source, Selection(numbers=("a", "b")))
    np.testing.assert_array_equal(table.values, chunk.numbers)


def test_a_separator_in_quotes_separates_nothing(tmp_path: Path) -> None:
    source = write(tmp_path, '"a, in m, s, or kg";b\n1;2\n')
    table = read_number_table(source, missing=False, ordered=True, columns=("b",))
    np.testing.assert_array_equal(table.values, [[2]])
    assert table.dropped == ("a, in m, s, or kg",)


def test_columns_are_taken_by_their_names(tmp_path: Path) -> None:
    source = write(tmp_path, "time, x ,y,2020\nMonday,1,2,3\nTuesday,4,5,6\n")
    table = read_number_table(source, missing=False, ordered=True, columns=("y", "x"))
    np.testing.assert_array_equal(table.values, [[2, 1], [5, 4]])
    assert table.dropped == ("time", "2020")


def test_names_that_are_numbers_are_a_header_where_they_are_known(tmp_path: Path) -> None:
    source = write(tmp_path, "2020,2021\n1,2\n")
    table = read_number_table(source, missing=False, ordered=True, columns=("2021", "2020"))
    np.testing.assert_array_equal(table.values, [[2, 1]])


def test_without_a_header_the_order_of_the_file_counts(tmp_path: Path) -> None:
    source = write(tmp_path, "1,2\n3,4\n")
    table = read_number_table(source, missing=False, ordered=True, columns=("y", "x"))
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])
    assert table.dropped == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "the header lacks 'y', 'x'; the model was trained on y, x"),
        ("x,b\n1,2\n", "the header lacks 'y'; "),
        ("x,y,y\n1,2,3\n", "column 'y' stands 2 times"),
        ("x,y\n1,2,3\n", r"row 1 \(line 2\) has 3 values, the header has 2"),
        ("x,y\n1,two\n", r"row 1 \(line 2\), column 'y': 'two' is not a number"),
        ("x,y\n1_000,2\n", r"row 1 \(line 2\), column 'x': '1_000' is not a number"),
    ],
)
def test_headers_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_number_table(write(tmp_path, text), missing=False, ordered=True, columns=("y", "x"))
