"""Refine the rounded weights of a recipe: what ``quantize --refine`` does between rounding and writing."""

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError, MissingExtraError
from loopedge.graph.inputs import input_specs
from loopedge.options import option, option_name
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.refined import Refined
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.refining.plan import RoundingPlan, plan_rounding
from loopedge_calibration.samples import Samples

__all__ = ["refine_weights"]

Feeds = Mapping[str, npt.NDArray[Any]]

STEP_WORK = 1.5e11
"""Multiplications of weights in the forward pass of a step at most: how many samples a batch has."""
MOST_ROWS = 64
CHOOSING_STEPS = 4
"""Batches that choose at most: what an evaluation costs, against a step."""


def refine_weights(
    source: FloatSource, recipe: Recipe, samples: Samples | None, options: QuantizeOptions
) -> tuple[Recipe, Refined]:
    """Train the rounding of all weights that a recipe rounds.

    Args:
        source: The float model.
        recipe: How it is quantized; weights in `Recipe.rounded` are where training begins.
        samples: Those that calibrate train, those that choose say which state is the best.
        options: ``refine`` and ``module``.

    Returns:
        The recipe with the trained weights, and what that reached.

    Raises:
        InputError: There is no data, the module is another one, or nothing is rounded.
        MissingExtraError: PyTorch is not installed.
    """
    if samples is None:
        raise InputError(
            f"{option_name('refine')} trains on data", hint=option("data", "samples.npz")
        )
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(option_name("refine"), extra="train") from error
    from loopedge_calibration.refining.distillation import Distillation
    from loopedge_calibration.refining.module import open_float_module
    from loopedge_calibration.refining.trained_rounding import TrainedRounding

    assert options.refine is not None and options.module is not None
    plan = plan_rounding(source.graph, recipe)
    if not plan.weights:
        raise InputError(
            "no weight is rounded: nothing can be refined",
            hint=f"leave out {option_name('refine')}",
        )
    named = "the module" if not isinstance(options.module, str) else str(options.module)
    with open_float_module(options.module, source) as module, _threads(torch, options.threads):
        calibrating = _merged([batch.feeds for batch in samples.calibrating])
        rows = _rows(plan, calibrating[0])
        counts = {spec.name for spec in input_specs(source.graph) if spec.chooses_loops}
        training = module.examples(_cut(calibrating, rows, counts), options.threads)
        chosen = _cut(_merged(samples.chooser().batches), rows, counts)
        choosing = module.examples(chosen[:CHOOSING_STEPS], options.threads)
        module.check(training[0], named)
        rounding = TrainedRounding(plan, module.names(), half=source.metadata.storage == "float16")
        with rounding.rounding(), torch.no_grad():
            module.run(training[0].feeds)
        if rounding.unmatched:
            raise InputError(
                f"{named} has no product with the weight of {rounding.unmatched[0]} of {source.path}",
                hint=f"name the module that was exported, or leave it as it is: {option('keep', rounding.unmatched[0])}",
            )
        found = Distillation(
            module, rounding, training=training, choosing=choosing, steps=options.refine
        ).run()
    refined = Refined(
        steps=found.steps,
        best_step=found.best_step,
        before_db=found.before_db,
        after_db=found.after_db,
        samples=sum(example.rows for example in choosing),
        stopped=found.stopped,
    )
    return replace(recipe, rounded={**recipe.rounded, **found.rounded}), refined


def _rows(plan: RoundingPlan, feeds: Feeds) -> int:
    """Return how many samples a step takes: so many that it is neither long nor nearly empty."""
    work = 0.0
    for weight in plan.weights.values():
        runs = [plan.iterations.get(use.core or "") or 1 for use in weight.uses]
        work += weight.exact.size * sum(runs)
    positions = max(
        (math.prod(array.shape[1:2]) for array in feeds.values() if array.ndim), default=1
    )
    return int(np.clip(STEP_WORK // max(1.0, 6 * work * positions), 1, MOST_ROWS))


def _merged(batches: Sequence[Feeds]) -> list[Feeds]:
    """Join neighbouring batches of one shape: a step may take more samples than one holds."""
    groups: dict[object, list[Feeds]] = {}
    for feeds in batches:
        key = tuple(
            (name, array.shape[1:] if array.ndim else int(array)) for name, array in feeds.items()
        )
        groups.setdefault(key, []).append(feeds)
    return [
        {
            name: np.concatenate([each[name] for each in group]) if array.ndim else array
            for name, array in group[0].items()
        }
        for group in groups.values()
    ]


def _cut(batches: Sequence[Feeds], rows: int, counts: set[str]) -> list[Feeds]:
    """Cut batches into parts of at most so many samples; what counts loops has none."""
    parts = []
    for feeds in batches:
        total = max(len(array) for name, array in feeds.items() if name not in counts)
        for start in range(0, total, rows):
            parts.append(
                {
                    name: array if name in counts else array[start : start + rows]
                    for name, array in feeds.items()
                }
            )
    return parts


@contextmanager
def _threads(torch: Any, count: int | None):
    """Compute on so many threads inside the block."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
