"""Tables with a column a time are told apart from long ones; patterns stand for several covariates."""

from pathlib import Path

import pytest

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import expand_names
from loopedge.data.tables.reading import Selection, read_table
from loopedge.data.tables.wide import time_names
from loopedge.errors import InputError
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import task_from_dict

WIDE = {
    "years": ["id", "2019", "2020", "2021"],
    "years with gaps": ["id", "name", "1990", "2000", "2010", "2020"],
    "months": ["shop", "Jan", "Feb", "Mar", "Apr"],
    "long months": ["shop", "january", "february", "march"],
    "weekdays": ["shop", "Mon", "Tue", "Wed"],
    "numbered": ["meter", *(f"t{t}" for t in range(1, 25))],
    "hours": ["day", *(f"h_{t:02}" for t in range(24))],
    "numbers": ["meter", "0", "1", "2", "3"],
    "dates": ["id", "2024-01-01", "2024-01-02", "2024-01-03"],
    "months of years": ["id", "2024-01", "2024-02", "2024-03"],
    "times of the day": ["day", "00:00", "00:15", "00:30", "00:45"],
    "quarters": ["id", "Q1", "Q2", "Q3", "Q4"],
}
LONG = {
    "sensors": ["time", "sensor1", "sensor2", "sensor3", "sensor4"],
    "two years": ["id", "2019", "2020"],
    "most are others": ["a", "b", "c", "d", "2019", "2020", "2021"],
    "not in order": ["id", "2021", "2019", "2020"],
    "names": ["time", "mayor", "marble", "y"],
    "letters": ["x", "y", "z"],
    "t and y": ["t", "y", "x1", "temp2"],
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_column_a_time_is_wide(kind: str) -> None:
    others = {"years with gaps": 2}.get(kind, 1)
    assert time_names(WIDE[kind]) == tuple(WIDE[kind][others:])


@pytest.mark.parametrize("kind", LONG)
def test_other_tables_are_not(kind: str) -> None:
    assert time_names(LONG[kind]) == ()


def test_a_wide_table_says_how_it_is_made_long(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,2019,2020,2021\na,1,2,3\nb,4,5,6\n")
    for selection in (
        Selection(numbers=("value",)),
        Selection(numbers=("2021",), time="year"),
    ):
        with pytest.raises(InputError, match="no column") as caught:
            read_table(path, selection)
        assert "the table is wide, 2019 to 2021 are times" in str(caught.value.hint)
        assert "melt(id_vars=['id']" in str(caught.value.hint)
    [finding] = read_table(path, Selection(numbers=("2021", "2020"))).findings
    assert finding.kind == "shape"
    assert "its columns 2019 to 2021 (3) are times" in finding.message
    path.write_text("id,2019,2020,2021,y\na,1,2,3,4\n")
    assert read_table(path, Selection(numbers=("y",))).findings == ()


HEADER = "t,temp_a,load,temp_b,temp_c [C],kind,temp_t,day"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    rows = [f"{r},1,{r % 7},2,3,{'ab'[r % 2]},4,5" for r in range(80)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["temp_*"], ["temp_a", "temp_b", "temp_c [C]", "temp_t"]),
        (["temp_?"], ["temp_a", "temp_b", "temp_t"]),
        (["*[C]"], ["temp_c [C]"]),
        (["day", "temp_?"], ["day", "temp_a", "temp_b", "temp_t"]),
        (["temp_?", "temp_*"], ["temp_a", "temp_b", "temp_t", "temp_c [C]"]),
        (["temp_b", "temp_?"], ["temp_b", "temp_a", "temp_t"]),
        (["*"], ["temp_a", "temp_b", "temp_c [C]", "kind", "temp_t", "day"]),
        (["day"], ["day"]),
    ],
)
def test_patterns_stand_for_columns_in_the_order_of_the_header(
    table: Path, names: list[str], found: list[str]
) -> None:
    assert list(expand_names(table, names, without=("t", "load", None))) == found


@pytest.mark.parametrize(
    ("name", "near"), [("Temp*", "perhaps 'temp_"), ("lod*", "perhaps 'load'"), ("zz?", "name one")]
)
def test_a_pattern_that_matches_nothing_names_near_columns(
    table: Path, name: str, near: str
) -> None:
    with pytest.raises(InputError, match="no column matches") as caught:
        expand_names(table, [name])
    assert near in str(caught.value.hint)


def test_a_column_may_be_called_as_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("y,a*,ab\n1,2,3\n")
    assert expand_names(path, ["a*"]) == ("a*",)
    assert expand_names(path, ["?b"], form=TableFormat(delimiter=",")) == ("ab",)


def test_the_description_holds_the_names(table: Path) -> None:
    forecast = SeriesTask.from_file(
        table, targets=["load"], covariates=["temp_?"], time_column="t", context=4, horizon=2
    )
    assert forecast.describe()["covariates"] == ["temp_a", "temp_b", "temp_t"]
    again = task_from_dict(forecast.describe(), data=table)
    assert again.describe() == forecast.describe()
    labelled = LabelledSeriesTask.from_file(
        table, label="kind", covariates=["temp_*", "load"], time_column="t", context=4
    )
    names = ["temp_a", "temp_b", "temp_c [C]", "temp_t", "load"]
    assert labelled.describe()["covariates"] == names
    with pytest.raises(InputError, match="column 'load' is named twice"):
        SeriesTask.from_file(table, targets=["load"], covariates=["load"], context=4, horizon=2)
