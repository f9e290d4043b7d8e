"""The task of an artifact, as calibration and a budget rebuild it; one search for a bad byte."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.data.description import DESCRIBED, description_problem
from loopedge.data.tables.reading import Selection, read_table
from loopedge.errors import InputError
from loopedge.files.encodings import first_bad_byte
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import HOMES, task_from_dict
from loopedge_calibration.samples import described_task


def test_arrays_are_not_for_the_task_and_other_data_is_reported(tmp_path: Path) -> None:
    model = ir.load(Path(__file__).parents[1] / "fixtures" / "tiny.onnx")
    model.metadata_props.clear()
    assert described_task(model, None, None) is None
    task = SortingTask(length=5, vocab=9)
    metadata = ArtifactMetadata(
        version="1", form="loop", loops=2, trained_loops=2, task=task.describe()
    )
    write_metadata(metadata, model.metadata_props)
    arrays = tmp_path / "x.npz"
    np.savez(arrays, x=np.zeros(1))
    found = described_task(model, arrays, None)
    assert found is not None
    assert found.describe() == task.describe()
    with pytest.raises(InputError, match="it does not read"):
        described_task(model, tmp_path / "x.csv", None)


@pytest.mark.parametrize("place", [0, 5, (1 << 20) - 1, 1 << 20])
@pytest.mark.parametrize("after", [b"", b" and more"])
def test_the_first_bad_byte_is_found_across_pieces(
    tmp_path: Path, place: int, after: bytes
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"x" * place + b"\xc3" + after)
    assert first_bad_byte(path) == place
    with pytest.raises(InputError, match=rf"byte {place} \(line 1\)"):
        read_table(path, Selection(numbers=("x",)))
    path.write_bytes(b"x" * place + "ü".encode())
    assert first_bad_byte(path) is None


def test_each_task_that_can_be_rebuilt_is_checked() -> None:
    assert set(HOMES) == DESCRIBED


SERIES = {"name": "series", "covariates": [], "targets": ["y"], "mean": [1.0], "context": 4} | {
    "horizon": 2
}


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"name": 3}, "name is int, text is needed"),
        ({"name": "sorting", "length": "x"}, "length: Input should be a valid integer"),
        ({"name": "series", "covariates": "x"}, "covariates: Input should be a valid list"),
        ({"name": "series", "covariates": [], "context": 4}, "mean is missing"),
        ({"name": "text", "separator": -1}, "separator: Input should be greater"),
        ({"name": "series-labels", "context": 10**12}, "context: Input should be less"),
        ({"name": "series", "missing": "drop"}, "missing: Input should be '', 'refuse'"),
        ({"name": "series", "frequency": "fortnight"}, "'fortnight' names no frequency"),
        ({"name": "series", "step": "2x"}, "step: '2x' names no frequency"),
        ({"name": "series", "form": {"decimal": "ab"}}, "form.decimal: 'ab' does not say"),
        ({"name": "series", "form": {"encoding": "zzz"}}, "form.encoding: 'zzz' does not say"),
        (SERIES | {"targets": []}, "targets is empty"),
        (SERIES | {"mean": [1.0, 2.0]}, "mean has length 2, the columns are 1"),
        (SERIES | {"form": {"timezone": "Mars/X"}}, None),
        (SERIES, None),
        ({"name": "mine", "length": "x"}, None),
    ],
)
def test_a_damaged_description(description: dict[str, Any], words: str | None) -> None:
    problem = description_problem(description)
    assert problem is None if words is None else words in str(problem)


def test_hints_of_a_task_that_is_rebuilt_are_of_training(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("y\n" + "".join(f"{row}\n" for row in range(60)))
    description = SeriesTask.from_file(path, targets=["y"], horizon=2, context=4).describe()
    path.write_text("y\n" + "".join(f"{'NA' if row == 7 else row}\n" for row in range(60)))
    with pytest.raises(InputError, match="the value is missing") as caught:
        task_from_dict(description, data=path)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith('mend the table, or train anew: add missing="interpolate"')
    with pytest.raises(InputError, match="needs its data") as caught:
        task_from_dict(description)
    assert caught.value.hint == "name the table with data"
