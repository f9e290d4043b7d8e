"""What is said of the time of a quantized model: a fact where it was steady, else that it is not known."""

import pytest

from loopedge.quantizer import timing
from loopedge.quantizer.result import time_note
from loopedge.quantizer.timing import TimeRatio, ratio_of


def rounds(*milliseconds: float) -> list[list[float]]:
    return [[one, one, one] for one in milliseconds]


def test_steady_rounds_make_a_fact() -> None:
    ratio = ratio_of(rounds(1.0, 1.0, 1.1), rounds(1.3, 1.32, 1.43))
    assert ratio.median == pytest.approx(1.3, rel=0.02)
    assert ratio.steady
    (note,) = time_note(ratio)
    assert note.startswith("one inference takes 1.30 times as long as the float model's")
    assert "half of the rounds: 1.30 to 1.31" in note


def test_a_faster_model_needs_no_note() -> None:
    assert time_note(ratio_of(rounds(1.0, 1.0, 1.0), rounds(0.5, 0.5, 0.5))) == []


def test_rounds_that_differ_are_no_fact() -> None:
    ratio = ratio_of(rounds(1.0, 1.0, 1.0), rounds(1.0, 20.9, 1.2))
    assert not ratio.steady
    (note,) = time_note(ratio)
    assert "is not known: half of the rounds took 1.10 to 11.05 times as long" in note
    assert "takes" not in note


def test_runs_of_which_most_were_slowed_are_no_fact() -> None:
    """The rounds agree, but a model ran much faster once: another program had the processor."""
    slowed = [[20.0, 20.0, 20.0], [20.0, 1.0, 20.0, 20.0, 20.0], [20.0, 20.0, 20.0]]
    ratio = ratio_of(rounds(1.0, 1.0, 1.0), slowed)
    assert ratio.low == ratio.high == ratio.median == 20.0
    assert ratio.busy == 20.0
    (note,) = time_note(ratio)
    assert note.startswith("the machine was busy, so the time against the float model is not known")


@pytest.mark.parametrize(
    ("found", "taken", "tried"),
    [([1.0], 1.0, 1), ([9.0, 1.0], 1.0, 2), ([9.0, 7.0, 8.0, 1.0], 7.0, 3)],
)
def test_an_unsteady_measurement_is_taken_again(
    found: list[float], taken: float, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def measure(*_: object) -> tuple[()]:
        tries.append(found[len(tries)])
        return ()

    def ratio(*_: object) -> TimeRatio:
        return TimeRatio(median=1.0, low=1.0, high=tries[-1], busy=1.0)

    monkeypatch.setattr(timing, "time_in_turns", measure)
    monkeypatch.setattr(timing, "ratio_of", ratio)
    assert timing.steadiest([], []).high == taken
    assert len(tries) == tried


def test_a_faster_model_of_unsteady_rounds_is_not_known_either() -> None:
    (note,) = time_note(ratio_of(rounds(1.0, 1.0, 1.0), rounds(0.1, 0.9, 0.5)))
    assert "is not known" in note
