"""``loopedge run`` on tables, for models trained on columns; the model gives back what it was fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.tasks.series import SeriesTask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

TASK: dict[str, Any] = {
    "name": "series",
    "targets": ["y"],
    "covariates": ["x"],
    "context": 4,
    "min_context": 1,
    "horizon": 2,
    "mean": [7.0, 8.0],
}


def mirror(folder: Path, *, mask: bool = False, foreign: bool = False, **known: Any) -> Path:
    """Write a model whose outputs are its inputs: ``seen`` and, with a mask, ``kept``."""
    kinds: dict[str, tuple[int, str, list[str | int | None]]]
    kinds = {"inputs": (TensorProto.FLOAT, "seen", ["batch", "sequence", 2])}
    if mask:
        kinds["attention_mask"] = (TensorProto.INT64, "kept", ["batch", "sequence"])
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [out]) for name, (_, out, _) in kinds.items()],
        "mirror",
        [
            helper.make_tensor_value_info(name, kind, dims)
            for name, (kind, _, dims) in kinds.items()
        ],
        [helper.make_tensor_value_info(out, kind, dims) for kind, out, dims in kinds.values()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    if not foreign:
        fields = {"version": "0", "form": "unrolled", "loops": 1, "trained_loops": 1, "task": TASK}
        properties: dict[str, str] = {}
        write_metadata(ArtifactMetadata.model_validate(fields | known), properties)
        helper.set_model_props(model, properties)
    path = folder / "mirror.onnx"
    onnx.save(model, path)
    return path


def table(folder: Path, text: str) -> Path:
    path = folder / "x.csv"
    path.write_text(text, encoding="utf-8")
    return path


def fed(cli: Cli, model: Path, source: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    target = model.parent / "out.npz"
    outcome = cli("run", model, "--input", source, "-o", target, "--force", "--json")
    assert outcome.code == 0, outcome.err
    with np.load(target) as written:
        return dict(written), outcome.json()["notes"]


def refused(cli: Cli, model: Path, source: Path, words: str) -> None:
    target = model.parent / "refused.npz"
    outcome = cli("run", model, "--input", source, "-o", target)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not target.exists()


@pytest.mark.parametrize("task", [TASK, {**TASK, "targets": [], "covariates": ["y", "x"]}])
def test_columns_are_taken_by_name_and_others_reported(
    cli: Cli, tmp_path: Path, task: object
) -> None:
    model = mirror(tmp_path, task=task)
    outputs, notes = fed(cli, model, table(tmp_path, "day;x;y\n" + "mon;1;2\ntue;3;4\n" * 2))
    np.testing.assert_array_equal(outputs["seen"], [[[2, 1], [4, 3]] * 2])
    assert notes == ["columns that the model was not trained on are left out: 'day'"]


def test_a_description_of_one_target_names_its_columns_too(cli: Cli, tmp_path: Path) -> None:
    old = {key: value for key, value in TASK.items() if key not in {"targets", "min_context"}}
    model = mirror(tmp_path, task=old | {"target": "y", "interpolate": True})
    outputs, _ = fed(cli, model, table(tmp_path, "x,y\n1,2\n,\n3,4\n" + "5,6\n"))
    np.testing.assert_array_equal(outputs["seen"], [[[2, 1], [3, 2], [4, 3], [6, 5]]])


def test_a_header_without_a_column_is_refused(cli: Cli, tmp_path: Path) -> None:
    refused(cli, mirror(tmp_path), table(tmp_path, "x,z\n1,2\n"), "the header lacks 'y'")


def test_texts_of_missing_values(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, missing_values=True, task=TASK | {"missing": "indicator"})
    outputs, _ = fed(cli, model, table(tmp_path, "NA,NA\n1,?\n-,none\n2,null\n"))
    nan = np.nan
    np.testing.assert_array_equal(outputs["seen"], [[[nan, nan], [1, nan], [nan, nan], [2, nan]]])


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_a_mask_that_the_file_lacks_keeps_its_rows(cli: Cli, tmp_path: Path, rows: int) -> None:
    model = mirror(tmp_path, mask=True)
    values = np.arange(2 * rows).reshape(rows, 2)
    np.save(tmp_path / "x.npy", values[np.newaxis].astype(np.float32))
    lines = "\n".join(f"{y},{x}" for y, x in values)
    padded = max(TASK["context"] - rows, 0)
    for source in (table(tmp_path, lines), tmp_path / "x.npy"):
        outputs, notes = fed(cli, model, source)
        read = values[-4:] if source.suffix == ".csv" else values  # of a table the last window
        np.testing.assert_array_equal(outputs["seen"][0, padded:], read)
        np.testing.assert_array_equal(
            outputs["seen"][0, :padded], np.tile(TASK["mean"], (padded, 1))
        )
        np.testing.assert_array_equal(outputs["kept"], [[0] * padded + [1] * len(read)])
        assert ("attention_mask" in notes[0]) == (source.suffix == ".npy")
        assert any("padded on the left to the context of 4" in note for note in notes) == bool(
            padded
        )


def test_a_mask_that_the_file_holds_is_taken(cli: Cli, tmp_path: Path) -> None:
    values, mask = np.ones((1, 2, 2), np.float32), np.array([[0, 1]])
    np.savez(tmp_path / "x.npz", inputs=values, attention_mask=mask)
    outputs, notes = fed(cli, mirror(tmp_path, mask=True), tmp_path / "x.npz")
    np.testing.assert_array_equal(outputs["seen"], [[TASK["mean"]] * 2 + [[1, 1]] * 2])
    np.testing.assert_array_equal(outputs["kept"], [[0, 0, 0, 1]])
    assert notes == []


@pytest.mark.parametrize(
    ("length", "kept", "words"),
    [
        (3, None, "input inputs has 3 positions"),
        (1, None, "input inputs has 1 position, "),
        (4, [1, 1, 1, 0], "input attention_mask: sample 2 masks its last position"),
        (4, [0, 0, 0, 1], "sample 2 has 1 position, "),
    ],
)
def test_windows_that_training_never_saw_are_refused(
    cli: Cli, tmp_path: Path, length: int, kept: list[int] | None, words: str
) -> None:
    arrays = {"inputs": np.ones((2, length, 2), np.float32)}
    if kept is not None:
        arrays["attention_mask"] = np.array([[1] * length, kept])
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]  # a stub of numpy's keywords
    model = mirror(tmp_path, mask=kept is not None, task=TASK | {"min_context": 2})
    refused(cli, model, tmp_path / "x.npz", words)


def test_another_number_of_columns_is_reported_before_the_mask(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, mask=True)
    refused(cli, model, table(tmp_path, "1\n2\n"), "without a header 2 columns are needed")
    np.save(tmp_path / "x.npy", np.ones((1, 2, 1), np.float32))
    refused(cli, model, tmp_path / "x.npy", "input inputs has shape (1, 2, 1)")


def test_a_foreign_model_needs_its_mask(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, mask=True, foreign=True)
    refused(cli, model, table(tmp_path, "1,2\n"), "the model takes inputs, attention_mask")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nan", "x.csv: row 2 (line 2), column 'x': the value is missing"),
        ("inf", "x.csv: row 2 (line 2), column 'x': 'inf' is too large for float32"),
        ("-inf", "x.csv: row 2 (line 2), column 'x': '-inf' is too large for float32"),
        ("1e39", "x.csv: row 2 (line 2), column 'x': '1e39' is too large for float32"),
    ],
)
def test_numbers_of_a_table_that_are_not_finite(
    cli: Cli, tmp_path: Path, value: str, words: str
) -> None:
    source = table(tmp_path, f"1,2\n3,{value}\n5,6\n7,8\n")
    refused(cli, mirror(tmp_path), source, words)


@pytest.mark.parametrize(
    ("value", "missing", "words"),
    [
        ("nan", False, "position 2, column 'x' is nan, the model takes finite numbers of float32"),
        ("inf", False, "position 2, column 'x' is inf"),
        (
            "-inf",
            True,
            "position 2, column 'x' is -inf, the model takes finite numbers of float32 and",
        ),
        ("1e39", False, "position 2, column 'x' is 1e+39"),
    ],
)
def test_numbers_that_are_not_finite(
    cli: Cli, tmp_path: Path, value: str, missing: bool, words: str
) -> None:
    np.save(tmp_path / "x.npy", np.array([[[1, 2], [3, float(value)], [5, 6], [7, 8]]]))
    refused(cli, mirror(tmp_path, missing_values=missing), tmp_path / "x.npy", words)


def test_the_place_of_a_number_that_is_not_finite_in_a_batch(cli: Cli, tmp_path: Path) -> None:
    values = np.zeros((2, 3, 2), np.float32)
    values[1, 2, 0] = np.nan
    np.savez(tmp_path / "x.npz", inputs=values)
    model = mirror(tmp_path, task={})
    refused(cli, model, tmp_path / "x.npz", "input inputs: sample 2, position 3, column 1 is nan")


def test_a_foreign_model_needs_its_mask_in_a_file_of_several_arrays(
    cli: Cli, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", inputs=np.ones((1, 2, 2), np.float32))
    model = mirror(tmp_path, mask=True, foreign=True)
    refused(cli, model, tmp_path / "x.npz", "input attention_mask is missing")


def test_a_short_window_is_fed_as_in_training(cli: Cli, tmp_path: Path) -> None:
    lines = [f"{day},{day * day}" for day in range(40)]
    source = table(tmp_path, "\n".join(["x,y", *lines]))
    task = SeriesTask.from_file(
        source, targets=["y"], covariates=["x"], context=4, horizon=1, min_context=2
    )
    batch = next(iter(task.evaluation("train", 1, 1000)))  # the window of the first two rows
    model = mirror(tmp_path, mask=True, task=task.describe())
    outputs, _ = fed(cli, model, table(tmp_path, "\n".join(["x,y", *lines[:2]])))
    np.testing.assert_array_equal(outputs["seen"], batch.inputs)
    np.testing.assert_array_equal(outputs["kept"], batch.attention_mask)


def test_a_foreign_model_is_fed_as_the_file_says(cli: Cli, tmp_path: Path) -> None:
    outputs, _ = fed(cli, mirror(tmp_path, foreign=True), table(tmp_path, "x,y\n1,nan\n"))
    np.testing.assert_array_equal(outputs["seen"], [[[1, np.nan]]])
