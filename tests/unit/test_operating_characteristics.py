"""How often the pilot's rule decides rightly, on drawn pilots: the bounds that it keeps.

Each rate is of a stated number of pilots; a bound is kept where the rate and two Monte Carlo errors are below it. The draws
have fixed seeds, the larger tables of docs/pilot.md come from `benchmarks.pilot.operating_characteristics`.
"""

import json
from pathlib import Path

import pytest

from benchmarks.pilot.operating_characteristics import (
    NAME,
    beaten_table,
    docs_table,
    flattery_table,
    report,
)
from benchmarks.pilot.simulated import (
    Scene,
    beaten_rates,
    choice_rates,
    error_of,
    flattery,
    former_rates,
)
from loopedge.study.options import LOOKS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "pilot"
TABLES = 1000
FEWER = 300
THREE = LOOKS[:1]


def below(share: float, bound: float, tables: int = TABLES) -> bool:
    """Return whether a rate keeps a bound, Monte Carlo error (one standard deviation) twice added."""
    return share + 2 * error_of(share, tables) <= bound


def test_three_seeds_do_not_take_one_loop_where_more_are_better_by_four() -> None:
    rates = choice_rates(Scene(gains=(0, 4, 4)), margin=1.0, looks=THREE, tables=TABLES)
    assert below(rates["1"], 0.01)
    # what the rule before this one did: an absent proof was taken for equality
    assert former_rates(Scene(gains=(0, 4, 4)), tables=FEWER)["1"] > 0.25


def test_no_needless_loops_where_there_is_no_difference() -> None:
    rates = choice_rates(Scene(), margin=1.0, looks=LOOKS, tables=TABLES)
    assert below(rates["4"] + rates["8"], 0.07)
    assert rates["1"] > 0.9


def test_a_clear_difference_is_decided() -> None:
    rates = choice_rates(Scene(gains=(0, 2, 2)), margin=1.0, looks=LOOKS, tables=TABLES)
    assert below(rates["undecided"], 0.10)
    assert below(rates["1"], 0.01)
    assert rates["seeds"] < 5


def test_a_gradual_gain_stays_open_and_is_not_guessed() -> None:
    rates = choice_rates(Scene(gains=(0, 1, 2)), margin=1.0, looks=LOOKS, tables=TABLES)
    assert 0.3 < rates["undecided"] < 0.5
    assert below(rates["1"], 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["t3", "unequal"])
def test_other_noise_than_the_model_of_the_rule_keeps_the_bounds(noise: str) -> None:
    same = choice_rates(
        Scene(noise=noise),  # type: ignore[arg-type]  # a literal
        margin=1.0,
        looks=LOOKS,
        tables=TABLES,
    )
    assert below(same["4"] + same["8"], 0.07)
    better = choice_rates(
        Scene(gains=(0, 2, 2), noise=noise),  # type: ignore[arg-type]  # a literal
        margin=1.0,
        looks=LOOKS,
        tables=TABLES,
    )
    assert below(better["undecided"], 0.10)
    assert below(better["1"], 0.015)


@pytest.mark.slow
@pytest.mark.parametrize(("luck", "origins"), [(0.0, 1), (1.0, 1), (3.0, 1), (3.0, 3)])
def test_a_baseline_that_is_as_good_is_seldom_called_beaten(luck: float, origins: int) -> None:
    rates = beaten_rates(Scene(luck=luck), margin=1.0, tables=FEWER, origins=origins)
    assert below(rates["any"], 0.12, FEWER)
    assert below(rates["worse"], 0.12, FEWER)


@pytest.mark.slow
def test_the_choice_made_again_without_each_seed_does_not_flatter() -> None:
    found = flattery(Scene(), correlation=1.0, tables=FEWER)
    assert found["test"] < -0.5
    assert abs(found["honest"]) < 3 * found["error"]


def test_the_tables_of_the_docs_are_those_of_the_results() -> None:
    found = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "pilot.md").read_text(encoding="utf-8")
    for table in (docs_table(found), beaten_table(found), flattery_table(found)):
        assert table in page
    assert report(found) in (RESULTS / f"{NAME}.md").read_text(encoding="utf-8")
