"""Refined weights: the file holds what was trained, PyTorch with rounding computes what the file does, wrong input is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import loopedge
from examples.bring_your_own import Mine
from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.graph.integer_weights.rounded_weights import Channels
from loopedge.model.transformer import LoopedTransformer
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge_calibration import quantization
from loopedge_calibration.collector import collect
from loopedge_calibration.refining import distillation, refining
from loopedge_calibration.refining.module import open_float_module
from loopedge_calibration.refining.plan import plan_rounding
from loopedge_calibration.refining.trained_rounding import TrainedRounding
from loopedge_calibration.rounding.contest import Contest
from tests.parity.models import FLIPS, SEVEN_BITS, Sizes, make_inputs, make_model, noise_share

Exporter = Callable[..., Path]
Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Refined:
    """A refined file, with what training ended with and where it began."""

    path: Path
    source: FloatSource
    model: LoopedTransformer
    recipe: Recipe
    feeds: Feeds
    result: loopedge.QuantizeResult


def refine(
    kind: str, scheme: str, exported: Exporter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Refined:
    """Refine in a few steps, so large that some weights move; remember the recipe."""
    model, source = make_model(kind), exported(kind)
    _, feeds = make_inputs(model, Sizes(24, 10))
    found: list[Recipe] = []

    def remembered(*arguments: Any) -> Any:
        made = refining.refine_weights(*arguments)
        found.append(made)
        return made

    monkeypatch.setattr(quantization, "refine_weights", remembered)
    monkeypatch.setattr(distillation, "LEARNING_RATE", 0.05)
    monkeypatch.setattr(Contest, "best", lambda contest, entries: entries[-1])
    monkeypatch.setattr(distillation.Distillation, "_evaluate", rising())
    seven = {} if scheme.startswith("weight") else SEVEN_BITS
    path = folder / "q.onnx"
    result = loopedge.quantize(
        source,
        path,
        data=feeds,
        scheme=scheme,
        refine=3,
        module=model,
        rounding="nearest" if scheme.startswith("weight") else None,
        min_sqnr_db=1,
        **seven,
    )
    return Refined(path, FloatSource.open(source), model, found[0], feeds, result)


def rising() -> Callable[[object], float]:
    """Return an evaluation that finds each state better than the one before."""
    found = iter(range(100))
    return lambda self: float(next(found))


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("tokens", "weight-int4"),
        pytest.param("tokens", "static", marks=pytest.mark.slow),
        pytest.param("series", "static", marks=pytest.mark.slow),
        pytest.param("series", "weight-int4", marks=pytest.mark.slow),
        pytest.param("padded", "dynamic", marks=pytest.mark.slow),
        pytest.param("bidirectional", "weight-int8", marks=pytest.mark.slow),
        pytest.param("plain", "static", marks=pytest.mark.slow),
    ],
)
def test_the_file_holds_what_was_trained_and_computes_it(
    kind: str,
    scheme: str,
    exported: Exporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refined = refine(kind, scheme, exported, tmp_path, monkeypatch)
    assert refined.result.refined is not None
    assert refined.result.refined.best_step == 3
    before = plan_rounding(
        refined.source.graph, _without_rounded(refined.recipe)
    ).weights  # where training began
    held = Artifact.open(refined.path).graph.graph.initializers
    moved = 0
    for name, trained in refined.recipe.rounded.items():
        stored = held[name].const_value
        assert stored is not None
        values = trained.values.T if isinstance(trained, Channels) else trained.values
        np.testing.assert_array_equal(stored.numpy(), values)
        np.testing.assert_array_equal(trained.scales, before[name].rounded.scales)
        moved += int((trained.values != before[name].rounded.values).sum())
    assert set(refined.recipe.rounded) == set(before)
    assert moved > 0, "training moved nothing"
    _check_outputs(refined)


def _without_rounded(recipe: Recipe) -> Recipe:
    return Recipe(
        scheme=recipe.scheme, table=recipe.table, reduce_range=recipe.reduce_range, rounded={}
    )


def _check_outputs(refined: Refined) -> None:
    """See that PyTorch with rounding gives what the file gives."""
    plan = plan_rounding(refined.source.graph, refined.recipe)
    feeds = {name: array[:4] for name, array in refined.feeds.items()}
    with open_float_module(refined.model, refined.source) as module, torch.no_grad():
        rounding = TrainedRounding(plan, module.names())
        with rounding.rounding():
            given = module.run(feeds)[0].numpy()
        exact = module.run(feeds)[0].numpy()
    written = next(iter(loopedge.Session(refined.path).run(feeds).values()))
    if "attention_mask" in feeds and written.ndim == 3:
        kept = feeds["attention_mask"].astype(bool)
        given, exact, written = given[kept], exact[kept], written[kept]
    assert noise_share(given, written, exact) < FLIPS


@pytest.mark.slow
def test_training_gets_closer_to_float_on_samples_that_it_did_not_see(
    exported: Exporter, tmp_path: Path
) -> None:
    model = make_model("tokens")
    _, feeds = make_inputs(model, Sizes(128, 12))
    result = loopedge.quantize(
        exported("tokens"),
        tmp_path / "q.onnx",
        data=feeds,
        scheme="weight-int4",
        refine=40,
        module=model,
        rounding="nearest",
    )
    assert result.refined is not None
    assert result.refined.after_db > result.refined.before_db + 0.2
    assert model.training is False
    assert result.to_json()["refined"]["steps"] == 40


@pytest.mark.slow
def test_a_module_of_the_users_own_with_fused_projections(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Mine().train()
    loopedge.export(module, tmp_path / "mine.onnx")
    ids = np.random.default_rng(0).integers(0, 50, (32, 9))
    result = loopedge.quantize(
        tmp_path / "mine.onnx",
        tmp_path / "q.onnx",
        data={"input_ids": ids},
        scheme="weight-int4",
        refine=2,
        module=module,
    )
    assert result.refined is not None
    assert module.training, "it is given back in the mode that it was in"
    assert all(each.grad is None for each in module.parameters()), "and without gradients"


def test_what_is_not_finite_ends_training_and_keeps_the_best(
    exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("tokens")
    _, feeds = make_inputs(model, Sizes(24, 10))
    monkeypatch.setattr(
        distillation.Distillation,
        "_loss",
        lambda self, example: next(iter(self._rounding.levels.values())).sum() * torch.nan,
    )
    result = loopedge.quantize(
        exported("tokens"),
        tmp_path / "q.onnx",
        data=feeds,
        scheme="weight-int4",
        refine=5,
        module=model,
    )
    assert result.refined is not None
    assert (result.refined.steps, result.refined.best_step) == (0, 0)
    assert "refining stopped: the loss was not finite in step 1" in result.notes


def test_another_module_is_refused(exported: Exporter, tmp_path: Path) -> None:
    other = make_model("tokens")
    with torch.no_grad():
        other.core_layers[0].mlp.up.weight[0, 0] += 0.5  # type: ignore[union-attr, operator, index]
    _, feeds = make_inputs(other, Sizes(24, 10))
    target = tmp_path / "q.onnx"
    with pytest.raises(InputError, match=r"is not the module that .* was exported from"):
        loopedge.quantize(
            exported("tokens"), target, data=feeds, scheme="weight-int4", refine=5, module=other
        )
    wide = make_model("series")
    with pytest.raises(InputError, match="takes inputs"):
        loopedge.quantize(
            exported("tokens"), target, data=feeds, scheme="weight-int4", refine=5, module=wide
        )
    assert not list(tmp_path.iterdir())


def test_a_module_whose_products_have_other_weights_is_refused(
    exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("tokens")
    _, feeds = make_inputs(model, Sizes(24, 10))
    for layer in model.core_layers:  # halved and doubled: the same outputs
        with torch.no_grad():
            layer.attention.v.weight *= 0.75  # type: ignore[union-attr, operator]
            layer.attention.o.weight /= 0.75  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"no product with the weight of core/\S+ of"):
        loopedge.quantize(
            exported("tokens"),
            tmp_path / "q.onnx",
            data=feeds,
            scheme="weight-int4",
            rounding="nearest",
            refine=5,
            module=model,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine": 5}, "needs the PyTorch module"),
        ({"module": "model.pt"}, "module is for refining"),
        ({"refine": 0, "module": "model.pt"}, "refine is 0, at least 1"),
        ({"refine": -3, "module": "model.pt"}, "refine is -3, at least 1"),
        ({"refine": 2.5, "module": "model.pt"}, "a whole number of steps"),
        ({"refine": True, "module": "model.pt"}, "a whole number of steps"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuantizeOptions(**options)


def test_refining_needs_data(exported: Exporter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say what it was trained on"):
        loopedge.quantize(
            exported("tokens"),
            tmp_path / "q.onnx",
            scheme="weight-int4",
            refine=5,
            module=make_model("tokens"),
        )


def test_the_file_that_is_read_is_not_written(exported: Exporter, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    loopedge.save(make_model("tokens"), checkpoint)
    with pytest.raises(InputError):
        loopedge.quantize(
            exported("tokens"),
            checkpoint,
            data={"input_ids": np.zeros((8, 4), np.int64)},
            refine=5,
            module=checkpoint,
            force=True,
        )
    assert loopedge.load(checkpoint).loops == 3


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"form": "unrolled"}, {"dynamic_loops": True}])
def test_static_iterations_are_counted_in_both_forms(
    options: dict[str, Any], exported: Exporter, tmp_path: Path
) -> None:
    source = FloatSource.open(exported("padded", **options))
    model = make_model("padded")
    _, feeds = make_inputs(model, Sizes(8, 10))
    table = collect(source.path, feeds)
    recipe = Recipe(scheme="static", table=table, reduce_range=True)
    path = tmp_path / "static.onnx"
    result = loopedge.quantize(
        source.path, path, data=feeds, scheme="static", ranges=table, **SEVEN_BITS
    )
    refined = Refined(path, source, model, recipe, feeds, result)
    _check_outputs(refined)
