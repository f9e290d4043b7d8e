"""One strict reader of CSV: what is not a table is one line, and training and running read the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tables.chunks import Selection
from loopedge.data.tables.reading import read_table
from loopedge.errors import InputError
from loopedge.files.csv.cells import MISSING
from loopedge.files.csv.numbers import read_number_table
from loopedge.files.csv.rows import TableRow, open_csv


def trained_on(path: Path) -> np.ndarray:
    return read_table(path, Selection(numbers=("y", "x"))).values


def run_on(path: Path) -> np.ndarray:
    return read_number_table(path, missing=True, ordered=True).values[:, ::-1]


BAD = {
    "ragged": (b"x,y\n1,2\n3\n", r"row 2 \(line 3\) has 1 values, the header has 2", None),
    "long": (b"x,y\n1,2,3\n", r"row 1 \(line 2\) has 3 values, the header has 2", None),
    "word": (b"x,y\n1,much\n", r"row 1 \(line 2\), column 'y': 'much' is not a number", None),
    "decimal comma": (
        b"x;y\n1;2,5\n",
        r"row 1 \(line 2\), column 'y': '2,5' is not a number",
        "decimal=','",
    ),
    "underscore": (b"x,y\n1,1_000\n", r"'1_000' is not a number", None),
    "another script": ("x,y\n1,\u0663\n".encode(), "'\u0663' is not a number", None),
    "hexadecimal": (b"x,y\n1,0x10\n", "'0x10' is not a number", None),
    "a name twice": (b"x,y,z,z\n1,2,3,4\n", "column 'z' stands 2 times", "name of its own"),
    "a NUL": (b"x,y\n1,2\n3,\x004\n", "line 3 holds a NUL byte", None),
    "Latin-1": ("x,y\n1,2\n\u00b5,4\n".encode("latin1"), "not UTF-8 text: byte 8", "-f cp1252"),
    "an open quote": (
        b'x,y\n1,"2\n',
        "is not a CSV file: line 2, column 'y': the quote that opens there never ends",
        "twice",
    ),
    "a quote inside": (
        b'x,y\n1,"2"3\n',
        "is not a CSV file: line 2, column 'y': text stands behind the closing quote",
        "twice",
    ),
    "nothing": (b"\n \n", "is empty", None),
}


@pytest.mark.parametrize("read", [trained_on, run_on])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_table_of_numbers_is_one_line(tmp_path: Path, kind: str, read: object) -> None:
    content, words, hint = BAD[kind]
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    assert callable(read)
    with pytest.raises(InputError, match=words) as refused:
        read(path)
    assert len(str(refused.value).splitlines()) == 1
    assert hint is None or hint in (refused.value.hint or "")


def test_an_error_names_the_same_place_in_training_and_running(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('x,y\n1,2\n\n"3",\n"two\nlines",4\n')
    messages = []
    for read in (trained_on, run_on):
        with pytest.raises(InputError) as refused:
            read(path)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert messages[0] == "data.csv: row 3 (line 6), column 'x': 'two\\nlines' is not a number"


CELLS = st.one_of(
    st.sampled_from(sorted(MISSING)).map(str.upper),
    st.integers(-(10**12), 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from([" 1.5 ", "+3", "-.5", "2.", "1E3", '"7"', "N/A", "-nan"]),
)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    tail=st.sampled_from(["", "\n", "\n\n", "\n,\n"]),
)
def test_the_same_cells_mean_the_same_in_training_and_running(
    rows: list[tuple[str, str]], separator: str, end: str, mark: str, tail: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        lines = [separator.join(cells) for cells in (("x", "y"), *rows)]
        text = mark + end.join(lines) + tail.replace(",", separator).replace("\n", end)
        path.write_bytes(text.encode())
        trained = trained_on(path)
        if not len(trained):  # every cell of every row was empty
            with pytest.raises(InputError, match="holds no rows"):
                run_on(path)
            return
        np.testing.assert_array_equal(run_on(path), trained)


def test_missing_texts_are_missing_to_both(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    for text in sorted(MISSING):
        path.write_text(f"x,y\n{text},{text.upper()}\n1,2\n")
        for read in (trained_on, run_on):
            np.testing.assert_array_equal(read(path), [[np.nan, np.nan], [2, 1]])


def test_rows_are_counted_without_the_header_and_without_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\nx,y\n\n1,2\n,\n3,4\n,\n\n")
    with open_csv(path) as table:
        assert table.header == ("x", "y")
        assert list(table.rows) == [
            TableRow(1, 4, ["1", "2"]),
            TableRow(2, 5, ["", ""]),
            TableRow(3, 6, ["3", "4"]),
        ]


def test_empty_lines_of_one_column_are_cells_where_they_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n1\n\n2\n\n")
    for kept, expected in ((True, ["", "1", "", "2"]), (False, ["1", "2"])):
        with open_csv(path, is_header=lambda _: False, keep_empty_lines=kept) as table:
            assert [row.cells for row in table.rows] == [[cell] for cell in expected]
