"""Models whose position table is shorter than the usual probes keep their sequence axis dynamic."""

from pathlib import Path

import pytest

import loopedge
from tests.parity.models import Sizes, make_inputs, make_model, relative_error, torch_output


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [2, 3, 8])
def test_every_length_that_fits_runs(tmp_path: Path, max_length: int) -> None:
    model = make_model("series", max_length=max_length)
    result = loopedge.export(model, tmp_path / "m.onnx")
    assert result.notes == []
    session = loopedge.Session(tmp_path / "m.onnx")
    for length in sorted({1, 2, max_length}):
        tensors, feeds = make_inputs(model, Sizes(batch=2, sequence=length))
        (given,) = session.run(feeds).values()
        assert relative_error(given, torch_output(model, tensors)) < 1e-4
