"""Labels that are numbers: distinguished exactly, and compared with the classes of a model."""

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


def test_long_integers_are_distinguished(tmp_path: Path) -> None:
    task = read(labelled(tmp_path, "9007199254740993", "9007199254740992", "1.0", "1", "0.5"))
    assert task.classes == ["0.5", "1", "1.0", "9007199254740992", "9007199254740993"]


def test_the_classes_of_the_model_decide_how_labels_are_compared(tmp_path: Path) -> None:
    texts = read(labelled(tmp_path, "01", "02", "x")).describe()
    again = task_from_dict(texts, data=labelled(tmp_path, "01", "02"))
    assert again.describe()["classes"] == ["01", "02", "x"]
    targets = {int(t) for s in SPLITS for b in again.evaluation(s, 99, 99) for t in b.targets}
    assert targets == {0, 1}
    with pytest.raises(InputError, match="label '1' of column 'kind' is not a class"):
        task_from_dict(texts, data=labelled(tmp_path, "1", "x"))
    numbers = read(labelled(tmp_path, "1", "2", "3")).describe()
    floats = task_from_dict(numbers, data=labelled(tmp_path, "2.0", "03"))
    targets = {int(t) for s in SPLITS for b in floats.evaluation(s, 99, 99) for t in b.targets}
    assert targets == {1, 2}
