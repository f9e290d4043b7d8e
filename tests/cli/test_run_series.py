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
    outputs, notes = fed(cli, model, table(tmp_path, "day;x;y\nmon;1;2\ntue;3;4\n"))
    np.testing.assert_array_equal(outputs["seen"], [[[2, 1], [4, 3]]])
    assert notes == ["columns that the model was not trained on are left out: 'day'"]


def test_a_description_of_one_target_names_its_columns_too(cli: Cli, tmp_path: Path) -> None:
    old = {key: value for key, value in TASK.items() if key != "targets"} | {"target": "y"}
    outputs, _ = fed(cli, mirror(tmp_path, task=old), table(tmp_path, "x,y\n1,2\n"))
    np.testing.assert_array_equal(outputs["seen"], [[[2, 1]]])


def test_a_header_without_a_column_is_refused(cli: Cli, tmp_path: Path) -> None:
    refused(cli, mirror(tmp_path), table(tmp_path, "x,z\n1,2\n"), "the header lacks 'y'")


def test_texts_of_missing_values(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, missing_values=True)
    outputs, _ = fed(cli, model, table(tmp_path, "NA,NA\n1,?\n"))
    np.testing.assert_array_equal(outputs["seen"], [[[np.nan, np.nan], [1, np.nan]]])


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_a_mask_that_the_file_lacks_keeps_its_rows(cli: Cli, tmp_path: Path, rows: int) -> None:
    model = mirror(tmp_path, mask=True)
    values = np.arange(2 * rows).reshape(rows, 2)
    np.save(tmp_path / "x.npy", values[np.newaxis].astype(np.float32))
    lines = "\n".join(f"{y},{x}" for y, x in values)
    padded = max(TASK["context"] - rows, 0)
    for source in (table(tmp_path, lines), tmp_path / "x.npy"):
        outputs, notes = fed(cli, model, source)
        np.testing.assert_array_equal(outputs["seen"][0, padded:], values)
        np.testing.assert_array_equal(
            outputs["seen"][0, :padded], np.tile(TASK["mean"], (padded, 1))
        )
        np.testing.assert_array_equal(outputs["kept"], [[0] * padded + [1] * rows])
        assert "attention_mask" in notes[0]
        assert any("padded on the left to the context of 4" in note for note in notes) == bool(
            padded
        )


def test_a_mask_that_the_file_holds_is_taken(cli: Cli, tmp_path: Path) -> None:
    values, mask = np.ones((1, 2, 2), np.float32), np.array([[0, 1]])
    np.savez(tmp_path / "x.npz", inputs=values, attention_mask=mask)
    outputs, notes = fed(cli, mirror(tmp_path, mask=True), tmp_path / "x.npz")
    np.testing.assert_array_equal(outputs["kept"], [[0, 1]])
    assert notes == []


def test_another_number_of_columns_is_reported_before_the_mask(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, mask=True)
    refused(cli, model, table(tmp_path, "1\n2\n"), "input inputs has shape (1, 2, 1)")


def test_a_foreign_model_needs_its_mask(cli: Cli, tmp_path: Path) -> None:
    model = mirror(tmp_path, mask=True, foreign=True)
    refused(cli, model, table(tmp_path, "1,2\n"), "the model takes inputs, attention_mask")


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
    model = mirror(tmp_path, missing_values=missing)
    refused(cli, model, table(tmp_path, f"1,2\n3,{value}\n"), words)


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
