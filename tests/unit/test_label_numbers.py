"""Labels that are numbers: told apart exactly, and compared with the classes of a model."""

from pathlib import Path

import pytest

from loopedge.errors import InputError
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.task import SPLITS, task_from_dict


def labelled(folder: Path, *labels: str) -> Path:
    path = folder / "data.csv"
    path.write_text("x,kind\n" + "".join(f"{r},{labels[r % len(labels)]}\n" for r in range(60)))
    return path


def read(path: Path) -> LabelledSeriesTask:
    return LabelledSeriesTask.from_file(path, label="kind", covariates=["x"], context=2)


def test_long_integers_are_told_apart(tmp_path: Path) -> None:
    task = read(labelled(tmp_path, "9007199254740993", "9007199254740992", "1.0", "1", "0.5"))
    assert task.classes == ["0.5", "1", "9007199254740992", "9007199254740993"]
