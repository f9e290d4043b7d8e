"""Tables that somebody chooses on the page of a bundle: their order, and what happens where table rows are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.runtime.tables.described_table import DescribedTable
from loopedge.runtime.tables.last_windows import read_last_windows
from tests.clients.node_process import ask_node
from tests.table_models import TASK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bundles = Callable[[str], Path]


def test_a_table_of_the_page_begins_with_its_oldest_row(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    const { readTable } = await from("web/table.mjs");
    const table = { columns: ["y"], context: 3 };
    const read = (times) => {
      try {
        return readTable(["t,y", ...times.map((time, i) => `${time},${i}`)].join("\\n"), table, { time_column: "t" }).series[0].rows.flat();
      } catch (error) {
        return error.message;
      }
    };
    answer(given.map(read));
    """
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    hours = [f"2024-01-01 0{hour}:00" for hour in range(4)]
    folded = ["2024-10-27 01:30", "2024-10-27 02:30", "2024-10-27 02:00", "2024-10-27 02:30"]
    given = [days, days[::-1], hours, hours[::-1], folded, ["3", "2"], ["x", "w"], [*days, days[0]]]
    found = ask_node(node_packages, packaged("forecast"), code, given=given)
    late = "the oldest table row comes first"
    assert found == [
        [0, 1, 2],
        f"the time 2024-01-02 stands behind 2024-01-03: {late}",
        [1, 2, 3],
        f"the time 2024-01-01 00:00 stands behind 2024-01-01 03:00: {late}",
        [1, 2, 3],
        f"the time 2 stands behind 3: {late}",
        [0, 1],
        f"the time 2024-01-01 stands behind 2024-01-03: {late}",
    ]


def clock(*hours: float, day: str = "2024-06-03") -> list[str]:
    return [f"{day} {int(hour):02d}:{round(hour % 1 * 60):02d}" for hour in hours]


def days(*numbers: int, month: str = "2024-06") -> list[str]:
    return [f"{month}-{number:02d}" for number in numbers]


GAPS: list[tuple[list[str], dict[str, Any]]] = [
    (days(3, 4, 6, 7), {"gaps": "cross", "step": "D"}),
    (days(3, 4, 6, 7), {"gaps": "split", "step": "D"}),
    (days(1, 2, 4, 5, 6, 7), {"gaps": "split", "step": "D"}),
    (days(1, 2, 4, 5, 6, 7, 8), {"gaps": "refuse", "step": "D"}),
    (days(3, 4, 5, 7), {"gaps": "refuse", "step": "D"}),
    (days(3, 4, 4, 5), {"gaps": "split", "step": "D"}),
    (days(3, 5, 6), {"frequency": "D"}),
    (days(3, 4, 20), {"frequency": "D"}),
    (clock(0, 3), {"frequency": "h"}),
    (clock(0, 0.5, 1, 2), {"frequency": "h"}),
    (clock(10, 11, 12, 12.5, 13, 14), {"gaps": "split", "step": "h"}),
    (clock(10, 11, 13, 14), {"gaps": "split", "step": "h"}),
    (["2024-06-03 10:00:00", "2024-06-03 11:00:00", "2024-06-03 12:00:01", "2024-06-03 13:00:01"], {"gaps": "split", "step": "h"}),
    (clock(1, 2, 3, day="2024-03-31"), {"gaps": "split", "step": "h"}),
    (clock(1, 3, day="2024-03-31"), {"frequency": "h"}),
    (["2024-01-31", "2024-02-29", "2024-03-31"], {"gaps": "split", "step": "M"}),
    (["2024-01-31", "2024-02-29", "2024-04-30"], {"frequency": "M"}),
    (["2024-01-31", "2024-03-31"], {"frequency": "ME"}),
    (["2024-01", "2024-02", "2024-04"], {"gaps": "split", "step": "MS"}),
    (["2024-01-01", "2024-02-15", "2024-03-01"], {"frequency": "MS"}),
    (["2023-01-01", "2023-04-01", "2023-10-01"], {"frequency": "QS"}),
    ([*days(17, 18, 19, 20, 23, 24, 27, month="2024-12"), "2025-01-06"], {"gaps": "split", "step": "B"}),
    (days(16, 17, 18, 19, 20, 23, 24, 27, 30, month="2024-12"), {"gaps": "split", "step": "B"}),
    (["2024-06-06", "2024-06-07", "2024-06-12"], {"frequency": "B"}),
    (["0.1", "0.2", "0.3", "0.5"], {"gaps": "split", "step": "0.1"}),
    (["1", "2", "3", "3.01", "4"], {"gaps": "split", "step": "1"}),
    (["7", "9", "15"], {"frequency": "2"}),
]  # fmt: skip
"""Times of a table, and what the model remembers of the one that it was trained on."""

UNCHECKED: list[tuple[list[str], dict[str, Any]]] = [
    (["03.06.2024", "09.06.2024"], {"gaps": "split", "step": "D"}),
    (days(3, 10), {"gaps": "split", "step": "Mon-Sat"}),
    (days(3, 4, 5, 6), {"gaps": "split", "step": "h"}),
    (clock(10, 11, 13, 14), {"gaps": "split", "step": "h", "form": {"timezone": "Europe/Berlin"}}),
    (["2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"], {"gaps": "split", "step": "D"}),
]
"""The same, where the page cannot know what training would do."""

READ_TABLES = """
const { readTable } = await from("web/table.mjs");
const table = { columns: ["y"], context: 4 };
answer(given.map(([times, task]) => {
  try {
    const csv = ["t,y", ...times.map((time, i) => `${time},${i}`)].join("\\n");
    const { series: [{ rows, times: kept, checked }] } = readTable(csv, table, { time_column: "t", ...task });
    return rows.length === kept.length ? { rows: rows.flat(), checked } : "rows and times differ";
  } catch (error) {
    return error.message;
  }
}));
"""


def window_of_training(folder: Path, times: list[str], task: dict[str, Any]) -> list[Any] | None:
    """Return the window that `loopedge run` takes of a table, None for a missing value; None where it refuses the table."""
    path = folder / "table.csv"
    lines = [f"{time},{number}" for number, time in enumerate(times)]
    path.write_text("\n".join(["t,y", *lines]), encoding="utf-8")
    known = {"context": 4, "min_context": 1, "time_column": "t", "missing": "indicator"}
    described = DescribedTable.of(TASK | {"covariates": [], "mean": [0.0]} | known | task)
    assert described is not None
    try:
        found = read_last_windows(path, described, takes_mask=True)
    except InputError:
        return None
    assert found.mask is not None
    values = found.inputs[0, found.mask[0] == 1, 0]
    return [None if np.isnan(value) else float(value) for value in values]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_table_of_the_page_has_the_gaps_that_training_had(
    packaged: Bundles,
    node_packages: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
) -> None:
    monkeypatch.setenv("TZ", zone)  # of whoever looks at the page
    given: list[Any] = [*GAPS, *UNCHECKED]
    found = ask_node(node_packages, packaged("forecast"), READ_TABLES, given=given)
    for (times, task), window in zip(GAPS, found, strict=False):
        expected = window_of_training(tmp_path, times, task)
        if expected is None:
            assert isinstance(window, str), (times, task, window)
        else:
            assert window == {"rows": expected, "checked": True}, (times, task)
    for (times, task), window in zip(UNCHECKED, found[len(GAPS) :], strict=True):
        assert window == {"rows": list(range(len(times))), "checked": False}, (times, task)


def test_series_that_training_would_refuse_are_left_out_by_name(
    packaged: Bundles, node_packages: Path
) -> None:
    code = """
    const { readTable } = await from("web/table.mjs");
    const table = { columns: ["y"], context: 3 };
    const task = { time_column: "t", group: "g", gaps: "refuse", step: "D" };
    const csv = (rows) => ["g,t,y", ...rows.map(([name, day], i) => `${name},2024-06-0${day},${i}`)].join("\\n");
    const { series, leftOut } = readTable(csv([["a", 1], ["a", 2], ["a", 3], ["b", 1], ["b", 2], ["b", 4]]), table, task);
    let none;
    try { readTable(csv([["b", 1], ["b", 2], ["b", 4]]), table, task); } catch (error) { none = error.message; }
    answer([series.map(({ name }) => name), leftOut, none]);
    """
    said = (
        "b: table rows are missing between 2024-06-02 and 2024-06-04, and the training refused gaps: "
        "write them into the table"
    )
    found = ask_node(node_packages, packaged("forecast"), code)
    assert found == [["a"], [said], said]


def test_a_long_table_is_read_at_once(packaged: Bundles, node_packages: Path) -> None:
    """Times are written for rows that are missing alone, not for each row of the table."""
    code = """
    const { readTable } = await from("web/table.mjs");
    const at = (i) => new Date(Date.UTC(2024, 0, 1, i)).toISOString().slice(0, 16);
    const csv = ["t,y", ...Array.from({ length: 20000 }, (_, i) => `${at(i)},${i}`)].join("\\n");
    let asked = 0;
    const written = Date.prototype.toISOString;
    Date.prototype.toISOString = function () { asked += 1; return written.call(this); };
    const { series } = readTable(csv, { columns: ["y"], context: 512 }, { time_column: "t", frequency: "h" });
    answer([series[0].rows.length, asked]);
    """
    assert ask_node(node_packages, packaged("forecast"), code) == [512, 0]
