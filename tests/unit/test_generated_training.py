"""The generated tasks train, and what was trained on them exports."""

import json
from pathlib import Path
from typing import Any

import pytest

import loopedge
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.generated.countdown import CountdownTask
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.in_context import LinearInContextTask, TreeInContextTask
from loopedge.tasks.generated.lcs import LcsTask
from loopedge.tasks.generated.sudoku import SudokuTask
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.own import check_task
from loopedge.tasks.task import Task
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train

TASKS: dict[str, Task] = {
    "edit-distance": EditDistanceTask(length=4),
    "lcs": LcsTask(length=2, letters=3),
    "lcs at prefixes": LcsTask(length=4, letters=3, prefixes=True),
    "sudoku": SudokuTask(box=2, blanks=6, puzzles=100),
    "countdown": CountdownTask(numbers=3, largest=5),
    "in-context-linear": LinearInContextTask(dims=1, points=6),
    "in-context-trees": TreeInContextTask(dims=1, points=8, depth=1),
}


MODEL = {
    "d_model": 32,
    "heads": 2,
    "loops": 2,
    "positions": "rotary",
    # Small models learn little within such budgets from the published start (0.02, closed gates).
    "init_std": 0.09,
    "gate_init": 1.0,
}


def run(task: Task, target: Path, **options: Any) -> TrainResult:
    model = make_model_config(task, **MODEL)
    config = {"steps": 100, "batch_size": 32, "samples": 64, "evaluate_every": 50, "lr": 5e-3}
    return train(task, model, make_train_config(**config | options), target)


@pytest.mark.long
@pytest.mark.parametrize("name", TASKS)
def test_the_loss_goes_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One batch, again and again: a model learns it by heart, whatever the arithmetic."""
    task = TASKS[name]
    check_task(task)
    drawn = task.batch
    monkeypatch.setattr(task, "batch", lambda split, size, step: drawn(split, size, 0))
    result = run(task, tmp_path / "model.pt", samples=16, evaluate_every=4)
    lines = Path(result.metrics_path).read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in lines]
    # Those of the first steps are left out: such a start answers loudly and wrongly.
    assert losses[-1] < 0.5 * losses[2]
    assert set(result.test) == set(result.validation)
    assert all(set(scores) == set(result.test) for scores in result.baselines.values())
    assert load_checkpoint(tmp_path / "model.pt")["task"] == task.describe()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in-context-linear", "in-context-trees"])
def test_a_function_is_learned_from_its_points(tmp_path: Path, name: str) -> None:
    result = run(TASKS[name], tmp_path / "model.pt", batch_size=64)
    assert metric_value(result.test, "last_mse") < 0.6 * metric_value(
        result.baselines["zero"], "last_mse"
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["countdown", "in-context-linear"])
def test_a_trained_model_exports_and_scores_the_same(tmp_path: Path, name: str) -> None:
    task = TASKS[name]
    result = run(task, tmp_path / "model.pt", steps=40, evaluate_every=20)
    exported = loopedge.export(loopedge.load(tmp_path / "model.pt"), tmp_path / "model.onnx")
    assert exported.verified
    session = loopedge.Session(tmp_path / "model.onnx")
    (batch,) = task.evaluation("test", 64, 64)
    (first,) = session.inputs
    (outputs,) = session.run({first: batch.inputs}).values()
    assert task.score(outputs, batch.targets) == pytest.approx(result.test, rel=1e-3)
