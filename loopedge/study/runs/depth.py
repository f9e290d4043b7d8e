"""A trained model at other loop counts than its own, and the early exit of samples whose state has settled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopedge.model.contract import as_tuple
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.metrics import Metrics, Tally, metric_value
from loopedge.tasks.sample_tallies import joined, sample_tallies
from loopedge.tasks.task import Array, Batch, Split, Task
from loopedge.trainer.quantization_aware.rounded_forward import Aware, rounded_weights
from loopedge.trainer.steps.objective import inputs_of

__all__ = ["DepthResult", "depth_counts", "judge_depths"]

BATCH_SIZE = 128  # as `evaluate`: the trained count gives the same numbers
ALL_UP_TO, MORE = 16, 16
"""Counts are all judged up to the first, and about as many as the second beyond."""
TOLERANCES = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Relative changes of the state at which a sample may end, as ``loopedge export --exit tolerance=X`` takes them."""
KEPT = 0.01
"""Share of the validation metric, or of what is missing to 1, that an early exit may cost."""
SPLITS: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthResult:
    """What one pass over the samples gave.

    Args:
        depths: By loop count as text: ``validation`` and ``test`` metrics.
        early_exit: ``tolerance``, mean ``loops`` of the test split, ``validation`` and ``test`` metrics; None: no
            tolerance that is tried keeps the validation metric, or the model has one iteration.
        tallies: By split what each sample adds at the trained count, as `sample_tallies`.
    """

    depths: dict[str, dict[Split, Metrics]]
    early_exit: dict[str, Any] | None
    tallies: dict[Split, Tally]


def depth_counts(trained: int) -> list[int]:
    """Return the loop counts at which a model is judged: 1 to twice the trained count, thinned past 16."""
    most = 2 * trained
    step = max(1, -(-(most - ALL_UP_TO) // MORE))
    counts = {*range(1, min(ALL_UP_TO, most) + 1), *range(ALL_UP_TO, most, step), trained, most}
    return sorted(counts)


def judge_depths(
    model: LoopedTransformer,
    task: Task,
    samples: int,
    *,
    aware: Aware | None = None,
    looped: bool = True,
) -> DepthResult:
    """Judge a model at every loop count of `depth_counts`, each sample in one pass through all iterations.

    Args:
        model: In evaluation mode, on its device.
        task: Gives the samples and their score.
        samples: Most samples of a split.
        aware: The weights are rounded so, as the run judged them.
        looped: False: at its own depth alone, as of stacks without a loop.
    """
    counts = depth_counts(model.loops) if looped else [model.loops]
    totals = {split: _SplitTotals(model.loops) for split in SPLITS}
    with torch.no_grad(), rounded_weights(model, aware):
        for split, total in totals.items():
            for batch in task.evaluation(split, BATCH_SIZE, samples):
                for count, outputs, moved in _depths_of(model, batch, counts):
                    total.add(task, batch, count, outputs, moved)
    metrics = {
        str(count): {split: task.metrics(totals[split].by_count[count]) for split in SPLITS}
        for count in counts
    }
    return DepthResult(
        depths=metrics,
        early_exit=_early_exit(task, totals, metrics[str(model.loops)]) if looped else None,
        tallies={split: joined(total.samples) for split, total in totals.items()},
    )


class _SplitTotals:
    """Sums of one split: by count, by tolerance, and of each sample at the trained count.

    A sample ends by a tolerance in the first iteration that moves its state by no more, at the latest after the last
    trained one.
    """

    def __init__(self, trained: int) -> None:
        self.trained = trained
        self.by_count: dict[int, Tally] = {}
        self.by_tolerance: dict[float, Tally] = {}
        self.iterations = dict.fromkeys(TOLERANCES, 0)
        self.number = 0
        self.samples: list[Tally] = []
        self._running: dict[float, Array] = {}

    def add(self, task: Task, batch: Batch, count: int, outputs: Array, moved: Array) -> None:
        """Take the outputs of a batch after ``count`` iterations, and how far the last one moved each state."""
        _sum(self.by_count, count, task.tally_batch(outputs, batch))
        if count == self.trained:
            self.samples.append(sample_tallies(task, outputs, batch))
        if count > self.trained:
            return
        if count == 1:
            self.number += len(outputs)
            self._running = {x: np.ones(len(outputs), bool) for x in TOLERANCES}
        for tolerance, running in self._running.items():
            ends = running & ((moved <= tolerance) | (count == self.trained))
            self._running[tolerance] = running & ~ends
            self.iterations[tolerance] += count * int(ends.sum())
            if ends.any():
                tally = task.tally_batch(outputs[ends], batch.rows(ends))
                _sum(self.by_tolerance, tolerance, tally)


def _sum(sums: dict[Any, Tally], key: Any, tally: Tally) -> None:
    known = sums.get(key)
    sums[key] = tally if known is None else {name: known[name] + tally[name] for name in known}


def _depths_of(
    model: LoopedTransformer, batch: Batch, counts: list[int]
) -> Iterator[tuple[int, Array, Array]]:
    """Yield each count, the outputs after so many iterations, and the last one's relative change of each state."""
    inputs = inputs_of(batch, next(model.parameters()).device)
    mask = None if batch.attention_mask is None else inputs[1][:, :, None]
    state, context = model.prelude(*inputs)
    rows = {name: row.unbind(0) for name, row in model.timestep_table(counts[-1]).items()}
    wanted = {*counts, *range(1, model.loops + 1)}  # all of them move a sample towards its exit
    for t in range(counts[-1]):
        before = state
        state = model.core(before, context, {name: row[t] for name, row in rows.items()})
        if t + 1 in wanted:
            outputs = as_tuple(model.coda(state, context))[0].cpu().numpy()
            yield t + 1, outputs, _relative_change(state, before, mask).cpu().numpy()


def _relative_change(state: Tensor, before: Tensor, mask: Tensor | None) -> Tensor:
    """Return |h' - h| / |h| of each sample, (batch,), over the positions that are kept."""
    change = state - before
    if mask is not None:
        change, before = change * mask, before * mask
    moved: Tensor = change.flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    return moved


def _early_exit(
    task: Task, totals: Mapping[Split, _SplitTotals], trained: Mapping[Split, Metrics]
) -> dict[str, Any] | None:
    """Return the largest tolerance whose validation metric is as good as that of all iterations, but for `KEPT`."""
    known = metric_value(trained["validation"], task.metric)
    higher = task.higher_is_better
    allowed = KEPT * (1 - known if higher and 0 <= known <= 1 else abs(known))
    for tolerance in TOLERANCES:
        scores = {split: task.metrics(totals[split].by_tolerance[tolerance]) for split in SPLITS}
        value = metric_value(scores["validation"], task.metric)
        lost = known - value if higher else value - known
        test = totals["test"]
        mean = test.iterations[tolerance] / max(1, test.number)
        if lost <= allowed:
            if mean >= test.trained:  # none of them ends before
                return None
            found: dict[str, Any] = {str(split): metrics for split, metrics in scores.items()}
            return {"tolerance": tolerance, "loops": mean, **found}
    return None
