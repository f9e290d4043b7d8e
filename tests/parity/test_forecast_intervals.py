"""The prediction intervals of a forecast travel with it: model.pt, the exported file, the quantized file."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopedge
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.metrics import total
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and export a forecast of two shops, one of which sells a thousand times as much."""
    folder = tmp_path_factory.mktemp("forecast")
    generator = np.random.default_rng(0)
    rows = [
        f"{day},{shop},{scale * (5 + math.sin(day / 3) + 0.3 * generator.normal()):.5f}"
        for shop, scale in (("small", 1), ("large", 1000))
        for day in range(300)
    ]
    (folder / "shops.csv").write_text("\n".join(["day,shop,units", *rows]) + "\n")
    task = task_of(folder)
    model = make_model_config(task, d_model=16, heads=2, loops=2)
    config = make_train_config(steps=20, batch_size=8)
    train(task, model, config, folder / "m.pt")
    loopedge.export(folder / "m.pt", folder / "m.onnx")
    return folder


def task_of(folder: Path) -> SeriesTask:
    return SeriesTask.from_file(
        folder / "shops.csv",
        targets=["units"],
        context=16,
        horizon=3,
        group="shop",
        time_column="day",
    )


def described(path: Path) -> dict[str, Any]:
    return Artifact.open(path).metadata.task


def test_files_hold_the_intervals_of_the_checkpoint(folder: Path) -> None:
    stored = load_checkpoint(folder / "m.pt")["task"]
    assert described(folder / "m.onnx") == json.loads(json.dumps(stored))
    intervals = Intervals.of(described(folder / "m.onnx"))
    assert intervals is not None
    assert [level.percent for level in intervals.levels] == [80, 95]
    task = task_of(folder)
    batches = list(task.evaluation("test", 8, 1024))
    session = loopedge.Session(folder / "m.onnx", threads=1)
    names, output = session.expected.sampled, session.output_names[0]
    inside = {80: 0, 95: 0}
    for batch in batches:
        outputs = session.run(batch.feeds(names))[output]
        ends = intervals.around(outputs, intervals.units(batch.inputs, batch.attention_mask))
        for percent, (low, high) in ends.items():
            inside[percent] += int(((low <= batch.targets) & (batch.targets <= high)).sum())
    asked = sum(batch.targets.size for batch in batches)
    for level in stored["intervals"]["levels"]:
        # PyTorch and ONNX Runtime differ by rounding: a value at the edge may fall on the other side.
        assert inside[level["level"]] / asked == pytest.approx(level["coverage"], abs=0.01)


def test_quantize_says_how_often_the_intervals_still_hold(folder: Path) -> None:
    target, data = folder / "q.onnx", folder / "shops.csv"
    result = loopedge.quantize(
        folder / "m.onnx", target, data=data, scheme="dynamic", min_sqnr_db=-50, threads=1
    )
    assert described(target) == described(folder / "m.onnx")
    found = result.held_out
    assert (found.source, found.metric) == ("validation", "rmse")
    intervals = Intervals.of(described(target))
    assert intervals is not None
    task = task_of(folder)
    batches = list(task.evaluation("validation", 8, 512))
    for place, (path, scores) in enumerate(
        ((folder / "m.onnx", found.float_scores), (target, found.scores))
    ):
        session = loopedge.Session(path, threads=1)
        names, output = session.expected.sampled, session.output_names[0]
        answers = [session.run(batch.feeds(names))[output] for batch in batches]
        pairs = list(zip(answers, batches, strict=True))
        wanted = task.metrics(total(task.tally_batch(*pair) for pair in pairs))
        assert scores == pytest.approx(wanted)
        for each in found.intervals:
            inside = [
                (ends[0] <= batch.targets) & (batch.targets <= ends[1])
                for outputs, batch in pairs
                for ends in [intervals.around(outputs, intervals.units(batch.inputs))[each.level]]
            ]
            share = (each.float_share, each.share)[place]
            assert share == pytest.approx(np.concatenate(inside).mean())
    assert [each.level for each in found.intervals] == [80, 95]
    # Fitted on these windows: the float model's hold what they should, and one value more of each step.
    assert found.intervals[0].float_share == pytest.approx(0.8, abs=0.03)
    assert result.to_json()["held_out"]["intervals"][1]["level"] == 95
    assert not any("prediction intervals" in note for note in result.notes)


def test_quantize_without_the_table_says_what_it_did_not_measure(folder: Path) -> None:
    source, target = folder / "m.onnx", folder / "blind.onnx"
    result = loopedge.quantize(source, target, scheme="dynamic", min_sqnr_db=-50, threads=1)
    assert result.held_out.intervals == []
    (note,) = (note for note in result.notes if "prediction intervals" in note)
    assert note.endswith("was not measured, which takes its table: data=TABLE")
    assert described(folder / "blind.onnx") == described(folder / "m.onnx")


def test_a_file_whose_intervals_are_damaged_is_one_clear_line(folder: Path) -> None:
    import onnx_ir as ir

    model = ir.load(folder / "m.onnx")
    task = json.loads(model.metadata_props["loopedge.task"])
    task["intervals"]["levels"][0]["low"] = "narrow"
    model.metadata_props["loopedge.task"] = json.dumps(task)
    ir.save(model, folder / "damaged.onnx")
    with pytest.raises(InputError, match=r"intervals\.levels\.0\.low"):
        Artifact.open(folder / "damaged.onnx")
