"""An accuracy budget: give the few linears that need it more than the scheme does, and no others.

A linear can stand on one of three levels: as the scheme has it; its weight alone in eight bits, blockwise
(no more bytes, more time); float. An embedding table stands in eight bits or in float. Sensitivity says in
which order they are lifted, measuring the whole model says how many must be, and each that turns out not to
be needed is put down again.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from loopedge.artifact.artifact import write_artifact
from loopedge.errors import BudgetError, InputError
from loopedge.files.scratch import never_named
from loopedge.graph.core.names import loop_name
from loopedge.graph.inputs import axes_of, first_samples, sample_count
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.weights import linears, weight_bytes
from loopedge.options import option, option_name
from loopedge.quantizer.budget_result import BudgetResult, LiftedLinear, LinearSensitivity
from loopedge.quantizer.named_linears import weight_only_nodes
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.quantizer.timing import session_runner
from loopedge.runtime.latency import time_in_turns
from loopedge.runtime.session import Session
from loopedge_calibration.losses import Loss
from loopedge_calibration.sensitivity import measure_sensitivity

if TYPE_CHECKING:
    from loopedge_calibration.readers import Feeds

__all__ = ["FLOAT", "WEIGHT_INT8", "few_samples", "levels_of", "lifted_recipe", "meet_budget"]

SENSITIVITY_SAMPLES = 16
TIMED_RUNS = 45
"""Of each model that is timed, in turns."""

FLOAT, WEIGHT_INT8 = "float", "weight-int8"
APART = (WEIGHT_INT8, "dynamic")
"""What a linear may be for the place where it stands: the next better is float."""


def meet_budget(
    source: FloatSource,
    recipe: Recipe,
    loss: Loss,
    max_drop: float,
    *,
    threads: int | None = None,
) -> tuple[Recipe, BudgetResult]:
    """Lift as few linears as the budget takes.

    Args:
        source: The float model. Nothing is written beside it.
        recipe: How it is quantized; what it keeps in float stays so.
        loss: What the budget is measured in.
        max_drop: Largest loss.
        threads: Threads of ONNX Runtime.

    Returns:
        The recipe with the lifted linears, and what they cost and win.

    Raises:
        InputError: The budget is below what rounding in float32 causes.
        BudgetError: The loss is larger, whatever is lifted.
    """
    _check_budget(source, loss, max_drop, threads)
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), source.path),
    ):
        trials = _Trials(source.graph, recipe, loss, Path(folder), threads)
        whole = trials.measure({})
        plan: dict[str, int] = {}
        sensitivity: list[LinearSensitivity] = []
        if whole.loss > max_drop:
            sensitivity = trials.sensitivity()
            order = [item.name for item in sensitivity if item.name in trials.levels]
            plan = _search(trials, order, max_drop)
            plan = _needed(trials, plan, max_drop)
        final = trials.measure(plan)
        return trials.recipe(plan), BudgetResult(
            metric=loss.name,
            max_drop=max_drop,
            samples=loss.samples,
            float_score=loss.float_score,
            score=final.score,
            loss_int8=whole.loss,
            loss=final.loss,
            lifted=_lifted(trials, plan),
            sensitivity=sensitivity,
        )


def _check_budget(source: FloatSource, loss: Loss, max_drop: float, threads: int | None) -> None:
    other = 1 if threads != 1 else 2
    floor = loss.noise(Session(source.reference.path, threads=other))
    if not np.isfinite(floor):
        raise InputError(f"{loss.name} of the float model is not finite: it cannot be held")
    if max_drop < floor:
        raise InputError(
            f"{option_name('max_drop')} is {max_drop:.3g}, but rounding in float32 alone moves {loss.name} by "
            f"{floor:.3g}",
            hint=option("max_drop", float(f"{10 * floor:.1g}")),
        )


def _search(trials: "_Trials", order: list[str], max_drop: float) -> dict[str, int]:
    """Find by bisection how far up the linears must be lifted, all to one level before the next.

    The last step of all, which would leave nothing in eight bits, is not taken.
    """
    steps = [
        (name, trials.levels[name].index(level))
        for level in (WEIGHT_INT8, FLOAT)
        for name in order
        if level in trials.levels[name][1:]
    ][:-1]

    def plan(count: int) -> dict[str, int]:
        return dict(steps[:count])

    best = trials.measure(plan(len(steps))).loss
    if not best <= max_drop:
        raise BudgetError(
            f"{trials.scheme} loses {best:.3g} of {trials.metric} with all linears but "
            f"{order[-1] if order else 'none'} in float, allowed is {max_drop:.3g}",
            measured=best,
            allowed=max_drop,
            hint=_larger_or_better(best) if np.isfinite(best) else None,
        )
    low, high = 0, len(steps)  # `low` misses the budget, `high` meets it
    while high - low > 1:
        middle = (low + high) // 2
        if trials.measure(plan(middle)).loss <= max_drop:
            high = middle
        else:
            low = middle
    return plan(high)


def _larger_or_better(loss: float) -> str:
    ranges, method, samples = map(option_name, ("granularity", "method", "samples"))
    return f"{option('max_drop', float(f'{1.1 * loss:.2g}'))}, or other {ranges}, {method} or {samples}"


def _needed(trials: "_Trials", plan: dict[str, int], max_drop: float) -> dict[str, int]:
    """Put down what the budget holds without, the least sensitive first."""
    for name in reversed(list(plan)):
        for level in range(plan[name]):
            lower = _with(plan, name, level)
            if trials.measure(lower).loss <= max_drop:
                plan = lower
                break
    return plan


def _with(plan: Mapping[str, int], name: str, level: int) -> dict[str, int]:
    changed = {**plan, name: level}
    return {other: at for other, at in changed.items() if at > 0}


def _lifted(trials: "_Trials", plan: dict[str, int]) -> list[LiftedLinear]:
    if not plan:
        return []
    final, times = trials.measure(plan), trials.extra_ms(plan)
    base = trials.measure({}).weight_bytes
    return [
        LiftedLinear(
            name=name,
            level=trials.levels[name][level],
            won=_difference(trials.measure(_with(plan, name, 0)).loss, final.loss),
            bytes=trials.measure({name: level}).weight_bytes - base,
            ms=times[name],
        )
        for name, level in plan.items()
    ]


def _difference(one: float, other: float) -> float:
    return 0.0 if one == other else one - other  # inf - inf is none


@dataclass(frozen=True, slots=True)
class _Trial:
    loss: float
    score: float | None
    weight_bytes: int


class _Trials:
    """Models with some linears lifted: written, measured, and forgotten."""

    def __init__(
        self, reference: ir.Model, recipe: Recipe, loss: Loss, folder: Path, threads: int | None
    ) -> None:
        self.scheme, self.metric = recipe.scheme, loss.name
        self._reference, self._recipe, self._loss = reference, recipe, loss
        self._folder, self._threads = folder, threads
        self._known: dict[frozenset[tuple[str, int]], _Trial] = {}
        self.levels = levels_of(reference, recipe)

    def recipe(self, plan: Mapping[str, int]) -> Recipe:
        """Return the recipe with some linears lifted."""
        reached = {name: self.levels[name][at] for name, at in plan.items()}
        return lifted_recipe(self._recipe, reached)

    def measure(self, plan: Mapping[str, int]) -> _Trial:
        """Return the loss with these linears lifted."""
        key = frozenset(plan.items())
        if key not in self._known:
            path = self._folder / "trial.onnx"
            size = self._write(plan, path)
            loss, score = self._loss.of(Session(path, threads=self._threads))
            self._known[key] = _Trial(loss, score, size)
        return self._known[key]

    def sensitivity(self) -> list[LinearSensitivity]:
        """Return what the rounding of each linear does to the outputs."""
        batches = few_samples(self._loss.batches, self._reference)
        return measure_sensitivity(self._reference, self._recipe, batches, threads=self._threads)

    def extra_ms(self, plan: Mapping[str, int]) -> dict[str, float]:
        """Return the time that each lifted linear adds to a run of one batch, in ms."""
        return {name: self._extra_ms({name: level}) for name, level in plan.items()}

    def _extra_ms(self, plan: Mapping[str, int]) -> float:
        feeds = self._loss.batches[0]
        runs = []
        for name, lifted in (("without.onnx", {}), ("with.onnx", plan)):
            self._write(lifted, self._folder / name)
            session = Session(self._folder / name, threads=self._threads)
            runs.append(session_runner(session, feeds))
        without, lifting = (
            float(np.median(np.concatenate(rounds)))
            for rounds in time_in_turns(runs, [TIMED_RUNS, TIMED_RUNS])
        )
        return lifting - without

    def _write(self, plan: Mapping[str, int], path: Path) -> int:
        model = self._reference.clone()
        self.recipe(plan).apply(model)
        write_artifact(model, path, force=True)
        return weight_bytes(model)


def few_samples(batches: "Sequence[Feeds]", model: ir.Model) -> "list[Feeds]":
    """Return the first `SENSITIVITY_SAMPLES` samples, in batches."""
    found: list[Feeds] = []
    samples, axes = 0, axes_of(model)
    for feeds in batches:
        rows = SENSITIVITY_SAMPLES - samples
        if rows <= 0:
            break
        found.append(first_samples(feeds, axes, rows))
        samples += sample_count(found[-1], axes)
    return found


def lifted_recipe(recipe: Recipe, reached: Mapping[str, str]) -> Recipe:
    """Return a recipe with some linears and tables on a level of their own.

    Args:
        recipe: How all are quantized.
        reached: The level of each by its name, `FLOAT` or `WEIGHT_INT8`.
    """
    return replace(
        recipe,
        lifted=(*recipe.lifted, *reached),
        keep=(*recipe.keep, *(name for name, at in reached.items() if at == FLOAT)),
        weight_only=(
            *recipe.weight_only,
            *(name for name, at in reached.items() if at == WEIGHT_INT8),
        ),
    )


def levels_of(model: ir.Model, recipe: Recipe) -> dict[str, list[str]]:
    """Return the levels of all that can be lifted, the lowest first.

    Linears that share a weight are lifted together, by the name of the first.
    """
    rewritten = recipe.apply(model.clone())
    named = weight_only_nodes(model, recipe.weight_only, ())
    taken = set(rewritten.coverage.quantized) - named
    by_place = {
        item.name: item.treatment for item in rewritten.treatments if item.treatment in APART
    }
    blocks = BlockWeights(8, recipe.block_size)
    levels: dict[str, list[str]] = {}
    first: dict[ir.Value, str] = {}
    for item in linears(model):
        if item.node.name not in taken or item.weight in first:
            continue
        name = first[item.weight] = loop_name(item.node)
        if name in by_place:  # in the form that its place has
            levels[name] = [by_place[name], FLOAT]
            continue
        packable = blocks.reason_for_float(item.weight, 1 - item.index) is None
        packed = recipe.ops == "microsoft" and recipe.scheme != WEIGHT_INT8 and packable
        levels[name] = [recipe.scheme, *([WEIGHT_INT8] if packed else []), FLOAT]
    for name in rewritten.embeddings.quantized:
        if all(weight.name != name for weight in first):
            levels[name] = ["int8", FLOAT]
    return levels
