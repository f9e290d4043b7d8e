"""The table that a bundle's page shows first: its last window is the first test vector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopedge
from loopedge.errors import InputError
from tests.table_models import TASK, repeating_model

ROWS = [(1.5, 10.0), (2.5, 20.0), (3.5, 30.0), (4.5, 40.0), (5.5, 50.0)]


def table(folder: Path, rows: list[tuple[float, float]]) -> Path:
    path = folder / "t.csv"
    lines = [f"2024-01-{day:02},{y},{x}" for day, (y, x) in enumerate(rows, start=1)]
    path.write_text("\n".join(["day,y,x", *lines]) + "\n")
    return path


def first_vector(folder: Path, task: dict[str, Any], rows: list[tuple[float, float]]) -> Any:
    model = repeating_model(folder / "m.onnx", task)
    loopedge.package(model, folder / "bundle", clients=("node",), input=table(folder, rows))
    return json.loads((folder / "bundle" / "manifest.json").read_text())["vectors"][0]


def array(folder: Path, file: dict[str, Any]) -> Any:
    return np.fromfile(folder / "bundle" / file["file"], file["dtype"]).reshape(file["shape"])


def test_it_is_the_last_window(tmp_path: Path) -> None:
    vector = first_vector(tmp_path, TASK | {"time_column": "day"}, ROWS)
    assert (vector["name"], vector["last_time"]) == ("last window", "2024-01-05")
    [window] = vector["inputs"]
    np.testing.assert_array_equal(array(tmp_path, window), [ROWS[-4:]])
    [answer] = [file for file in vector["outputs"] if file["name"] == "outputs"]
    np.testing.assert_array_equal(array(tmp_path, answer), [[[4.5], [5.5]]])


def test_a_short_one_comes_without_its_padding(tmp_path: Path) -> None:
    vector = first_vector(tmp_path, TASK | {"min_context": 2}, ROWS[:3])
    assert vector["last_time"] is None
    [window] = vector["inputs"]
    np.testing.assert_array_equal(array(tmp_path, window), [ROWS[:3]])
    [kept] = [file for file in vector["outputs"] if file["name"] == "kept"]
    np.testing.assert_array_equal(array(tmp_path, kept), [[0, 1, 1, 1]])


def test_a_table_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    model = repeating_model(tmp_path / "m.onnx", TASK)
    with pytest.raises(InputError, match="3 table rows are too few"):
        loopedge.package(model, tmp_path / "b", clients=("node",), input=table(tmp_path, ROWS[:3]))
    assert not (tmp_path / "b").exists()
