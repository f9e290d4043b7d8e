"""A trained model on a table: windows cut by hand from the file, run by PyTorch and by onnxruntime alone."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

import loopedge
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

if TYPE_CHECKING:
    from pathlib import Path

    from loopedge.tasks.task import Task

pytestmark = pytest.mark.slow

SHOPS = {"north": 90, "south": 84, "new": 5}
CONTEXT, LEAST, HORIZON = 8, 4, 3


def write(path: Path, *, level: float = 0.0) -> Path:
    """Three shops in turns, the third with few days; some temperatures are missing, at the end too."""
    generator = np.random.default_rng(5)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["kind", "temperature", "shop", "day", "sales"])
        for day in range(90):
            date = np.datetime64("2024-01-01") + day
            for shop, days in SHOPS.items():
                if day >= 90 - days:
                    temperature = "" if (day + len(shop)) % 7 == 3 else round(generator.normal(), 2)
                    sales = level + round(10 + 3 * np.sin(day / 3) + generator.normal() / 9, 3)
                    busy = "busy" if np.sin(day / 3) > 0 else "quiet"
                    table.writerow([busy, temperature, shop, date, sales])
    return path


def windows_by_hand(
    path: Path, names: list[str], mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last rows of each shop and their mask, padded on the left with the mean."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    inputs, masks = [], []
    for shop in SHOPS:
        cells = [[row[name] or "nan" for name in names] for row in rows if row["shop"] == shop]
        own = np.array(cells[-CONTEXT:], np.float64)
        empty = CONTEXT - len(own)
        inputs.append(np.concatenate([np.tile(mean, (empty, 1)), own]))
        masks.append([0] * empty + [1] * len(own))
    return np.stack(inputs), np.array(masks, np.int64)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model, the table it was trained on, and what ran it by hand."""

    table: Path
    checkpoint: Path
    file: Path
    task: Task

    @classmethod
    def of(cls, folder: Path, task: Task, table: Path) -> Made:
        config = make_model_config(task, d_model=16, heads=2, loops=2)
        steps = make_train_config(steps=4, batch_size=8, evaluate_every=2, samples=64)
        train(task, config, steps, folder / "m.pt")
        loopedge.export(folder / "m.pt", folder / "m.onnx")
        return cls(table=table, checkpoint=folder / "m.pt", file=folder / "m.onnx", task=task)

    @property
    def description(self) -> dict[str, Any]:
        found: dict[str, Any] = load_checkpoint(self.checkpoint)["task"]
        return found

    def by_hand(self, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return what PyTorch and onnxruntime answer to windows that were cut by hand."""
        values, mask = windows_by_hand(self.table, names, np.array(self.description["mean"]))
        session = onnxruntime.InferenceSession(self.file, providers=["CPUExecutionProvider"])
        dtype = np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32
        values = values.astype(dtype)
        (ran,) = session.run(None, {"inputs": values, "attention_mask": mask})
        model = loopedge.load(self.checkpoint).eval()
        with torch.no_grad():
            computed = model(torch.from_numpy(values), torch.from_numpy(mask)).numpy()
        return computed, ran


@pytest.mark.parametrize("scaling", ["column", "window"])
@pytest.mark.parametrize("level", [0.0, 1e9])
def test_a_forecast_is_what_the_model_answers_to_each_last_window(
    tmp_path: Path, scaling: Any, level: float
) -> None:
    table = write(tmp_path / "t.csv", level=level)
    task = SeriesTask.from_file(
        table,
        targets=["sales"],
        covariates=["temperature"],
        context=CONTEXT,
        min_context=LEAST,
        horizon=HORIZON,
        missing="indicator",
        time_column="day",
        group="shop",
        scaling=scaling,
    )
    made = Made.of(tmp_path, task, table)
    assert task.wide == (level > 1e6)
    found = loopedge.forecast(made.file, table)
    computed, ran = made.by_hand(["sales", "temperature"])
    assert found.values is not None
    np.testing.assert_array_equal(found.values, ran)
    spread = 3.0  # of the sales
    np.testing.assert_allclose(found.values, computed, rtol=0, atol=1e-3 * spread)
    assert found.series == tuple(SHOPS)
    assert found.rows == (8, 8, 5)
    ahead = tuple(str(np.datetime64("2024-03-31") + step) for step in range(HORIZON))
    assert found.times == (ahead,) * 3
    described = {level["level"]: level for level in made.description["intervals"]["levels"]}
    assert list(found.intervals) == list(described)
    for percent, (low, high) in found.intervals.items():
        assert (low < found.values).all()
        assert (high > found.values).all()
        width = np.array(described[percent]["high"]) - np.array(described[percent]["low"])
        ratio = (high - low) / width
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape))


def test_the_last_windows_are_those_of_training(tmp_path: Path) -> None:
    """The window that training would cut at the last row, padded and masked alike, bit for bit."""
    table = write(tmp_path / "t.csv")
    task = SeriesTask.from_file(
        table,
        targets=["sales"],
        covariates=["temperature"],
        context=CONTEXT,
        min_context=LEAST,
        horizon=HORIZON,
        missing="indicator",
        time_column="day",
        group="shop",
    )
    made = Made.of(tmp_path, task, table)
    inputs, mask = task._inputs(task.columns.bounds[1:])
    read = loopedge.Session(made.file).expected.read(table)
    np.testing.assert_array_equal(read.arrays["inputs"], inputs)
    np.testing.assert_array_equal(read.arrays["attention_mask"], mask)


def test_labels_are_those_of_the_largest_logit(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv")
    rows = [line for line in table.read_text().splitlines() if ",north," in line]
    alone = tmp_path / "north.csv"
    alone.write_text("\n".join(["kind,temperature,shop,day,sales", *rows]) + "\n")
    task = LabelledSeriesTask.from_file(
        alone,
        label="kind",
        covariates=["sales", "temperature"],
        context=CONTEXT,
        min_context=LEAST,
        missing="indicator",
        time_column="day",
    )
    made = Made.of(tmp_path, task, table)
    computed, ran = made.by_hand(["sales", "temperature"])
    grouped = write(tmp_path / "again.csv")
    for number, shop in enumerate(SHOPS):
        lines = [line for line in grouped.read_text().splitlines() if f",{shop}," in line]
        alone.write_text("\n".join(["kind,temperature,shop,day,sales", *lines]) + "\n")
        found = loopedge.forecast(made.file, alone)
        logits = ran[number].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities[0], expected, rtol=1e-4)
        assert found.labels == (["busy", "quiet"][computed[number].argmax()],)
        assert found.times == (("2024-03-30",),)
