"""Which samples of a task calibrate and which judge, where its parts stand in one file and where in files of their own."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.tasks.text import TextTask
from loopedge_calibration.samples import Part, Samples

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def trained_on(task: Task) -> ir.Model:
    """Return the small model, which says that it was trained on a task."""
    model = ir.load(TINY)
    metadata = read_metadata(model.metadata_props)
    described = metadata.model_copy(update={"task": json.loads(json.dumps(task.describe()))})
    write_metadata(described, model.metadata_props)
    return model


def rows(part: Part | None) -> list[bytes]:
    assert part is not None
    return [
        np.ascontiguousarray(row).tobytes()
        for batch in part.read()
        for row in batch.feeds["input_ids"]
    ]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    letters = np.random.default_rng(0).choice(list(LETTERS), 20_000)
    (tmp_path / "t.txt").write_text("".join(letters))
    return tmp_path / "t.txt"


def test_windows_of_a_text_come_from_all_over_its_parts(text: Path) -> None:
    task = TextTask.from_path(text, context=16)
    samples = Samples(text, trained_on(task), samples=20)
    calibrating, judging = rows(samples.calibrating), rows(samples._judging)
    assert (len(calibrating), len(judging)) == (20, task.available("validation"))
    assert samples.calibrating.total == task.available("train") == 1124
    content = text.read_bytes()
    places = [content.index(bytes(np.frombuffer(row, np.int64).tolist())) for row in calibrating]
    assert places == sorted(places)
    assert min(places) == 0
    assert 0.85 * len(content) < max(places) < 0.9 * len(content)
    first = np.diff(places)
    assert first.max() < 1.1 * first.min() + 32
    assert min(
        content.index(bytes(np.frombuffer(row, np.int64).tolist())) for row in judging
    ) > max(places)


def test_of_parts_with_files_of_their_own_every_fourth_sample_judges(text: Path) -> None:
    task = TextTask.from_path(text, context=16, validation=text, test=text)
    samples = Samples(text, trained_on(task), samples=30)
    calibrating, judging = rows(samples.calibrating), rows(samples._judging)
    assert (len(calibrating), len(judging)) == (30, 10)
    assert not set(calibrating) & set(judging)


def test_windows_of_a_series_come_from_all_of_its_training_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("y\n" + "\n".join(map(str, range(1000))) + "\n")
    task = SeriesTask.from_file(path, targets=["y"], context=8, horizon=2)
    samples = Samples(path, trained_on(task), samples=16)
    first = [
        float(row[0, 0]) for batch in samples.calibrating.read() for row in batch.feeds["input_ids"]
    ]
    assert samples.calibrating.total == task.available("train")
    assert (first[0], first[-1]) == (0, 700 - 8 - 2)
    assert np.ptp(np.diff(first)) <= 1


def test_what_calibrates_as_arrays_does_not_judge_in_the_task() -> None:
    """Samples of the task's own validation part, handed in as arrays."""
    model = trained_on(SortingTask(length=4, vocab=6))
    whole = Samples(None, model, samples=8)._judging
    assert whole is not None
    known = next(iter(whole)).feeds["input_ids"]
    samples = Samples({"input_ids": known}, model, samples=8, metric="task")
    calibrating = {
        row.tobytes() for batch in samples.calibrating for row in batch.feeds["input_ids"]
    }
    held_out = samples.held_out(calibrates=True)
    judged = [row.tobytes() for feeds in held_out.batches for row in feeds["input_ids"]]
    assert held_out.kind == "validation"
    assert calibrating
    assert judged
    assert not calibrating & set(judged)
    assert held_out.judge is not None
    asked = sum(len(batch.targets) for batch in held_out.judge.batches)
    assert asked == len(judged) == held_out.samples
