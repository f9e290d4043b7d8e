"""Tied graphs at random, by fixed seeds: whole where nothing was changed, and never wrong; ``make fuzz`` goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fuzz.rolled import judge_tied
from tests.fuzz.tied_graphs import draw_numbered, draw_tied

if TYPE_CHECKING:
    from pathlib import Path

SEED = 18
PARTS, GRAPHS = 4, 10


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_random_loop_is_rolled_and_computes_the_same(part: int, tmp_path: Path) -> None:
    problems = []
    for number in range(GRAPHS * part, GRAPHS * (part + 1)):
        graph, how = draw_numbered(f"{SEED}.{number}")
        outcome = judge_tied(graph, tmp_path, **how | {"command": False})
        problem = outcome.problem or outcome.missed
        if problem is not None:
            problems.append(f"--replay graph.{graph.name}: {graph.change}: {problem}")
    assert problems == []


def test_a_graph_is_drawn_again_by_its_name() -> None:
    first, second = (draw_tied("1.1", changed=True) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.change == second.change is not None
    for number in range(2):
        for name, array in first.feeds(number).items():
            np.testing.assert_array_equal(array, second.feeds(number)[name])


@pytest.mark.slow
def test_all_that_makes_a_loop_hard_to_find_is_drawn() -> None:
    features = set().union(*(draw_tied(f"1.{number}").features for number in range(100)))
    assert features == {
        *("second order", "stack", "starts constant", "read in every iteration"),
        *("read in the middle", "shared weights", "copies weights", "turned weights"),
        *("turned copies weights", "mixed weights", "integers weights"),
        *("read in front too", "float16"),
    }
    changes = {draw_tied(f"1.{number}", changed=True).change for number in range(100)}
    assert len({change.split(" in ")[0] for change in changes if change}) >= 9
