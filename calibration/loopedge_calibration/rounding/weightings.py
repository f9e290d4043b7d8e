"""How much each iteration of a core counts in the Hessian of a weight that all of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.quantizer.recipe import Recipe
from loopedge_calibration.readers import Feeds
from loopedge_calibration.sensitivity import emulated

__all__ = ["WEIGHTINGS", "IterationErrors", "Weighting"]

Weighting = Literal["uniform", "normalised", "tempered", "output-error"]
WEIGHTINGS: tuple[Weighting, ...] = ("uniform", "normalised", "tempered", "output-error")
"""By an iteration t, whose inputs have the mean square m and whose rounding alone moves the outputs by e:
1, 1 / m, e / m, and e^2 / m."""

SMALLEST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationErrors:
    """What the outputs lose when all linears of a core are rounded in one iteration alone.

    ``by_core``: relative errors by the core's name, one per iteration.
    """

    by_core: Mapping[str, Sequence[float]]

    @classmethod
    def measure(
        cls, model: ir.Model, recipe: Recipe, batches: Sequence[Feeds], *, threads: int | None
    ) -> "IterationErrors":
        """Round one iteration of one core at a time, to nearest, and measure the outputs.

        Args:
            model: The float graph.
            recipe: How it is to be quantized.
            batches: Inputs; each is run once per iteration.
            threads: Threads of ONNX Runtime.
        """
        cores = Cores(model)
        counts = {core.name: core.iterations or 1 for core in cores}
        core_of = {loop_name(item.node): core.name for core in cores for item in core.linears}
        loops = max(counts.values(), default=1)
        if loops == 1:
            return cls(by_core={})
        with emulated(model, recipe, batches, loops=loops, threads=threads) as (trial, names):
            rows = {
                core: [row for row, name in enumerate(names) if core_of.get(name) == core]
                for core in counts
            }
            return cls(
                by_core={
                    core: [trial.error(own, t) for t in range(counts[core])]
                    for core, own in rows.items()
                    if own and counts[core] > 1
                }
            )

    def weights(
        self, weighting: Weighting, core: str | None, squares: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return how much each iteration counts, (iterations,).

        Args:
            weighting: One of `WEIGHTINGS`.
            core: That the linear belongs to; None: it stands outside of them.
            squares: Mean square of what the linear reads, by iteration.
        """
        if weighting == "uniform":
            return np.ones(len(squares))
        even = 1 / np.maximum(squares, SMALLEST)
        errors = np.array(self.by_core.get(core or "", ()))
        if weighting == "normalised" or not len(errors):
            return even
        taken = errors[np.minimum(np.arange(len(squares)), len(errors) - 1)]
        taken = taken / max(float(taken.max()), SMALLEST)
        power = 2 if weighting == "output-error" else 1
        return np.asarray(even * np.maximum(taken, SMALLEST) ** power)
