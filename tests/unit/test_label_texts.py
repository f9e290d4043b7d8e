"""Labels and names of series are texts unless their type says otherwise; what is left out is counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, Table, read_table
from loopedge.errors import InputError
from loopedge.tasks.labelled_series import LabelledSeriesTask, find_classes, sort_labels
from loopedge.tasks.task import task_from_dict

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet")

LABEL = Selection(numbers=("x",), label="kind")


def read_csv(folder: Path, labels: list[str], form: TableFormat | None = None) -> Table:
    path = folder / "data.csv"
    path.write_text("x,kind\n" + "".join(f"{r},{text}\n" for r, text in enumerate(labels)))
    return read_table(path, LABEL, form)


def read_parquet(folder: Path, labels: Any, form: TableFormat | None = None) -> Table:
    path = folder / "data.parquet"
    pq.write_table(pa.table({"x": list(range(len(labels))), "kind": labels}), path)
    return read_table(path, LABEL, form)


def seen(table: Table) -> list[str | None]:
    """The label of each row, None where it is missing."""
    assert table.labels is not None
    return [None if code < 0 else table.labels.names[code] for code in table.labels.codes]


@pytest.mark.parametrize(
    "labels",
    [
        ["007", "7", "07"],
        ["1.10", "1.1", "1.100"],
        ["1E2", "100", "1e2"],
        ["+5", "5", "5.0"],
        ["0", "-0", "00"],
        ["True", "true", "1"],
        ["9007199254740993", "9007199254740992", "9007199254740993.0"],
        ["Nan", "NAN", "None", "NA", "null", "n/a", "-", "?"],
    ],
)
def test_distinct_texts_are_classes_of_their_own(tmp_path: Path, labels: list[str]) -> None:
    assert seen(read_csv(tmp_path, labels)) == labels
    assert seen(read_parquet(tmp_path, labels)) == labels
    assert seen(read_parquet(tmp_path, pa.array(labels).dictionary_encode())) == labels
    assert seen(read_parquet(tmp_path, pa.array(labels, pa.large_string()))) == labels


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([7, 8, 7], pa.int8()), ["7", "8", "7"]),
        (pa.array([7, None, 8], pa.int64()), ["7", None, "8"]),
        (pa.array([2**63, 1], pa.uint64()), [str(2**63), "1"]),
        # A nullable integer column that pandas wrote as floats keeps its classes.
        (pa.array([7.0, None, float("nan"), 8.0]), ["7", None, None, "8"]),
        (pa.array([0.1, 2.5, -0.0], pa.float32()), ["0.1", "2.5", "0"]),
        (pa.array([0.1, 1e300]), ["0.1", str(int(1e300))]),
        (pa.array(["1.10", "2.00"]).cast(pa.decimal128(5, 2)), ["1.1", "2"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array([7.0, None, 7.0]).dictionary_encode(), ["7", None, "7"]),
        (pa.array(["a", None, "NaN", "nan", ""]), ["a", None, "NaN", "nan", None]),
    ],
)
def test_typed_numbers_are_numbers(tmp_path: Path, column: Any, expected: list[str | None]) -> None:
    assert seen(read_parquet(tmp_path, column)) == expected


def test_what_is_left_out_is_counted_with_its_texts_and_first_row(tmp_path: Path) -> None:
    labels = ["a", "", "NaN", "b", "nan", "", "Nan"]
    table = read_csv(tmp_path, labels)
    assert seen(table) == ["a", None, None, "b", None, None, "Nan"]
    [finding] = [finding for finding in table.findings if finding.kind == "left-out"]
    assert finding.message == (
        "4 of 7 table rows have no label in column 'kind' (2 empty, 1 'NaN', 1 'nan'), the first is "
        "data.csv: row 2 (line 3); no label is learned there"
    )
    table = read_parquet(tmp_path, ["a", None, "NaN"])
    assert "1 of 3 table rows have no label in column 'kind' (1 null)" in table.findings[0].message
    assert read_csv(tmp_path, ["a", "b", "NA"]).findings == ()


@pytest.mark.parametrize("read", [read_csv, read_parquet])
def test_named_texts_stand_for_missing_labels(tmp_path: Path, read: Any) -> None:
    labels = ["a", "unknown", "-", "Unknown"]
    table = read(tmp_path, labels, TableFormat(na_values=("unknown", "-")))
    assert seen(table) == ["a", None, None, "Unknown"]


def test_labels_that_may_be_the_same_are_named(tmp_path: Path) -> None:
    table = read_csv(tmp_path, ["007", "7", "Yes", "yes", "x"])
    messages = [finding.message for finding in table.findings]
    assert messages == [
        "labels of column 'kind' that are equal as numbers stay apart: '007' and '7'",
        "labels of column 'kind' that differ in case or blanks stay apart: 'Yes' and 'yes'",
    ]
    table = read_csv(tmp_path, ["Z\u00e4hler", "Za\u0308hler", "x"])
    message = r"labels of column 'kind' that look alike but are other characters stay apart: 'Za\u0308hler' and 'Z\xe4hler'"
    assert [finding.message for finding in table.findings] == [message]
    path = tmp_path / "shops.csv"
    path.write_text("shop,x\n07,1\n7,2\n")
    table = read_table(path, Selection(numbers=("x",), group="shop"))
    assert table.groups is not None
    assert table.groups.names == ("07", "7")
    assert "series of column 'shop' that are equal as numbers" in table.findings[0].message


@pytest.mark.parametrize("text", ["", "nan", "NaN", "?"])
def test_a_missing_group_is_refused_with_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"shop,x\nNan,1\n{text},2\n")
    form = TableFormat(na_values=("?",))
    with pytest.raises(InputError, match=r"row 2 \(line 3\), column 'shop': the group is missing"):
        read_table(path, Selection(numbers=("x",), group="shop"), form)


def columns_of(*labels: str) -> Columns:
    return Columns(
        names=("x",),
        values=np.zeros((len(labels), 1)),
        observed=np.ones((len(labels), 1), bool),
        labels=labels,
        codes=np.arange(len(labels), dtype=np.int32),
    )


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (("10", "9", "1"), ["1", "9", "10"]),
        (("7", "007", "07", "6"), ["6", "007", "07", "7"]),
        (("1e2", "99", "1E2", "100"), ["99", "100", "1E2", "1e2"]),
        (("10", "9", "x"), ["10", "9", "x"]),
        (("10", "9", "1_0"), ["10", "1_0", "9"]),
        (("-1", "+1", "0", "0.5"), ["-1", "0", "0.5", "+1"]),
    ],
)
def test_classes_are_ordered_by_number_where_all_are_numbers(
    labels: tuple[str, ...], order: list[str]
) -> None:
    names, codes = sort_labels(columns_of(*labels))
    assert names == order
    assert [names[code] for code in codes] == list(labels)


@pytest.mark.parametrize(
    ("labels", "classes", "merged", "found"),
    [
        (["7", "007"], ["007", "7"], False, {"7": 1, "007": 0}),
        (["7.0"], ["7", "8"], False, {"7.0": 0}),
        (["7"], ["007", "07"], False, {}),  # two classes are equal to it
        (["7", "007"], ["7", "8"], False, {"7": 0}),  # two labels would be one class
        (["7", "007"], ["7", "8"], True, {"7": 0, "007": 0}),  # as files of before held them
        (["7.0"], ["7", "x"], False, {}),
        (["x"], ["7", "8"], True, {}),
    ],
)
def test_labels_find_the_classes_of_a_model(
    labels: list[str], classes: list[str], merged: bool, found: dict[str, int]
) -> None:
    assert find_classes(labels, classes, merged=merged) == found


def test_a_file_of_before_still_finds_its_merged_classes(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    texts = ["007", "7", "8", "8.0"]
    path.write_text("x,kind\n" + "".join(f"{r},{texts[r % 4]}\n" for r in range(80)))
    now = LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=2)
    assert now.classes == ["007", "7", "8", "8.0"]
    before = {**now.describe(), "classes": ["7", "8"]}
    del before["form"]
    again = task_from_dict(before, data=path)
    assert isinstance(again, LabelledSeriesTask)
    assert again.classes == ["7", "8"]
    expected = np.array([0, 0, 1, 1])[again.stops["test"] % 4 - 1]
    np.testing.assert_array_equal(next(again.evaluation("test", 99, 99)).targets, expected)
    assert any("'007' as '7', '8.0' as '8'" in note for note in again.notes)
    with pytest.raises(InputError, match="label '007' of column 'kind' is not a class"):
        task_from_dict({**now.describe(), "classes": ["7", "8"]}, data=path)


def test_a_column_of_ids_holds_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("x,c\n" + "".join(f"{row % 5},{row}\n" for row in range(40)))
    with pytest.raises(InputError, match="'c' holds 40 different labels for 37 windows"):
        LabelledSeriesTask.from_file(path, label="c", covariates=["x"], context=4)
