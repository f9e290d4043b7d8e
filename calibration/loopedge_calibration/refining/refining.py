"""Refine the rounded weights of a recipe: what ``quantize --refine`` does between rounding and writing."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from loopedge_calibration.rounding.contest import Contest
from loopedge_calibration.samples import Samples, fixed_batch

if TYPE_CHECKING:
    from loopedge_calibration.refining.distillation import Distilled
    from loopedge_calibration.refining.module import FloatModule

__all__ = ["check_module", "refine_weights"]

Feeds = Mapping[str, npt.NDArray[Any]]

STEP_WORK = 1.5e11
"""Operations of a step, forward and back, at most: how many samples a batch has (benchmarks/int8/refine_time.py)."""
MOST_ROWS = 32
"""Samples of a step at most."""
CHOOSING_STEPS = 4
"""Batches that say which state is the best, at most: what an evaluation costs, against a step."""


def check_module(source: FloatSource, samples: Samples | None, options: QuantizeOptions) -> None:
    """Refuse, before any long work, what cannot refine.

    Raises:
        InputError: There is no data, or the module is not the one behind the file.
        MissingExtraError: PyTorch is not installed.
    """
    if samples is None:
        raise InputError(
            f"{option_name('refine')} trains on data", hint=option("data", "samples.npz")
        )
    try:
        import torch  # noqa: F401  the base install has none
    except ImportError as error:
        raise MissingExtraError(option_name("refine"), extra="train") from error
    from loopedge.trainer.threads import torch_threads
    from loopedge_calibration.refining.module import open_float_module

    assert options.module is not None
    first = next(iter(samples.calibrating)).feeds
    with open_float_module(options.module, source) as module, torch_threads(options.threads):
        module.check(module.examples([first], options.threads)[0])


def refine_weights(
    source: FloatSource,
    recipe: Recipe,
    samples: Samples,
    options: QuantizeOptions,
    report_progress: Callable[[str], None] = lambda text: None,
) -> Recipe:
    """Train the rounding of all weights that a recipe rounds.

    Args:
        source: The float model.
        recipe: How it is quantized; weights in `Recipe.rounded` are where training begins.
        samples: Those that calibrate train, those that choose say which state is the best.
        options: ``refine``, ``module`` and ``threads``.
        report_progress: Is called after each step.

    Returns:
        The recipe with the trained weights where its file does better on the samples that choose, else with those that it had;
        and with `Recipe.refined`.

    Raises:
        InputError: A weight of the file is not the module's, or nothing is rounded.

    Unchecked: `check_module`.
    """
    started = time.perf_counter()
    plan = plan_rounding(source.graph, recipe)
    if not plan.weights:
        raise InputError(
            "no weight is rounded: nothing can be refined",
            hint=f"leave out {option_name('refine')}",
        )
    found = _distilled(source, plan, samples, options, report_progress)
    contest = Contest(source, samples.chooser(), threads=options.threads)
    trained = replace(recipe, rounded={**recipe.rounded, **found.rounded})
    before, after = contest.measure("before", recipe), contest.measure("refined", trained)
    better = contest.best([before, after]) is after and found.best_step > 0
    refined = Refined(
        steps=found.steps,
        best_step=found.best_step if better else 0,
        before_db=before.sqnr_db,
        after_db=after.sqnr_db if better else before.sqnr_db,
        samples=contest.samples,
        stopped=found.stopped,
        seconds=time.perf_counter() - started,
    )
    return replace(trained if better else recipe, refined=refined)


def _distilled(
    source: FloatSource,
    plan: RoundingPlan,
    samples: Samples,
    options: QuantizeOptions,
    report_progress: Callable[[str], None],
) -> "Distilled":
    """Open the module and train the rounding of its products."""
    from loopedge.trainer.threads import torch_threads
    from loopedge_calibration.refining.distillation import Distillation
    from loopedge_calibration.refining.module import open_float_module

    assert options.refine is not None
    assert options.module is not None
    counts = {spec.name for spec in input_specs(source.graph) if spec.chooses_loops}
    calibrating = _merged([batch.feeds for batch in samples.calibrating])
    choosing = _merged(samples.chooser().batches)
    rows = fixed_batch(source.graph) or _rows(plan, calibrating)
    with open_float_module(options.module, source) as module, torch_threads(options.threads):
        training = module.examples(_cut(calibrating, rows, counts), options.threads)
        judged = _cut(choosing, rows, counts)[:CHOOSING_STEPS]
        distillation = Distillation(
            module,
            _matched(module, plan, training[0].feeds, source),
            training=training,
            choosing=module.examples(judged, options.threads),
            steps=options.refine,
            report=lambda step, steps, best: report_progress(
                f"refined {step} of {steps} steps, {best:.1f} dB"
            ),
        )
        return distillation.run()


def _matched(module: "FloatModule", plan: RoundingPlan, feeds: Feeds, source: FloatSource) -> Any:
    """Return the rounding to train, once each weight of the plan was found in a product of the module.

    Raises:
        InputError: One was not.
    """
    from loopedge_calibration.refining.trained_rounding import TrainedRounding

    rounding = TrainedRounding(plan, module.names(), half=source.metadata.storage == "float16")
    module.run_once(feeds, rounding)
    if rounding.unmatched:
        first = rounding.unmatched[0]
        raise InputError(
            f"{module.name} has no product with the weight of {first} of {source.path}, which {option_name('refine')} "
            "must round",
            hint=f"name the module that was exported, or {option('keep', first)}",
        )
    return rounding


def _rows(plan: RoundingPlan, batches: Sequence[Feeds]) -> int:
    """Return how many samples a step takes: so many that it is neither long nor nearly empty."""
    work = 0.0
    for weight in plan.weights.values():
        runs = [plan.iterations.get(use.core or "") or 1 for use in weight.uses]
        work += weight.exact.size * sum(runs)
    positions = max(
        (math.prod(array.shape[1:2]) for feeds in batches for array in feeds.values()), default=1
    )
    return int(np.clip(STEP_WORK // max(1.0, 6 * work * positions), 1, MOST_ROWS))


def _merged(batches: Sequence[Feeds]) -> list[Feeds]:
    """Join batches of one shape: a step may take more samples than one holds."""
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


def _cut(batches: Sequence[Feeds], rows: int, counts: Collection[str]) -> list[Feeds]:
    """Cut batches into parts of at most so many samples; what counts loops has none."""
    return [
        {
            name: array if name in counts else array[start : start + rows]
            for name, array in feeds.items()
        }
        for feeds in batches
        for start in range(
            0, max(len(array) for name, array in feeds.items() if name not in counts), rows
        )
    ]
