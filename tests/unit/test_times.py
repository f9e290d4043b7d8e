"""Times of a table as text: read, told apart, of a zone, and written again as the file writes them."""

import zoneinfo
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, Table, read_table
from loopedge.data.tables.timeline.zones import Zone
from loopedge.data.tables.times import Times
from loopedge.errors import InputError

pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet")

ZONES = (
    *("Europe/Berlin", "Europe/London", "America/New_York", "America/Santiago", "Asia/Kolkata"),
    *("Australia/Lord_Howe", "Pacific/Auckland", "Africa/Casablanca", "Pacific/Apia", "UTC"),
)


def read(folder: Path, times: list[str], **form: Any) -> Table:
    path = folder / "data.csv"
    path.write_text("t,y\n" + "".join(f'"{time}",1\n' for time in times), encoding="utf-8")
    return read_table(path, Selection(numbers=("y",), time="t"), TableFormat(**form))


def times_of(folder: Path, times: list[str], **form: Any) -> Times:
    found = read(folder, times, **form).times
    assert found is not None
    return found


WRITTEN: dict[str, tuple[list[str], dict[str, str], str, list[str]]] = {
    "dates": (["2024-02-28", "2024-02-29"], {}, "date", ["2024-02-28", "2024-02-29"]),
    "with T": (["2024-02-28T23:59", "2024-02-29T00:00"], {}, "date", ["2024-02-28T23:59", "2024-02-29T00:00"]),
    "with a blank": (["2024-02-28 23:59:59", "2024-02-29 00:00:00"], {}, "date", ["2024-02-28T23:59:59", "2024-02-29T00:00:00"]),
    "nanoseconds": (["2024-02-28T23:59:59.123456789", "2024-02-28T23:59:59.123456790"], {}, "date", ["2024-02-28T23:59:59.123456789", "2024-02-28T23:59:59.123456790"]),
    "milliseconds with a comma": (["2024-02-28T23:59:59,125", "2024-02-28T23:59:59,250"], {}, "date", ["2024-02-28T23:59:59.125", "2024-02-28T23:59:59.250"]),
    "Z": (["2024-02-28T23:59Z", "2024-02-29T00:00Z"], {}, "instant", ["2024-02-28T23:59", "2024-02-29T00:00"]),
    "an offset": (["2024-02-29 01:00+01:00", "2024-02-29 02:00+01:00"], {}, "instant", ["2024-02-29T00:00", "2024-02-29T01:00"]),
    "an offset without a colon": (["2024-02-28T18:30:00-0530", "2024-02-28T19:30:00-0530"], {}, "instant", ["2024-02-29T00:00", "2024-02-29T01:00"]),
    "an offset of hours": (["2024-02-29 01:00:00+01", "2024-02-29 02:00:00+01"], {}, "instant", ["2024-02-29T00:00", "2024-02-29T01:00"]),
    "a blank before the offset": (["2024-02-29 01:00 +0100", "2024-02-29 02:00 +0100"], {}, "instant", ["2024-02-29T00:00", "2024-02-29T01:00"]),
    "weeks": (["2025-W02", "2025-W03"], {}, "date", ["2025-01-06", "2025-01-13"]),
    "months": (["2023-12", "2024-01"], {}, "date", ["2023-12-01", "2024-01-01"]),
    "days of a German": (["28.02.2024", "01.03.2024"], {"time_format": "%d.%m.%Y"}, "date", ["2024-02-28", "2024-03-01"]),
    "an American without zeros": (["2/9/2024 1:05 PM", "2/10/2024 1:05 PM"], {"time_format": "%m/%d/%Y %I:%M %p"}, "date", ["2024-02-09T13:05", "2024-02-10T13:05"]),
    "an Excel without zeros": (["9.2.2024 08:05", "10.2.2024 08:05"], {"time_format": "%d.%m.%Y %H:%M"}, "date", ["2024-02-09T08:05", "2024-02-10T08:05"]),
    "numbers that are dates": (["20240229", "20240301"], {"time_format": "%Y%m%d"}, "date", ["2024-02-29", "2024-03-01"]),
    "an offset of one's own": (["29.02.2024 01:00 +0100", "29.02.2024 02:00 +0100"], {"time_format": "%d.%m.%Y %H:%M %z"}, "instant", ["2024-02-29T00:00", "2024-02-29T01:00"]),
    "before 1970": (["1899-12-31", "1900-01-01"], {}, "date", ["1899-12-31", "1900-01-01"]),
    "of a zone": (["2024-07-01 12:00", "2024-07-01 13:00"], {"timezone": "America/New_York"}, "instant", ["2024-07-01T16:00", "2024-07-01T17:00"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITTEN)
def test_times_are_read_and_written_again(tmp_path: Path, case: str) -> None:
    """Right: the moments in numpy's own writing."""
    texts, form, kind, right = WRITTEN[case]
    times = times_of(tmp_path, texts, **form)
    assert times.kind == kind
    np.testing.assert_array_equal(
        times.moments, np.array(right, "M8[ns]").astype(np.int64), strict=True
    )
    assert [times.text(row) for row in range(len(texts))] == texts


@pytest.mark.parametrize(
    ("texts", "form", "moments"),
    [
        (["1", "2", "30"], {}, [1, 2, 30]),
        (["-1.5", "0", "2.25"], {}, [-1.5, 0.0, 2.25]),
        (["1700000000000000001", "1700000000000000002"], {}, [1700000000000000001, 1700000000000000002]),
        (["1,5", "2,5"], {"decimal": ",", "delimiter": ";"}, [1.5, 2.5]),
    ],
)  # fmt: skip
def test_numbers_stay_numbers(
    tmp_path: Path, texts: list[str], form: dict[str, Any], moments: list[float]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("t;y\n" + "".join(f"{time};1\n" for time in texts))
    times = read_table(path, Selection(numbers=("y",), time="t"), TableFormat(**form)).times
    assert times is not None
    assert times.kind == "number"
    np.testing.assert_array_equal(times.moments, np.array(moments), strict=True)


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(ZONES),
    local=st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)),
)
def test_clocks_are_those_of_zoneinfo(name: str, local: datetime) -> None:
    """Right: `zoneinfo`, time by time, there and back."""
    zone, known = Zone(name), zoneinfo.ZoneInfo(name)
    utc = zoneinfo.ZoneInfo("UTC")

    def nanoseconds(moment: datetime) -> int:
        return int(np.datetime64(moment.replace(tzinfo=None), "ns").astype(np.int64))

    shown = np.array([nanoseconds(local)])
    early, late, exists = zone.candidates(shown)
    right = sorted(local.replace(tzinfo=known, fold=fold).astimezone(utc) for fold in (0, 1))
    back = [nanoseconds(each.astimezone(known)) for each in right]
    assert exists[0] == (back[0] == shown[0] or back[1] == shown[0])
    if exists[0]:
        assert [early[0], late[0]] == [nanoseconds(each) for each in right]
        np.testing.assert_array_equal(zone.local(early), shown)
        np.testing.assert_array_equal(zone.local(late), shown)
    else:
        assert zone.local(early)[0] > shown[0] > zone.local(early - 1)[0]


def test_every_change_of_the_clocks_is_found() -> None:
    zone, known = Zone("Africa/Casablanca"), zoneinfo.ZoneInfo("Africa/Casablanca")
    hours = np.arange("2010-01-01", "2030-01-01", dtype="M8[h]")
    right = [
        datetime.fromtimestamp(each, known).utcoffset().total_seconds()  # type: ignore[union-attr]
        for each in hours.astype("M8[s]").astype(np.int64).tolist()
    ]
    found = zone.offsets(hours.astype("M8[ns]").astype(np.int64)) / 1e9
    np.testing.assert_array_equal(found, right)


FOLDS = {
    "hours": ["00:00", "01:00", "02:00", "02:00", "03:00"],
    "quarters": ["01:45", "02:00", "02:15", "02:30", "02:45", "02:00", "02:15", "02:30", "02:45", "03:00"],
    "the second hour alone, behind the first": ["02:30", "02:15", "03:00"],
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDS)
def test_the_second_of_two_equal_hours_is_the_later_one(tmp_path: Path, case: str) -> None:
    """Right: `zoneinfo` with the fold that a person would say."""
    known = zoneinfo.ZoneInfo("Europe/Berlin")
    clock: list[tuple[datetime, int]] = []
    fold = 0
    for text in FOLDS[case]:
        moment = datetime.fromisoformat(f"2024-10-27 {text}")
        fold = fold or int(bool(clock) and moment <= clock[-1][0])
        clock.append((moment, fold))
    right = [int(each.replace(tzinfo=known, fold=fold).timestamp()) * 10**9 for each, fold in clock]
    texts = [f"2024-10-27 {text}" for text in FOLDS[case]]
    times = times_of(tmp_path, texts, timezone="Europe/Berlin")
    assert times.moments.tolist() == right
    assert [times.text(row) for row in range(len(texts))] == texts


def test_the_hours_of_several_series_are_told_apart_in_each(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [f"2024-10-27 0{h}:00,{s},{h}" for h in (1, 2, 2, 3) for s in "ab"]
    path.write_text("\n".join(["t,shop,y", *rows]))
    selection = Selection(numbers=("y",), time="t", group="shop")
    table = read_table(path, selection, TableFormat(timezone="Europe/Berlin"))
    assert table.times is not None
    hours = np.diff(table.times.moments.reshape(4, 2), axis=0) / 3600e9
    np.testing.assert_array_equal(hours, 1)


@pytest.mark.parametrize(
    ("zone", "texts", "words"),
    [
        ("Europe/Berlin", ["2024-03-31 01:30", "2024-03-31 02:30"], r"row 2 \(line 3\), column 't': clocks of Europe/Berlin never show '2024-03-31 02:30': they are put forward then$"),
        ("America/New_York", ["2024-03-10 02:00", "2024-03-10 02:30", "2024-03-10 03:00"], r"never show '2024-03-10 02:00': they are put forward then \(2 such times\)"),
        ("Australia/Lord_Howe", ["2024-10-06 02:00", "2024-10-06 02:15"], "never show '2024-10-06 02:00'"),
        ("America/Sao_Paulo", ["2018-11-03 23:00", "2018-11-04 00:00"], "never show '2018-11-04 00:00'"),
    ],
)  # fmt: skip
def test_a_time_that_clocks_skip_is_an_error(
    tmp_path: Path, zone: str, texts: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, texts, timezone=zone)


def test_a_date_is_a_day_also_where_its_midnight_is_skipped(tmp_path: Path) -> None:
    times = times_of(tmp_path, ["2018-11-03", "2018-11-04"], timezone="America/Sao_Paulo")
    known = zoneinfo.ZoneInfo("America/Sao_Paulo")
    right = [datetime(2018, 11, 3, tzinfo=known), datetime(2018, 11, 4, 1, tzinfo=known)]
    assert times.moments.tolist() == [int(each.timestamp()) * 10**9 for each in right]


def test_a_zone_is_of_the_times_that_say_none(tmp_path: Path) -> None:
    texts = ["2024-07-01T10:00+00:00", "2024-07-01T12:30", "2024-07-01T11:00Z"]
    times = times_of(tmp_path, texts, timezone="Europe/Berlin")
    right = np.array(["2024-07-01T10:00", "2024-07-01T10:30", "2024-07-01T11:00"], "M8[ns]")
    np.testing.assert_array_equal(times.moments, right.astype(np.int64))


MIXED = [
    (
        ["2024-01-01T00:00", "2024-01-02T00:00", "2024-01-03T00:00Z", "2024-01-04T00:00+01:00"],
        r"row 3 \(line 4\), column 't': '2024-01-03T00:00Z' is a time with a zone, '2024-01-01T00:00' in row 1 "
        r"\(line 2\) is a date \(2 times have no zone, 2 times have a zone\)",
        "form=TableFormat(timezone='Europe/Berlin') names the zone of those without one",
    ),
    (
        ["2024-01-01", "2", "3"],
        r"row 2 \(line 3\), .*'2' is a number, '2024-01-01' in row 1 .*is a date \(1 time has no zone, 2 times are numbers\)",
        "write all times alike",
    ),
    (
        ["2024-01-01", "02.01.2024", "03.01.2024"],
        r"row 2 \(line 3\), .*'02.01.2024' is written otherwise than '2024-01-01' in row 1 \(line 2\) \(2 times are\)",
        "write all times alike, as YYYY-MM-DD",
    ),
    (
        ["2024-01-01", "2024-01-02", "soon", ""],
        r"row 3 \(line 4\), column 't': 'soon' is neither a number nor an ISO 8601 date$",
        "leave out the rows that hold no time",
    ),
    (["2024-01-01", "", "soon", ""], r"row 2 .*: the time is missing \(2 times are\)", None),
    (["2024-01-01", "2024-02-30"], "'2024-02-30' is neither", "write dates as YYYY-MM-DD"),
    (["1500-01-01", "1500-01-02"], "'1500-01-01' is outside of the years 1678 to 2261", "number the rows"),
    (["2024-01-01", "9999-12-31"], "'9999-12-31' is outside of the years", "number the rows"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "words", "hint"), MIXED)
def test_times_of_several_sorts(
    tmp_path: Path, texts: list[str], words: str, hint: str | None
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, texts)
    if hint is None:
        assert caught.value.hint is None
    else:
        assert caught.value.hint is not None
        assert hint in caught.value.hint


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_counts_are_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("loopedge.files.csv.row_reader.ROWS", rows)
    for texts, words, _ in MIXED:
        with pytest.raises(InputError, match=words):
            read(tmp_path, texts)


@pytest.mark.parametrize(
    ("texts", "formats"),
    [
        (["31.12.2024", "01.01.2025"], ["%d.%m.%Y"]),
        (["12/31/2024", "01/01/2025"], ["%m/%d/%Y"]),
        (["31/12/2024", "01/01/2025"], ["%d/%m/%Y"]),
        (["03/04/2024", "04/04/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["03-04-2024", "04-04-2024"], ["%d-%m-%Y", "%m-%d-%Y"]),
        (["03/04/2024 10:15", "03/25/2024 10:15"], ["%m/%d/%Y %H:%M"]),
        (["31.12.2024 23:45:00", "01.01.2025 00:00:00"], ["%d.%m.%Y %H:%M:%S"]),
        (["1.2.24", "31.12.24"], ["%d.%m.%y"]),
        (["12/31/2024 11:45 PM", "01/01/2025 12:00 AM"], ["%m/%d/%Y %I:%M %p"]),
        (["2024/12/31 23:45", "2025/01/01 00:00"], ["%Y/%m/%d %H:%M"]),
        (["31 Dec 2024", "01 Jan 2025"], ["%d %b %Y"]),
        (["Jan 2024", "Feb 2024"], ["%b %Y"]),
        (["31.12.2024 23:45:00 +0100", "01.01.2025 00:00:00 +0100"], ["%d.%m.%Y %H:%M:%S %z"]),
        (["31.12.2024 23:45:00Z", "01.01.2025 00:00:00Z"], ["%d.%m.%Y %H:%M:%S%z"]),
    ],
)
def test_the_format_that_fits_is_named_and_reads_the_file(
    tmp_path: Path, texts: list[str], formats: list[str]
) -> None:
    with pytest.raises(
        InputError, match=r"is neither .* \(2 times of the column are not\)"
    ) as caught:
        read(tmp_path, texts)
    assert caught.value.hint is not None
    for each in formats:
        assert f"time_format='{each}'" in caught.value.hint
    assert caught.value.hint.count("time_format") == len(formats)
    for each in formats:
        times = times_of(tmp_path, texts, time_format=each)
        right = [datetime.strptime(text, each).replace(tzinfo=None) for text in texts]
        steps = np.diff(np.array(right, "M8[ns]")).astype(np.int64)
        np.testing.assert_array_equal(np.diff(times.moments), steps)
        assert [times.text(row) for row in range(2)] == texts


def test_a_text_that_is_not_of_the_format_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"row 2 .*'2024-01-02' is not written as '%d.%m.%Y' says$"
    ):
        read(tmp_path, ["01.01.2024", "2024-01-02"], time_format="%d.%m.%Y")
    with pytest.raises(InputError, match=r"'01/31/2024' is not written as .* \(2 times") as caught:
        read(tmp_path, ["01/31/2024", "02/01/2024"], time_format="%d.%m.%Y")
    assert caught.value.hint == "form=TableFormat(time_format='%m/%d/%Y')"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"timezone": "Mars/Olympus"}, "no time zone is called 'Mars/Olympus'"),
        ({"timezone": ""}, "no time zone is called ''"),
        ({"timezone": "../etc"}, "no time zone is called '../etc'"),
        ({"time_format": "%Q"}, "time_format '%Q' is not a format of times"),
        ({"time_format": "%H:%M"}, "time_format '%H:%M' does not say the year"),
        ({"time_format": "day"}, "time_format 'day' does not say the year"),
    ],
)
def test_a_form_that_cannot_be_meant(form: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TableFormat(**form)


def test_the_form_is_remembered() -> None:
    form = TableFormat(time_format="%d.%m.%Y %H:%M", timezone="Europe/Berlin")
    assert form.to_json() == {"time_format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"}
    assert TableFormat.from_json(form.to_json()) == form


def test_dates_alone_among_times_are_midnight_and_said(tmp_path: Path) -> None:
    texts = ["2024-01-01", "2024-01-01 12:00", "2024-01-02", "2024-01-02 12:00"]
    table = read(tmp_path, texts)
    assert table.times is not None
    np.testing.assert_array_equal(np.diff(table.times.moments), 12 * 3600 * 10**9)
    assert table.times.text(3) == texts[3]
    (found,) = table.findings
    assert "2 of 4 times are dates alone and taken as midnight, the first is '2024-01-01' in row 1" in found.message  # fmt: skip


PARQUET: dict[str, tuple[Any, str, list[str]]] = {
    "date32": ("date32", "date", ["2024-02-28", "2024-02-29"]),
    "date64": ("date64", "date", ["2024-02-28", "2024-02-29"]),
    "seconds": ("s", "date", ["2024-02-28 00:00:00", "2024-02-29 00:00:00"]),
    "microseconds": ("us", "date", ["2024-02-28 00:00:00", "2024-02-29 00:00:00"]),
    "nanoseconds": ("ns", "date", ["2024-02-28 00:00:00", "2024-02-29 00:00:00"]),
    "of a zone": ("ms Europe/Berlin", "instant", ["2024-02-28 01:00:00+01:00", "2024-02-29 01:00:00+01:00"]),
    "of UTC": ("ms UTC", "instant", ["2024-02-28 00:00:00+00:00", "2024-02-29 00:00:00+00:00"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PARQUET)
def test_types_of_parquet(tmp_path: Path, case: str) -> None:
    kind, called, texts = PARQUET[case]
    days = [datetime(2024, 2, 28), datetime(2024, 2, 29)]
    if kind.startswith("date"):
        column = pa.array([day.date() for day in days], getattr(pa, kind)())
    else:
        unit, _, zone = kind.partition(" ")
        column = pa.array(days, pa.timestamp(unit, tz=zone or None))
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"t": column, "y": [1, 2]}), path)
    times = read_table(path, Selection(numbers=("y",), time="t")).times
    assert times is not None
    assert times.kind == called
    right = np.array(days, "M8[ns]").astype(np.int64)
    np.testing.assert_array_equal(times.moments, right, strict=True)
    assert [times.text(row) for row in range(2)] == texts


def test_memory_of_times_is_eight_bytes_a_row(tmp_path: Path) -> None:
    table = read(tmp_path, [str(np.datetime64("2024-01-01") + day) for day in range(100)])
    assert table.times is not None
    assert table.times.moments.nbytes == 800


def test_a_row_of_sums_is_no_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Summe' is not written as") as caught:
        read(tmp_path, ["01.02.2024", "02.02.2024", "Summe"], time_format="%d.%m.%Y")
    assert caught.value.hint == "leave out the rows that hold no time"
