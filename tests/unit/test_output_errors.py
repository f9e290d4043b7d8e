"""Outputs of measured models against those of the first one of the same work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.subjects import outputs as rooms
from loopedge.profiler.subjects.outputs import output_errors
from loopedge.profiler.subjects.profiled_model import ProfiledModel

Y = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)


def model(path: Path, *, loops: int = 4, **inputs: Any) -> ProfiledModel:
    np.savez(path, **{"input_ids": np.array([[1, 2, 3]]), **inputs})
    setup = ProcessSetup(model=path, inputs=path, file_bytes=1, provider=None, threads=1)
    return ProfiledModel(
        source=path,
        traits=(),
        setup=setup,
        twin=None,
        form=None,
        quantization=None,
        loops=loops,
        batch=1,
        sequence=3,
        weight_bytes=1,
    )


def saved(path: Path, *arrays: Any) -> Path:
    np.savez(path, *arrays)
    return path


def errors(folder: Path, given: Any, expected: Any = Y, **inputs: Any) -> list[float | None]:
    models = [model(folder / "a.npz", **inputs), model(folder / "b.npz", **inputs)]
    files = [saved(folder / "x.npz", expected), saved(folder / "y.npz", given)]
    return output_errors(models, files)


def test_the_error_is_in_parts_of_the_norm(tmp_path: Path) -> None:
    assert errors(tmp_path, Y) == [None, 0.0]
    assert errors(tmp_path, 1.01 * Y) == [None, pytest.approx(0.01, rel=1e-4)]


def test_positions_that_a_mask_pads_do_not_count(tmp_path: Path) -> None:
    given = Y.copy()
    given[:, 2] = 99
    assert errors(tmp_path, given, attention_mask=np.array([[1, 1, 0]])) == [None, 0.0]
    (_, error) = errors(tmp_path, given, attention_mask=np.array([[1, 1, 1]]))
    assert error is not None
    assert error > 1


@pytest.mark.parametrize("given", [Y[:, :1], np.full_like(Y, np.nan)])
def test_what_cannot_be_compared_has_no_error(given: Any, tmp_path: Path) -> None:
    assert errors(tmp_path, given) == [None, None]
    assert errors(tmp_path, Y, np.zeros_like(Y)) == [None, None]


def test_each_amount_of_work_has_a_reference_of_its_own(tmp_path: Path) -> None:
    models = [
        model(tmp_path / f"{loops}{name}.npz", loops=loops) for loops in (1, 4) for name in "ab"
    ]
    files = [saved(tmp_path / f"{i}.npz", factor * Y) for i, factor in enumerate((1, 1.5, 2, 2))]
    assert output_errors(models, files) == [None, pytest.approx(0.5), None, 0.0]


def test_other_inputs_a_process_that_died_and_large_outputs_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = model(tmp_path / "b.npz", input_ids=np.array([[3, 2, 1]]))
    models = [model(tmp_path / "a.npz"), other]
    file = saved(tmp_path / "x.npz", Y)
    assert output_errors(models[:2], [file, file]) == [None, None]
    assert output_errors(models[:1] * 2, [file, None]) == [None, None]
    assert output_errors(models[:1] * 2, [file, file]) == [None, 0.0]
    monkeypatch.setattr(rooms, "MOST_BYTES", 10)
    assert output_errors(models[:1] * 2, [file, file]) == [None, None]


def test_missing_values_are_the_same_inputs(tmp_path: Path) -> None:
    gaps = np.array([[1.0, np.nan, 3.0]], np.float32)
    assert errors(tmp_path, Y, inputs=gaps) == [None, 0.0]


def test_another_number_of_outputs_is_no_error(tmp_path: Path) -> None:
    models = [model(tmp_path / "a.npz"), model(tmp_path / "b.npz")]
    files = [saved(tmp_path / "x.npz", Y, Y), saved(tmp_path / "y.npz", Y)]
    assert output_errors(models, files) == [None, None]
