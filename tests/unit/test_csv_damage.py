"""CSV files that have lived: quotes, long cells, rows of other widths, comments, marks in their midst."""

import csv
import gzip
import io
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, Table, read_table
from loopedge.errors import InputError
from loopedge.files import text_pieces
from loopedge.files.csv import row_reader
from loopedge.files.csv.quotes import Quotes
from loopedge.files.csv.rows import open_csv
from loopedge.options import naming_flags


def read(folder: Path, text: str, form: TableFormat | None = None) -> Table:
    path = folder / "data.csv"
    path.write_bytes(text.encode())
    return read_table(path, Selection(numbers=("y",)), form)


LONG = "b" * (csv.field_size_limit() + 1)
BAD = {
    "a quote that never ends": (
        'x,y\n1,2\n3,"4\n5,6\n',
        "line 3, column 'y': the quote that opens there never ends",
    ),
    "one in a later line of its row": (
        'x,n,y\n1,"a\nb","2\n',
        "line 3, column 'y': the quote that opens there never ends",
    ),
    "one before many lines": (
        'x,y\n1,2\n3,"4\n' + "5,6\n" * 60_000,
        "line 3, column 'y': the cell is longer than 131072 .* the quote that opens there",
    ),
    "one that a later one closes": (
        'x,y\n1,"2\n3,4\n5,"6"\n',
        "line 4, column 'y': text stands behind the closing quote of line 2",
    ),
    "text behind a quote": (
        'x,y\n1,2\n3,"4"5\n',
        "line 3, column 'y': text stands behind the closing quote$",
    ),
    "a long cell": (
        f"x,y,note\n1,2,a\n3,4,{LONG}\n",
        "line 3, column 'note': the cell is longer than 131072 characters",
    ),
    "a long quoted cell": (
        f'x,y,note\n1,2,"{LONG}"\n',
        "line 2, column 'note': the cell is longer",
    ),
    "a quote in the header": (
        'x,"y\n1,2\n',
        "line 1, column 2: the quote that opens there never ends",
    ),
}


@pytest.mark.parametrize("comment", [None, "#"])
@pytest.mark.parametrize("kind", BAD)
def test_quotes_and_long_cells_name_line_and_column(
    tmp_path: Path, kind: str, comment: str | None
) -> None:
    text, words = BAD[kind]
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text, TableFormat(comment=comment))
    assert len(caught.value.message) < 300
    assert caught.value.hint


def test_lines_are_counted_over_comments_and_quotes(tmp_path: Path) -> None:
    text = '# one\nx,note,y\n1,"a\r\nb",2\n# two\n3,c,"4" # three\n5,d,"six\n'
    with pytest.raises(InputError, match="line 7, column 'y': the quote that opens there never"):
        read(tmp_path, text, TableFormat(comment="#"))
    with pytest.raises(InputError, match=r"row 3 \(line 7\), column 'y': 'six' is not a number"):
        read(tmp_path, text.replace('"six', "six"), TableFormat(comment="#"))


def test_rows_inside_a_quoted_cell_are_said(tmp_path: Path) -> None:
    table = read(tmp_path, 'y,note\n1,"a\n2,b\n3,c"\n4,d\n5,"f\ng"\n')
    np.testing.assert_array_equal(table.values[:, 0], [1, 4, 5])
    [finding] = table.findings
    assert "a quoted cell holds whole table rows" in finding.message
    assert "data.csv: row 1 (line 4)" in finding.message


RAGGED = {
    "one": ("x,y\n1,2\n3\n4,5\n", r"row 2 \(line 3\) has 1 values, the header has 2$", None),
    "some": (
        "x,y\n1,2\n3\n4,5,6\n7,8\n",
        r"has 1 values, the header has 2 \(2 of 4 rows differ\)",
        None,
    ),
    "in a later block": (
        "x,y\n" + "1,2\n" * 10 + "3\n4,5\n6\n",
        r"row 11 \(line 12\) has 1 .*\(2 of 13 rows",
        None,
    ),
    "a separator at the end": (
        "x,y\n1,2,\n3,4,\n",
        r"\(2 of 2 rows differ\)",
        "every row ends with ','",
    ),
    "names of rows": ("x,y\n1,2,3\n4,5,6\n", r"\(2 of 2 rows differ\)", "name the column"),
    "another separator": ("x;y\n1|2,0\n", r"row 1 \(line 2\) has 1 values", None),
    "before a bad quote": ('x,y\n1\n3,"4\n', r"row 1 \(line 2\) has 1 values", None),
    "a comment": ("x,y\n1,2\n# three\n", r"row 2 \(line 3\) has 1", "comment="),
}


@pytest.mark.parametrize("kind", RAGGED)
def test_rows_of_other_widths_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(row_reader, "ROWS", 3)
    text, words, hint = RAGGED[kind]
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert (hint or "") in (caught.value.hint or "")


HEADERS = {
    "a separator that is not looked for": ("x|y\n1|2\n", "--delimiter '|'"),
    "fewer of the right separator": ("a,b,c;y\n1;2\n", "--delimiter ';'"),
    "comments": ("# made by x\nx,y\n1,2\n", "--comment '#'"),
    "lines before the header": ("Device: 7\nfrom, to\n\nx,y\n1,2\n", "tail -n +4"),
    "a blank that does not break": ("x,Y\u00a0\n1,2\n", "perhaps"),
    "another case": ("x, Y \n1,2\n", "perhaps 'Y'"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_column_that_is_not_found_says_why(tmp_path: Path, kind: str) -> None:
    text, hint = HEADERS[kind]
    with (
        naming_flags(),
        pytest.raises(InputError, match="no column 'y'; the columns are") as caught,
    ):
        read(tmp_path, text)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "x,y,y\n1,2,3\n",
            r"column 'y' stands 2 times in the header \(line 1\): as number 2 and 3",
        ),
        (
            "\n\nx,y,x,x\n",
            r"column 'x' stands 3 times in the header \(line 3\): as number 1, 3 and 4",
        ),
        (",,\n1,2,3\n", "names no column"),
        ("x,y\n1,2\n\ufeffx,y\n3,4\n", r"line 3 starts with a byte order mark .*files were joined"),
        ("x,y\n1,2\n3,\x004\n", "line 3 holds a NUL byte"),
        ("x,y\n1,2\nx,y\n3,4\n", r"row 2 \(line 3\), column 'y': 'y' is not a number"),
        ("sep=;\n", "is empty"),
        ("{\n", "holds JSON, a CSV is needed"),
        ('{"x": 1, "y": 2}\n{"x": 1, "y": 2}\n', "holds JSON, a CSV is needed"),
        ('[{"x": 1, "y": 2}]', "holds JSON, a CSV is needed"),
        ("\n <!DOCTYPE html>\n", "is a page of HTML or XML"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_names_may_be_empty_where_they_are_not_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, ",y,\n0,2,3\n").values, [[2]])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("piece", [2, 3, 1 << 18])
def test_every_line_end_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, piece: int
) -> None:
    monkeypatch.setattr(text_pieces, "PIECE", piece)
    np.testing.assert_array_equal(read(tmp_path, end.join(["y", "1", "2", ""])).values, [[1], [2]])


@pytest.mark.parametrize("line", ["sep=;", "SEP=|", '"sep=;"', "sep=\t"])
def test_the_line_that_names_the_separator_is_taken(tmp_path: Path, line: str) -> None:
    separator = line.strip('"')[4]
    text = f"{line}\nx{separator}y\n1{separator}2\n3{separator}four\n"
    with pytest.raises(InputError, match=r"row 2 \(line 4\), column 'y': 'four'"):
        read(tmp_path, text)
    np.testing.assert_array_equal(read(tmp_path, text.replace("four", "4")).values, [[2], [4]])


def test_comments_are_left_out_where_they_are_named(tmp_path: Path) -> None:
    text = '# made\n#, by\nx,note,y # names\n1,"# no",2\n  # x,y\n3,a,4#5\n#\n6,"b\n# no",7\n'
    table = read(tmp_path, text, TableFormat(comment="#"))
    np.testing.assert_array_equal(table.values[:, 0], [2, 4, 7])
    text = "y\n1\n// two\n\n3 // x\n"
    table = read(tmp_path, text, TableFormat(comment="//"))
    np.testing.assert_array_equal(table.values[:, 0], [1, np.nan, 3])


def test_a_named_separator_is_taken(tmp_path: Path) -> None:
    for name, character in (("tab", "\t"), ("|", "|"), ("space", " "), (":", ":")):
        table = read(tmp_path, f"x,1{character}y\n1{character}2\n", TableFormat(delimiter=name))
        np.testing.assert_array_equal(table.values, [[2]])


CELL = st.text(st.sampled_from('ab,"\n\r# '), max_size=6)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=8), st.integers(1, 4))
def test_quotes_are_followed_as_the_reader_follows_them(rows: list[list[str]], size: int) -> None:
    """What csv.writer quotes ends closed, and no comment is seen inside of quotes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    quotes = Quotes(",")
    for line in io.StringIO(text.getvalue(), newline=""):
        assert quotes.read(line, "#") is None
    assert quotes.open is None
    assert quotes.torn is None


CELLS = st.sampled_from(["", " ", "1", "-2.5", "a", "a\nb", "c\r\nd", "#", 'x"y', "ä"])


@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=30),
    st.integers(1, 7),
    st.sampled_from([1, 5, 30, 1 << 18]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_blocks_give_the_rows_of_the_csv_module(
    rows: list[tuple[str, str]], size: int, piece: int, end: str, quoting: Literal[0, 1]
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([("y", "note"), *rows])
    expected: list[tuple[int, list[str]]] = []
    empty: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
    for row in reader:
        if any(map(str.strip, row)):  # rows without a text are kept before others
            expected += [*empty, (reader.line_num, row)]
            empty = []
        elif len(row) > 1:
            empty.append((reader.line_num, row))
    before = row_reader.ROWS, text_pieces.PIECE
    row_reader.ROWS, text_pieces.PIECE = size, piece + 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.csv"
            path.write_bytes(gzip.compress(text.getvalue().encode()))
            with open_csv(path) as table:
                found = [(row.line, row.cells) for row in table.rows]
    finally:
        row_reader.ROWS, text_pieces.PIECE = before
    assert found == expected[1:]


@pytest.mark.parametrize("quoted", [False, True])
def test_lines_are_counted_where_cells_are_cut_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quoted: bool
) -> None:
    monkeypatch.setattr(text_pieces, "PIECE", 64)
    header = '"x","y"' if quoted else "x,y"
    rows = [f"{r},{r}" for r in range(500)]
    rows[100], rows[300], rows[310] = '"100","1\n00"', "", ",310"
    text = "\n".join([header, *rows, "500,much", ""])
    with pytest.raises(InputError, match=r"row 101 \(line 103\), column 'y': '1\\n00' is not"):
        read(tmp_path, text)
    text = text.replace('"1\n00"', '"100"')
    # An empty line is no row: from there on a row stands two lines further down.
    with pytest.raises(InputError, match=r"row 500 \(line 502\), column 'y': 'much' is not"):
        read(tmp_path, text)
    values = read(tmp_path, text.replace("much", "500")).values[:, 0]
    np.testing.assert_array_equal(values, [r for r in range(501) if r != 300])
    with pytest.raises(
        InputError, match=r"row 451 \(line 453\) has 3 values.*2 of 500 rows differ"
    ):
        read(tmp_path, text.replace("451,451", "451,45,1").replace("460,460", "460"))
