"""Tables: CSV and Parquet read alike, a chunk at a time; what is wrong is reported with its place."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import carry_forward, make_columns
from loopedge.data.tables.reading import MOST_LABELS, Selection, read_table
from loopedge.errors import InputError, MissingExtraError
from loopedge.files.csv import row_reader

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet")

ALL = Selection(numbers=("y", "x"), label="kind", group="shop", time="t")
TEXT = (
    "t,shop,y,x,kind\n"
    "2024-01-01,a,1,10,good\n"
    "2024-01-01,b,2,,bad\n"
    "2024-01-02,a,3,30,\n"
    "2024-01-02,b,4,40,bad\n"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def write_parquet(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "data.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def parquet_of_text(folder: Path) -> Path:
    import datetime

    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)]
    return write_parquet(
        folder,
        {
            "t": pa.array([days[0], days[0], days[1], days[1]]),
            "shop": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
            "y": pa.array([1, 2, 3, 4], pa.int32()),
            "x": pa.array([10, None, 30, 40], pa.float32()),
            "kind": ["good", "bad", None, "bad"],
            "unread": [["a"], ["b"], [], []],
        },
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_both_kinds_give_the_same_columns(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, TEXT) if kind == "csv" else parquet_of_text(tmp_path)
    table = read_table(path, ALL)
    np.testing.assert_array_equal(table.values, [[1, 10], [2, np.nan], [3, 30], [4, 40]])
    assert table.labels is not None
    assert table.groups is not None
    assert table.labels.names == ("good", "bad")
    np.testing.assert_array_equal(table.labels.codes, [0, 1, -1, 1])
    np.testing.assert_array_equal(table.groups.codes, [0, 1, 0, 1])
    place = "row 2 (line 3)" if kind == "csv" else "row 2"
    assert table.first_missing == f"{path.name}: {place}, column 'x'"


def test_series_stand_one_after_the_other_and_gaps_are_filled_inside_them(tmp_path: Path) -> None:
    text = "shop,y\n" + "a,1\nb,100\na,\nb,200\na,3\nb,\n"
    table = read_table(write(tmp_path, text), Selection(numbers=("y",), group="shop"))
    columns = make_columns(table, missing="interpolate")
    assert columns.series == ("a", "b")
    np.testing.assert_array_equal(columns.bounds, [0, 3, 6])
    np.testing.assert_array_equal(columns.values[:, 0], [1, 2, 3, 100, 200, 200])
    np.testing.assert_array_equal(columns.observed[:, 0], [1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(columns.first_rows(np.arange(6)), [0, 0, 0, 3, 3, 3])


def test_the_last_value_is_carried_forward_inside_a_series(tmp_path: Path) -> None:
    text = "shop,y\n" + "a,1\na,\na,3\nb,\nb,200\nb,\n"
    table = read_table(write(tmp_path, text), Selection(numbers=("y",), group="shop"))
    columns = make_columns(table, missing="indicator")
    carried = carry_forward(columns, 1, np.array([7.0]))
    np.testing.assert_array_equal(carried[:, 0], [1, 1, 3, 7, 200, 200])


def test_chunks_end_where_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "ROWS", 3)
    path = write(tmp_path, "t,y\n" + "".join(f"{r},{r * r}\n" for r in range(10)))
    table = read_table(path, Selection(numbers=("y",), time="t"))
    np.testing.assert_array_equal(table.values[:, 0], np.arange(10) ** 2)
    bad = path.read_text().replace("\n4,16\n", "\n4,much\n").replace("\n8,64\n", "\n8,more\n")
    with pytest.raises(
        InputError,
        match=r"row 5 \(line 6\), column 'y': 'much' is not a number "
        r"\(2 values of the column are not numbers\)",
    ):
        read_table(write(tmp_path, bad), Selection(numbers=("y",)))
    with pytest.raises(
        InputError, match=r"row 8 \(line 9\), column 't': '2' stands twice, also in row 3"
    ):
        read_table(
            write(tmp_path, path.read_text().replace("\n7,", "\n2,").replace("more", "1")),
            Selection(numbers=(), label="y", time="t"),
        )


def test_an_empty_row_is_a_missing_one_unless_it_ends_the_file(tmp_path: Path) -> None:
    selection = Selection(numbers=("y",))
    table = read_table(write(tmp_path, "y\n1\n\n3\n\n\n"), selection)
    np.testing.assert_array_equal(table.values[:, 0], [1, np.nan, 3])
    table = read_table(write(tmp_path, "y,x\n1,2\n\n,\n3,4\n,\n,\n"), selection)
    np.testing.assert_array_equal(table.values[:, 0], [1, np.nan, 3])
    assert table.first_missing == "data.csv: row 2 (line 4), column 'y'"


@pytest.mark.parametrize("at", [0, 5, 70_000, 1 << 20])
def test_the_byte_that_is_no_utf8_is_reported(tmp_path: Path, at: int) -> None:
    path = tmp_path / "data.csv"
    filling = b"y,note\n" + b"1,\xc3\xa4\n" * ((at + 20) // 5 + 1)
    path.write_bytes(filling[:at] + b"\xff" + filling[at:])
    expected = at
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        expected = error.start
    with pytest.raises(InputError, match=rf"is not UTF-8 text: byte {expected} "):
        read_table(path, Selection(numbers=("y",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,shop,y\n1,a,1\n1,b,1\n1,a,2\n", r"row 3 \(line 4\), .*'1' stands twice.* of 'a'"),
        (
            "t,shop,y\n2,a,1\n1,b,1\n1,a,2\n",
            r"row 3 \(line 4\), .*'1' is earlier than '2' .* of 'a'",
        ),
        ("t,shop,y\n1,,1\n", r"row 1 \(line 2\), column 'shop': the group is missing"),
        ("t,shop,y\n1,a,-inf\n", r"row 1 \(line 2\), column 'y': '-inf' is too large"),
    ],
)
def test_rows_of_groups_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    selection = Selection(numbers=("y",), group="shop", time="t")
    with pytest.raises(InputError, match=words):
        read_table(write(tmp_path, text), selection)


def test_a_whole_series_without_a_value_cannot_be_interpolated(tmp_path: Path) -> None:
    path = write(tmp_path, "shop,y\na,1\nb,\nb,\n")
    table = read_table(path, Selection(numbers=("y",), group="shop"))
    with pytest.raises(InputError, match="column 'y' holds no value in 'b'") as caught:
        make_columns(table, missing="interpolate")
    assert caught.value.hint is not None
    assert "indicator" in caught.value.hint


def test_a_column_of_numbers_is_no_column_of_labels(tmp_path: Path) -> None:
    rows = "".join(f"{r},1\n" for r in range(MOST_LABELS + 1))
    with pytest.raises(InputError, match=f"'y' holds more than {MOST_LABELS} different labels"):
        read_table(write(tmp_path, "y,x\n" + rows), Selection(numbers=("x",), label="y"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"y": ["1", "2"]}, "column 'y' is of type string, a number is needed"),
        ({"y": [[1.0], [2.0]]}, "column 'y' is of type list.*, a number is needed"),
        ({"z": [1, 2]}, "no column 'y'; the columns are z"),
        ({"y": [1.0, float("inf")]}, "data.parquet: row 2, column 'y': 'inf' is too large"),
        ({"y": [1.0, 1e39]}, r"row 2, column 'y': '1e\+39' is too large"),
    ],
)
def test_a_parquet_column_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_table(write_parquet(tmp_path, columns), Selection(numbers=("y",)))


def test_parquet_times_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    nanoseconds = pa.array([1, 2, 3], pa.timestamp("ns", tz="Europe/Berlin"))
    selection = Selection(numbers=("y",), time="t")
    columns = {"t": nanoseconds, "y": pa.array([1, 2, 3])}
    assert read_table(write_parquet(tmp_path, columns), selection).values.shape == (3, 1)
    columns["t"] = pa.array([1, 3, 2], pa.timestamp("ns"))
    with pytest.raises(InputError, match=r"row 3, column 't': '1970-01-01 .*02' is earlier than"):
        read_table(write_parquet(tmp_path, columns), selection)
    columns["t"] = pa.array([1, None, 2], pa.date32())
    with pytest.raises(InputError, match="row 2, column 't': the time is missing"):
        read_table(write_parquet(tmp_path, columns), selection)
    columns["t"] = pa.array([[1], [2], [3]])
    with pytest.raises(InputError, match="column 't' is of type list"):
        read_table(write_parquet(tmp_path, columns), selection)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="is not a Parquet file or is damaged"):
        read_table(path, Selection(numbers=("y",)))
    torn = write_parquet(tmp_path, {"y": list(range(1000))}).read_bytes()
    path.write_bytes(torn[:100] + bytes(200) + torn[300:])
    with pytest.raises(InputError, match="is not a Parquet file or is damaged"):
        read_table(path, Selection(numbers=("y",)))


def test_parquet_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path, {"y": [1]})
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match="reading Parquet needs the extra 'parquet'"):
        read_table(path, Selection(numbers=("y",)))


MEASURE = """
import sys
from pathlib import Path
from loopedge.tasks.series import SeriesTask

def peak():  # ru_maxrss would begin with what the process that starts this one held
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

before = peak()
task = SeriesTask.from_file(
    sys.argv[1], targets=["a", "b"], covariates=["c"], time_column="t", context=48, horizon=12
)
print(task.columns.values.nbytes, peak() - before)
"""


@pytest.mark.slow
def test_memory_is_that_of_the_columns(tmp_path: Path) -> None:
    path, rows = tmp_path / "big.csv", 1_200_000
    note = "a note of the row that nobody reads " * 2
    with path.open("w") as file:
        file.write("t,a,b,c,note\n")
        for first in range(0, rows, 10_000):
            file.writelines(
                f"{r},{r % 97}.25,{r % 89}.5,{r % 83}.75,{note}\n"
                for r in range(first, first + 10_000)
            )
    assert path.stat().st_size > 100e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    columns, grown = map(int, done.stdout.split())
    assert columns == rows * 3 * 8
    # Beside the columns: which values were observed, the windows' rows, a copy of one column.
    assert grown < 3 * columns
