"""Times that do not ascend: what happened to the file is said, with its table rows and the option that acts."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, Table, find_unread_times, read_table
from loopedge.errors import InputError

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet")

DAYS = [str(day) for day in np.arange("2024-01-01", "2024-03-01", dtype="M8[D]")]  # 60
HOURS = [str(t).replace("T", " ") for t in np.arange("2024-01-01T00:00", "2024-01-06T00:00", 60, dtype="M8[m]")]  # fmt: skip


def read(
    folder: Path, rows: Iterable[str], header: str = "t,y", kind: str = "csv", **more: Any
) -> Table:
    form = {key: more.pop(key) for key in ("timezone", "time_format") if key in more}
    lines = list(rows)
    path = folder / f"data.{kind}"
    if kind == "csv":
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    else:
        cells = list(zip(*(line.split(",") for line in lines), strict=True))
        columns: dict[str, Any] = dict(zip(header.split(","), map(list, cells), strict=True))
        columns["y"] = [float(value) for value in columns["y"]]
        pq.write_table(pa.table(columns), path)
    return read_table(path, Selection(numbers=("y",), time="t", **more), TableFormat(**form))


def numbered(times: Iterable[str]) -> list[str]:
    return [f"{time},{number}" for number, time in enumerate(times)]


def autumn(first: str, step: int, back: int, at: str) -> list[str]:
    """Return local times of a night in which clocks go back ``back`` minutes at ``at``."""
    times = np.datetime64(first) + step * np.arange(60).astype("m8[m]")
    end = np.datetime64(at)
    twice = times[(times >= end - np.timedelta64(back, "m")) & (times < end)]
    return [str(t).replace("T", " ") for t in [*times[times < end], *twice, *times[times >= end]]]


WRONG: dict[str, tuple[list[str], str, str, dict[str, Any]]] = {
    "newest first": (
        numbered(DAYS[::-1]),
        r"row 2 \(line 3\), column 't': '2024-02-28' is earlier than '2024-02-29' in the row before: the rows run from newest to oldest$",
        "turn them round: (head -n 1 ",
        {},
    ),
    "newest first over a night in autumn": (
        numbered(autumn("2024-10-26T20:00", 15, 60, "2024-10-27T03:00")[::-1] + HOURS[::-1]),
        "the rows run from newest to oldest",
        "turn them round",
        {},
    ),
    "clocks of Berlin": (
        numbered(autumn("2024-10-26T20:00", 15, 60, "2024-10-27T03:00")),
        r"row 29 \(line 30\), .*'2024-10-27 02:00' is earlier than '2024-10-27 02:45' .*: the clocks of Europe/Berlin are put back in that night",
        "timezone='Europe/Berlin'",
        {},
    ),
    "clocks of London": (
        numbered(autumn("2024-10-26T20:00", 60, 60, "2024-10-27T02:00")),
        "'2024-10-27 01:00' stands twice, .*: the clocks of Europe/London, and those of Asia/Jerusalem, are put back",
        "timezone='Europe/London'",
        {},
    ),
    "clocks of New York": (
        numbered(autumn("2024-11-02T20:00", 30, 60, "2024-11-03T02:00")),
        "'2024-11-03 01:00' is earlier than '2024-11-03 01:30' .*: the clocks of America/New_York, and those of America/Chicago, America/Los_Angeles, are put back",
        "timezone='America/New_York'",
        {},
    ),
    "clocks of Sydney in April": (
        numbered(autumn("2024-04-06T20:00", 60, 60, "2024-04-07T03:00")),
        "'2024-04-07 02:00' stands twice, .*: the clocks of Australia/Sydney, and those of Pacific/Auckland, are put",
        "timezone='Australia/Sydney'",
        {},
    ),
    "half an hour of Lord Howe": (
        numbered(autumn("2024-04-06T20:00", 30, 30, "2024-04-07T02:00")),
        "'2024-04-07 01:30' stands twice, .*: the clocks of Australia/Lord_Howe are put back",
        "timezone='Australia/Lord_Howe'",
        {},
    ),
    "an hour twice in a night without a change": (
        numbered(autumn("2024-10-25T20:00", 15, 60, "2024-10-26T03:00")),
        r"from there to row 32 \(line 33\) the times of 4 rows stand twice, also from row 25 \(line 26\) on, with other values",
        "leave out the one that does not hold",
        {},
    ),
    "series among each other": (
        [f"{day},{shop},{n}" for n, day in enumerate(DAYS) for shop in "abc"],
        r"row 2 \(line 3\), .*'2024-01-01' stands twice, also in the row before: column 'shop' tells 3 series apart, and the times of each ascend",
        'group="shop"',
        {"header": "t,shop,y"},
    ),
    "series one after the other": (
        [f"{day},{shop},{n}" for shop in "abc" for n, day in enumerate(DAYS)],
        r"row 61 \(line 62\), .*'2024-01-01' is earlier than '2024-02-29' .*: column 'shop' tells 3 series apart",
        'group="shop"',
        {"header": "t,shop,y"},
    ),
    "the column of fewest series is named": (
        [f"{day},{shop},{n % 7},{shop}{item},{n}" for shop in "ab" for item in "xy" for n, day in enumerate(DAYS)],
        "column 'key' tells 4 series apart",
        'group="key"',
        {"header": "t,shop,noise,key,y"},
    ),
    "series of two columns": (
        [f"{day},{shop},{item},{n}" for shop in "ab" for item in "xy" for n, day in enumerate(DAYS)],
        r"row 61.* in the row before of 'a': column 'item' tells 4 series apart within those of group",
        "write that column and the present one into one",
        {"header": "t,shop,item,y", "group": "shop"},
    ),
    "a series newest first": (
        [f"{day},{shop},{n}" for shop in "ab" for n, day in enumerate(DAYS[::-1])],
        "in the row before of 'a': the rows of every series run from newest to oldest",
        "turn them round",
        {"header": "t,shop,y", "group": "shop"},
    ),
    "a row twice": (
        [*numbered(DAYS[:30]), f"{DAYS[29]},29", f"{DAYS[30]},30"],
        r"row 31 \(line 32\), .*'2024-01-30' stands twice, also in the row before, with the same values$",
        "leave out one of the two",
        {},
    ),
    "a row twice, its value changed": (
        [*numbered(DAYS[:30]), f"{DAYS[29]},7", f"{DAYS[30]},30"],
        r"row 31 \(line 32\), .*stands twice, also in the row before, with other values$",
        "leave out the one that does not hold",
        {},
    ),
    "a row twice, later": (
        [*numbered(DAYS[:30]), f"{DAYS[4]},4"],
        r"row 31 \(line 32\), .*'2024-01-05' stands twice, also in row 5 \(line 6\), with the same values$",
        "leave out one of the two",
        {},
    ),
    "a row twice that only a column of few values tells apart": (
        [*(f"{day},ok,{n}" for n, day in enumerate(DAYS[:30])), f"{DAYS[29]},late,1", f"{DAYS[30]},ok,30"],
        "stands twice, also in the row before, with other values",
        "leave out the one that does not hold",
        {"header": "t,state,y"},
    ),
    "a day twice": (
        [f"{HOURS[n]},{n}" for n in [*range(48), *range(24, 100)]],
        r"row 49 \(line 50\), .*'2024-01-02 00:00' is earlier than '2024-01-02 23:00' .*: from there to row 72 \(line 73\) the times of 24 rows stand twice, also from row 25 \(line 26\) on, with the same values",
        "leave out one of the two copies",
        {},
    ),
    "one row behind its place": (
        [f"{n},{n}" for n in (1, 2, 3, 5, 4, 6, 9, 8)],
        r"row 5 \(line 6\), .*'4' is earlier than '5' in the row before \(2 rows are\)$",
        "sort the rows by 't', oldest first",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("case", WRONG)
def test_what_happened_to_a_file(tmp_path: Path, case: str, kind: str) -> None:
    rows, words, hint, options = WRONG[case]
    if kind == "parquet":
        words = re.sub(r" \\\(line \d+\\\)", "", words)  # Parquet has no lines
        hint = re.sub("turn them round.*", "sort the rows by 't', oldest first", hint)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, rows, kind=kind, **options)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


@pytest.mark.parametrize("case", [case for case in WRONG if case.startswith(("clocks", "half"))])
def test_the_zone_that_is_named_reads_the_file(tmp_path: Path, case: str) -> None:
    rows, _, hint, _ = WRONG[case]
    zone = hint.split("'")[1]
    table = read(tmp_path, rows, timezone=zone)
    assert table.times is not None
    steps = np.diff(table.times.moments)
    assert (steps == steps[0]).all()


@pytest.mark.parametrize("case", [case for case in WRONG if WRONG[case][2].startswith("group=")])
def test_the_column_that_is_named_reads_the_file(tmp_path: Path, case: str) -> None:
    rows, _, hint, options = WRONG[case]
    table = read(tmp_path, rows, **{**options, "group": hint.split('"')[1]})
    assert table.groups is not None


def test_a_hint_to_turn_rows_round_is_only_for_plain_lines(tmp_path: Path) -> None:
    rows = numbered(DAYS[::-1])
    rows[3] = f'"{DAYS[56]}\n",3'
    with pytest.raises(InputError, match="newest to oldest") as caught:
        read(tmp_path, rows)
    assert caught.value.hint == "sort the rows by 't', oldest first"


def test_rows_are_named_with_their_lines_in_the_file(tmp_path: Path) -> None:
    """A cell of several lines before the row, and more chunks than one."""
    rows = [f'{row},"a\nnote",{row}' if row % 50 == 0 else f"{row},,{row}" for row in range(9000)]
    rows[8000] = "7000,,1"
    lines = 1 + 8001 + len([row for row in range(8000) if row % 50 == 0])
    with pytest.raises(InputError, match=rf"row 8001 \(line {lines}\), column 't': '7000' stands"):
        read(tmp_path, rows, header="t,note,y")


def test_a_frequent_hour_of_several_years_is_of_one_zone(tmp_path: Path) -> None:
    """Two autumns: London and Berlin differ in the hour, and both nights must fit."""
    rows = numbered(
        autumn("2023-10-28T20:00", 60, 60, "2023-10-29T03:00")
        + autumn("2024-10-26T20:00", 60, 60, "2024-10-27T03:00")
    )
    with pytest.raises(InputError, match="the clocks of Europe/Berlin are put back") as caught:
        read(tmp_path, rows)
    assert caught.value.hint is not None
    rows = numbered(
        autumn("2023-10-28T20:00", 60, 60, "2023-10-29T03:00")
        + autumn("2024-11-02T20:00", 60, 60, "2024-11-03T02:00")
    )
    with pytest.raises(InputError, match=r"stands twice, .* \(2 rows repeat a time or go back\)"):
        read(tmp_path, rows)


def unread(folder: Path, rows: list[str], header: str, **more: Any) -> list[str]:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    found = find_unread_times(path, Selection(numbers=("y",), **more))
    return [finding.line for finding in found]


def test_a_column_of_times_that_is_not_named_is_said(tmp_path: Path) -> None:
    rows = numbered(DAYS)
    assert unread(tmp_path, rows, "when,y") == [
        "column 'when' holds times, '2024-01-01' in row 1 (line 2), and is not read: gaps and the order of the rows are "
        'not looked at (time_column="when")'
    ]
    assert unread(tmp_path, [f"1,2,3,4,5,{row}" for row in rows], "a,b,c,d,e,Datum,y") != []
    assert unread(tmp_path, [f"1,2,3,4,5,{row}" for row in rows], "a,b,c,d,e,f,y") == []  # too far
    assert unread(tmp_path, rows, "when,y", time="when") == []
    assert unread(tmp_path, [f"{n},{n}" for n in range(60)], "time,y") == []
    assert unread(tmp_path, [f"s{n},{n}" for n in range(60)], "time,y") == []
    whole = [f"{day.replace('-', '')},{n}" for n, day in enumerate(DAYS)]
    assert len(unread(tmp_path, whole, "time,y")) == 1


def test_series_without_a_group_are_said_from_the_first_rows(tmp_path: Path) -> None:
    rows = [f"{day},{shop},{n}" for shop in "ab" for n, day in enumerate(DAYS)]
    (line,) = unread(tmp_path, rows, "when,shop,y")
    assert (
        "'2024-01-01' in row 61 (line 62) is not later than '2024-02-29' in row 60 (line 61)"
    ) in line
    assert 'time_column="when" says why, group=COLUMN tells several series apart' in line
    (line,) = unread(tmp_path, rows, "when,shop,y", group="shop")
    assert "gaps and the order of the rows are not looked at" in line


@pytest.mark.skipif(shutil.which("tac") is None, reason="tac is not installed")
@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_the_command_that_turns_a_file_round_does(tmp_path: Path, end: str) -> None:
    path = tmp_path / "newest first.csv"
    path.write_bytes(("t,y\n" + "\n".join(numbered(DAYS[::-1])) + end).encode())
    selection = Selection(numbers=("y",), time="t")
    with pytest.raises(InputError, match="newest to oldest") as caught:
        read_table(path, selection)
    command = str(caught.value.hint).removeprefix("turn them round: ")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    turned = read_table(tmp_path / "oldest-first.csv", selection)
    np.testing.assert_array_equal(turned.values[:, 0], np.arange(len(DAYS))[::-1])
