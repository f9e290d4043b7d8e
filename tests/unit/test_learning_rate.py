"""The learning rate of an arm: tried with an equal budget, chosen on the validation split, kept beside the runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from loopedge.errors import DivergedError, InputError
from loopedge.study.design import Cell, make_design
from loopedge.study.options import PilotOptions
from loopedge.study.runs import learning_rate
from loopedge.study.runs.cell import read_cell, run_cell
from loopedge.study.runs.learning_rate import (
    SHARE,
    RateChoice,
    Trial,
    best_rate,
    choose_rate,
    rate_notes,
    trial_steps,
    trials_of,
)
from loopedge.study.runs.samples import read_samples
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.trainer.pipeline import train

TASK = SortingTask(length=4, vocab=6)
MODEL = {"d_model": 16, "heads": 2}
TRAIN = {"steps": 80, "batch_size": 4, "samples": 32, "evaluate_every": 10}


def setup_of(folder: Path, **keywords: Any) -> RunSetup:
    options: dict[str, Any] = {"arms": ["looped", "untied"], "loops": [1, 2]}
    options |= {"rates": [1e-3, 4e-3], "model": MODEL, "train": TRAIN} | keywords
    design = make_design(TASK, PilotOptions(**options))
    return RunSetup(design=design, folder=folder, threads=1)


def test_the_best_rate_wins_by_the_direction_of_the_metric() -> None:
    values = {1e-3: 5.0, 2e-3: 3.0, 4e-3: 4.0}
    assert best_rate(values, higher_is_better=False) == RateChoice(
        rate=2e-3, tried={"0.001": 5.0, "0.002": 3.0, "0.004": 4.0}, at_edge=False
    )
    assert best_rate(values, higher_is_better=True).rate == 1e-3
    assert best_rate(values, higher_is_better=True).at_edge
    assert best_rate({1e-3: 2.0, 2e-3: 2.0}, higher_is_better=False).rate == 1e-3


def test_rates_that_diverged_are_counted_and_not_taken() -> None:
    found = best_rate({1e-3: 5.0, 2e-3: math.nan, 4e-3: math.inf}, higher_is_better=False)
    assert (found.rate, found.tried) == (1e-3, {"0.001": 5.0, "0.002": None, "0.004": None})
    assert best_rate({2e-3: math.nan, 1e-3: math.nan}, higher_is_better=True).rate == 1e-3


def test_rates_at_the_edge_and_diverged_ones_are_noted_once_per_model() -> None:
    def cell(arm: str, rate: float, tried: dict[str, float | None]) -> dict[str, Any]:
        return {"arm": arm, "loops": 1, "rate": rate, "rates_tried": tried}

    tried: dict[str, float | None] = {"0.001": 3.0, "0.002": 2.0, "0.004": 1.0}
    cells = [
        cell("looped", 0.004, tried),
        cell("looped", 0.004, tried),  # another seed
        cell("timestep", 0.002, {**tried, "0.002": 0.5, "0.004": None}),
    ]
    assert rate_notes(cells) == [
        "the highest learning rate that was tried is the best for 1 of 2 models: "
        "rates=[0.001, 0.002, 0.004, 0.008] tries one more",
        "1 of 6 trials of learning rates diverged",
    ]
    (lowest,) = rate_notes([cell("looped", 0.001, tried)])
    assert lowest.endswith("rates=[0.0005, 0.001, 0.002, 0.004] tries one more")
    assert rate_notes([{"arm": "looped", "loops": 1, "rate": 1e-3, "rates_tried": None}]) == []


def test_every_arm_and_loop_count_tries_every_rate_with_the_first_seed(tmp_path: Path) -> None:
    design = setup_of(tmp_path, seeds=3, first_seed=5).design
    trials = trials_of(design)
    assert [trial.name for trial in trials] == [
        f"{arm}-lr{rate}"
        for arm in ("looped-r1", "looped-r2", "untied-r2")
        for rate in ("0.001", "0.004")
    ]
    assert {(trial.cell.seed, trial.cell.origin) for trial in trials} == {(5, None)}
    rolled = setup_of(tmp_path, origins=3).design
    assert {trial.cell.origin for trial in trials_of(rolled)} == {
        0
    }  # what later ones test is not seen


def test_one_rate_and_a_named_one_try_nothing(tmp_path: Path) -> None:
    cell = Cell(arm="looped", loops=1, seed=0)
    one = setup_of(tmp_path, rates=[3e-3])
    assert trials_of(one.design) == []
    assert choose_rate(TASK, cell, one) == RateChoice(rate=3e-3)
    named = setup_of(tmp_path, train={**TRAIN, "lr": 7e-4})
    assert trials_of(named.design) == []
    assert choose_rate(TASK, cell, named) == RateChoice(rate=None)
    assert named.design.train_config(cell, None).lr == 7e-4
    assert not (tmp_path / "runs").exists()


def test_a_trial_is_a_short_run_with_a_schedule_of_its_own(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    trial = trials_of(setup.design)[1]
    assert trial.read(tmp_path) is None
    found = trial.make(TASK, setup)
    steps = trial_steps(80)
    assert (found["steps"], found["rate"], found["status"]) == (steps, 4e-3, "done")
    assert steps == max(20, round(SHARE * 80))
    config = setup.design.train_config(trial.cell, 4e-3).model_copy(update={"steps": steps})
    model = setup.design.model_config(TASK, trial.cell)
    alone = train(TASK, model, config, tmp_path / "alone.pt", threads=1)
    assert found["validation"] == pytest.approx(alone.validation)
    assert trial.read(tmp_path) == found
    assert [path.name for path in (tmp_path / "runs" / "rates").iterdir()] == [
        "looped-r1-lr0.004.json"
    ]


def test_the_choice_reads_what_is_there_and_makes_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, cell = setup_of(tmp_path), Cell(arm="looped", loops=2, seed=2)
    made = []
    real = Trial._attempt

    def attempt(trial: Trial, *arguments: Any) -> dict[str, Any]:
        made.append(trial.name)
        return real(trial, *arguments)

    monkeypatch.setattr(Trial, "_attempt", attempt)
    first = choose_rate(TASK, cell, setup)
    assert made == ["looped-r2-lr0.001", "looped-r2-lr0.004"]
    assert first.tried is not None
    assert all(value is not None for value in first.tried.values())
    assert choose_rate(TASK, cell, setup) == first
    assert len(made) == 2
    reached = {value or 0.0: float(rate) for rate, value in reversed(first.tried.items())}
    assert first.rate == pytest.approx(reached[max(reached)])  # accuracy; of equal ones the lowest


def test_a_rate_that_diverges_is_written_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, cell = setup_of(tmp_path), Cell(arm="looped", loops=1, seed=0)
    real = train

    def diverging(task: Any, model: Any, config: Any, *arguments: Any, **more: Any) -> Any:
        if config.lr == 4e-3:
            raise DivergedError("training diverged at step 3")
        return real(task, model, config, *arguments, **more)

    monkeypatch.setattr(learning_rate, "train", diverging)
    found = choose_rate(TASK, cell, setup)
    assert found.rate == 1e-3
    assert found.tried is not None
    assert found.tried["0.004"] is None
    written = json.loads((tmp_path / "runs" / "rates" / "looped-r1-lr0.004.json").read_text())
    assert (written["status"], written["reason"]) == ("diverged", "training diverged at step 3")


def test_a_damaged_trial_says_how_to_go_on(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    path = tmp_path / "runs" / "rates" / "looped-r1-lr0.001.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "x"}')
    with pytest.raises(InputError, match="is not the result of a trial") as caught:
        choose_rate(TASK, Cell(arm="looped", loops=1, seed=0), setup)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"rm {path}")


@pytest.mark.slow
def test_a_run_takes_the_chosen_rate_and_leaves_its_samples_and_depths(tmp_path: Path) -> None:
    setup, cell = setup_of(tmp_path), Cell(arm="looped", loops=2, seed=0)
    result = run_cell(TASK, cell, setup)
    choice = choose_rate(TASK, cell, setup)
    assert (result["rate"], result["rates_tried"]) == (choice.rate, choice.tried)
    lines = (tmp_path / "runs" / cell.name / "model.metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["lr"] for line in lines) <= result["rate"]
    assert list(result["depths"]) == ["1", "2", "3", "4"]
    assert result["depths"]["2"]["test"] == pytest.approx(result["test"])
    assert isinstance(result["converged"], bool)
    assert result["stopped_early"] is False
    samples = tmp_path / "runs" / cell.name / "samples.npz"
    found = read_samples(samples)
    for split in ("validation", "test"):
        assert TASK.metrics(weighted_total(found[split])) == pytest.approx(result[split])
    assert read_cell(tmp_path, cell) == json.loads((samples.parent / "cell.json").read_text())
    samples.unlink()
    assert read_cell(tmp_path, cell) is None  # made again when the pilot is resumed


@pytest.mark.slow
def test_untied_arms_try_rates_and_have_no_depths(tmp_path: Path) -> None:
    setup, cell = setup_of(tmp_path), Cell(arm="untied", loops=2, seed=0)
    result = run_cell(TASK, cell, setup)
    assert set(result["rates_tried"]) == {"0.001", "0.004"}
    assert (result["depths"], result["early_exit"]) == (None, None)
    assert set(read_samples(tmp_path / "runs" / cell.name / "samples.npz")) == {
        "validation",
        "test",
    }
