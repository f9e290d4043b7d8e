"""How a table is written down, on the command line: read with the options, named without them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 2, "--batch-size", 4)
FORECAST = ("--target", "größe", "--context", 4, "--horizon", 2, "--covariate", "temp_?")
FORM = (
    *("--encoding", "cp1252", "--delimiter", ";", "--decimal", ",", "--thousands", "."),
    *("--comment", "#", "--na-values", "aus", "--na-values", "-1"),
)


@pytest.fixture
def meter(tmp_path: Path) -> Path:
    """Sixty rows as a logger writes them, packed; two values are missing by their own words."""
    rows = []
    for row in range(60):
        value = (
            f"{1000 + row % 7 * 111.5:,.1f}".replace(",", "T").replace(".", ",").replace("T", ".")
        )
        rows.append(f"{row};{ {9: 'aus', 20: '-1'}.get(row, value) };{row % 5};{row % 3}  # {row}")
    text = "\r\n".join(["# Zähler", "tag;größe;temp_a;temp_b", *rows])
    path = tmp_path / "meter.csv.gz"
    path.write_bytes(gzip.compress(text.encode("cp1252")))
    return path


def test_a_table_is_read_as_its_options_say_and_the_model_remembers(cli: Cli, meter: Path) -> None:
    import torch

    target = meter.parent / "m.pt"
    words = ("--missing", "indicator", "-o", target, "--json")
    outcome = cli("train", "series", meter, *FORECAST, *FORM, *SMALL, *words)
    assert outcome.code == 0, outcome.err
    task = torch.load(target, weights_only=True)["task"]
    assert task["form"] == {
        "encoding": "cp1252",
        "delimiter": ";",
        "decimal": ",",
        "thousands": ".",
        "comment": "#",
        "na_values": ["aus", "-1"],
    }
    assert task["covariates"] == ["temp_a", "temp_b"]
    # 70 % of the rows are for training; two of them are missing.
    seen = [1000 + row % 7 * 111.5 for row in range(42) if row not in {9, 20}]
    np.testing.assert_allclose(task["mean"][0], np.mean(seen), rtol=1e-6)
    np.testing.assert_allclose(task["scale"][0], np.std(seen), rtol=1e-6)


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        (2, "it seems to be cp1252, which reads 'Zähler'"),
        (4, None),  # the semicolon is found
        (6, "--decimal and --thousands are both '.'"),
        (8, "column 'größe': '1.000,0' is not a number"),
        (10, "no column matches 'temp_?'; the columns are '# Zähler'"),
        (12, "column 'größe': 'aus' is not a number"),
    ],
)
def test_without_an_option_the_error_names_it(
    cli: Cli, meter: Path, left_out: int, words: str | None
) -> None:
    options = [*FORM[: left_out - 2], *FORM[left_out:]]
    words_of_command = ("--missing", "indicator", "-o", meter.parent / "m.pt")
    outcome = cli("train", "series", meter, *FORECAST, *options, *SMALL, *words_of_command)
    if words is None:
        assert outcome.code == 0, outcome.err
        return
    assert outcome.code == 2
    assert words in outcome.err
    assert str(FORM[left_out - 2]) in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not (meter.parent / "m.pt").exists()


@pytest.mark.parametrize("command", ["train", "pilot"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--decimal", ",", "--delimiter", ","), "--decimal and --delimiter are both ','"),
        (("--thousands", "."), "--decimal and --thousands are both '.'"),
        (("--encoding", "klingon"), "--encoding is 'klingon', which names no encoding"),
        (("--delimiter", "ab"), "--delimiter is 'ab', one character"),
        (("--comment", ""), "--comment is '', the text that starts a comment is needed"),
    ],
)
def test_options_that_cannot_be_meant(
    cli: Cli, meter: Path, command: str, options: tuple[str, ...], words: str
) -> None:
    outcome = cli(command, "series", meter, *FORECAST, *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2
