"""``loopedge train series`` on times that have lived: gaps, grids, zones and formats, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 4, "--batch-size", 4)
FORECAST = ("--target", "power", "--context", 8, "--horizon", 2, "--time", "time")


def write(folder: Path, times: list[str]) -> Path:
    path = folder / "meter.csv"
    rows = [
        f"{time},{number % 24 + number % 7},{'ab'[number % 2]}" for number, time in enumerate(times)
    ]
    path.write_text("\n".join(["time,power,kind", *rows]) + "\n")
    return path


def local_hours(first: str, end: str) -> list[str]:
    return [str(t).replace("T", " ") for t in np.arange(first, end, 60, dtype="M8[m]")]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    times = local_hours("2024-05-01", "2024-05-15")
    return write(tmp_path, times[:100] + times[124:300] + times[310:])


def train(cli: Cli, table: Path, *words: object) -> Said:
    return cli("train", "series", table, *FORECAST, *words, *SMALL, "-o", table.parent / "m.pt")


def refused(outcome: Said, *words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    for each in words:
        assert each in outcome.err
    assert len(outcome.err.splitlines()) <= 2


def test_gaps_are_said_with_the_flags_that_act(cli: Cli, broken: Path) -> None:
    outcome = train(cli, broken)
    assert outcome.code == 0, outcome.err
    assert (
        "column 'time' has 2 gaps in steps of 1 hour: the first and longest between '2024-05-05 03:00' in row 100 (line 101) and "
        "'2024-05-06 04:00' in row 101 (line 102); no window crosses a gap: 18 of 291 windows are left out"
    ) in outcome.err  # fmt: skip
    assert (
        "--frequency h --missing interpolate inserts the missing rows, --gaps cross" in outcome.err
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gaps", "cross"), "rows are taken as steps there too"),
        (("--frequency", "auto", "--missing", "interpolate"), "34 rows are missing at --frequency h, in 2 gaps"),
        (("--frequency", "h", "--missing", "indicator"), "they are inserted, without values"),
    ],
)  # fmt: skip
def test_options_that_act_on_gaps(
    cli: Cli, broken: Path, words: tuple[str, ...], said: str
) -> None:
    outcome = train(cli, broken, *words)
    assert outcome.code == 0, outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gaps", "refuse"), "column 'time' has 2 gaps"),
        (("--frequency", "h"), "34 rows are missing at --frequency h, in 2 gaps"),
        (("--frequency", "h"), "add --missing interpolate"),
        (("--frequency", "hourly"), "--frequency 'hourly' is not known; there are auto, 15min"),
        (("--frequency", "D"), "is off the grid of --frequency D that begins with '2024-05-01 00:00'"),
        (("--timezone", "Berlin"), "no time zone is called 'Berlin'"),
        (("--timezone", "Berlin"), "--timezone Europe/Berlin"),
        (("--time-format", "%d.%m"), "--time-format '%d.%m' does not say the year"),
        (("--time-format", "%d.%m.%Y"), "'2024-05-01 00:00' is not written as '%d.%m.%Y' says"),
        (("--gaps", "jump"), "'--gaps'"),
    ],
)  # fmt: skip
def test_what_is_refused(cli: Cli, broken: Path, words: tuple[str, ...], said: str) -> None:
    refused(train(cli, broken, *words), said)
    assert list(broken.parent.iterdir()) == [broken]


def test_a_night_in_autumn_needs_its_zone(cli: Cli, tmp_path: Path) -> None:
    times = local_hours("2024-10-25", "2024-10-29")
    again = times.index("2024-10-27 02:00")
    table = write(tmp_path, [*times[: again + 1], *times[again:]])
    refused(train(cli, table), "'2024-10-27 02:00' stands twice", "--timezone Europe/Berlin")
    outcome = train(cli, table, "--timezone", "Europe/Berlin", "--json")
    assert outcome.code == 0, outcome.err
    assert "gap" not in outcome.err


@pytest.mark.long
def test_a_format_that_is_named_trains_and_runs(cli: Cli, tmp_path: Path) -> None:
    days = np.arange("2024-01-20", "2024-04-01", dtype="M8[D]")
    table = write(tmp_path, [day.item().strftime("%d.%m.%Y") for day in days])
    refused(train(cli, table), "'20.01.2024' is neither", "--time-format %d.%m.%Y")
    outcome = train(cli, table, "--time-format", "%d.%m.%Y")
    assert outcome.code == 0, outcome.err
    assert cli("export", tmp_path / "m.pt", "-o", tmp_path / "m.onnx").code == 0
    ran = cli("run", tmp_path / "m.onnx", "-i", table, "-o", tmp_path / "next.csv")
    assert ran.code == 0, ran.err
    rows = (tmp_path / "next.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["time", "01.04.2024", "02.04.2024"]


def test_labels_follow_the_same_rules(cli: Cli, broken: Path) -> None:
    words = ("--classify", "kind", "--covariate", "power", "--context", 8, "--time", "time")
    target = broken.parent / "m.pt"
    outcome = cli("train", "series", broken, *words, *SMALL, "-o", target)
    assert outcome.code == 0, outcome.err
    assert "no window crosses a gap: 14 of 295 windows are left out" in outcome.err
    refused(cli("train", "series", broken, *words, "--gaps", "refuse", *SMALL, "-o", target, "--force"), "has 2 gaps")  # fmt: skip


def test_options_of_times_need_a_column_of_times(cli: Cli, broken: Path) -> None:
    words = ("--target", "power", "--context", 8, "--horizon", 2, "--frequency", "h")
    outcome = cli("train", "series", broken, *words, *SMALL, "-o", broken.parent / "m.pt")
    refused(outcome, "--frequency h needs the times of the rows", "--time COLUMN")
