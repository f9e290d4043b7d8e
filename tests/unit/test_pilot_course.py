"""The course of a pilot with runs that are made up: looks, origins, budget, what a stopped one leaves, time over calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loopedge
from loopedge.baselines.scores import BaselineScores
from loopedge.errors import InputError, InterruptedRunError, LoopedgeError
from loopedge.files.plain_json import dump_json
from loopedge.study.going_on import changed_command
from loopedge.study.runs.cell import cell_path
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loopedge.study.design import Cell
    from loopedge.study.result import PilotResult
    from loopedge.tasks.metrics import Metrics
    from loopedge.tasks.task import Task


@dataclass
class World:
    """Runs take ten seconds a loop on a clock that nothing else moves, and reach what is said of them."""

    quality: Callable[[Cell], float]
    now: float = 0.0
    made: list[str] = field(default_factory=list)
    stop_after: int | None = None
    slow: float = 1.0

    def clock(self) -> float:
        return self.now

    def run_cell(self, task: Task, cell: Cell, setup: Any) -> dict[str, Any]:
        if len(self.made) == self.stop_after:
            raise InterruptedRunError("interrupted")
        self.made.append(cell.name)
        self.now += 10.0 * cell.loops
        scores = {task.metric: self.quality(cell)}
        result = cell.to_json() | {
            "status": "done", "validation": scores, "test": scores, "int8": None, "int8_reason": "none", "baselines": {},
            "parameters": 10, "steps": 100, "best_step": 90, "train_seconds": 10.0 * cell.loops, "converged": True,
            "gradient_norm_max": 1.0, "stability": None,
        }  # fmt: skip
        path = cell_path(setup.folder, cell)
        path.parent.mkdir(parents=True)
        np.savez(path.with_name("samples.npz"))
        path.write_text(dump_json(result))
        return result

    def short_run(self, run: Any, task: Task, setup: Any) -> dict[str, Any]:
        self.now += self.slow * 10.0 * run.cell.loops * run.steps_share
        return {"status": "done", "validation": {task.metric: self.quality(run.cell)}}

    def train_seconds(self, task: Task, setup: Any) -> dict[tuple[str, int], float]:
        return {key: 10.0 * key[1] - 6.0 for key in setup.design.compared}  # 6 s come after it


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(quality=lambda cell: 0.5)

    def unprofiled(*given: Any) -> None:
        raise LoopedgeError("no model is there")

    def baselines(task: Task, samples: int) -> list[BaselineScores]:
        score: Metrics = {task.metric: 0.3 if task.higher_is_better else 9.0}
        return [BaselineScores(name="last value", validation=score, test=score)]

    monkeypatch.setattr("loopedge.study.runs.work.run_cell", made.run_cell)
    monkeypatch.setattr("loopedge.study.course.measure_cost", unprofiled)
    monkeypatch.setattr("loopedge.study.course.training_seconds", made.train_seconds)
    monkeypatch.setattr("loopedge.study.runs.plain_baselines.fair_baselines", baselines)
    monkeypatch.setattr("loopedge.study.pipeline.perf_counter", made.clock)
    monkeypatch.setattr("loopedge.study.pipeline.starting_seconds", lambda: 4.0)
    monkeypatch.setattr(
        "loopedge.study.runs.short_run.ShortRun.make",
        lambda run, task, setup: made.short_run(run, task, setup),
    )
    return made


def pilot(folder: Path, **options: Any) -> PilotResult:
    chosen = {"arms": ["looped"], "loops": [1, 2], "rates": [1e-3], **options}
    return loopedge.pilot(lambda seed: SortingTask(length=4, vocab=6, seed=seed), folder, **chosen)


def noisy(cell: Cell) -> float:
    """One loop and two that differ by seed alone: sometimes one, sometimes the other is better."""
    return 0.5 + 0.1 * ((cell.seed * 7 + cell.loops * 3) % 5 - 2)


def test_auto_makes_no_further_seeds_once_it_is_decided(world: World, tmp_path: Path) -> None:
    world.quality = lambda cell: 0.4 + 0.1 * cell.loops + 0.001 * cell.seed
    result = pilot(tmp_path / "p")
    assert [look["seeds"] for look in result.looks] == [3]
    assert result.looks[0]["choice"] == "accept"
    assert len(world.made) == 6
    assert (result.complete, result.made, result.planned) == (True, 6, 6)
    assert result.design["seeds"] == 3


@pytest.mark.slow
def test_auto_goes_on_while_it_is_open_and_a_resumed_one_keeps_its_looks(
    world: World, tmp_path: Path
) -> None:
    world.quality = noisy
    result = pilot(tmp_path / "p")
    seeds = [look["seeds"] for look in result.looks]
    assert seeds[:2] == [3, 5]
    assert len(world.made) == 2 * seeds[-1]
    again = pilot(tmp_path / "p", resume=True)
    assert len(world.made) == 2 * seeds[-1]  # nothing is made again
    assert again.looks[:-1] == result.looks[:-1]
    assert again.looks[-1]["seeds"] == seeds[-1]
    assert again.verdict.headline == result.verdict.headline


def test_a_stopped_pilot_leaves_what_it_has_and_its_time_adds_up(
    world: World, tmp_path: Path
) -> None:
    world.quality = lambda cell: 0.4 + 0.1 * cell.loops
    world.stop_after = 3
    with pytest.raises(InterruptedRunError):
        pilot(tmp_path / "p", seeds=3)
    left = json.loads((tmp_path / "p" / "results.json").read_text())
    assert (left["complete"], left["made"], left["planned"]) == (False, 3, 6)
    assert left["seconds"] == 40  # one loop, two loops, one loop
    assert [cell["name"] for cell in left["cells"]] == world.made
    assert left["verdict"]["outcome"] == "undecided"
    assert left["verdict"]["statements"][-1]["what"] == "go-on"
    world.stop_after = None
    world.now = 5000.0  # what passes between two calls does not count
    seen: list[bool] = []
    chosen: dict[str, Any] = {"seeds": 3, "resume": True}
    result = pilot(tmp_path / "p", write_report=lambda found: seen.append(found.complete), **chosen)
    assert result.seconds == 90  # three of one loop, three of two
    assert len(set(world.made)) == len(world.made) == 6
    assert seen[-1] is True
    assert not any(seen[:-1])


def test_baselines_are_fitted_once_for_each_block_that_differs_and_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []

    def fit(task: Task, samples: int) -> list[BaselineScores]:
        fitted.append(task.seed)
        tallies = {"test": {"hits": np.arange(4.0) + task.seed}}
        score: Metrics = {"accuracy": 0.1}
        return [BaselineScores(name="b", validation=score, test=score, tallies=tallies)]  # type: ignore[arg-type]

    monkeypatch.setattr("loopedge.study.runs.plain_baselines.fair_baselines", fit)
    result = pilot(tmp_path / "p", seeds=2)
    assert sorted(result.baselines) == ["s0", "s1"]
    pilot(tmp_path / "p", seeds=2, resume=True)
    assert fitted == [0, 1]  # each seed of a generated task is tested on samples of its own
    with np.load(tmp_path / "p" / "baselines" / "s1" / "samples0.npz") as kept:
        assert kept["test.hits"].tolist() == [1, 2, 3, 4]


def test_each_origin_is_a_block_of_its_own(world: World, tmp_path: Path) -> None:
    data = tmp_path / "y.csv"
    data.write_text("y\n" + "\n".join(str(row % 7 + row / 50) for row in range(120)) + "\n")
    world.quality = lambda cell: 3.0 - cell.loops + 0.1 * (cell.origin or 0)
    result = loopedge.pilot(
        lambda seed: SeriesTask.from_file(data, targets=["y"], context=6, horizon=2, seed=seed),
        tmp_path / "p",
        arms=["looped"],
        loops=[1, 2],
        rates=[1e-3],
        seeds=2,
        origins=3,
    )
    assert world.made[:3] == ["looped-r1-s0-o0", "looped-r2-s0-o0", "looped-r1-s0-o1"]
    assert len(world.made) == 2 * 2 * 3
    assert sorted(result.baselines) == ["s0-o0", "s0-o1", "s0-o2", "s1-o0", "s1-o1", "s1-o2"]
    kept = sorted(path.name for path in (tmp_path / "p" / "baselines").iterdir())
    assert kept == ["o0", "o1", "o2"]  # a seed changes no row of a table


def test_origins_are_of_a_forecast(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="origins is of a forecast, the task sorting has one"):
        pilot(tmp_path / "p", origins=2)
    assert not (tmp_path / "p").exists()


def test_a_budget_leaves_out_what_does_worst_and_is_kept(world: World, tmp_path: Path) -> None:
    world.quality = lambda cell: {1: 0.3, 2: 0.4, 4: 0.9, 8: 0.5}[cell.loops]
    # 3 seeds of 1, 2, 4 and 8 loops take 450 s, and measuring eleven models 88 s.
    result = pilot(tmp_path / "p", loops=[1, 2, 4, 8], seeds=3, budget=400)
    out = {(one["arm"], one["loops"]) for one in result.left_out}
    assert ("looped", 8) in out
    assert not out & {("looped", 1), ("looped", 4)}
    assert all(one["reason"] == "worse" and one["validation"] < 0.9 for one in result.left_out)
    assert {row.loops for row in result.summary} >= {1, 4}
    assert not {8} & {row.loops for row in result.summary}
    assert result.seconds <= 400
    assert result.design["seeds"] == 3


def test_a_short_run_that_is_lost_counts_as_the_worst(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.quality = lambda cell: cell.loops / 10
    whole = world.short_run

    def sometimes(run: Any, task: Task, setup: Any) -> dict[str, Any]:
        if run.cell.loops == 8:  # what a process that is killed leaves
            lost: dict[str, Any] = run.cell.to_json() | {"status": "failed", "reason": "killed"}
            return lost
        return whole(run, task, setup)

    monkeypatch.setattr(world, "short_run", sometimes)
    result = pilot(tmp_path / "p", loops=[1, 2, 4, 8], seeds=3, budget=400)
    first = result.left_out[0]
    assert (first["loops"], first["reason"], first["validation"]) == (8, "worse", None)


def test_short_runs_that_take_longer_than_expected_leave_time_for_a_report(
    world: World, tmp_path: Path
) -> None:
    world.quality = lambda cell: cell.loops / 10
    world.slow = 6.0
    result = pilot(tmp_path / "p", loops=[1, 2, 4, 8], seeds=3, budget=300)
    assert result.complete
    assert result.made >= 1
    assert result.seconds <= 300 + 80  # the longest run
    assert {one["reason"] for one in result.left_out} <= {"worse", "longest", "no-time"}


def test_a_budget_ends_with_whole_seeds(world: World, tmp_path: Path) -> None:
    # A seed takes 30 s, measuring five models 40 s: of five seeds three fit into 140 s.
    result = pilot(tmp_path / "p", seeds=5, budget=140)
    assert len(world.made) == 6
    (lost,) = result.left_out
    assert (lost["arm"], lost["runs"], lost["reason"]) == (None, 4, "no-time")
    assert (result.complete, result.made, result.planned) == (True, 6, 10)
    again = pilot(tmp_path / "p", seeds=5, budget=300, resume=True)
    assert len(world.made) == 10
    assert again.left_out == []


def test_a_budget_for_which_no_run_is_short_enough_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the budget leaves 10 s for runs, and one of each takes"):
        pilot(tmp_path / "p", seeds=3, budget=50)
    assert not (tmp_path / "p").exists()  # the same command with a larger budget begins anew


def test_a_run_whose_process_is_lost_is_a_failed_one_and_is_made_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(task: Task, cell: Cell, setup: Any) -> dict[str, Any]:
        return cell.to_json() | {"status": "failed", "reason": "killed", "gradient_norm_max": None}

    with monkeypatch.context() as patched:
        patched.setattr("loopedge.study.runs.work.run_cell", lost)
        result = pilot(tmp_path / "p", seeds=1)
    assert [cell["status"] for cell in result.cells] == ["failed", "failed"]
    assert result.verdict.statements[0].to_json()["why"] == "nothing-finished"
    again = pilot(tmp_path / "p", seeds=1, resume=True)
    assert [cell["status"] for cell in again.cells] == ["done", "done"]


def test_a_pilot_of_an_earlier_version_is_not_resumed(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    pilot(folder, seeds=1)
    stored = json.loads((folder / "design.json").read_text())
    del stored["format"]
    (folder / "design.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="a pilot of an earlier loopedge") as caught:
        pilot(folder, seeds=1, resume=True)
    assert "force=True" in str(caught.value.hint)


def test_rates_are_tried_once_for_each_model_before_the_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, float]] = []

    def attempt(trial: Any, task: Task, setup: Any, model: Path) -> dict[str, Any]:
        assert not world.made
        tried.append((trial.cell.loops, trial.rate))
        return {"status": "done", "validation": {"accuracy": 0.1 + trial.rate}}

    monkeypatch.setattr("loopedge.study.runs.learning_rate.Trial._attempt", attempt)
    notes: list[str] = []
    pilot(tmp_path / "p", seeds=1, rates=[1e-3, 2e-3], note=notes.append)
    assert tried == [(1, 1e-3), (1, 2e-3), (2, 1e-3), (2, 2e-3)]
    said = "learning rate 1 of 2: looped-r1: accuracy 0.101 at 0.001, 0.102 at 0.002"
    assert any(note.startswith(said) for note in notes)
    pilot(tmp_path / "p", seeds=2, rates=[1e-3, 2e-3], resume=True)
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("arms", "loops", "exponent"),
    [
        (["untied", "looped"], [1, 2], 0.5),
        (["elastic", "untied", "looped"], [1, 2], 0.5),
        (["untied", "looped"], [2, 4], None),  # the scale begins at one loop
        (["elastic", "untied"], [1, 2], None),
    ],
)
def test_what_a_loop_is_worth_is_measured_from_one_loop_of_the_plainest_arm(
    world: World, tmp_path: Path, arms: list[str], loops: list[int], exponent: float | None
) -> None:
    def quality(cell: Cell) -> float:
        gain = {"untied": 0.2, "elastic": 0.05, "looped": 0.1 * (cell.loops > 1)}
        return 0.5 + gain[cell.arm] + 0.001 * cell.seed

    world.quality = quality
    result = pilot(tmp_path / "p", arms=arms, loops=loops, seeds=3)
    said = result.verdict.statement("equivalence")
    found = None if said is None else said.to_json()["exponent"]
    assert found == (exponent if exponent is None else pytest.approx(exponent))


def test_the_command_that_goes_on_is_the_same_with_other_options() -> None:
    command = "loopedge pilot series 'my data.csv' --seeds=3 --lr 1e-3 --force -o out --margin 2%"
    assert changed_command(command, {"--seeds": "8"}) == (
        "loopedge pilot series 'my data.csv' --lr 1e-3 -o out --margin 2% --seeds 8 --resume"
    )
    assert changed_command(command, {"--origins": "3", "-o": "out_2"}, resume=False) == (
        "loopedge pilot series 'my data.csv' --seeds=3 --lr 1e-3 --margin 2% --origins 3 -o out_2"
    )
