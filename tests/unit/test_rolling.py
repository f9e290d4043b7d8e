"""Rolling origins: each is trained on what came before it, and a run that was stopped goes on."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Batch, Split
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train
from loopedge.trainer.rolling import RollingResult, train_rolling


class KilledError(Exception):
    """Stands for a run that is killed."""


class Unlucky(SeriesTask):
    """Stops the run at a step."""

    stop_at = 6

    def batch(self, split: Split, size: int, step: int) -> Batch:
        if split == "train" and step == self.stop_at:
            raise KilledError
        return super().batch(split, size, step)


def wave() -> SeriesTask:
    values = 50 + 10 * np.sin(np.arange(300) / 4)[:, None]
    columns = Columns(names=("y",), values=values, observed=np.ones((300, 1), bool))
    return SeriesTask(columns, context=12, horizon=3)


def configs(task: SeriesTask, **options: Any) -> tuple[Any, Any]:
    model = make_model_config(task, d_model=16, heads=2, loops=2)
    settings = {"steps": 8, "batch_size": 8, "samples": 64, "evaluate_every": 4, **options}
    return model, make_train_config(**settings)


def run(target: Path, tasks: list[SeriesTask], **options: Any) -> RollingResult:
    verbs = {name: options.pop(name) for name in ("resume", "force", "note") if name in options}
    return train_rolling(tasks, *configs(tasks[-1], **options), target, **verbs)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_checkpoint(path)["state_dict"] for path in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_last_model_is_written_and_all_origins_are_reported(tmp_path: Path) -> None:
    tasks = wave().at_origins(3)
    notes: list[str] = []
    result = run(tmp_path / "m.pt", tasks, note=notes.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.metrics.jsonl", "m.pt"]
    assert [note for note in notes if note.startswith("origin")] == [
        f"origin {i} of 3" for i in (1, 2, 3)
    ]
    fields = result.to_json()
    tests = [origin["test"]["rmse"] for origin in fields["origins"]]
    assert len(set(tests)) == 3
    assert fields["test"] == fields["origins"][-1]["test"]
    assert fields["mean"]["rmse"] == pytest.approx(statistics.fmean(tests))
    assert fields["deviation"]["rmse"] == pytest.approx(np.std(tests, ddof=1))
    assert fields["baselines_mean"]["naive_last"]["rmse"] == pytest.approx(
        statistics.fmean(
            metric_value(task.baselines("test", 64)["naive_last"], "rmse") for task in tasks
        )
    )
    (note,) = fields["notes"]  # after eight steps
    assert "does not beat the baseline " in note
    assert f"of 3 origins, on average: rmse {fields['mean']['rmse']:.4g} against " in note
    intervals = fields["origins"][-1]["intervals"]
    assert intervals == fields["intervals"]
    described = tasks[-1].describe() | {"intervals": intervals}
    assert load_checkpoint(tmp_path / "m.pt")["task"] == described
    assert [origin["intervals"]["levels"][0]["level"] for origin in fields["origins"]] == [80] * 3
    train(tasks[-1], *configs(tasks[-1]), tmp_path / "alone.pt")
    assert same_weights(tmp_path / "m.pt", tmp_path / "alone.pt")
    assert [o["rows"]["test"][0] for o in fields["origins"]] == [
        o["rows"]["validation"][1] for o in fields["origins"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1, 2])
def test_a_stopped_run_goes_on(tmp_path: Path, stopped: int) -> None:
    tasks = wave().at_origins(3)
    whole = run(tmp_path / "whole.pt", tasks)
    target = tmp_path / "parts.pt"
    unlucky = [*tasks]
    unlucky[stopped] = wave().at_origins(3)[stopped]
    unlucky[stopped].__class__ = Unlucky
    with pytest.raises(KilledError):
        run(target, unlucky)
    assert not target.exists()
    with pytest.raises(InputError, match=r"parts\.origins holds an unfinished run"):
        run(target, tasks)
    with pytest.raises(InputError, match=r"train\.steps was 8 and is 9"):
        run(target, tasks, resume=True, steps=9)
    notes: list[str] = []
    parts = run(target, tasks, resume=True, note=notes.append)
    assert notes[0] == f"origin {stopped + 1} of 3"
    assert "at step 4 of 8" in notes[1]
    assert [o.test for o in parts.origins] == [o.test for o in whole.origins]
    assert parts.mean == whole.mean
    assert same_weights(target, tmp_path / "whole.pt")
    assert not (tmp_path / "parts.origins").exists()


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="in one process"):
        run(tmp_path / "m.pt", wave().at_origins(2))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    tasks = wave().at_origins(2)
    (tmp_path / "teacher.pt").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"teacher\.pt"):
        train_rolling(tasks, *configs(tasks[0]), tmp_path / "m.pt", teacher=tmp_path / "teacher.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pt"]


def test_what_cannot_be_resumed_is_reported(tmp_path: Path) -> None:
    tasks = wave().at_origins(2)
    target = tmp_path / "m.pt"
    with pytest.raises(InputError, match=r"no run to resume: .*done\.json does not exist"):
        run(target, tasks, resume=True)
    with pytest.raises(InputError, match="1 origin was given, at least 2 are needed"):
        run(target, tasks[:1])
    (tmp_path / "m.origins").mkdir()
    for damaged in (
        "{}",
        "[]",
        '{"settings": 1, "origins": []}',
        '{"settings": {"a": 1}, "origins": []}',
    ):
        (tmp_path / "m.origins" / "done.json").write_text(damaged)
        with pytest.raises(InputError, match="is damaged"):
            run(target, tasks, resume=True)
    run(target, tasks, force=True)
    with pytest.raises(InputError, match="exists already"):
        run(target, tasks)
    (tmp_path / "other.last.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"other\.last\.pt holds an unfinished run"):
        run(tmp_path / "other.pt", tasks)
    assert not (tmp_path / "other.origins").exists()


def test_a_folder_of_something_else_is_never_removed(tmp_path: Path) -> None:
    other = tmp_path / "m.origins" / "thesis.txt"
    other.parent.mkdir()
    other.write_text("precious")
    with pytest.raises(InputError, match="holds something else than a run"):
        run(tmp_path / "m.pt", wave().at_origins(2), force=True)
    assert other.read_text() == "precious"


def unlucky(tasks: list[SeriesTask], number: int) -> list[SeriesTask]:
    changed = [*tasks]
    changed[number] = wave().at_origins(len(tasks))[number]
    changed[number].__class__ = Unlucky
    return changed


def test_force_with_a_bad_option_keeps_the_unfinished_run(tmp_path: Path) -> None:
    tasks = wave().at_origins(3)
    with pytest.raises(KilledError):
        run(tmp_path / "m.pt", unlucky(tasks, 1))
    with pytest.raises(InputError, match="cannot be split evenly"):
        run(tmp_path / "m.pt", tasks, force=True, accumulate=3)
    notes: list[str] = []
    run(tmp_path / "m.pt", tasks, resume=True, note=notes.append)
    assert notes[0] == "origin 2 of 3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.metrics.jsonl", "m.pt"]


def test_the_state_of_another_run_at_the_target_is_dropped(tmp_path: Path) -> None:
    tasks = wave().at_origins(3)
    with pytest.raises(KilledError):
        run(tmp_path / "m.pt", unlucky(tasks, 2), seed=1)
    assert (tmp_path / "m.last.pt").exists()
    with pytest.raises(KilledError):
        run(tmp_path / "m.pt", unlucky(tasks, 1), force=True)
    run(tmp_path / "m.pt", tasks, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.metrics.jsonl", "m.pt"]
