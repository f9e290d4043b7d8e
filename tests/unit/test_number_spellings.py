"""Numbers that are written in another way: read where an option says so, hinted at where none does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.reading import Selection, Table, read_table
from loopedge.errors import InputError
from loopedge.files.csv.cells import parse_numbers
from loopedge.options import naming_flags


def read(folder: Path, cells: list[str], form: TableFormat | None = None) -> Table:
    path = folder / "data.csv"
    path.write_text(
        "x;y\n" + "".join(f"{r};{cell}\n" for r, cell in enumerate(cells)), encoding="utf-8"
    )
    return read_table(path, Selection(numbers=("y",)), form)


NAN = np.nan
READ: dict[str, tuple[list[str], dict[str, Any], list[float]]] = {
    "decimal comma": (
        ["2,5", "3", ",5", "1e3", "-1,25E-2"],
        {"decimal": ","},
        [2.5, 3, 0.5, 1000, -0.0125],
    ),
    "continental": (
        ["1.234,5", "999", "-1.234.567"],
        {"decimal": ",", "thousands": "."},
        [1234.5, 999, -1234567],
    ),
    "a comma by thousands": (
        ["1,234.5", "1234", "12,345,678"],
        {"thousands": ","},
        [1234.5, 1234, 12345678],
    ),
    "a space by thousands": (
        ["1 234", "1\u00a0234", "1\u202f234,5"],
        {"thousands": " ", "decimal": ","},
        [1234, 1234, 1234.5],
    ),
    "an apostrophe": (["1'234.5", "1\u2019234"], {"thousands": "'"}, [1234.5, 1234]),
    "words for characters": (
        ["1 234", "1'5"],
        {"thousands": "space", "decimal": "apostrophe"},
        [1234, 1.5],
    ),
    "missing texts": (
        ["-999", "-999.0", "off", "NA", "1"],
        {"na_values": ("-999", "off")},
        [NAN, NAN, NAN, NAN, 1],
    ),
    "missing with a comma": (["n.v.", "2,5"], {"na_values": ("n.v.",), "decimal": ","}, [NAN, 2.5]),
    "another decimal sign": (["2·5"], {"decimal": "·"}, [2.5]),
}


@pytest.mark.parametrize("kind", READ)
def test_options_say_how_numbers_are_written(tmp_path: Path, kind: str) -> None:
    cells, options, expected = READ[kind]
    table = read(tmp_path, cells, TableFormat(**options))
    np.testing.assert_array_equal(table.values[:, 0], expected)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("1.5", {"decimal": ",", "thousands": "."}),  # pandas reads 15
        ("12.34,5", {"decimal": ",", "thousands": "."}),
        ("1,23", {"thousands": ","}),
        ("1,2345", {"thousands": ","}),
        (",234", {"thousands": ","}),
        ("1.5", {"decimal": ","}),
        ("1_000", {"decimal": ","}),
        ("1,5,5", {"decimal": ","}),
        ("1 2", {"thousands": " "}),
    ],
)
def test_digits_are_grouped_by_three_or_refused(
    tmp_path: Path, cell: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"column 'y': '{cell}' is not a number"):
        read(tmp_path, ["1", cell], TableFormat(**options))


@given(
    st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)), min_size=1, max_size=20),
    st.sampled_from([(",", "."), (".", ","), (",", " "), (".", "'"), (",", "\u202f")]),
)
def test_what_python_groups_is_read_back(values: list[float], signs: tuple[str, str]) -> None:
    decimal, thousands = signs
    cells = [
        f"{value:,.3f}".replace(",", "T").replace(".", decimal).replace("T", thousands)
        for value in values
    ]
    found, others = parse_numbers(cells, TableFormat(decimal=decimal, thousands=thousands))
    assert others == []
    np.testing.assert_array_equal(found, values)


HINTS = {
    "a decimal comma": (["1", "2,5", "1,234"], "--decimal ,"),
    "thousands": (["1,234.5", "12,345"], "--thousands ,"),
    "either": (
        ["1,234"],
        "--thousands , if 1,234 is more than a thousand, --decimal , if it is less",
    ),
    "continental": (["1.234,5", "2,5"], "--decimal , --thousands ."),
    "groups by a point": (["1.234.567"], "--decimal , --thousands ."),
    "a space": (["1 234"], "--thousands space"),
    "a space that does not break": (["1\u00a0234,5"], "--thousands space --decimal ,"),
    "an apostrophe": (["1'234.5"], "--thousands apostrophe"),
    "a currency": (["€ 5", "6 €", "7"], "take the currency out of the cells"),
    "dollars": (["$1,200.00"], "take the currency out of the cells"),
    "per cent": (["12 %", "3%"], "take the percent sign out"),
    "a unit": (["12 kWh", "7 kWh"], "take the unit 'kWh' out"),
    "a unit with a power": (["3.5 m³"], "take the unit 'm³' out"),
    "degrees": (["20 °C"], "take the unit '°C' out"),
    "parentheses": (["(5)"], "minus sign before them"),
    "a minus behind": (["5-"], "minus sign before the number"),
    "another minus": (["\u22125"], "U+002D"),
    "a time": (["12:30"], "as a number"),
    "other digits": (["\u0663"], "digits 0 to 9"),
    "a word": (["1", "offline", "offline"], "--na-values offline"),
    "a slip": (
        ["1", "1O.000"],
        "correct it, or if it stands for a missing value: --na-values 1O.000",
    ),
    "true and false": (["TRUE", "false"], "write 1 for true and 0 for false"),
    "an error of a sheet": (["1", "#N/A"], "--na-values '#N/A'"),
    "the header": (["1", "y", "2"], "the header stands there again"),
    "a mark": (["1", "\ufeff2"], "a byte order mark stands there"),
}


@pytest.mark.parametrize("kind", HINTS)
def test_a_hint_names_what_mends_the_column(tmp_path: Path, kind: str) -> None:
    cells, hint = HINTS[kind]
    with naming_flags(), pytest.raises(InputError, match="is not a number") as caught:
        read(tmp_path, cells)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "kind", ["a decimal comma", "thousands", "continental", "a space", "an apostrophe"]
)
def test_the_options_of_a_hint_read_the_column(tmp_path: Path, kind: str) -> None:
    cells, hint = HINTS[kind]
    words = hint.split()
    options: dict[str, Any] = dict(zip([word[2:] for word in words[::2]], words[1::2], strict=True))
    assert not np.isnan(read(tmp_path, cells, TableFormat(**options)).values).any()


def test_a_decimal_comma_in_quotes_is_read_between_commas(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('x,y\n1,"2,5"\n2,3\n')
    table = read_table(path, Selection(numbers=("y",)), TableFormat(decimal=","))
    np.testing.assert_array_equal(table.values[:, 0], [2.5, 3])
    path.write_text("x,y\n1,2,5\n")
    with pytest.raises(InputError, match="has 3 values, the header has 2") as caught:
        read_table(path, Selection(numbers=("y",)), TableFormat(decimal=","))
    assert "quote the numbers" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1.234", "12.500", "999", "120", "1.100", "3"], True),
        (["1.234", "12.500", "999", "120", "1.100", "1200"], False),
        (["1.234", "12.500", "999", "120", "1.1", "3"], False),
        (["0.234", "12.500", "999", "120", "1.100", "3"], False),
        (["1.234", "12.500", "1.100"], False),
    ],
)
def test_points_that_may_group_digits_are_said(
    tmp_path: Path, cells: list[str], said: bool
) -> None:
    findings = read(tmp_path, cells).findings
    assert [finding.kind for finding in findings] == (["shape"] if said else [])
    if said:
        assert "column 'y'" in findings[0].message
        assert "'1.234' is read as 1.234" in findings[0].message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decimal": ",", "delimiter": ","}, "decimal and delimiter are both ','"),
        ({"thousands": "."}, "decimal and thousands are both '.'"),
        ({"thousands": ",", "decimal": ","}, "decimal and thousands are both ','"),
        ({"delimiter": ";", "comment": ";"}, "comment ';' holds the character of delimiter"),
        ({"comment": "//,", "decimal": ","}, "holds the character of decimal"),
        ({"delimiter": "ab"}, "delimiter is 'ab', one character"),
        ({"delimiter": '"'}, "one character"),
        ({"delimiter": "a"}, "one character"),
        ({"decimal": " "}, "no number is written so"),
        ({"decimal": ""}, "one character"),
        ({"comment": ""}, "the text that starts a comment is needed"),
        ({"comment": "-"}, "values start like that"),
        ({"na_values": "NA"}, "a list of texts is needed"),
        ({"decimal": ["x"]}, "one character"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        TableFormat(**options)
    assert "\n" not in caught.value.message


def test_a_form_is_written_and_read_back() -> None:
    form = TableFormat(delimiter="tab", decimal=",", thousands="space", na_values=("-", "x "))
    assert form.to_json() == {
        "delimiter": "\t",
        "decimal": ",",
        "thousands": " ",
        "na_values": ["-", "x"],
    }
    assert TableFormat.from_json(form.to_json()) == form
    with pytest.raises(InputError, match="decimal is"):
        TableFormat.from_json({"decimal": ["damaged"]})


def test_none_takes_back_what_a_model_remembers() -> None:
    known = TableFormat(thousands=".", decimal=",", comment="#")
    found = replace(known, thousands="none", decimal=".", comment="none")
    assert found == TableFormat()
    assert found.to_json() == {}
