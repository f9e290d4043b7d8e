"""The task of an artifact, as calibration and a budget rebuild it; one search for a bad byte."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.data.tables import Selection, read_table
from loopedge.data.text_files import first_bad_byte
from loopedge.errors import InputError
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.tasks.sorting import SortingTask
from loopedge_calibration.readers import described_task


def test_arrays_are_not_for_the_task_and_other_data_is_told(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=f"byte {place}$"):
        read_table(path, Selection(numbers=("x",)))
    path.write_bytes(b"x" * place + "ü".encode())
    assert first_bad_byte(path) is None
