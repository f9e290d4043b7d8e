from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loopedge.errors import InputError
from loopedge.files.arrays import read_array_file, write_arrays

TABLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)


@given(table=TABLES, header=st.booleans())
def test_a_csv_of_numbers_comes_back(table: np.ndarray, header: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        lines = [",".join(repr(float(cell)) for cell in row) for row in table]
        if header:
            lines.insert(0, ",".join(f"column {i}" for i in range(table.shape[1])))
        path.write_text("\n".join(lines), encoding="utf-8")
        [(name, positions)] = read_array_file(path, {"inputs": 3}).arrays.items()
        [(_, rows)] = read_array_file(path, {"input_ids": 2}).arrays.items()
    assert name == "inputs"
    np.testing.assert_array_equal(positions, table[np.newaxis])
    np.testing.assert_array_equal(rows, table)


@given(table=arrays.arrays(np.int64, (3, 2), elements=st.integers(-(2**40), 2**40)))
def test_whole_numbers_of_a_csv_are_integers(table: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        np.savetxt(path, table, fmt="%d", delimiter=",")
        [rows] = read_array_file(path, {"input_ids": 2}).arrays.values()
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, table)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_written_arrays_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"y{suffix}"
    written = {"outputs": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_arrays(path, written)
    read = read_array_file(path, {"outputs": 2}).arrays
    assert set(read) == {"outputs"}
    np.testing.assert_array_equal(read["outputs"], written["outputs"])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_targets_that_cannot_hold_the_arrays(tmp_path: Path) -> None:
    two = {"a": np.zeros(1), "b": np.zeros(1)}
    with pytest.raises(InputError, match="can hold one array, the model gives 2"):
        write_arrays(tmp_path / "y.npy", two)
    with pytest.raises(InputError, match="unknown kind"):
        write_arrays(tmp_path / "y.txt", two)
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_named_like_an_argument(tmp_path: Path) -> None:
    write_arrays(tmp_path / "y.npz", {"file": np.ones(2), "outputs": np.zeros(1)})
    assert set(read_array_file(tmp_path / "y.npz", {"file": 1}).arrays) == {"file", "outputs"}


def test_an_empty_cell_is_a_missing_value_where_it_may_be(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    for text, expected in [
        ("1,2\n3,\n", [[1, 2], [3, np.nan]]),
        ("y\n1\n\n3\n\n", [[1], [np.nan], [3]]),
        ("1,2\n\n3,4\n", [[1, 2], [3, 4]]),
        (",\n3,4\n", [[np.nan, np.nan], [3, 4]]),
    ]:
        source.write_text(text)
        table = read_array_file(source, {"inputs": 3}, missing=True).arrays["inputs"]
        np.testing.assert_array_equal(table, [expected])
    source.write_text("1,2\n3,\n")
    with pytest.raises(InputError, match=r"row 2 \(line 2\), column 2: the value is missing"):
        read_array_file(source, {"inputs": 3})
