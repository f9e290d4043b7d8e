"""The pilot's statistics and its verdict: what counts, what is recommended, what is said first."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from loopedge.errors import InputError
from loopedge.study.design import Cell, Design, make_design
from loopedge.study.judging.statistics import interval_of, over_seeds, student_quantile
from loopedge.study.judging.summary import Summary, baseline_values, summarise
from loopedge.study.judging.verdict import judge
from loopedge.study.options import ARMS, PilotKeywords, PilotOptions
from loopedge.tasks.generated.sorting import SortingTask

TASK = SortingTask(length=4, vocab=6)
MODEL, TRAIN = {"d_model": 16, "heads": 2}, {"steps": 4, "batch_size": 4}
ERRORS = ("naive", {f"s{seed}": 10.0 for seed in range(9)})


@pytest.mark.parametrize(
    ("seeds", "quantile"), [(2, 12.706), (5, 2.776), (30, 2.045), (31, 2.042), (100, 1.984)]
)
def test_the_quantiles_are_those_that_tables_of_students_t_print(
    seeds: int, quantile: float
) -> None:
    assert student_quantile(seeds) == pytest.approx(quantile, abs=5e-4)


def test_an_interval_of_a_hundred_seeds() -> None:
    found = interval_of([float(number % 2) for number in range(100)])
    assert found is not None
    assert found.low is not None
    # half, and 1.984 standard errors of a deviation of sqrt(25 / 99)
    assert found.low == pytest.approx(0.5 - 1.984 * math.sqrt(25 / 99) / 10, abs=1e-4)
    assert found.excludes_zero


def test_an_interval_needs_three_values() -> None:
    assert interval_of([]) is None
    two = interval_of([1.0, 2.0])
    assert two is not None
    assert (two.mean, two.low, two.high, two.excludes_zero) == (1.5, None, None, False)
    three = interval_of([1.0, 2.0, 3.0])
    assert three is not None
    half = 4.3026527 / math.sqrt(3)
    assert three.low == pytest.approx(2 - half)
    assert three.high == pytest.approx(2 + half)
    assert not three.excludes_zero
    equal = interval_of([1.0, 1.0, 1.0])
    assert equal is not None
    assert equal.excludes_zero
    assert interval_of([-2.0, -2.1, -1.9]).excludes_zero  # type: ignore[union-attr]


def test_a_mean_leaves_out_what_is_no_number() -> None:
    over = over_seeds([1.0, math.nan, 3.0, math.inf])
    assert over is not None
    assert (over.mean, over.values) == (2.0, [1.0, 3.0])
    assert over_seeds([math.nan]) is None
    assert over_seeds([5.0]).sd is None  # type: ignore[union-attr]


def cells_of(values: dict[tuple[str, int], list[float | None]], metric: str = "rmse") -> list[Any]:
    """Return results of runs by arm and loops; None stands for a run that diverged."""
    cells = []
    for (arm, loops), scores in values.items():
        for seed, score in enumerate(scores):
            cell: dict[str, Any] = {
                "name": Cell(arm=arm, loops=loops, seed=seed).name,
                "arm": arm,
                "loops": loops,
                "seed": seed,
                "gradient_norm_max": 2.0,
            }
            if score is None:
                cell |= {"status": "diverged", "reason": "loss nan"}
            else:
                cell |= {
                    "status": "done",
                    "test": {metric: score},
                    "validation": {metric: score},
                    "int8": {metric: score},
                    "int8_reason": None,
                    "parameters": 100 * (loops if arm == "untied" else 1),
                    "stability": {"relative_update": [0.5] * loops},
                }
            cells.append(cell)
    return cells


def designed(**keywords: Any) -> Design:
    return make_design(TASK, PilotOptions(model=MODEL, train=TRAIN, **keywords))


def rows_of(
    values: dict[tuple[str, int], list[float | None]], *, higher_is_better: bool = False
) -> list[Summary]:
    arms = tuple(dict.fromkeys(arm for arm, _ in values))
    design = designed(
        arms=arms,
        loops=sorted({loops for _, loops in values}),
        seeds=len(next(iter(values.values()))),
    )
    baseline = {f"s{seed}": 0.3 if higher_is_better else 10.0 for seed in range(9)}
    return summarise(design, cells_of(values), {}, "rmse", baseline)


def test_more_loops_and_the_encoding_that_help_are_recommended() -> None:
    rows = rows_of(
        {
            ("looped", 1): [9.0, 9.1, 8.9],
            ("looped", 8): [7.0, 7.1, 6.9],
            ("timestep", 1): [9.0, 9.1, 8.9],
            ("timestep", 8): [5.0, 5.1, 4.9],
        }
    )
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert verdict.headline.startswith("The baseline naive (10) is beaten: timestep with 8 loops")
    assert verdict.recommended == {"arm": "timestep", "loops": 8}
    text = " ".join(verdict.sentences)
    assert "More loops helped: rmse 5 ± 0.1 at 8 loops against 9 ± 0.1 at 1 loop" in text
    assert "Timestep encoding helped against the plain loop at 8 loops (difference -2," in text
    assert "None of 12 runs diverged." in text


def test_the_cheapest_that_is_not_worse_is_recommended() -> None:
    rows = rows_of(
        {
            ("looped", 1): [8.0, 8.5, 7.5],
            ("looped", 8): [7.9, 8.6, 7.4],
            ("timestep", 1): [8.0, 8.4, 7.6],
            ("timestep", 8): [7.8, 8.5, 7.5],
        }
    )
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert verdict.recommended == {"arm": "looped", "loops": 1}
    assert any("no difference beyond the noise of the seeds" in s for s in verdict.sentences)
    assert any("not worse than timestep with 8 loops" in s for s in verdict.sentences)


def test_a_baseline_that_wins_is_reported_first_and_nothing_is_recommended() -> None:
    rows = rows_of({("looped", 1): [12.0, 12.1, 12.2], ("looped", 4): [11.0, 11.1, 11.2]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert verdict.headline.startswith("The baseline naive (10) is not beaten: looped with 4 loops")
    assert verdict.recommended is None
    noisy = rows_of({("looped", 1): [9.0, 7.0, 13.0]})
    judged = judge(noisy, ERRORS, "rmse", higher_is_better=False)
    assert "is beaten on average alone" in judged.headline
    assert judged.recommended is None


def test_where_more_is_better_the_signs_turn() -> None:
    values: dict[tuple[str, int], list[float | None]] = {
        ("looped", 1): [0.5, 0.51, 0.52],
        ("looped", 4): [0.4, 0.41, 0.42],
    }
    baseline = ("most_frequent", dict.fromkeys(("s0", "s1", "s2"), 0.3))
    verdict = judge(rows_of(values, higher_is_better=True), baseline, "rmse", higher_is_better=True)
    assert verdict.baseline == {"name": "most_frequent", "value": pytest.approx(0.3)}
    assert verdict.recommended == {"arm": "looped", "loops": 1}
    assert any(s.startswith("More loops made it worse") for s in verdict.sentences)


def test_few_seeds_give_no_verdict() -> None:
    rows = rows_of({("looped", 1): [9.0, 9.1], ("looped", 8): [5.0, 5.1]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert "No verdict: at least 3 seeds are needed" in verdict.headline
    assert verdict.recommended is None
    assert any("no verdict on fewer than 3 seeds" in s for s in verdict.sentences)


def test_diverged_runs_are_counted_and_left_out() -> None:
    rows = rows_of({("looped", 1): [9.0, 9.1, 8.9], ("timestep", 1): [None, 8.0, None]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert any("2 of 6 runs diverged: timestep with 1 loop 2." in s for s in verdict.sentences)
    lost = rows_of({("looped", 1): [None, None, None]})
    judged = judge(lost, None, "rmse", higher_is_better=False)
    assert judged.headline == "No run of a looped model was finished: there is nothing to compare."
    assert judged.recommended is None


def test_pairs_are_those_of_one_seed() -> None:
    rows = rows_of({("looped", 1): [1.0, None, 3.0, 4.0], ("looped", 2): [2.0, 9.0, 4.0, 5.0]})
    change = rows[1].against_fewest
    assert change is not None
    assert (change.mean, change.low, change.high) == (1.0, 1.0, 1.0)


def test_the_untied_stack_is_reported_and_never_recommended() -> None:
    rows = rows_of({("looped", 4): [9.0, 9.1, 8.9], ("untied", 4): [1.0, 1.1, 0.9]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert verdict.recommended == {"arm": "looped", "loops": 4}
    assert any("4 untied layers reach rmse 1 ± 0.1 with 4.0 times" in s for s in verdict.sentences)


def test_the_encoding_is_held_against_its_fair_control_first() -> None:
    rows = rows_of(
        {
            ("looped", 2): [5.0, 5.1, 5.2],
            ("constant", 2): [7.0, 7.1, 7.2],
            ("timestep", 2): [6.0, 6.1, 6.2],
        }
    )
    sentences = judge(rows, ERRORS, "rmse", higher_is_better=False).sentences
    assert any(s.startswith("Timestep encoding helped against constant gates") for s in sentences)
    assert any(
        s.startswith("Timestep encoding made it worse against the plain loop") for s in sentences
    )
    assert any(
        s.startswith("Constant gates made it worse against the plain loop") for s in sentences
    )


def test_a_noisy_model_is_not_recommended_for_its_noise() -> None:
    rows = rows_of({("looped", 1): [1.0, 30.0, 9.0], ("looped", 4): [1.0, 1.01, 1.02]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert verdict.recommended == {"arm": "looped", "loops": 4}


def test_an_arm_that_lost_a_seed_is_neither_best_nor_recommended() -> None:
    rows = rows_of({("looped", 1): [5.0, 5.1, 5.2], ("timestep", 1): [1.0, None, None]})
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert "looped with 1 loop reaches" in verdict.headline
    assert verdict.recommended == {"arm": "looped", "loops": 1}


def test_the_best_is_chosen_on_the_validation_split() -> None:
    cells = cells_of({("looped", 1): [5.0, 5.1, 5.2], ("looped", 4): [4.0, 4.1, 4.2]})
    for cell in cells:
        cell["validation"] = {"rmse": 2.0 + cell["loops"] + 0.01 * cell["seed"]}
    design = designed(arms=["looped"], loops=[1, 4], seeds=3)
    rows = summarise(design, cells, {}, "rmse", ERRORS[1])
    verdict = judge(rows, ERRORS, "rmse", higher_is_better=False)
    assert "looped with 1 loop reaches rmse 5.1" in verdict.headline


def test_past_the_best_count_a_decline_is_reported() -> None:
    rows = rows_of(
        {("looped", r): [x, x + 0.1, x + 0.2] for r, x in ((1, 3.0), (4, 1.0), (8, 5.0))}
    )
    text = " ".join(judge(rows, ERRORS, "rmse", higher_is_better=False).sentences)
    assert "More loops helped: rmse 1.1 ± 0.1 at 4 loops against 3.1 ± 0.1 at 1 loop" in text
    assert "Past 4 loops it gets worse: 5.1 ± 0.1 at 8 loops" in text


def test_the_baseline_is_the_best_by_its_mean_and_reported_by_seed() -> None:
    cells = [
        {
            "seed": seed,
            "baselines": {"a": {"rmse": 1.0 + seed}, "b": {"rmse": None}, "c": {"rmse": 9}},
        }
        for seed in range(2)
    ]
    assert baseline_values(cells, "rmse", higher_is_better=False) == ("a", {"s0": 1.0, "s1": 2.0})
    assert baseline_values(cells, "rmse", higher_is_better=True) == ("c", {"s0": 9, "s1": 9})
    assert baseline_values([{"seed": 0}], "rmse", higher_is_better=True) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ["looped", "magic"]}, "arm 'magic' is not known"),
        ({"arms": ["looped", "looped"]}, "each must be named once"),
        ({"arms": []}, "arms none"),
        ({"arms": ["untied"]}, "there is no looped model to compare with"),
        ({"loops": [0, 1]}, "loops 0,1: different counts from 1"),
        ({"loops": [2, 2]}, "loops 2,2"),
        ({"seeds": 0}, "seeds is 0, at least 1 is needed"),
        ({"seeds": 400}, "the pilot has 2400 runs, at most 1000 are made"),
        ({"jobs": 0}, "jobs is 0, at least 1 is needed"),
        ({"model": {"d_model": 30, "heads": 4}}, "not a multiple of heads"),
        ({"train": {"lr": -1.0}}, "lr is -1"),
        ({"loops": range(1, 200)}, "at most 1000 are made"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_first_run(
    change: dict[str, Any], words: str
) -> None:
    options: dict[str, Any] = {"loops": [1, 2], "model": MODEL, "train": TRAIN}
    with pytest.raises(InputError, match=words):
        make_design(TASK, PilotOptions(**{**options, **change}))


def test_all_runs_share_everything_but_arm_loops_and_seed() -> None:
    design = designed(arms=["constant", "untied"], loops=[4, 2], seeds=2)
    assert [cell.name for cell in design.cells][:3] == [
        "constant-r2-s0",
        "constant-r4-s0",
        "untied-r4-s0",
    ]
    tied = design.model_config(TASK, Cell(arm="constant", loops=4, seed=1))
    assert (tied.timestep, tied.loops, tied.layers) == ("constant", 4, 1)
    untied = design.model_config(TASK, Cell(arm="untied", loops=4, seed=1))
    assert (untied.timestep, untied.loops, untied.layers) == ("none", 1, 4)
    assert design.train_config(Cell(arm="untied", loops=4, seed=7)).seed == 7


def test_more_seeds_than_printed_tables_have_are_designed() -> None:
    assert len(designed(arms=["looped"], loops=[1], seeds=100).cells) == 100


def test_keywords_of_a_pilot_are_its_options() -> None:
    assert get_type_hints(PilotKeywords) == get_type_hints(PilotOptions)


def test_runs_that_the_best_lost_are_in_the_headline() -> None:
    rows = rows_of({("looped", 1): [5.0, None, 5.2], ("looped", 4): [4.0, 4.1, None]})
    headline = judge(rows, ERRORS, "rmse", higher_is_better=False).headline
    assert "looped with 4 loops reaches rmse 4.05 ± 0.071 in 2 of 3 runs (1 diverged)" in headline
    whole = rows_of({("looped", 4): [4.0, 4.1, 4.2]})
    assert "runs" not in judge(whole, ERRORS, "rmse", higher_is_better=False).headline


@pytest.mark.parametrize(("fastest", "said"), [(5.0, " on a machine that was busy."), (9.0, ".")])
def test_a_cost_that_was_measured_on_a_busy_machine_says_so(fastest: float, said: str) -> None:
    (row,) = rows_of({("looped", 4): [4.0, 4.1, 4.2]})
    cost = {"file_bytes": 2**20, "time_ratio": 1.0, "latency_ms": {"p50": 10.0, "min": fastest}}
    verdict = judge([replace(row, cost={"float": cost})], ERRORS, "rmse", higher_is_better=False)
    (sentence,) = [text for text in verdict.sentences if "in the file" in text]
    assert sentence == f"looped with 4 loops takes 1 MiB in the file and 10 ms a sample{said}"


WITHOUT_SCIPY = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

sys.meta_path.insert(0, Missing())
import loopedge

try:
    loopedge.pilot
except loopedge.errors.MissingExtraError as error:
    print(error.message, error.hint, sep="; ")
from loopedge_cli.app import run

sys.argv = ["loopedge", "pilot", "sorting"]
sys.exit(run())
"""


@pytest.mark.slow
def test_without_scipy_a_pilot_names_the_extra(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WITHOUT_SCIPY]
    found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (
        found.stdout
        == "loopedge.pilot needs the extra 'train'; in a clone of loopedge: pip install -c constraints.txt -e '.[train]'\n"
    )
    assert found.returncode == 2
    assert found.stderr == (
        "error: this command needs the extra 'train'\nhint: in a clone of loopedge: pip install -c constraints.txt -e '.[train]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_hint_of_an_unknown_arm_lists_the_arms() -> None:
    with pytest.raises(InputError) as caught:
        PilotOptions(arms=["magic"])
    assert caught.value.hint == f"arms={tuple(ARMS)}"
