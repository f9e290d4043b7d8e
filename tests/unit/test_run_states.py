"""What stands beside the target while a run goes on, and what is left of it however the run ends."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopedge.errors import DiskFullError, DivergedError, InputError, InterruptedRunError
from loopedge.model.checkpoint import load_checkpoint, save
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.task import Batch, Split, Task
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.logs import RunLog
from loopedge.trainer.loop import TrainingLoop
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.stability import measure_stability
from loopedge.trainer.steps.distillation import load_teacher
from loopedge.trainer.steps.step import Step, Stepper

TASK = SortingTask(length=4, vocab=6)


class Stopped(SortingTask):
    """Sends SIGTERM while the batch of a step is drawn."""

    def __init__(self, step: int) -> None:
        super().__init__(length=4, vocab=6)
        self.step = step

    def batch(self, split: Split, size: int, step: int) -> Batch:
        if split == "train" and step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(split, size, step)


def run(target: Path, task: Task = TASK, **options: Any) -> TrainResult:
    names = ("resume", "force", "teacher", "tensorboard")
    verbs = {name: options.pop(name) for name in names if name in options}
    config = {"steps": 12, "batch_size": 8, "samples": 64, "evaluate_every": 4, **options}
    model = make_model_config(task, d_model=16, heads=2, loops=3)
    return train(task, model, make_train_config(**config), target, **verbs)


def state_of(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def stop(target: Path, step: int = 5, **options: Any) -> InterruptedRunError:
    with pytest.raises(InterruptedRunError) as caught:
        run(target, Stopped(step), **options)
    return caught.value


@pytest.mark.parametrize("asked", [False, True])
def test_a_state_is_saved_only_when_its_gradient_is_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    real = Stepper.compute

    def compute(self: Stepper, step: int) -> Step:
        made = real(self, step)
        if step < 6:
            return made
        return Step(loss=math.nan, gradient_norm=1.0, lr=made.lr, loops=3, tokens=made.tokens)

    monkeypatch.setattr(Stepper, "compute", compute)
    task = Stopped(5) if asked else TASK
    with pytest.raises(DivergedError, match=r"at step 7 .*m\.last\.pt is from before, of step 5"):
        run(tmp_path / "m.pt", task, checkpoint_every=1)
    assert state_of(tmp_path / "m.last.pt")["step"] == 5


def diverge(monkeypatch: pytest.MonkeyPatch, losses: dict[int, float]) -> None:
    """Let steps, counted from 0, have these losses while the learning rate is the higher one.

    Both rates are low: what the weights really do hangs on no arithmetic.
    """
    real = Stepper.compute

    def compute(self: Stepper, step: int) -> Step:
        made = real(self, step)
        return (
            replace(made, loss=losses.get(step, made.loss))
            if self.config.lr == HIGH["lr"]
            else made
        )

    monkeypatch.setattr(Stepper, "compute", compute)


HIGH: dict[str, Any] = {"lr": 2e-3, "checkpoint_every": 1}
LOW: dict[str, Any] = {"lr": 1e-3, "checkpoint_every": 1}


def test_a_run_that_diverged_goes_back_to_the_last_state_whose_loss_had_not_risen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.pt"
    diverge(monkeypatch, dict.fromkeys(range(6), 1.0) | {6: 248.0, 7: 1e5, 8: math.inf})
    with pytest.raises(DivergedError, match=r"at step 9 .*m\.last\.pt is from before, of step 5"):
        run(target, **HIGH)
    assert state_of(tmp_path / "m.last.pt")["step"] == 5
    assert not (tmp_path / "m.steady.pt").exists()
    result = run(target, resume=True, **LOW)
    assert result.resumed_from == 5
    assert math.isfinite(result.train_loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.metrics.jsonl", "m.pt"]


def test_the_best_model_of_a_lost_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, dict.fromkeys(range(6), 1.0) | {6: 248.0, 7: 1e5, 8: 1e6, 9: math.inf})
    monkeypatch.setattr(TrainingLoop, "_is_better", lambda *_: True)
    with pytest.raises(DivergedError):
        run(tmp_path / "m.pt", **HIGH)
    state = state_of(tmp_path / "m.last.pt")
    best = load_checkpoint(tmp_path / "m.best.pt")["state_dict"]
    assert (state["step"], state["best_step"]) == (5, 8)
    assert all(torch.equal(best[name], state["best"][name]) for name in best)


@pytest.mark.parametrize("trend", [{}, {"foo": 1.0}, {"mean": "x", "deviation": 0.0}])
def test_a_damaged_trend_is_a_damaged_state(tmp_path: Path, trend: dict[str, Any]) -> None:
    stop(tmp_path / "m.pt")
    torch.save({**state_of(tmp_path / "m.last.pt"), "trend": trend}, tmp_path / "m.last.pt")
    with pytest.raises(InputError, match="is damaged"):
        run(tmp_path / "m.pt", resume=True)


def test_a_lost_state_is_kept_for_a_run_that_is_killed_and_not_for_one_that_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.pt"
    diverge(monkeypatch, dict.fromkeys(range(6), 1.0) | {6: 248.0, 7: 1e5, 8: 1e6, 9: math.inf})
    stop(target, step=7, **HIGH)
    assert state_of(tmp_path / "m.last.pt")["step"] == 8
    assert state_of(tmp_path / "m.steady.pt")["step"] == 5
    with pytest.raises(DivergedError, match=r"m\.last\.pt is from before, of step 5, the last one"):
        run(target, resume=True, **HIGH)
    assert run(target, resume=True, **LOW).resumed_from == 5


def test_a_rise_that_ends_leaves_no_state_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, {step: 248.0 if step == 6 else 1.0 for step in range(12)})
    stop(tmp_path / "m.pt", step=9, **HIGH)
    assert state_of(tmp_path / "m.last.pt")["steady_step"] == 10
    assert not (tmp_path / "m.steady.pt").exists()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_a_kill_at_any_rename_is_resumed_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, best model, metrics and model: whatever of them is new, the run ends as if nothing was."""
    real, count, boundary = Path.replace, 0, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == boundary:
            raise Killed
        return real(self, target)

    run(tmp_path / "whole.pt")
    whole = load_checkpoint(tmp_path / "whole.pt")["state_dict"]
    monkeypatch.setattr(Path, "replace", replace)
    run(tmp_path / "counted.pt")
    renames, kinds = count, set()
    for boundary in range(1, renames + 1):
        folder = tmp_path / str(boundary)
        folder.mkdir()
        count = 0
        with pytest.raises(Killed):
            run(folder / "m.pt")
        kinds.add(tuple(sorted(path.name for path in folder.iterdir())))
        count = -renames * 9
        started = (folder / "m.last.pt").exists()
        run(folder / "m.pt", resume=started, force=True)
        resumed = load_checkpoint(folder / "m.pt")["state_dict"]
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
        assert sorted(path.name for path in folder.iterdir()) == ["m.metrics.jsonl", "m.pt"]
        lines = (folder / "m.metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]
    assert len(kinds) > 2


def test_a_run_that_never_trained_is_to_be_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, {0: 1.0, 1: 248.0, 2: 1e5, 3: 1e5, 4: 1e5, 5: math.nan})
    with pytest.raises(DivergedError, match="of step 4, and its loss had risen already") as caught:
        run(tmp_path / "m.pt", **HIGH)
    assert caught.value.hint == "train anew with force=True lr=0.0005"
    assert run(tmp_path / "m.pt", force=True, **LOW).resumed_from is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"teacher": "absent.pt"}, "does not exist"),
        ({"accumulate": 3}, "cannot be split evenly"),
        ({"tensorboard": "file"}, "cannot be written"),
    ],
)
def test_force_with_a_bad_option_keeps_the_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    stop(Path("m.pt"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"m.last.pt", "m.best.pt", "m.metrics.jsonl"} <= set(before)
    with pytest.raises(InputError, match=said):
        run(Path("m.pt"), force=True, **bad)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_force_drops_the_metrics_of_the_run_before(tmp_path: Path) -> None:
    stop(tmp_path / "m.pt", step=9)
    stop(tmp_path / "m.pt", step=1, force=True, evaluate_every=12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.last.pt"]


def test_an_interrupted_run_is_saved_without_checkpoints_too(tmp_path: Path) -> None:
    error = stop(tmp_path / "m.pt", checkpoint_every=0)
    assert "after step 6 of 12" in error.message
    assert "m.last.pt holds the run at step 6" in error.message
    assert error.hint == "the same call with resume=True"
    assert run(tmp_path / "m.pt", resume=True, checkpoint_every=0).resumed_from == 6


def test_a_run_that_is_resumed_at_its_early_end_tells_its_last_figures(tmp_path: Path) -> None:
    slow: dict[str, Any] = {"lr": 1e-9}
    stop(tmp_path / "m.pt", step=10, patience=9, **slow)
    result = run(tmp_path / "m.pt", resume=True, patience=1, **slow)
    assert result.stopped_early
    assert result.steps == 11
    assert math.isfinite(result.train_loss)
    assert result.stability is not None


class Unscored(SortingTask):
    """Has a metric that is never finite."""

    def metrics(self, tally: Tally) -> Metrics:
        return {**super().metrics(tally), "accuracy": math.nan}


def test_a_metric_that_is_never_finite_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="up to step 12 of 12 gave a finite accuracy"):
        run(tmp_path / "m.pt", Unscored(length=4, vocab=6))
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.slow
def test_tensorboard_shows_the_last_of_two_runs(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the extra 'tensorboard'",
    )
    events = tmp_path / "events"
    run(tmp_path / "a.pt", tensorboard=events, evaluate_every=3)
    run(tmp_path / "b.pt", tensorboard=events, evaluate_every=6)
    shown = accumulator.EventAccumulator(str(events))
    shown.Reload()
    assert [point.step for point in shown.Scalars("train_loss")] == [6, 12]


def test_the_probe_holds_no_more_than_a_part_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int | None]] = []
    real = measure_stability

    def measure(*arguments: Any, **options: Any) -> Any:
        seen.append((len(arguments[2].inputs), options["backprop_loops"]))
        return real(*arguments, **options)

    monkeypatch.setattr("loopedge.trainer.loop.measure_stability", measure)
    result = run(tmp_path / "m.pt", accumulate=4, backprop_loops=1)
    assert set(seen) == {(2, 1)}
    assert result.stability is not None
    assert result.stability.gradient_norm[:2] == [None, None]
    assert np.isfinite(np.array(result.stability.gradient_norm[2:], float)).all()
    assert None not in result.stability.residual_norm


@pytest.mark.parametrize("stored", [[1, 2], torch.zeros(2), {"other": 1}])
def test_another_file_of_tensors_is_no_state(tmp_path: Path, stored: object) -> None:
    torch.save(stored, tmp_path / "m.last.pt")
    with pytest.raises(InputError, match="is damaged"):
        run(tmp_path / "m.pt", resume=True)


def test_a_disk_that_fills_up_tells_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunLog.write

    def write(self: RunLog, record: dict[str, Any]) -> None:
        if record["step"] == 8:
            raise DiskFullError("no space left on the disk; nothing was written", hint="free some")
        real(self, record)

    monkeypatch.setattr(RunLog, "write", write)
    with pytest.raises(
        InputError, match="no space left on the disk: the run ended after"
    ) as caught:
        run(tmp_path / "m.pt")
    assert "m.last.pt holds the run at step 4" in caught.value.message
    assert caught.value.hint == "free some space, then the same call with resume=True"


@pytest.mark.parametrize("field", ["missing", "classify"])
def test_a_teacher_must_agree_on(tmp_path: Path, field: str) -> None:
    fields: dict[str, Any] = {
        "features": 1,
        "outputs": 2,
        "read": "last",
        "d_model": 16,
        "heads": 2,
    }
    sizes = {**fields, "loops": 2, "max_length": 8}
    save(LoopedTransformer(LoopedConfig(**sizes)), tmp_path / "teacher.pt")
    student = LoopedConfig(**{**sizes, field: True})
    with pytest.raises(InputError, match=f"has {field} False, the student True"):
        load_teacher(tmp_path / "teacher.pt", student, TASK)
