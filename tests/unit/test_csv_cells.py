"""Cells of a CSV file: quoted separators, and the ways to write that a number is missing."""

from pathlib import Path

import numpy as np
import pytest

from loopedge.data.tables.reading import Selection, read_table


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ('time;"Temp, C"\n1;2.5\n', "Temp, C"),
        ('"a; b; c",y\n1,2.5\n', "y"),
        ('"said ""x;y;z""",y\n1,2.5\n', "y"),
        ('"two\n;; lines",y\n1,2.5\n', "y"),
    ],
)
def test_separators_inside_quotes_are_not_counted(
    tmp_path: Path, content: str, column: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    assert read_table(path, Selection(numbers=(column,))).values.tolist() == [[2.5]]


@pytest.mark.parametrize("beside", ["1", "NA"])
@pytest.mark.parametrize("cell", ["nan", "-nan", "+NaN", "-NAN"])
def test_a_nan_is_missing_whatever_stands_beside_it(tmp_path: Path, cell: str, beside: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"y\n{cell}\n{beside}\n2\n")
    values = read_table(path, Selection(numbers=("y",))).values[:, 0]
    assert np.isnan(values[0])
    assert values[2] == 2
