"""Frequencies: names, grids by length and by the calendar, held against numpy's dates."""

import datetime
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopedge.data.tables.columns import Columns, make_columns
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.tables.timeline.frequency import Frequency, parse_frequency
from loopedge.errors import InputError

DAY = 86_400 * 10**9


def columns_of(folder: Path, times: list[str], form: TableFormat | None = None) -> Columns:
    path = folder / "data.csv"
    path.write_text("t,y\n" + "".join(f"{time},1\n" for time in times), encoding="utf-8")
    table = read_table(path, Selection(numbers=("y",), time="t"), form)
    return make_columns(table, missing="refuse")


def days_of(months: np.ndarray, *, end: bool) -> list[str]:
    """Return the first or last day of datetime64[M]."""
    days = (months + 1).astype("M8[D]") - 1 if end else months.astype("M8[D]")
    return [str(day) for day in days]


MONTHS = np.arange("2023-10", "2025-04", dtype="M8[M]")  # over a leap day and two ends of years
QUARTERS = np.arange("2019-02", "2026-02", dtype="M8[M]")[::3]
YEARS = np.arange("1990", "2030", dtype="M8[Y]")
WEEK_OF_SHOP = "1111110"

FOUND: dict[str, tuple[str, list[str], list[str]]] = {
    "days over a leap day": (
        "D",
        [str(day) for day in np.arange("2024-02-01", "2024-02-29", dtype="M8[D]")],
        ["2024-02-29", "2024-03-01"],
    ),
    "days over no leap day": (
        "D",
        [str(day) for day in np.arange("2100-02-01", "2100-03-01", dtype="M8[D]")],
        ["2100-03-01", "2100-03-02"],
    ),
    "15 minutes over the end of a year": (
        "15min",
        [str(t) for t in np.arange("2023-12-31T20:00", "2024-01-01T00:00", 15, dtype="M8[m]")],
        ["2024-01-01T00:00", "2024-01-01T00:15"],
    ),
    "hours": (
        "h",
        [str(t).replace("T", " ") for t in np.arange("2024-02-28T22", "2024-02-29T22", dtype="M8[h]")],
        ["2024-02-29 22", "2024-02-29 23"],
    ),
    "a quarter of a second": (
        "250ms",
        [f"{t}Z" for t in np.arange("2024-01-01T00:00:00.000", "2024-01-01T00:00:05", 250, dtype="M8[ms]")],
        ["2024-01-01T00:00:05.000Z", "2024-01-01T00:00:05.250Z"],
    ),
    "weeks": (
        "W",
        [str(day) for day in np.arange("2024-01-03", "2024-12-31", 7, dtype="M8[D]")],
        ["2025-01-01", "2025-01-08"],
    ),
    "fortnights": (
        "14D",
        [str(day) for day in np.arange("2024-01-03", "2024-12-31", 14, dtype="M8[D]")],
        ["2025-01-01", "2025-01-15"],
    ),
    "starts of months": ("MS", days_of(MONTHS, end=False), ["2025-04-01", "2025-05-01"]),
    "ends of months": ("ME", days_of(MONTHS, end=True), ["2025-04-30", "2025-05-31"]),
    "months without a day": ("MS", [str(month) for month in MONTHS], ["2025-04", "2025-05"]),
    "the fifteenth": ("M", [f"{month}-15" for month in MONTHS], ["2025-04-15", "2025-05-15"]),
    "the thirtieth, or the last of February": (
        "M",
        [min(f"{month}-30", str((month + 1).astype("M8[D]") - 1)) for month in MONTHS],
        ["2025-04-30", "2025-05-30"],
    ),
    "starts of quarters that begin in February": ("QS", days_of(QUARTERS, end=False), ["2026-02-01", "2026-05-01"]),
    "ends of quarters": ("QE", days_of(QUARTERS, end=True), ["2026-02-28", "2026-05-31"]),
    "every second month": ("2MS", days_of(MONTHS[::2], end=False), ["2025-04-01", "2025-06-01"]),
    "years": ("YS", [f"{year}-01-01" for year in YEARS], ["2030-01-01", "2031-01-01"]),
    "ends of years": ("YE", [f"{year}-12-31" for year in YEARS], ["2030-12-31", "2031-12-31"]),
    "leap days": ("4YE", [f"{year}-02-29" for year in range(1904, 2024, 4)], ["2024-02-29", "2028-02-29"]),
    "working days": (
        "B",
        [str(np.busday_offset(np.datetime64("2024-02-01"), each, roll="forward")) for each in range(22)],
        ["2024-03-04", "2024-03-05"],
    ),
    "days of a shop": (
        "Mon-Sat",
        [str(np.busday_offset(np.datetime64("2024-02-01"), each, weekmask=WEEK_OF_SHOP)) for each in range(25)],
        ["2024-03-01", "2024-03-02"],
    ),
    "working days of the Gulf": (
        "Sun-Thu",
        [str(np.busday_offset(np.datetime64("2024-02-01"), each, weekmask="1111001")) for each in range(25)],
        ["2024-03-07", "2024-03-10"],
    ),
    "three days of a week": (
        "Mon,Wed,Fri",
        [str(np.busday_offset(np.datetime64("2024-01-01"), each, weekmask="1010100")) for each in range(20)],
        ["2024-02-16", "2024-02-19"],
    ),
    "weeks of ISO 8601": ("W", [f"2024-W{week}" for week in range(30, 53)], ["2025-W01", "2025-W02"]),
    "whole numbers": ("10", [str(number) for number in range(100, 200, 10)], ["200", "210"]),
    "fractions": ("0.25", [f"{number * 0.25:.2f}" for number in range(40)], ["10.00", "10.25"]),
    "years as numbers": ("1", [str(year) for year in range(1990, 2020)], ["2020", "2021"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_the_step_of_most_rows_and_the_times_that_follow(tmp_path: Path, case: str) -> None:
    name, times, ahead = FOUND[case]
    columns = columns_of(tmp_path, times)
    assert columns.times is not None
    assert columns.times.frequency is not None
    assert columns.times.frequency.name == name
    assert columns.times.ahead(-1, 2) == ahead
    assert columns.times.ahead(len(times) - 3, 2) == times[-2:]
    assert columns.pieces is None
    assert columns.findings == ()


@pytest.mark.parametrize("case", FOUND)
def test_a_name_that_was_found_is_understood_and_makes_the_same_grid(
    tmp_path: Path, case: str
) -> None:
    name, times, _ = FOUND[case]
    found = columns_of(tmp_path, times).times
    assert found is not None
    named = parse_frequency(name).on_day_of(found.moments)
    places, exact = named.places(found.moments, found.moments[0].item())
    np.testing.assert_array_equal(places, np.arange(len(times)))
    assert exact.all()
    np.testing.assert_array_equal(
        named.at(found.moments[0].item(), np.arange(len(times))), found.moments
    )
    assert named.name == name


@pytest.mark.parametrize(
    ("name", "unit", "count"),
    [
        *(("15min", "nanosecond", 900 * 10**9), ("h", "nanosecond", 3600 * 10**9)),
        *(("90s", "nanosecond", 90 * 10**9), ("250ms", "nanosecond", 25 * 10**7)),
        *(("D", "day", 1), ("2W", "day", 14), ("QS", "month", 3), ("A", "month", 12), ("6ME", "month", 6)),
        *(("900", "number", 900), ("0.5", "number", 0.5), ("T", "nanosecond", 60 * 10**9)),
    ],
)  # fmt: skip
def test_names_of_pandas(name: str, unit: str, count: float) -> None:
    frequency = parse_frequency(name)
    assert (frequency.unit, frequency.count) == (unit, count)
    assert parse_frequency(frequency.name) == frequency


@pytest.mark.parametrize(
    "name", ["foo", "", "0", "-1", "2B", "15 minutes", "inf", "M5", "Mon-Tue-Wed"]
)
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(InputError, match="is not known; there are auto, 15min, h, D, B") as caught:
        parse_frequency(name)
    assert caught.value.hint == 'frequency="auto"'


@settings(deadline=None, max_examples=60)
@given(
    start=st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)),
    count=st.integers(1, 14),
    day=st.one_of(st.none(), st.integers(1, 31)),
)
def test_months_are_those_of_numpy(start: datetime.datetime, count: int, day: int | None) -> None:
    """Right: month by month, with each month's length from numpy."""
    frequency = Frequency(unit="month", count=count, day=day)
    moment = int(np.datetime64(start, "us").astype(np.int64)) * 1000
    made = frequency.at(moment, np.arange(30))
    first = np.datetime64(start, "M")
    for step, time in enumerate(made.tolist()):
        month = first + step * count
        length = int(((month + 1).astype("M8[D]") - month.astype("M8[D]")).astype(int))
        right = month.astype("M8[D]") + min(day or start.day, length) - 1
        assert np.datetime64(time, "ns").astype("M8[D]") == right
        assert time % DAY == moment % DAY
    places, exact = frequency.places(made, int(made[0]))
    if day is not None or start.day <= 28:
        np.testing.assert_array_equal(places, np.arange(30))
        assert exact.all()


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(-20_000, 40_000),
    weekmask=st.text("01", min_size=7, max_size=7).filter(lambda mask: "1" in mask),
)
def test_days_of_a_week_are_those_of_numpy(start: int, weekmask: str) -> None:
    frequency = Frequency(unit="weekday", weekmask=weekmask)
    first = np.busday_offset(np.datetime64(start, "D"), 0, roll="forward", weekmask=weekmask)
    made = frequency.at(int(first.astype(np.int64)) * DAY + 7, np.arange(20))
    right = [np.busday_offset(first, step, weekmask=weekmask) for step in range(20)]
    np.testing.assert_array_equal(made // DAY, np.array(right).astype(np.int64))
    assert all(one < other for one, other in pairwise(made.tolist()))
    assert parse_frequency(frequency.name) == frequency


DST = {
    "Berlin, hours, spring": ("Europe/Berlin", "2024-03-31 01:00", "h", ["2024-03-31 03:00", "2024-03-31 04:00"]),
    "Berlin, hours, autumn": ("Europe/Berlin", "2024-10-27 01:00", "h", ["2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]),
    "New York, hours, spring": ("America/New_York", "2024-03-10 01:00", "h", ["2024-03-10 03:00"]),
    "Sydney, hours, autumn in April": ("Australia/Sydney", "2024-04-07 01:00", "h", ["2024-04-07 02:00", "2024-04-07 02:00"]),
    "Sydney, hours, spring in October": ("Australia/Sydney", "2024-10-06 01:00", "h", ["2024-10-06 03:00"]),
    "Lord Howe, half hours, autumn": ("Australia/Lord_Howe", "2024-04-07 01:00", "30min", ["2024-04-07 01:30", "2024-04-07 01:30", "2024-04-07 02:00"]),
    "Lord Howe, half hours, spring": ("Australia/Lord_Howe", "2024-10-06 01:30", "30min", ["2024-10-06 02:30", "2024-10-06 03:00"]),
    "Kolkata has no such hours": ("Asia/Kolkata", "2024-03-31 01:00", "h", ["2024-03-31 02:00"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DST)
def test_clocks_are_put_forward_and_back(tmp_path: Path, case: str) -> None:
    zone, last, name, ahead = DST[case]
    step = {"h": 60, "30min": 30}[name]
    end = np.datetime64(last.replace(" ", "T"))
    times = [str(end - step * back).replace("T", " ") for back in range(20, -1, -1)]
    columns = columns_of(tmp_path, times, TableFormat(timezone=zone))
    assert columns.times is not None
    assert columns.times.frequency is not None
    assert columns.times.frequency.name == name
    assert columns.times.ahead(-1, len(ahead)) == ahead


@pytest.mark.parametrize(
    ("zone", "last", "ahead"),
    [
        ("Europe/Berlin", "2024-03-30", ["2024-03-31", "2024-04-01"]),
        ("Europe/Berlin", "2024-10-26", ["2024-10-27", "2024-10-28"]),
        (
            "America/Sao_Paulo",
            "2018-11-03",
            ["2018-11-04", "2018-11-05"],
        ),  # whose midnight there was none
        ("Pacific/Apia", "2011-12-29", ["2011-12-30", "2011-12-31"]),
    ],
)
def test_days_are_days_of_the_clock(tmp_path: Path, zone: str, last: str, ahead: list[str]) -> None:
    times = [str(np.datetime64(last) - back) for back in range(15, -1, -1)]
    columns = columns_of(tmp_path, times, TableFormat(timezone=zone))
    assert columns.times is not None
    assert columns.times.frequency is not None
    assert columns.times.frequency.name == "D"
    assert columns.times.ahead(-1, 2)[-1] == ahead[-1]


def test_times_of_a_logger_vary_around_a_step(tmp_path: Path) -> None:
    late = np.random.default_rng(0).integers(0, 40, 60)
    seconds = np.datetime64("2024-01-01T00:00:00") + (900 * np.arange(60) + late)
    columns = columns_of(tmp_path, [str(each) for each in seconds])
    assert columns.times is not None
    assert columns.times.frequency is None
    typical = int(np.sort(np.diff(900 * np.arange(60) + late))[29]) * 10**9
    assert columns.times.typical == typical
    right = seconds[-1] + np.timedelta64(typical, "ns")
    assert columns.times.ahead(-1, 1) == [str(right.astype("M8[s]"))]
    assert columns.findings == ()


def test_irregular_times_have_none_that_follow(tmp_path: Path) -> None:
    steps = np.random.default_rng(1).integers(1, 10**6, 50).cumsum()
    columns = columns_of(
        tmp_path, [str(each) for each in np.datetime64("2024-01-01T00:00:00") + steps]
    )
    assert columns.times is not None
    assert columns.times.ahead(-1, 3) == []
    assert [finding.kind for finding in columns.findings] == ["time"]
    assert (
        "no step holds for 90% of the rows; rows are taken as equal steps"
        in columns.findings[0].message
    )


def test_times_of_whole_numbers_stay_whole(tmp_path: Path) -> None:
    columns = columns_of(tmp_path, [str(1_700_000_000_000 + 3_600_000 * row) for row in range(9)])
    assert columns.times is not None
    assert columns.times.frequency is not None
    assert columns.times.frequency.name == "3600000"
    again = replace(columns.times, frequency=parse_frequency(columns.times.frequency.name))
    for times in (columns.times, again):
        assert times.ahead(-1, 2) == ["1700032400000", "1700036000000"]
