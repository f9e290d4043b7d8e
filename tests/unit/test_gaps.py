"""Gaps of the times: no window crosses one, a grid fills them, and what is left out is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopedge.data.tables.columns import make_columns
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, read_table
from loopedge.errors import InputError
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.splits import split_bounds
from loopedge.tasks.task import SPLITS, task_from_dict

DAYS = np.arange("2024-01-01", "2024-07-19", dtype="M8[D]")  # 200 days, a leap day among them


def write(folder: Path, rows: list[str], header: str = "t,y") -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def daily(kept: np.ndarray) -> list[str]:
    return [f"{day},{number}" for number, day in enumerate(DAYS) if kept[number]]


def without(*gaps: tuple[int, int]) -> np.ndarray:
    kept = np.ones(len(DAYS), bool)
    for first, end in gaps:
        kept[first:end] = False
    return kept


def task_of(path: Path, **options: Any) -> SeriesTask:
    window: dict[str, Any] = {"context": 5, "horizon": 3, "time_column": "t", **options}
    return SeriesTask.from_file(path, targets=["y"], **window)


def gap_of(task: SeriesTask) -> Finding:
    (found,) = [finding for finding in task.findings if finding.kind == "gap"]
    return found


def right_stops(kept: np.ndarray, split: str, *, history: int, horizon: int) -> list[int]:
    """Return the windows whose days, from the first seen to the last forecast, follow each other."""
    numbers = np.flatnonzero(kept)
    bounds = split_bounds(len(numbers))[split]  # type: ignore[index]  # a split's name
    return [
        stop
        for stop in range(bounds.first, bounds.end - horizon + 1)
        if stop >= history
        and numbers[stop + horizon - 1] - numbers[stop - history] == history + horizon - 1
    ]


GAPS = {
    "one": [(40, 45)],
    "two at the borders of the splits": [(140, 142), (170, 175)],
    "before the first window": [(2, 3)],
    "one inside the last horizon": [(198, 199)],
    "of the leap day": [(59, 60)],
    "next to each other": [(50, 51), (52, 53), (54, 60)],
    "many": [(at, at + 1) for at in range(10, 200, 20)],
}


@pytest.mark.parametrize("min_context", [None, 2])
@pytest.mark.parametrize("case", GAPS)
def test_no_window_crosses_a_gap(tmp_path: Path, case: str, min_context: int | None) -> None:
    kept = without(*GAPS[case])
    task = task_of(write(tmp_path, daily(kept)), min_context=min_context)
    crossing = task_of(tmp_path / "data.csv", min_context=min_context, gaps="cross")
    for split in SPLITS:
        right = right_stops(kept, split, history=min_context or 5, horizon=3)
        assert task.stops[split].tolist() == right
        assert len(crossing.stops[split]) >= len(right)
        for batch in task.evaluation(split, 64, 1000):
            seen = batch.inputs[:, :, 0]
            mask = np.ones(seen.shape) if batch.attention_mask is None else batch.attention_mask
            for values, known, targets in zip(seen, mask, batch.targets[:, :, 0], strict=True):
                row = np.concatenate([values[known > 0], targets])
                np.testing.assert_array_equal(np.diff(row), 1)
    left = sum(len(crossing.stops[split]) - len(task.stops[split]) for split in SPLITS)
    total = sum(map(len, crossing.stops.values()))
    assert f"{left} of {total} windows are left out" in gap_of(task).message


@settings(deadline=None, max_examples=30)
@given(kept=st.lists(st.sampled_from([True] * 15 + [False]), min_size=200, max_size=200))
def test_windows_of_drawn_gaps(tmp_path_factory: pytest.TempPathFactory, kept: list[bool]) -> None:
    numbers = np.array(kept)
    assume((np.diff(np.flatnonzero(numbers)) == 1).mean() >= 0.9)  # else no step holds for most
    path = write(tmp_path_factory.mktemp("drawn"), daily(numbers))
    right = {split: right_stops(numbers, split, history=5, horizon=3) for split in SPLITS}
    if not all(right.values()):
        with pytest.raises(InputError, match="window: gaps of the times in column 't' leave"):
            task_of(path)
        return
    task = task_of(path)
    assert {split: stops.tolist() for split, stops in task.stops.items()} == right


def test_a_finding_names_the_first_and_the_longest_gap_and_what_acts(tmp_path: Path) -> None:
    task = task_of(write(tmp_path, daily(without((40, 45), (100, 120), (150, 151)))))
    found = gap_of(task)
    assert found.message.startswith(
        "column 't' has 3 gaps in steps of 1 day: the first between '2024-02-09' in row 40 (line 41) and "
        "'2024-02-15' in row 41 (line 42), the longest between '2024-04-09' in row 95 (line 96) and "
        "'2024-04-30' in row 96 (line 97); no window crosses a gap: "
    )
    assert found.hint == (
        'frequency="D" missing="interpolate" inserts the missing rows, gaps="cross" takes rows as steps'
    )
    assert found.line in task.notes


def test_gaps_that_are_crossed_are_said_and_gaps_that_are_refused_are_an_error(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, daily(without((40, 45))))
    crossed = gap_of(task_of(path, gaps="cross"))
    assert "has 1 gap in steps of 1 day: between '2024-02-09'" in crossed.message
    assert crossed.message.endswith("rows are taken as steps there too")
    with pytest.raises(InputError, match=r"data.csv, column 't' has 1 gap .* row 41 \(line 42\)$"):
        task_of(path, gaps="refuse")
    whole = write(tmp_path, daily(without()))
    for rule in ("split", "cross", "refuse"):
        assert all(found.kind != "gap" for found in task_of(whole, gaps=rule).findings)


def test_a_split_without_a_window_says_that_gaps_are_why(tmp_path: Path) -> None:
    path = write(tmp_path, daily(without(*[(at, at + 2) for at in range(140, 200, 8)])))
    with pytest.raises(
        InputError,
        match=r"has no test window: gaps of the times in column 't' leave 9 pieces of at most 140 rows, "
        r"and a window \(context 5 and horizon 3\) stays within one",
    ) as caught:
        task_of(path)
    assert caught.value.hint == (
        'frequency="D" missing="interpolate" inserts the missing rows, gaps="cross" takes rows as steps'
    )
    assert task_of(path, gaps="cross").stops["test"].size
    assert task_of(path, frequency="D", missing="interpolate").stops["test"].size


STEPS = {
    "weekends and a holiday are none": (
        [day for day in DAYS if np.is_busday(day) and str(day) != "2024-04-01"],
        0,
    ),
    "two free days are none": (
        [day for day in DAYS if np.is_busday(day) and str(day) not in ("2024-05-09", "2024-05-10")],
        0,
    ),
    "three are one": (
        [day for day in DAYS if np.is_busday(day) and not "2024-05-07" <= str(day) <= "2024-05-09"],
        1,
    ),
    "Sundays of a shop are none": ([day for day in DAYS if np.is_busday(day, weekmask="1111110")], 0),
    "a month of months": (
        [m.astype("M8[D]") for m in np.arange("2010-01", "2020-01", dtype="M8[M]") if str(m) != "2015-02"],
        1,
    ),
    "a quarter's end of quarters": (
        [(m + 1).astype("M8[D]") - 1 for m in np.arange("1990-03", "2020-03", 3, dtype="M8[M]") if str(m) != "2011-12"],
        1,
    ),
    "a year of years": ([f"{year}-01-01" for year in range(1900, 2000) if year != 1944], 1),
    "whole numbers": ([number for number in range(0, 1000, 10) if number not in (500, 510)], 1),
    "fractions": ([f"{number / 10:.1f}" for number in range(100) if number not in (50, 70)], 2),
    "a logger that varies": (
        [np.datetime64("2024-01-01T00:00:00") + 900 * n + n % 7 for n in range(200) if n not in (90, 91)],
        1,
    ),
    "offsets of winter and summer": (
        [f"2024-03-{day:02}T00:00:00+01:00" for day in range(1, 32)]
        + [f"2024-04-{day:02}T00:00:00+02:00" for day in range(1, 31) if day != 10],
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STEPS)
def test_what_counts_as_a_gap(tmp_path: Path, case: str) -> None:
    times, gaps = STEPS[case]
    rows = [f"{time},{number}" for number, time in enumerate(times)]
    table = read_table(write(tmp_path, rows), Selection(numbers=("y",), time="t"))
    columns = make_columns(table, missing="refuse")
    pieces = [] if columns.pieces is None else columns.pieces[1:-1].tolist()
    assert len(pieces) == gaps
    assert len([each for each in columns.findings if each.kind == "gap"]) == min(gaps, 1)


def test_gaps_of_several_series_are_found_in_each(tmp_path: Path) -> None:
    rows = []
    for number, day in enumerate(DAYS):
        rows += [f"{day},a,{number}"] * (not 60 <= number < 70)
        rows += [f"{day},b,{1000 + number}"] * (number >= 20)  # begins later: no gap
    task = task_of(write(tmp_path, rows, "t,shop,y"), group="shop")
    assert task.columns.bounds.tolist() == [0, 190, 370]
    assert task.columns.piece_bounds.tolist() == [0, 60, 190, 370]
    assert "has 1 gap" in gap_of(task).message
    # The 60th row of series a stands behind 39 of series b.
    assert "between '2024-02-29' in row 99 (line 100) and '2024-03-11' in row 111 (line 112) of 'a'" in gap_of(task).message  # fmt: skip


FREQUENCIES = {
    "D": (DAYS, [(3, 10), (100, 101), (190, 199)]),
    "15min": (np.arange("2024-02-28T00:00", "2024-03-02T00:00", 15, dtype="M8[m]"), [(5, 9), (200, 210)]),
    "h": (np.arange("2023-12-28T00", "2024-01-06T00", dtype="M8[h]"), [(90, 97)]),
    "W": (np.arange("2020-01-06", "2024-01-01", 7, dtype="M8[D]"), [(50, 53)]),
    "B": (np.busday_offset("2024-01-01", np.arange(200), roll="forward"), [(7, 9), (100, 104)]),
    "MS": (np.arange("2010-01", "2027-01", dtype="M8[M]").astype("M8[D]"), [(13, 14), (100, 130)]),
    "ME": (np.arange("2010-02", "2027-02", dtype="M8[M]").astype("M8[D]") - 1, [(13, 14), (100, 103)]),
    "QS": (np.arange("1980-02", "2027-02", 3, dtype="M8[M]").astype("M8[D]"), [(20, 22)]),
    "YS": (np.arange("1800", "2000", dtype="M8[Y]").astype("M8[D]"), [(20, 22), (80, 90)]),
}  # fmt: skip


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("name", FREQUENCIES)
def test_a_grid_has_a_row_for_each_time(tmp_path: Path, name: str, auto: bool) -> None:
    """Right: the whole range of numpy, and numpy's line between the neighbours of a gap."""
    times, gaps = FREQUENCIES[name]
    kept = np.ones(len(times), bool)
    for first, end in gaps:
        kept[first:end] = False
    values = np.random.default_rng(0).normal(size=len(times)).round(3)
    path = write(tmp_path, [f"{t},{v}" for t, v, k in zip(times, values, kept, strict=True) if k])
    asked = "auto" if auto else name
    table = read_table(path, Selection(numbers=("y",), time="t"))
    columns = make_columns(table, missing="interpolate", frequency=asked)
    at = np.arange(len(times))
    right = np.interp(at, at[kept], values[kept])
    np.testing.assert_allclose(columns.values[:, 0], right, rtol=1e-12)
    np.testing.assert_array_equal(columns.observed[:, 0], kept)
    assert columns.times is not None
    np.testing.assert_array_equal(columns.times.moments.astype("M8[ns]"), times.astype("M8[ns]"))
    (found,) = columns.findings
    lost = int((~kept).sum())
    assert f"{lost} rows are missing at frequency=" in found.message
    assert found.message.endswith("they are inserted, without values")
    marked = make_columns(
        read_table(path, Selection(numbers=("y",), time="t")), missing="indicator", frequency=asked
    )
    np.testing.assert_array_equal(np.isnan(marked.values[:, 0]), ~kept)
    with pytest.raises(
        InputError, match=f"data.csv, column 't': {lost} rows are missing"
    ) as caught:
        make_columns(table, missing="refuse", frequency=asked)
    assert caught.value.hint is not None
    assert 'missing="interpolate"' in caught.value.hint


def test_a_grid_of_several_series_with_labels(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        day = DAYS[number]
        rows += [f"{day},a,{number},hot"] * (number not in (3, 4))
        rows += [f"{day},b,{100 + number},cold"] * (number > 9 and number != 20)
    table = read_table(
        write(tmp_path, rows, "t,shop,y,kind"),
        Selection(numbers=("y",), time="t", group="shop", label="kind"),
    )
    columns = make_columns(table, missing="indicator", frequency="D")
    assert columns.bounds.tolist() == [0, 30, 50]
    right = np.concatenate([np.arange(30.0), np.arange(110.0, 130.0)])
    right[[3, 4, 40]] = np.nan
    np.testing.assert_array_equal(columns.values[:, 0], right)
    assert columns.codes is not None
    np.testing.assert_array_equal(np.flatnonzero(columns.codes < 0), [3, 4, 40])
    assert columns.times is not None
    days = np.concatenate([DAYS[:30], DAYS[10:30]])
    np.testing.assert_array_equal(columns.times.moments.astype("M8[ns]"), days.astype("M8[ns]"))


@pytest.mark.parametrize(
    ("frequency", "words", "hint"),
    [
        ("W", r"row 2 \(line 3\), column 't': '2024-01-02' is off the grid of frequency=\"W\" that begins with '2024-01-01' in row 1 \(line 2\) \(171 times are\)", 'frequency="D"'),
        ("MS", r"row 2 \(line 3\), .* is off the grid", 'frequency="D"'),
        ("B", r"row 6 \(line 7\), column 't': '2024-01-06' is off the grid", 'frequency="D"'),
        ("7", "frequency 7 is of numbers, the times are dates", 'frequency="auto"'),
        ("s", r'frequency="s" makes 17,193,601 rows of 200, at most 10 times as many are made', 'frequency="D"'),
    ],
)  # fmt: skip
def test_a_frequency_that_does_not_fit(
    tmp_path: Path, frequency: str, words: str, hint: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        task_of(write(tmp_path, daily(without())), frequency=frequency)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_no_frequency_is_found_in_irregular_times(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(1, 9, 60).cumsum()
    path = write(tmp_path, [f"{step},{row}" for row, step in enumerate(steps)])
    with pytest.raises(
        InputError, match=r"no step holds for 90% of the rows, so frequency=\"auto\""
    ):
        task_of(path, frequency="auto")
    found = task_of(path).findings[0]
    assert found.kind == "time"
    assert found.hint == 'frequency="1" missing="indicator" puts them on a grid of 1'


def test_a_rule_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gaps is 'jump', split, cross, refuse are known"):
        task_of(write(tmp_path, daily(without())), gaps="jump")


@pytest.mark.parametrize("per_second", [1, 1000, 10**9])
def test_the_gap_of_an_epoch_is_said_as_a_date(tmp_path: Path, per_second: int) -> None:
    first = int(np.datetime64("2024-05-01T00:00:00").astype(np.int64))
    rows = [f"{(first + 900 * n) * per_second},{n}" for n in range(200) if not 100 <= n < 104]
    found = gap_of(task_of(write(tmp_path, rows)))
    assert "(2024-05-02T00:45:00Z, if it is an epoch) in row 100 (line 101)" in found.message
    assert f'frequency="{900 * per_second}"' in str(found.hint)


def test_a_day_without_midnight_is_on_the_grid_of_days(tmp_path: Path) -> None:
    days = np.arange("2018-10-20", "2018-11-20", dtype="M8[D]")
    rows = [f"{day},{n}" for n, day in enumerate(days) if n != 10]
    table = read_table(
        write(tmp_path, rows),
        Selection(numbers=("y",), time="t"),
        TableFormat(timezone="America/Sao_Paulo"),
    )
    assert "2018-11-04" in days.astype(str)  # where clocks went from 23:59:59 to 01:00
    columns = make_columns(table, missing="interpolate", frequency="D")
    np.testing.assert_array_equal(columns.values[:, 0], np.arange(len(days)))
    assert columns.times is not None
    assert [columns.times.text(row) for row in range(len(days))] == [str(day) for day in days]
    whole = make_columns(table, missing="refuse")
    assert whole.pieces is not None
    assert whole.pieces.tolist() == [0, 10, len(days) - 1]


@pytest.mark.parametrize("options", [{"frequency": "D"}, {"gaps": "refuse"}])
def test_options_of_times_need_times(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="needs the times of the rows") as caught:
        task_of(write(tmp_path, daily(without())), time_column=None, **options)
    assert caught.value.hint == "time_column=COLUMN"


def test_a_value_beside_a_gap_is_filled_over_the_time_of_the_gap(tmp_path: Path) -> None:
    """Right: the line of numpy over days, of which ten are missing."""
    kept = without((40, 50))
    rows = daily(kept)
    rows[40] = f"{DAYS[50]},"  # the first behind the gap
    columns = task_of(write(tmp_path, rows), missing="interpolate").columns
    days = np.flatnonzero(kept)
    right = np.interp(50, np.delete(days, 40), np.delete(days, 40))
    assert columns.values[40, 0] == right == 50


def test_baselines_do_not_look_across_a_gap(tmp_path: Path) -> None:
    """Right: by hand, window by window, from the values of the piece alone."""
    kept = without((120, 130), (150, 153), (180, 183))
    season = 7
    wave = np.arange(200) % season + np.arange(200) / 100
    rows = [f"{DAYS[n]},{wave[n]}" for n in np.flatnonzero(kept)]
    task = task_of(write(tmp_path, rows), season=season)
    numbers = np.flatnonzero(kept)
    last, seasonal = [], []
    for stop in right_stops(kept, "test", history=5, horizon=3):
        day = numbers[stop]
        target = wave[day : day + 3]
        behind = day - 1 - np.flatnonzero(~kept[:day]).max()  # days since the gap, all known
        assert behind >= 4
        naive = np.full(3, wave[day - 1])
        last.append(naive - target)
        seasonal.append(
            (wave[day - season : day - season + 3] if behind + 1 > season else naive) - target
        )
    scores = task.baselines("test", 1000)
    assert scores["naive_last"]["rmse"] == pytest.approx(np.sqrt(np.square(last).mean()))
    assert scores["seasonal_naive"]["rmse"] == pytest.approx(np.sqrt(np.square(seasonal).mean()))


def test_the_season_is_that_of_the_longest_piece(tmp_path: Path) -> None:
    """A gap shifts the phase: over both pieces the season does not show so well."""
    kept = without((70, 73))
    wave = np.sin(2 * np.pi * np.arange(200) / 6)
    rows = [f"{DAYS[n]},{wave[n]}" for n in np.flatnonzero(kept)]
    assert task_of(write(tmp_path, rows)).season == 6


def test_the_description_rebuilds_the_same_windows(tmp_path: Path) -> None:
    path = write(tmp_path, daily(without((40, 45))))
    for options in ({}, {"gaps": "cross"}, {"frequency": "auto", "missing": "interpolate"}):
        task = task_of(path, **options)
        described = task.describe()
        assert described["gaps"] == options.get("gaps", "split")
        assert described["frequency"] == ("D" if "frequency" in options else None)
        again = task_from_dict(described, data=path)
        assert again.describe() == described
        assert again.fingerprint() == task.fingerprint()
    before = {
        key: value
        for key, value in task_of(path).describe().items()
        if key not in ("gaps", "frequency")
    }
    older = task_from_dict(before, data=path)
    assert older.describe()["windows"] == task_of(path, gaps="cross").describe()["windows"]
    for key, value in {"gaps": "jump", "frequency": 7}.items():
        with pytest.raises(
            InputError, match=f"the description of task 'series' is damaged: .*{key}"
        ):
            task_from_dict({**before, key: value}, data=path)


def test_origins_stay_within_pieces(tmp_path: Path) -> None:
    kept = without((185, 187))
    for task in task_of(write(tmp_path, daily(kept))).at_origins(2):
        numbers = np.flatnonzero(kept)
        for stops in task.stops.values():
            assert len(stops)
            assert (numbers[stops + 2] - numbers[stops - 5] == 7).all()


def labelled(path: Path, **options: Any) -> LabelledSeriesTask:
    window: dict[str, Any] = {"context": 5, "time_column": "t", **options}
    return LabelledSeriesTask.from_file(path, label="kind", covariates=["y"], **window)


def test_labels_of_windows_stay_within_pieces(tmp_path: Path) -> None:
    kept = without((40, 45), (150, 151))
    rows = [f"{DAYS[n]},{n},{'ab'[n % 2]}" for n in np.flatnonzero(kept)]
    path = write(tmp_path, rows, "t,y,kind")
    task = labelled(path)
    numbers = np.flatnonzero(kept)
    right = [s for s in range(5, len(numbers) + 1) if numbers[s - 1] - numbers[s - 5] == 4]
    assert np.sort(np.concatenate(list(task.stops.values()))).tolist() == right
    assert "8 of 190 windows are left out" in task.notes[0]
    assert sum(map(len, labelled(path, gaps="cross").stops.values())) == len(numbers) - 4
    filled = labelled(path, frequency="D", missing="interpolate")
    assert len(filled.columns.values) == 200
    shown = np.concatenate(
        [b.targets for split in SPLITS for b in filled.evaluation(split, 64, 999)]
    )
    assert len(shown) == sum(kept[4:])  # an inserted row has no label and is not asked for


def test_a_whole_series_is_seen_up_to_its_last_gap(tmp_path: Path) -> None:
    rows = []
    for series in range(8):
        for n in range(40):
            if series in (1, 2) and n in (30, 31):
                continue  # 8 rows behind
            if series == 3 and n in (36, 37):
                continue  # 2 rows behind: fewer than a window
            rows.append(f"{DAYS[n]},{n},{series},{'ab'[series % 2]}")
    path = write(tmp_path, rows, "t,y,shop,kind")
    task = labelled(path, group="shop")
    stops = np.sort(np.concatenate(list(task.stops.values())))
    ends = task.columns.bounds[1:].copy()
    ends[3] -= 2
    np.testing.assert_array_equal(stops, ends)
    assert any(
        "1 of 8 series have fewer than 5 rows behind their last gap" in n for n in task.notes
    )
    for split in SPLITS:
        for batch in task.evaluation(split, 64, 100):
            np.testing.assert_array_equal(np.diff(batch.inputs[:, :, 0]), 1)
    with pytest.raises(
        InputError, match="3 of 8 series have fewer than 37 rows without a gap of the times, the shortest, '1', 30"
    ) as caught:  # fmt: skip
        labelled(path, group="shop", context=37)
    assert caught.value.hint is not None
    assert 'gaps="cross"' in caught.value.hint


def test_a_logger_whose_pieces_are_too_short_has_no_grid_to_name(tmp_path: Path) -> None:
    numbers = [n for n in range(400) if n % 12 < 11]  # gaps of a row after 11 rows each
    moments = [np.datetime64("2024-01-01T00:00:00") + 900 * n + n % 7 for n in numbers]
    path = write(tmp_path, [f"{time},{n}" for time, n in zip(moments, numbers, strict=True)])
    with pytest.raises(InputError, match="34 pieces of at most 11 rows") as caught:
        task_of(path, context=10, horizon=3)
    assert caught.value.hint == 'gaps="cross" takes rows as steps'


def test_a_whole_series_that_loses_no_window_counts_none(tmp_path: Path) -> None:
    rows = [
        f"{DAYS[n]},{n},{series},{'ab'[series % 2]}"
        for series in range(8)
        for n in range(40)
        if n not in (20, 21)
    ]
    task = labelled(write(tmp_path, rows, "t,y,shop,kind"), group="shop")
    assert "has 8 gaps" in task.notes[0]
    assert "windows are left out" not in task.notes[0]


def test_a_step_of_half_a_whole_number(tmp_path: Path) -> None:
    path = write(tmp_path, [f"{n},{n}" for n in range(5, 25)])
    table = read_table(path, Selection(numbers=("y",), time="t"))
    columns = make_columns(table, missing="interpolate", frequency="0.5")
    right = np.arange(5, 24.5, 0.5)
    assert columns.times is not None
    np.testing.assert_array_equal(columns.times.moments, right)
    np.testing.assert_array_equal(columns.values[:, 0], right)
    assert [columns.times.text(row) for row in range(2)] == ["5.0", "5.5"]


def test_series_begin_their_grids_where_they_begin(tmp_path: Path) -> None:
    """Weeks that begin on another day in each series, one with a week left out."""
    rows = []
    for name, first in (("a", "2024-01-01"), ("b", "2024-01-03"), ("c", "2024-01-07")):
        weeks = np.arange(first, "2024-12-01", 7, dtype="M8[D]")
        rows += [f"{day},{name},{n}" for n, day in enumerate(weeks) if name != "b" or n != 9]
    table = read_table(
        write(tmp_path, rows, "t,shop,y"), Selection(numbers=("y",), time="t", group="shop")
    )
    columns = make_columns(table, missing="interpolate", frequency="W")
    for begin, end in columns.spans():
        np.testing.assert_array_equal(columns.values[begin:end, 0], np.arange(end - begin))
        assert columns.times is not None
        steps = np.diff(columns.times.moments[begin:end].astype("M8[ns]"))
        assert (steps == np.timedelta64(7, "D")).all()
    split = make_columns(table, missing="refuse")
    assert split.pieces is not None
    assert len(split.pieces) == 5


def test_times_without_a_step_are_refused_where_gaps_are(tmp_path: Path) -> None:
    kept = np.arange(200) % 5 > 0  # every fifth day is missing: no step holds for most
    path = write(tmp_path, daily(kept))
    assert any("no step holds" in finding.message for finding in task_of(path).findings)
    with pytest.raises(
        InputError, match=r"data.csv, column 't': no step holds for 90% of the rows"
    ):
        task_of(path, gaps="refuse")


def test_the_longest_irregular_step_is_named(tmp_path: Path) -> None:
    steps = np.where(np.arange(60) % 3, 1, 2)
    steps[40] = 9
    days = np.datetime64("2024-01-01") + np.cumsum(steps)
    path = write(tmp_path, [f"{day},{number}" for number, day in enumerate(days)])
    [said] = [one.message for one in task_of(path).findings if "no step holds" in one.message]
    assert f"the longest step is between '{days[39]}' in row 40" in said
    assert f"and '{days[40]}' in row 41" in said
