"""What a pilot says of its runs: the decision, the baseline, loops, encodings, networks without a loop."""

from dataclasses import replace
from typing import Any

import pytest

from loopedge.study.judging.statements import Candidate, Decision, Statement
from loopedge.study.judging.verdict import Verdict, judge
from tests.unit.pilot_runs import Values, judged


def verdict_of(values: Values, **fields: Any) -> Verdict:
    return judged(values, **fields).verdict


def decision_of(verdict: Verdict) -> Decision:
    decision = verdict.statements[0]
    assert isinstance(decision, Decision)
    return decision


def of_kind(verdict: Verdict, kind: str) -> list[Any]:
    found: list[Statement] = [one for one in verdict.statements if one.kind == kind]
    return found


def test_more_loops_and_the_encoding_that_help_are_recommended() -> None:
    verdict = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 8): [7.0, 7.1, 6.9],
            ("timestep", 1): [9.0, 9.1, 8.9],
            ("timestep", 8): [5.0, 5.1, 4.9],
        }
    )
    assert verdict.outcome == "yes"
    assert verdict.headline == "Yes: timestep with 8 loops beats naive, and fewer loops are worse."
    assert verdict.recommended == {"arm": "timestep", "loops": 8}
    text = " ".join(verdict.sentences)
    assert (
        "Naive (rmse 10) is beaten: timestep with 8 loops reaches 5 ± 0.1 (difference -5.0" in text
    )
    assert "More loops help: 5 ± 0.1 at 8 loops, 9 ± 0.1 at 1 (difference -4.0" in text
    assert "Timestep encoding against the plain loop at 8 loops helps (difference -2.0" in text
    assert "None of 12 runs diverged." in text
    assert verdict.sentences[-1] == "Next: deploy it."


def test_one_loop_that_is_as_good_is_recommended() -> None:
    verdict = verdict_of(
        {
            ("looped", 1): [8.0, 8.1, 7.9],
            ("looped", 8): [7.95, 8.1, 7.9],
            ("timestep", 1): [8.0, 8.05, 7.9],
            ("timestep", 8): [7.9, 8.1, 7.95],
        }
    )
    assert verdict.headline == "No: one loop is as good as more, and beats naive."
    assert verdict.recommended == {"arm": "looped", "loops": 1}
    assert of_kind(verdict, "more-loops")[0].effect in ("equal", "undecided")


def test_seeds_that_cannot_tell_leave_it_undecided_and_say_how_many_may() -> None:
    verdict = verdict_of(
        {("looped", 1): [8.0, 8.6, 7.3], ("looped", 8): [7.8, 7.9, 7.5]}, margin=0.3
    )
    assert verdict.outcome == "undecided"
    assert verdict.recommended is None
    assert (
        verdict.headline
        == "Undecided: 3 runs of each model cannot tell whether 1 loop is as good as 8."
    )
    (step,) = of_kind(verdict, "next-step")
    assert step.what in ("more-seeds", "wider-margin")


def test_a_baseline_that_is_better_than_every_model_is_named_first() -> None:
    verdict = verdict_of({("looped", 1): [12.0, 12.1, 12.2], ("looped", 4): [11.0, 11.1, 11.2]})
    assert verdict.headline == "No: naive is better than looped with 4 loops."
    assert verdict.recommended is None
    assert "Naive (rmse 10) is not beaten" in " ".join(verdict.sentences)
    assert verdict.sentences[-1].startswith("Next: take the baseline")


def test_a_baseline_within_the_margin_is_as_good() -> None:
    verdict = verdict_of(
        {("looped", 1): [12.0, 12.01, 12.02], ("looped", 4): [9.95, 9.96, 9.94]}, margin=0.2
    )
    assert verdict.headline == "No: naive is as good as looped with 4 loops."
    assert verdict.recommended is None


def test_noise_that_hides_the_difference_to_the_baseline_is_undecided() -> None:
    verdict = verdict_of({("looped", 4): [9.0, 7.0, 13.0]})
    assert verdict.outcome == "undecided"
    assert "It is not shown that naive (rmse 10) is beaten" in " ".join(verdict.sentences)
    assert (
        verdict.headline
        == "Undecided: looped with 4 loops is ahead of naive, but 3 runs of each model are too few to be sure."
    )


def test_where_more_is_better_the_signs_turn() -> None:
    values: Values = {("looped", 1): [0.5, 0.51, 0.52], ("looped", 4): [0.4, 0.41, 0.42]}
    verdict = verdict_of(values, baseline=0.3, higher_is_better=True, margin=0.02)
    assert verdict.baseline is not None
    assert (verdict.baseline["name"], verdict.baseline["value"]) == ("naive", pytest.approx(0.3))
    assert verdict.recommended == {"arm": "looped", "loops": 1}
    assert of_kind(verdict, "more-loops")[0].effect == "worse"


def test_few_seeds_give_no_verdict() -> None:
    verdict = verdict_of({("looped", 1): [9.0, 9.1], ("looped", 8): [5.0, 5.1]})
    assert verdict.headline == "Undecided: a verdict needs 3 runs of each model, 2 were made."
    assert verdict.recommended is None
    assert of_kind(verdict, "next-step")[0].seeds == 1


def test_diverged_runs_are_counted_and_their_models_left_out() -> None:
    verdict = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 2): [9.0, 9.1, 8.9],
            ("timestep", 1): [None, 8.0, None],
        }
    )
    assert verdict.recommended == {"arm": "looped", "loops": 1}
    assert "2 of 9 runs diverged: timestep with 1 loop 2." in verdict.sentences
    lost = verdict_of({("looped", 1): [None, None, None]}, baseline=None)
    assert lost.headline == "Undecided: no looped model finished all its runs."
    assert lost.recommended is None
    assert lost.sentences[-1].startswith("Next: see why the runs ended")


def test_a_network_without_a_loop_that_is_better_is_in_the_first_sentence() -> None:
    verdict = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 4): [7.0, 7.1, 6.9],
            ("untied", 4): [1.0, 1.1, 0.9],
        }
    )
    assert verdict.recommended == {"arm": "looped", "loops": 4}
    assert verdict.headline == (
        "Yes: looped with 4 loops beats naive, and fewer loops are worse. "
        "4 untied layers are better still, with 4.0 times as many parameters."
    )
    narrow = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 4): [7.0, 7.1, 6.9],
            ("narrow", 4): [1.0, 1.1, 0.9],
        }
    )
    assert narrow.headline == "No: 4 narrow untied layers are better, with as many parameters."
    assert narrow.recommended is None


def test_the_encoding_is_held_against_its_fair_control_first() -> None:
    verdict = verdict_of(
        {
            ("looped", 2): [5.0, 5.1, 5.2],
            ("constant", 2): [7.0, 7.1, 7.2],
            ("timestep", 2): [6.0, 6.1, 6.2],
        }
    )
    facts = [(one.arm, one.against, one.effect) for one in of_kind(verdict, "encoding")]
    assert facts == [
        ("timestep", "constant", "better"),
        ("timestep", "looped", "worse"),
        ("constant", "looped", "worse"),
    ]


def test_an_arm_that_lost_a_seed_is_neither_best_nor_recommended() -> None:
    verdict = verdict_of({("looped", 2): [5.0, 5.1, 5.2], ("timestep", 2): [1.0, None, None]})
    assert decision_of(verdict).best == Candidate(arm="looped", loops=2)
    assert verdict.recommended == {"arm": "looped", "loops": 2}
    assert verdict.headline == "Yes: looped with 2 loops beats naive."


def test_one_loop_alone_says_nothing_of_more() -> None:
    verdict = verdict_of({("looped", 1): [5.0, 5.1, 5.2], ("timestep", 1): [5.0, 5.2, 5.1]})
    assert verdict.headline == "Undecided: one loop alone was made, which says nothing of more."
    assert verdict.sentences[-1] == "Next: compare more loop counts."


def test_splits_that_disagree_are_undecided() -> None:
    verdict = verdict_of(
        {("looped", 1): [9.0, 9.1, 9.2], ("looped", 4): [4.0, 4.1, 4.2]},
        validation={("looped", 1): [5.0, 5.1, 5.2], ("looped", 4): [9.0, 9.1, 9.2]},
    )
    assert decision_of(verdict).why == "splits"
    assert verdict.recommended is None
    assert "validation and test split disagree" in verdict.headline


def test_the_elastic_model_is_named_and_not_recommended() -> None:
    verdict = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 4): [7.0, 7.1, 6.9],
            ("elastic", 4): [6.0, 6.1, 5.9],
        }
    )
    assert verdict.recommended == {"arm": "looped", "loops": 4}
    (one,) = of_kind(verdict, "alternative")
    assert (one.candidate, one.effect) == (Candidate(arm="elastic", loops=4), "better")
    worse = verdict_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 4): [7.0, 7.1, 6.9],
            ("elastic", 4): [8.0, 8.1, 7.9],
        }
    )
    assert not of_kind(worse, "alternative")


@pytest.mark.parametrize(("fastest", "said"), [(5.0, " on a machine that was busy."), (9.0, ".")])
def test_a_cost_that_was_measured_on_a_busy_machine_says_so(fastest: float, said: str) -> None:
    found = judged({("looped", 4): [4.0, 4.1, 4.2]})
    cost = {
        "file_bytes": 2**20,
        "rss_peak_bytes": 2**22,
        "time_ratio": 1.0,
        "latency_ms": {"p50": 10.0, "min": fastest},
    }
    verdict = judge(
        [replace(found.summary[0], cost={"float": cost})],
        metric="rmse",
        higher_is_better=False,
        margin=found.margin,
        baseline=found.baseline,
        claims=found.claims,
    )
    (sentence,) = [text for text in verdict.sentences if "in the file" in text]
    assert (
        sentence
        == f"Looped with 4 loops takes 1 MiB in the file, 4 MiB of memory and 10 ms a sample{said}"
    )


def test_the_verdict_in_json_has_its_words_and_its_facts() -> None:
    verdict = verdict_of({("looped", 1): [9.0, 9.1, 8.9], ("looped", 4): [7.0, 7.1, 6.9]})
    plain = verdict.to_json()
    assert plain["outcome"] == "yes"
    assert plain["headline"] == verdict.headline
    assert plain["statements"][0]["kind"] == "decision"
    assert plain["statements"][0]["chosen"] == {"arm": "looped", "loops": 4}
    assert plain["choice"]["counts"]["1"] < 0.2
    assert plain["claims"]["differences"]["looped-r4"]["counts"] is True
    assert plain["margin"] == {"value": 0.2, "text": "0.2", "of": ""}
