"""Every scheme is measured by the task's metric and by SQNR on the same samples, none of which calibrated."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
from loopedge.errors import InputError
from loopedge.graph.metadata import Metadata, read_metadata, write_metadata
from loopedge.quantizer.noise import generated_batches
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from tests.parity.models import seven_bits

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
pytestmark = pytest.mark.slow

SCHEMES = ("static", "dynamic", "weight-int8")
TASK = SortingTask(length=4, vocab=8, seed=0)


class NotInstalled:
    """Finds no package of calibration."""

    def find_spec(self, name: str, *args: object) -> None:
        if name.startswith("loopedge_calibration"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def known_model(path: Path) -> Path:
    """Let the small model say that it was trained to sort; its head has enough classes."""
    model = ir.load(TINY)
    metadata = read_metadata(model.metadata_props)
    described: Metadata = metadata.model_copy(update={"task": TASK.describe()})
    write_metadata(described, model.metadata_props)
    ir.save(model, path)
    return path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_metric_and_the_sqnr_are_those_of_the_validation_part(
    tmp_path: Path, scheme: str
) -> None:
    """Both figures are computed here again, from outputs of the two files."""
    source, target = known_model(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    result = loopedge.quantize(
        source, target, scheme=scheme, min_sqnr_db=-50, threads=1, **seven_bits(scheme)
    )
    found = result.held_out
    assert (found.source, found.samples, found.metric) == ("validation", 512, "accuracy")
    signal = noise = 0.0
    right = np.zeros(2, np.int64)
    asked = 0
    sessions = [loopedge.Session(path, threads=1) for path in (source, target)]
    for batch in TASK.evaluation("validation", 8, 512):
        exact, given = (session.run({"input_ids": batch.inputs})["logits"] for session in sessions)
        signal += float(np.square(exact.astype(np.float64)).sum())
        noise += float(np.square(exact.astype(np.float64) - given).sum())
        kept = batch.targets >= 0
        asked += int(kept.sum())
        for place, logits in enumerate((exact, given)):
            right[place] += int((logits.argmax(-1) == batch.targets)[kept].sum())
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-6)
    assert result.sqnr_db == found.sqnr_db
    assert found.float_score == pytest.approx(right[0] / asked)
    assert found.score == pytest.approx(right[1] / asked)
    assert found.loss == pytest.approx((right[0] - right[1]) / asked)
    assert found.loss_error is not None
    assert (result.warning is not None) == found.moved
    stored = loopedge.inspect(target).metadata["quantization"]
    assert stored["sqnr_db"] == found.sqnr_db
    assert (stored["measured_on"], stored["measured_samples"]) == ("validation", 512)
    assert (stored["metric"], stored["score"]) == ("accuracy", found.score)
    assert json.loads(json.dumps(result.to_json()))["held_out"]["score"] == found.score


def test_without_data_or_task_the_sqnr_says_that_inputs_were_generated(tmp_path: Path) -> None:
    result = loopedge.quantize(TINY, tmp_path / "q.onnx", min_sqnr_db=-50)
    assert (result.held_out.source, result.held_out.metric) == ("generated", None)
    stored = loopedge.inspect(tmp_path / "q.onnx").metadata["quantization"]
    assert stored["measured_on"] == "generated"


def test_every_scheme_is_measured_on_the_same_samples(tmp_path: Path) -> None:
    """A file computes the same outputs whatever chose its samples: its figure can be repeated from the data."""
    ids = np.random.default_rng(0).integers(0, 48, (40, 9))
    for scheme in SCHEMES:
        target = tmp_path / f"{scheme}.onnx"
        result = loopedge.quantize(
            TINY,
            target,
            scheme=scheme,
            data={"input_ids": ids},
            min_sqnr_db=-50,
            threads=1,
            **seven_bits(scheme),
        )
        assert (result.held_out.source, result.held_out.samples) == ("data", 10)
        exact, given = (
            loopedge.Session(path, threads=1).run({"input_ids": ids[3::4]})["logits"]
            for path in (TINY, target)
        )
        ratio = np.square(exact).sum() / np.square(exact - given).sum()
        # Dynamic ranges depend on what else is in the batch.
        assert result.sqnr_db == pytest.approx(10 * np.log10(ratio), abs=1.5)


def test_a_metric_that_moves_by_more_than_its_noise_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score of the quantized file is made worse in turn: batch after batch, by two answers of 32."""
    calls = []

    def worse(self: SortingTask, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        calls.append(1)
        found = {"right": 30, "asked": 32}
        return found if len(calls) % 2 else {**found, "right": 28}

    monkeypatch.setattr(SortingTask, "tally", worse)
    result = loopedge.quantize(
        known_model(tmp_path / "m.onnx"), tmp_path / "q.onnx", min_sqnr_db=-50
    )
    assert result.held_out.moved
    assert result.warning is not None
    assert result.warning.startswith(
        "accuracy moves from 0.9375 to 0.875 on 512 samples of the task's"
    )
    assert result.notes[0] == f"WARNING: {result.warning}"


def test_generated_inputs_have_the_lengths_that_ranges_were_found_on() -> None:
    model = ir.load(TINY)
    lengths = {feeds["input_ids"].shape[1] for feeds in generated_batches(model, [9, 5, 7])}
    assert lengths == {5, 9}
    assert {feeds["input_ids"].shape[1] for feeds in generated_batches(model)} == {1, 16}


def test_without_calibration_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("loopedge_calibration")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    with pytest.raises(InputError, match=r"needs the package loopedge_calibration, which is not"):
        loopedge.quantize(TINY, tmp_path / "q.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_task_s_table_needs_no_header_where_run_needs_none(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((80, 2)).round(3)
    rows = [",".join(map(str, row)) for row in values]
    (tmp_path / "bare.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "named.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    made = SeriesTask.from_file(
        tmp_path / "named.csv", targets=["a"], covariates=["b"], context=6, horizon=2
    ).describe()
    tasks = [
        SeriesTask.from_description(made, data=tmp_path / name, seed=0)
        for name in ("named.csv", "bare.csv")
    ]
    named, bare = (next(task.evaluation("validation", 8, 8)) for task in tasks)
    np.testing.assert_array_equal(bare.inputs, named.inputs)
    np.testing.assert_array_equal(bare.targets, named.targets)
    (tmp_path / "three.csv").write_text("\n".join(f"{row},1" for row in rows) + "\n")
    with pytest.raises(
        InputError, match="has no header and 3 columns, without a header 2 columns are needed"
    ):
        SeriesTask.from_description(made, data=tmp_path / "three.csv", seed=0)
    with pytest.raises(InputError, match="no column 'a'"):
        SeriesTask.from_file(tmp_path / "bare.csv", targets=["a"], context=6, horizon=2)
