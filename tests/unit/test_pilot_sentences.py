"""The statements of a pilot in plain English, and how their figures are written."""

from typing import Any

import pytest

from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Candidate,
    Chosen,
    Cost,
    Decision,
    Encoding,
    Equivalence,
    MoreLoops,
    NextStep,
    NotConverged,
    Requirements,
    Rounding,
    Stability,
    Statement,
    Untied,
    effect_of,
)
from loopedge.study.judging.statistics import Interval, OverSeeds
from loopedge.study.words.english import headline, sentence
from loopedge.study.words.figures import Names, difference_text, minutes_of, share_text

NAMES = Names(metric="rmse", margin=0.07, margin_text="2%", step=0.001)
ONE, MANY = Candidate(arm="looped", loops=1), Candidate(arm="timestep", loops=8)
GOOD, BAD = (OverSeeds(mean=mean, sd=0.02, values=[mean] * 3) for mean in (3.5, 3.9))
LESS = Interval(mean=-0.4, low=-0.5, high=-0.3)
AGAINST: dict[str, Any] = {
    "candidate": MANY, "baseline": "ridge on lags", "about": "", "value": 3.9, "quality": GOOD,
    "difference": LESS, "effect": "better", "over": "seeds and windows",
}  # fmt: skip
COST: dict[str, Any] = {
    "candidate": MANY, "file_bytes": 2**20, "memory_bytes": 2**22, "seconds": 0.0042, "int8_bytes": None,
    "int8_seconds": None, "untied_bytes": None, "fewest": None, "time_ratio": None, "busy": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (3.7e-17, 0.001, "0"),
        (-0.0004, 0.001, "0"),
        (-0.0006, 0.001, "-0.001"),
        (0.12345, 0.01, "+0.12"),
        (1234.5, 10.0, "+1234"),
        (0.123456, 0.0, "+0.123"),
    ],
)
def test_a_difference_is_as_fine_as_margin_and_noise_allow(
    value: float, step: float, text: str
) -> None:
    assert difference_text(value, Names(metric="rmse", step=step)) == text


@pytest.mark.parametrize(
    ("margin", "deviation", "step"),
    [(0.07, 0.02, 0.001), (0.0, 0.5, 0.001), (0.02, None, 0.001), (0.0, None, 0.0), (12.0, 1.0, 1.0)],
)  # fmt: skip
def test_two_digits_of_the_margin_or_of_the_noise_are_written(
    margin: float, deviation: float | None, step: float
) -> None:
    assert Names.step_of(margin, deviation) == pytest.approx(step)


def test_no_probability_is_written_as_certain() -> None:
    assert [share_text(share) for share in (0.953, 0.999, 1.0, 0.0)] == [
        "95 %", "over 99 %", "over 99 %", "under 1 %",
    ]  # fmt: skip
    assert [minutes_of(seconds) for seconds in (0.2, 700, 9000)] == [
        (1.0, "s"), (12.0, "min"), (2.5, "h"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "against", "text"),
    [
        ({"outcome": "yes", "why": "loops", "counts": (1, 8), "chosen": MANY}, True,
         "Yes: timestep with 8 loops beats ridge on lags, and fewer loops are worse."),
        ({"outcome": "yes", "why": "loops", "counts": (8, 12), "chosen": MANY}, True,
         "Yes: timestep with 8 loops beats ridge on lags, and more loops are no better."),
        ({"outcome": "no", "why": "one-loop", "chosen": ONE}, True,
         "No: one loop is as good as more, and beats ridge on lags."),
        ({"outcome": "no", "why": "one-loop"}, True,
         "No: one loop is as good as more, and is not shown to beat ridge on lags."),
        ({"outcome": "no", "why": "one-loop"}, False, "No: one loop is as good as more."),
        ({"outcome": "no", "why": "baseline", "winner": "ridge on lags"}, True,
         "No: ridge on lags is better than timestep with 8 loops."),
        ({"outcome": "undecided", "why": "seeds", "fewest": 1, "most": 8}, True,
         "Undecided: 3 runs of each model cannot tell whether 1 loop is as good as 8."),
        ({"outcome": "undecided", "why": "seeds", "fewest": 4, "most": 8}, True,
         "Undecided: 3 runs of each model cannot tell whether 4 loops are as good as 8."),
        ({"outcome": "undecided", "why": "seeds"}, True,
         "Undecided: timestep with 8 loops is ahead of ridge on lags, but 3 runs of each model are too few to be sure."),
    ],
)  # fmt: skip
def test_the_first_sentence(fields: dict[str, Any], against: bool, text: str) -> None:
    statements: list[Statement] = [Decision(blocks=3, best=MANY, **fields)]
    if against:
        statements.append(AgainstBaseline(**AGAINST))
    assert headline(statements, NAMES) == text


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (AgainstBaseline(**AGAINST | {"seasonal": (0.812, 0.9)}),
         "Ridge on lags (rmse 3.9) is beaten: timestep with 8 loops reaches 3.5 ± 0.02 (difference -0.400, "
         "95 % interval -0.500 to -0.300 over seeds and windows). MASE: 0.812 against 0.9."),
        (AgainstBaseline(**AGAINST | {"effect": "undecided", "visible": 0.31}),
         "It is not shown that ridge on lags (rmse 3.9) is beaten: timestep with 8 loops reaches 3.5 ± 0.02 "
         "(difference -0.400, 95 % interval -0.500 to -0.300 over seeds and windows). This test split shows differences from 0.310 on."),
        (Chosen(candidate=MANY, sure=0.93, quality=GOOD, honest=3.62),
         "Recommended: timestep with 8 loops, with a probability of 93 % within the margin (2%) of the best. "
         "Without the luck of choosing: rmse 3.62."),
        (MoreLoops(arm="looped", few=1, many=8, few_quality=BAD, many_quality=GOOD, difference=LESS, effect="better"),
         "More loops help: 3.5 ± 0.02 at 8 loops, 3.9 ± 0.02 at 1 (difference -0.400, 95 % interval -0.500 to -0.300)."),
        (MoreLoops(arm="looped", few=1, many=8, few_quality=GOOD, many_quality=GOOD, effect="better",
                   difference=Interval(mean=-0.03, low=-0.08, high=-0.01)),
         "More loops help, by less than the margin: 3.5 ± 0.02 at 8 loops, 3.5 ± 0.02 at 1 (difference -0.030, "
         "95 % interval -0.080 to -0.010)."),
        (Encoding(arm="constant", against="looped", loops=1, difference=LESS, effect="better"),
         "Constant gates against the plain loop at 1 loop help (difference -0.400, 95 % interval -0.500 to -0.300)."),
        (Encoding(arm="timestep", against="constant", loops=8, difference=Interval(mean=3.7e-17, low=0.0, high=0.0),
                  effect="equal"),
         "Timestep encoding against constant gates at 8 loops makes no difference that matters (no difference)."),
        (Untied(arm="untied", loops=8, against=ONE, quality=GOOD, parameters_ratio=7.62, difference=LESS, effect="better"),
         "8 untied layers are better: 3.5 ± 0.02 with 7.6 times as many parameters as looped with 1 loop (difference "
         "-0.400, 95 % interval -0.500 to -0.300)."),
        (Alternative(candidate=Candidate(arm="elastic", loops=8), against=ONE, difference=None, effect="equal"),
         "One model for any loop count does as well, as far as can be told: elastic with 8 loops (no run in common)."),
        (Equivalence(exponent=0.456, low=0.2, high=0.71),
         "A loop is worth 0.46 on a scale from 0 (nothing) to 1 (a layer of its own), 95 % interval 0.20 to 0.71."),
        (Equivalence(exponent=None, low=None, high=None, reason="untied-gain-within-noise"),
         "What a loop is worth against a layer of its own cannot be said: layers of their own gain no more than the "
         "noise of the seeds."),
        (Rounding(candidate=MANY, change=Interval(mean=0.1, low=0.09, high=0.12), share=0.028, effect="worse", time_ratio=1.4),
         "int8 is worse by 2.8% (difference +0.100, 95 % interval +0.090 to +0.120); it takes 1.40x the time: slower here."),
        (Cost(**COST), "Timestep with 8 loops takes 1 MiB in the file, 4 MiB of memory and 4.2 ms a sample."),
        (Cost(**COST | {"fewest": 1, "time_ratio": 6.1, "int8_bytes": 2**19, "int8_seconds": 0.003, "untied_bytes": 2**23}),
         "Timestep with 8 loops takes 1 MiB in the file, 4 MiB of memory and 4.2 ms a sample, 6.10x the time of 1 loop; "
         "int8 512 KiB and 3 ms; without tying the file has 8 MiB."),
        (Stability(runs=9, diverged={"looped-r4": 2}, failed={"narrow-r8": 1}, no_int8={}),
         "2 of 9 runs diverged: looped with 4 loops 2. 1 of 9 runs failed: 8 narrow untied layers 1."),
        (NotConverged(runs=1, of=9, steps=200), "1 of 9 runs was still improving after 200 steps: train longer."),
        (NotConverged(runs=0, of=9, steps=200), ""),
        (Requirements(meets=MANY, nearest=None, model="int8", missed={}),
         "Timestep with 8 loops (int8) is the best that meets what was required."),
        (Requirements(meets=None, nearest=ONE, model="float", missed={"memory": (2**25, 2**24), "latency": (0.06, 0.05)}),
         "No model meets what was required; looped with 1 loop (float) comes nearest: memory 32 MiB instead of 16 MiB, "
         "latency 60 ms instead of 50 ms."),
        (NextStep(what="more-seeds", seeds=5, seconds=720, command="loopedge pilot --resume --seeds 8"),
         "Next: 5 more seeds may decide it, about 12 min: loopedge pilot --resume --seeds 8"),
        (NextStep(what="more-seeds", seeds=1), "Next: 1 more seed may decide it."),
    ],
)  # fmt: skip
def test_each_statement_is_a_sentence(statement: Statement, text: str) -> None:
    assert sentence(statement, NAMES) == text


@pytest.mark.parametrize(
    ("low", "high", "higher", "effect"),
    [
        (-0.5, -0.3, False, "better"),
        (-0.5, -0.3, True, "worse"),
        (-0.05, 0.06, False, "equal"),
        (0.01, 0.06, True, "equal"),
        (0.01, 0.2, True, "better"),
        (-0.1, 0.2, True, "undecided"),
        (None, None, True, "undecided"),
    ],
)
def test_an_effect_is_surely_small_or_on_one_side_or_open(
    low: float | None, high: float | None, higher: bool, effect: str
) -> None:
    difference = Interval(mean=0.0, low=low, high=high)
    assert effect_of(difference, 0.07, higher_is_better=higher) == effect
    assert effect_of(None, 0.07, higher_is_better=higher) == "undecided"
