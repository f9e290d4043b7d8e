"""The accuracy budget lifts what it must, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import BudgetError, InputError
from loopedge.graph.core.names import loop_name
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.weights import linears
from loopedge.quantizer.budget_result import BudgetResult
from loopedge.quantizer.source import FloatSource
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import total
from loopedge_calibration.losses import RelativeError, choose_loss
from loopedge_calibration.samples import CHOSE_TOO
from tests.parity.models import FLIPS, Sizes, make_inputs, make_model, seven_bits

pytestmark = pytest.mark.slow

Exporter = Callable[..., Path]
FRAGILE = "core/linear_4"
CLOSE = (1 + FLIPS**2) ** 0.5 - 1
"""Of a loss that is measured again with all rows in one batch, which other kernels compute: 3 %."""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    model = make_model("tokens")
    np.savez(tmp_path / "x.npz", **make_inputs(model, Sizes(24, 12))[1])  # type: ignore[arg-type]
    return tmp_path / "x.npz"


def fragile_model(source: Path, target: Path) -> Path:
    """Give one linear outliers in every column: what else is in a column rounds to zero.

    The outliers read a channel that is as much smaller, so that the float model stays what it is.
    """
    model = open_artifact(source)
    item = next(item for item in linears(model) if loop_name(item.node) == FRAGILE)
    table = model.graph.initializers["timestep.norm_mlp.0"]
    for value, place, factor in ((item.weight, np.s_[0], 500), (table, np.s_[:, 0], 1 / 500)):
        assert value.const_value is not None
        values = value.const_value.numpy().copy()
        values[place] *= factor
        value.const_value = ir.tensor(values, name=value.name)
    ir.save(model, target)
    return target


def budgeted(
    source: Path, target: Path, data: Path | None, **options: Any
) -> loopedge.QuantizeResult:
    scheme = "dynamic" if data is None else "static"
    settings = {"scheme": scheme, "min_sqnr_db": 0.0, "threads": 1, **options}
    if settings["scheme"] == "static" and "ranges" not in options:
        settings |= {"smoothing": False}
    settings |= seven_bits(settings["scheme"])
    result = loopedge.quantize(source, target, data=data, **settings)
    return result


def known(result: loopedge.QuantizeResult) -> BudgetResult:
    assert result.budget is not None
    return result.budget


def relative_error(source: Path, given: Path, data: Path) -> float:
    """Return the error on the samples that choose what is lifted: a fourth, which neither calibrates nor judges."""
    with np.load(data) as arrays:
        feeds = {name: array[1::4] for name, array in arrays.items()}
    exact, found = (loopedge.Session(path).run(feeds)["logits"] for path in (source, given))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_nothing_is_lifted_where_int8_is_good_enough(
    exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    source = exported("tokens")
    result = budgeted(source, tmp_path / "q.onnx", samples, max_drop=0.1)
    budget = known(result)
    assert (budget.metric, budget.samples, budget.lifted) == ("relative-error", 6, [])
    assert result.matmuls["skipped"] == []
    assert budget.loss == budget.loss_int8
    assert budget.loss == pytest.approx(
        relative_error(source, tmp_path / "q.onnx", samples), rel=CLOSE
    )


@pytest.mark.parametrize(
    ("scheme", "form", "ops"),
    [
        ("static", "loop", "microsoft"),
        ("static", "loop", "standard"),
        ("dynamic", "unrolled", "microsoft"),
        ("weight-int8", "loop", "microsoft"),
    ],
)
def test_exactly_the_fragile_linear_is_kept_in_float(
    scheme: str, form: str, ops: str, exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    source = fragile_model(exported("tokens", form=form), tmp_path / "fragile.onnx")
    target = tmp_path / "q.onnx"
    allowed = 0.1
    result = budgeted(source, target, samples, scheme=scheme, ops=ops, max_drop=allowed)
    budget = known(result)
    assert [(item.name, item.level) for item in budget.lifted] == [(FRAGILE, "float")]
    assert budget.loss <= allowed < budget.loss_int8
    # Dynamic ranges depend on what else is in the batch: 24 here, 8 in the trials.
    close = 0.1 if scheme == "dynamic" else CLOSE
    assert relative_error(source, target, samples) == pytest.approx(budget.loss, rel=close)
    assert {loop_name(item.node) for item in linears(ir.load(target))} == {FRAGILE}
    lifted = budget.lifted[0]
    assert lifted.won == pytest.approx(budget.loss_int8 - budget.loss)
    rows, columns = next(tuple(item.weight.shape or ()) for item in linears(ir.load(target)))
    scales = 4 * columns  # one block of 32 inputs, or one channel
    assert lifted.bytes == 4 * rows * columns - (rows * columns + scales)
    assert budget.sensitivity[0].name == FRAGILE
    assert len(budget.sensitivity) == 7
    assert result.to_json()["budget"]["lifted"][0]["name"] == FRAGILE


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_blocks_of_eight_bits_come_before_float(
    form: str, exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    source, target = exported("tokens", form=form), tmp_path / "q.onnx"
    whole = known(budgeted(source, target, samples, max_drop=1.0)).loss
    result = budgeted(source, target, samples, max_drop=0.9 * whole, force=True)
    lifted = [item.name for item in known(result).lifted]
    assert {item.level for item in known(result).lifted} == {"weight-int8"}
    assert 0 < len(lifted) < 7
    nodes = [node for node in ir.load(target).graph.all_nodes() if node.op_type == "MatMulNBits"]
    assert {loop_name(node) for node in nodes} == {*lifted, "coda/linear"}  # by its place
    assert relative_error(source, target, samples) <= 0.9 * whole * (1 + CLOSE)


def test_what_cannot_be_met_leaves_nothing(
    exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="allowed is 1e-06") as raised:
        budgeted(exported("tokens"), tmp_path / "q.onnx", samples, max_drop=1e-6)
    assert raised.value.measured is not None
    assert raised.value.measured > 1e-6
    assert list(tmp_path.iterdir()) == [samples]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_drop": -0.1}, "allowed is 0 or more"),
        ({"max_drop": float("nan")}, "allowed is 0 or more"),
        ({"max_drop": 1e-9}, "rounding in float32 alone"),
        ({"max_drop": 0.1, "metric": "task"}, "does not say what it was trained on"),
        ({"max_drop": 0.1, "metric": "sqnr"}, "not known"),
        ({"metric": "task"}, "needs a budget"),
        ({"max_drop": 0.1, "keep": ["core/none"]}, "no linear core/none"),
    ],
)
def test_bad_budgets_are_refused(
    options: dict[str, Any], words: str, exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        budgeted(exported("tokens"), tmp_path / "q.onnx", samples, **options)
    assert not (tmp_path / "q.onnx").exists()


def test_ranges_of_another_model_are_refused_before_the_trials(
    exported: Exporter, samples: Path, tmp_path: Path
) -> None:
    table = loopedge_calibration.collect(exported("tokens"), samples)
    table.save(tmp_path / "ranges.json")
    with pytest.raises(InputError, match="another model"):
        budgeted(
            exported("plain"),
            tmp_path / "q.onnx",
            samples,
            ranges=tmp_path / "ranges.json",
            max_drop=0.1,
        )


def test_the_metric_is_the_task_s_where_it_is_known(exported: Exporter, tmp_path: Path) -> None:
    """The drop is what the task says of both files; an untrained model may also get better."""
    source = exported("tokens")
    model = ir.load(source)
    metadata = read_metadata(model.metadata_props)
    assert not metadata.foreign
    task = SortingTask(length=4, vocab=8, seed=0)
    write_metadata(metadata.model_copy(update={"task": task.describe()}), model.metadata_props)
    trained = tmp_path / "trained.onnx"
    ir.save(model, trained)
    budget = known(budgeted(trained, tmp_path / "q.onnx", None, scheme="static", max_drop=0.5))
    assert (budget.metric, budget.samples) == ("accuracy", 512)
    assert budget.float_score is not None
    assert budget.score is not None
    assert budget.loss == pytest.approx(budget.float_score - budget.score)
    session = loopedge.Session(tmp_path / "q.onnx")
    tallies = (
        task.tally(session.run({"input_ids": batch.inputs})["logits"], batch.targets)
        for batch in task.evaluation("validation", 512, 512)
    )
    assert budget.score == pytest.approx(task.metrics(total(tallies))["accuracy"], abs=0.01)
    assert isinstance(choose_loss(FloatSource.open(trained), "relative-error"), RelativeError)


def test_without_data_inputs_are_generated(exported: Exporter, tmp_path: Path) -> None:
    budget = known(budgeted(exported("series"), tmp_path / "q.onnx", None, max_drop=0.5))
    assert (budget.metric, budget.samples) == ("relative-error", 32)


def test_a_budget_of_few_samples_says_that_they_calibrated_too(
    exported: Exporter, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **make_inputs(make_model("tokens"), Sizes(3, 12))[1])  # type: ignore[arg-type]
    result = budgeted(exported("tokens"), tmp_path / "q.onnx", tmp_path / "x.npz", max_drop=0.5)
    assert CHOSE_TOO in result.notes
