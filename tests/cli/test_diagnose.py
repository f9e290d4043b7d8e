"""``loopedge diagnose``: what it prints, what it advises, and that it foretells nothing."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.main import get_command

from loopedge_cli.app import app
from tests.cli.test_hints import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytest.importorskip("sklearn", reason="baselines need the extra 'pilot'")

FEW = ("--windows", 200, "--look-back", 12)
FAMILIES = {
    *("forecastability", "look_back", "season", "drift", "jumps"),
    *("test_split", "lengths", "classes", "duplicates", "vocabulary"),
}
PROMISES = re.compile(
    r"\b(will|would (help|gain|improve|win)|promis\w*|predict\w*|loops?|looped|timestep encoding|recommend\w*|benefit\w*)\b",
    re.IGNORECASE,
)
"""Words of a prediction: a description has none of them."""
MOST_LINES = 24


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """Tables with a fault each, by what `diagnose` shall advise, and the command of each."""
    draw = np.random.default_rng(0)
    rows = range(300)
    climbs = [f"{row},{row * 0.3 + math.sin(row * math.pi / 6):.4f}" for row in rows]
    far = np.zeros(320)
    for row in range(20, 320):
        far[row] = 0.9 * far[row - 6] + draw.normal()
    lagging = [f"{row},{far[row + 20]:.4f}" for row in rows]
    jumps = [f"{row},{(row // 60 % 2) * 9 + draw.normal() / 9:.4f}" for row in rows]
    labels = [f"{row},{draw.normal():.3f},{'rare' if row % 19 == 0 else 'usual'}" for row in rows]
    table = write(tmp_path / "climbs.csv", "day,y", climbs)
    forecast = ("--target", "y", "--time", "day")
    return {
        "drift": (table, *forecast, "--context", 6, "--horizon", 2),
        "season": (table, *forecast, "--horizon", 1),
        "look-back": (
            write(tmp_path / "lags.csv", "day,y", lagging),
            *(*forecast, "--context", 2, "--horizon", 1),
        ),
        "jumps": (
            write(tmp_path / "jumps.csv", "day,y", jumps),
            *(*forecast, "--context", 4, "--horizon", 1),
        ),
        "classes": (
            write(tmp_path / "labels.csv", "day,x,kind", labels),
            *("--classify", "kind", "--covariate", "x", "--context", 4),
        ),
    }


def parse(words: list[object], command: str) -> None:
    """Parse words with the command of `train` or `diagnose`, without running it; a word that it does not know is raised."""
    series = get_command(app).commands[command].commands["series"]  # type: ignore[attr-defined]
    series.make_context("series", [str(word) for word in words])


@pytest.mark.slow
def test_each_advice_is_an_option_of_the_task_and_promises_nothing(
    cli: Cli, tables: dict[str, tuple[object, ...]]
) -> None:
    kinds = set()
    for kind, words in tables.items():
        outcome = cli("diagnose", *words, *FEW, "--json")
        assert outcome.code == 0, outcome.err
        found = outcome.json()
        assert set(found) >= FAMILIES
        assert kind in {advice["kind"] for advice in found["advice"]}
        for advice in found["advice"]:
            kinds.add(advice["kind"])
            assert not PROMISES.search(advice["message"]), advice["message"]
            if advice["option"] is not None:
                context = () if "--context" in words else ("--context", 4)
                full = [*words, *context, *advice["option"].split()]
                parse(full, "train")
                parse(full, "diagnose")
    assert kinds >= set(tables)


@pytest.mark.slow
def test_people_see_a_screen_and_no_promise(cli: Cli) -> None:
    words = ("--target", "sunspots", "--time", "month", "--context", 12, "--horizon", 3)
    outcome = cli("diagnose", ROOT / "examples/data/sunspots.csv", *words, *FEW)
    assert outcome.code == 0, outcome.err
    assert len(outcome.out.splitlines()) <= MOST_LINES
    assert "smallest difference" in outcome.out
    assert not PROMISES.search(outcome.out)


@pytest.mark.slow
def test_a_kind_may_be_named_and_need_not_be(
    cli: Cli, tables: dict[str, tuple[object, ...]]
) -> None:
    words = tables["look-back"]
    short, named = (
        cli("diagnose", *more, *words, *FEW, "--json").json() for more in ((), ("series",))
    )
    assert {**short, "seconds": 0} == {**named, "seconds": 0}
    seeds = cli("diagnose", *words, *FEW, "--seed", 7, "--json").json()
    assert seeds["look_back"]["rows"] == short["look_back"]["rows"] == 6


@pytest.mark.slow
def test_texts_and_pairs_are_described(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 300)
    found = cli("diagnose", "text", text, "--context", 16, "--json").json()
    assert found["vocabulary"]["unseen"] == 0
    assert found["lengths"]["fixed"]
    assert found["test_split"]["metric"] == "perplexity"
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        f'{{"input": "{"a" * (row % 7 + 1)}{row}", "output": "{row % 3}"}}' for row in range(200)
    ]
    pairs.write_text("\n".join(lines))
    outcome = cli("diagnose", "pairs", pairs, "--length", 24)
    assert outcome.code == 0, outcome.err
    assert "tokens" in outcome.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lcs",), "generates its samples"),
        (("nowhere.csv", "--target", "y"), "nowhere.csv"),
        (("TABLE", "--target", "z"), "'z'"),
        (("TABLE",), "--target"),
        (("TABLE", "--target", "y", "--context", 400), "300 rows"),
        (("TABLE", "--target", "y", "--samples", 0), "samples"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, tables: dict[str, tuple[Any, ...]], words: tuple[object, ...], said: str
) -> None:
    table = tables["look-back"][0]
    outcome = cli("diagnose", *(table if word == "TABLE" else word for word in words))
    assert outcome.code == 2
    assert outcome.out == ""
    assert said in outcome.err
    assert len(outcome.err.splitlines()) <= 2


def test_without_scikit_learn_its_extra_is_named(
    cli: Cli, tables: dict[str, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    outcome = cli("diagnose", *tables["look-back"])
    assert outcome.code == 2
    assert "needs the extra 'pilot'" in outcome.err
