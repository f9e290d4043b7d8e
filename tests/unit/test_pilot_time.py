"""How long a pilot says that it takes: before any run, while some run, and after some took longer than expected."""

import pytest

from loopedge.study.design import Cell
from loopedge.study.runs.short_run import ShortRun
from loopedge.study.runs.work import FullRun
from loopedge.study.schedule.estimate import AFTERWARDS as STARTS_AFTERWARDS
from loopedge.study.schedule.estimate import STARTING, TimeLeft

AFTERWARDS = STARTS_AFTERWARDS * STARTING
TRAINING = {("looped", 1): 10.0, ("looped", 8): 50.0}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(loops: int, seed: int = 0) -> FullRun:
    return FullRun(cell=Cell(arm="looped", loops=loops, seed=seed))


def test_the_first_estimate_counts_training_and_what_comes_after_it() -> None:
    left = TimeLeft(TRAINING, 1)
    assert left.together([run(1), run(8)]) == pytest.approx(60 + 2 * AFTERWARDS)
    assert left.together([]) == 0


def test_several_at_once_share_the_time_and_none_is_shorter_than_the_longest() -> None:
    left = TimeLeft(TRAINING, 2)
    one = AFTERWARDS + STARTING
    assert left.together([run(8, seed) for seed in range(4)]) == pytest.approx(2 * (50 + one))
    assert left.together([run(1), run(8)]) == pytest.approx(50 + one)


def test_a_short_run_takes_its_share_of_the_training_alone() -> None:
    short = ShortRun(cell=Cell(arm="looped", loops=8, seed=0), steps_share=0.25)
    assert TimeLeft(TRAINING, 1).expected(short) == pytest.approx(12.5)


def test_runs_that_ended_correct_those_that_wait_and_running_ones_count_down() -> None:
    clock = Clock()
    left = TimeLeft(TRAINING, 1, clock=clock)
    works = [run(1), run(8)]
    left.begin(works)
    left.start(works[0])
    clock.now = 2 * (10 + AFTERWARDS)  # twice as slow as expected
    left.end(works[0])
    assert left.seconds() == pytest.approx(2 * (50 + AFTERWARDS))
    left.start(works[1])
    clock.now += 30
    assert left.seconds() == pytest.approx(2 * (50 + AFTERWARDS) - 30)
    clock.now += 1000  # longer than expected: it may end at any moment
    assert left.seconds() == 0
    left.begin([run(1, 1)])
    left.drop([run(1, 1)])
    assert left.seconds() == 0


def test_what_comes_later_is_counted_too() -> None:
    left = TimeLeft(TRAINING, 2)
    left.later, left.at_the_end = [run(8), run(8, 1)], 30.0
    assert left.seconds() == pytest.approx(50 + AFTERWARDS + STARTING + 30)
