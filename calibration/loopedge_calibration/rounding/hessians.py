"""The Hessians of what linears read: sums of x^T x over samples, positions and iterations, each iteration with its weight."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge_calibration.options import CollectOptions
from loopedge_calibration.probes import Probes
from loopedge_calibration.readers import SampleBatch
from loopedge_calibration.rounding.weightings import IterationErrors, Weighting

__all__ = ["HessianSums", "collect_hessians"]

Array = npt.NDArray[Any]


@dataclass(slots=True)
class HessianSums:
    """The Hessians of what one or more linears read, one per weighting, float32 (inputs, inputs).

    ``rows`` counts the inputs that went in.
    """

    weightings: Sequence[Weighting]
    core: str | None
    sums: dict[Weighting, Array] = field(default_factory=dict)
    rows: int = 0
    _squares: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, values: Array, errors: IterationErrors) -> None:
        """Count what the linears read in a batch.

        Args:
            values: float32 (iterations, ..., inputs).
            errors: How much each iteration counts.
        """
        flat = values.reshape(len(values), -1, values.shape[-1])
        if not flat.shape[1]:
            return
        if len(flat) > len(self._squares):  # those of the first batch weight all that follow
            new = np.square(flat[len(self._squares) :], dtype=np.float64).mean(axis=(1, 2))
            self._squares = np.concatenate([self._squares, new])
        self.rows += flat.shape[0] * flat.shape[1]
        counted = {
            weighting: errors.weights(weighting, self.core, self._squares).astype(np.float32)
            for weighting in self.weightings
        }
        for t, rows in enumerate(flat):
            product = rows.T @ rows
            for weighting, weights in counted.items():
                if weighting in self.sums:
                    self.sums[weighting] += weights[t] * product
                else:
                    self.sums[weighting] = weights[t] * product


def collect_hessians(
    model: ir.Model,
    batches: Iterable[SampleBatch],
    folder: Path,
    options: CollectOptions,
    *,
    groups: Mapping[str, Sequence[Weighting]],
    errors: IterationErrors,
) -> dict[str, HessianSums]:
    """Run the model on samples, and sum up what its linears read.

    Args:
        model: The float graph.
        batches: The samples.
        folder: Where the probed model may be written.
        options: Threads, and the bytes of activations at once.
        groups: Linears by name, of those that read one value the first, and which weightings their Hessians have.
        errors: How much each iteration counts.

    Returns:
        The sums by the same names.

    Raises:
        InputError: A sample cannot be used.
    """
    probes = Probes(model, folder, options, only=groups)
    found = {
        name: HessianSums(weightings, probes.repeated.get(name))
        for name, weightings in groups.items()
    }
    for batch in batches:
        for name, values in probes.run(batch):
            if name in found:
                found[name].add(values, errors)
    return found
