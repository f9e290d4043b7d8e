"""What a model's inputs must be: one check, and the same feeds from the same file wherever it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import FOREIGN, ArtifactMetadata
from loopedge.graph.signature import TEXT, InputSpec
from loopedge.profiler.subjects.measured_inputs import profile_feeds
from loopedge.runtime.inputs import ModelInputs
from loopedge.runtime.session import Session
from loopedge_calibration.samples import Samples
from tests.cli.test_run_series import TASK, mirror

if TYPE_CHECKING:
    from collections.abc import Callable

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, DYNAMIC = FIXTURES / "tiny.onnx", FIXTURES / "tiny_dynamic.onnx"


def all_feeds(model: Path, source: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return what a run, a profile and a calibration feed the model from a file."""
    graph = open_artifact(model)
    return {
        "run": Session(model).expected.read(source).arrays,
        "profile": profile_feeds(
            graph, model, source, batch=1, sequence=None, loops=None, seed=0
        ).arrays,
        "calibration": dict(next(iter(Samples(source, graph, samples=8).calibrating)).feeds),
    }


def assert_same(feeds: dict[str, dict[str, np.ndarray]], expected: dict[str, Any]) -> None:
    for reader, arrays in feeds.items():
        assert list(arrays) == list(expected), reader
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array, err_msg=f"{reader}: {name}")
            assert arrays[name].dtype == feeds["run"][name].dtype, reader


def write(folder: Path, kind: str, values: np.ndarray) -> Path:
    path = folder / f"x{kind}"
    if kind == ".npz":
        np.savez(path, inputs=values[np.newaxis])
    elif kind == ".npy":
        np.save(path, values[np.newaxis])
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in values))
    return path


@pytest.mark.parametrize("rows", [2, 4, 6])
@pytest.mark.parametrize("kind", [".npz", ".npy", ".csv"])
@pytest.mark.parametrize("named", [True, False])
def test_a_missing_mask_is_filled_alike_everywhere(
    tmp_path: Path, kind: str, rows: int, named: bool
) -> None:
    """A model that names no task keeps every position; one of a table is padded to its context."""
    model = mirror(tmp_path, mask=True, task=TASK if named else {})
    values = np.arange(2 * rows).reshape(rows, 2).astype(np.float32)
    source = write(tmp_path, kind, values)
    if kind == ".csv" and named:  # a table: its last window
        values = values[-TASK["context"] :]
    padded = max(TASK["context"] - rows, 0) if named else 0
    inputs = np.concatenate([np.tile(np.float32(TASK["mean"]), (padded, 1)), values])[np.newaxis]
    expected = {"inputs": inputs, "attention_mask": [[0] * padded + [1] * len(values)]}
    if kind == ".csv" and named:  # to a calibration it is the table that windows are cut from
        graph = open_artifact(model)
        feeds = {
            "run": Session(model).expected.read(source).arrays,
            "profile": profile_feeds(
                graph, model, source, batch=1, sequence=None, loops=None, seed=0
            ).arrays,
        }
    else:
        feeds = all_feeds(model, source)
    assert_same(feeds, expected)


def test_a_mask_of_the_file_is_taken_everywhere(tmp_path: Path) -> None:
    values, mask = np.ones((1, 4, 2), np.float32), np.array([[0, 1, 0, 1]])
    np.savez(tmp_path / "x.npz", attention_mask=mask.astype(np.int32), inputs=values)
    feeds = all_feeds(mirror(tmp_path, mask=True), tmp_path / "x.npz")
    assert_same(feeds, {"inputs": values, "attention_mask": mask})
    assert feeds["run"]["attention_mask"].dtype == np.int64


@pytest.mark.parametrize("kind", [".npz", ".npy", ".csv"])
def test_a_model_without_a_mask_is_fed_alike_everywhere(tmp_path: Path, kind: str) -> None:
    values = np.arange(6).reshape(3, 2).astype(np.float32)
    model = mirror(tmp_path, task={})
    assert_same(all_feeds(model, write(tmp_path, kind, values)), {"inputs": values[np.newaxis]})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a rank": ({"inputs": np.ones((1, 2))}, "input inputs has shape (1, 2), the model takes (batch, sequence, 2)"),
    "a fixed axis": ({"inputs": np.ones((1, 3, 3))}, "input inputs has shape (1, 3, 3), the model"),
    "nothing": ({"inputs": np.ones((1, 0, 2))}, "input inputs is empty: shape (1, 0, 2)"),
    "a type": ({"inputs": np.ones((1, 3, 2), complex)}, "input inputs has type complex128, the model takes float32"),
    "a number": (
        {"inputs": [[[0, 1], [2, np.nan]], [[0, 0], [0, 0]]]},
        "input inputs: sample 1, position 2, column 'x' is nan, the model takes finite numbers of float32",
    ),
    "a name": ({"inputs": np.ones((1, 3, 2)), "mask": np.ones((1, 3))}, "no input mask; the model takes inputs, attention_mask"),
    "another name": ({"x": np.ones((1, 3, 2)), "y": np.ones((1, 3))}, "input inputs is missing; the model takes"),
    "a mask of 2": (
        {"inputs": np.ones((1, 2, 2)), "attention_mask": np.array([[1, 2]])},
        "input attention_mask: sample 1, position 2 is 2, a mask holds 1",
    ),
    "a mask of another length": (
        {"inputs": np.ones((1, 2, 2)), "attention_mask": np.ones((1, 3), np.int64)},
        "input attention_mask has shape (1, 3), the positions that it masks (1, 2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_inputs_are_one_line_and_the_same_everywhere(tmp_path: Path, kind: str) -> None:
    given, words = BAD[kind]
    model, source = mirror(tmp_path, mask=True), tmp_path / "x.npz"
    arrays = {name: np.asarray(value) for name, value in given.items()}
    np.savez(source, **arrays)  # type: ignore[arg-type]  # a stub of numpy's keywords
    graph, session = open_artifact(model), Session(model)
    readers: dict[str, Callable[[], object]] = {
        "Session.run": lambda: session.run(arrays),
        "run": lambda: session.expected.read(source),
        "profile": lambda: profile_feeds(
            graph, model, source, batch=1, sequence=None, loops=None, seed=0
        ),
        "calibration": lambda: list(Samples(source, graph, samples=8).calibrating),
    }
    for reader, read in readers.items():
        with pytest.raises(InputError) as refused:
            read()
        message = str(refused.value).removeprefix(f"{source}: ")
        assert message.startswith(words), reader
        assert "\n" not in message, reader


def test_a_session_takes_the_array_of_a_model_of_one_input(tmp_path: Path) -> None:
    session = Session(mirror(tmp_path, mask=True))
    found = session.run([[[1, 2], [3, 4], [5, 6], [7, 8]]])
    np.testing.assert_array_equal(found["seen"], np.arange(1.0, 9).reshape(1, 4, 2))
    np.testing.assert_array_equal(found["kept"], [[1, 1, 1, 1]])
    ids = np.array([[1, 2, 3]])
    tiny = Session(DYNAMIC)
    np.testing.assert_array_equal(
        tiny.run(ids, loops=2)["logits"], tiny.run({"input_ids": ids}, loops=2)["logits"]
    )
    foreign = Session(mirror(tmp_path, mask=True, foreign=True))
    with pytest.raises(InputError, match=r"one array does not feed .*, which takes inputs, att"):
        foreign.run(np.ones((1, 4, 2)))


def test_a_session_says_what_it_runs(tmp_path: Path) -> None:
    assert repr(Session(TINY)) == (
        f"<Session {TINY}: loop, loops=3, input_ids (batch, sequence) -> logits, "
        "CPUExecutionProvider, memory=balanced>"
    )
    assert "loops=3 (selectable)" in repr(Session(DYNAMIC))
    assert "mirror.onnx: not written by loopedge, inputs (batch, sequence, 2) -> seen" in repr(
        Session(mirror(tmp_path, foreign=True))
    )


def test_ids_are_held_to_the_table_that_they_select_from() -> None:
    graph = open_artifact(TINY)
    (spec,) = input_specs(graph)
    assert (spec.name, spec.dtype, spec.shape, spec.ids) == (
        "input_ids",
        np.dtype(np.int64),
        ("batch", "sequence"),
        48,
    )
    known = ModelInputs.of("m.onnx", [spec], FOREIGN)
    for wrong in (-1, 48):
        ids = np.array([[1, 2], [3, wrong]])
        with pytest.raises(
            InputError,
            match=rf"input_ids: sample 2, position 2 is {wrong}, the model takes ids from 0 to 47",
        ):
            known.accept({"input_ids": ids})


def test_a_vocabulary_that_the_task_names_is_one() -> None:
    metadata = ArtifactMetadata(
        version="0", form="loop", loops=1, trained_loops=1, task={"name": "text", "vocab_size": 7}
    )
    spec = InputSpec(name="input_ids", dtype=np.dtype(np.int64), shape=("batch", "sequence"))
    with pytest.raises(InputError, match="position 1 is 7, the model takes ids from 0 to 6"):
        ModelInputs.of("m.onnx", [spec], metadata).accept({"input_ids": np.array([[7]])})


@pytest.mark.parametrize(
    ("dtype", "array", "words"),
    [
        (np.int32, np.array([2**40]), "input x holds 1099511627776, the model takes int32"),
        (np.uint8, np.array([-1]), "input x has type int64, the model takes uint8"),
        (TEXT, np.array([1]), "input x has type int64, the model takes text"),
        (np.int64, np.array([1.0]), "input x has type float64, the model takes int64"),
    ],
)
def test_a_cast_keeps_kinds_and_values(dtype: Any, array: np.ndarray, words: str) -> None:
    spec = InputSpec(name="x", dtype=np.dtype(dtype), shape=("N",))
    with pytest.raises(InputError, match=words):
        ModelInputs.of("m.onnx", [spec], FOREIGN).accept({"x": array})


def test_noise_is_drawn_in_the_sizes_of_the_other_inputs() -> None:
    metadata = ArtifactMetadata(
        version="0", form="loop", loops=1, trained_loops=1, random_inputs={"z": 0.5}
    )
    specs = [
        InputSpec(name="x", dtype=np.dtype(np.float32), shape=("batch", "sequence", 3)),
        InputSpec(name="z", dtype=np.dtype(np.float32), shape=("batch", 4)),
    ]
    known = ModelInputs.of("m.onnx", specs, metadata)
    given = {"x": np.zeros((2, 5, 3), np.float32)}
    drawn = known.accept(given, seed=7).arrays["z"]
    expected = np.random.default_rng(7).standard_normal((2, 4)) * 0.5
    np.testing.assert_array_equal(drawn, expected.astype(np.float32))
    assert list(known.accept(given, seed=None).arrays) == ["x"]
    assert list(given) == ["x"]
