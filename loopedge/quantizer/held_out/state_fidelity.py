"""How much of the direction of a recurrent state a quantized model keeps: its cosine to the float model's, by iteration."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import name_in_iteration
from loopedge.graph.core.view import CoreView, LoopCore
from loopedge.graph.inputs import axes_of, sample_count
from loopedge.runtime.inputs import MASK

__all__ = ["StateCosines", "StateFidelity", "cosines_of_states"]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

DECIMALS = 9
"""Of a cosine in a file's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFidelity:
    """The cosine of a state after each iteration to that of the float model; 1: the same direction.

    The state of each sample, over the positions that its mask keeps, is one vector. ``mean`` and ``worst`` are
    over samples, None where no cosine is defined; ``samples`` counts those that have one, ``undefined``
    those whose state in the float model is zeros or not finite. A state that the quantized model alone lost, to zeros or to what
    is not finite, has the cosine 0.
    """

    core: str
    state: str
    mean: list[float | None]
    worst: list[float | None]
    samples: list[int]
    undefined: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)

    def to_metadata(self) -> dict[str, Any]:
        """Return what a file keeps of it, in few characters."""
        return {
            "core": self.core,
            "state": self.state,
            "mean": [_rounded(value) for value in self.mean],
            "worst": [_rounded(value) for value in self.worst],
        }


class StateCosines:
    """Collects the cosines of a state, batch by batch.

    Args:
        core: Of the float graph.
        state: Name of a state of it, as in `CoreView.states`.
    """

    def __init__(self, core: CoreView, state: str) -> None:
        self._core, self._state, self._axes = core.name, state, _axes_of_state(core, state)
        self._inputs = axes_of(core.model)
        self._rows: list[list[float]] = []

    def add(self, feeds: Feeds, exact: Array, given: Array) -> None:
        """Count a batch.

        Args:
            feeds: The inputs that both models read.
            exact: The float model's state after each iteration, (iterations, ...).
            given: The quantized model's; of a Loop that ends itself there may be fewer.
        """
        count = sample_count(feeds, self._inputs)
        for number, (one, other) in enumerate(zip(exact, given, strict=False)):
            if one.dtype.kind in "biuc" or one.shape != other.shape:
                continue
            if number == len(self._rows):
                self._rows.append([])
            axis = _sample_axis(one.shape, self._axes, count)
            rows = (_by_sample(array, axis, feeds.get(MASK)) for array in (one, other))
            self._rows[number] += _cosines(*rows)

    @property
    def found(self) -> StateFidelity | None:
        """What was collected; None where the state is not of floats."""
        if not self._rows:
            return None
        defined = [[value for value in row if not np.isnan(value)] for row in self._rows]
        return StateFidelity(
            core=self._core,
            state=self._state,
            mean=[float(np.mean(row)) if row else None for row in defined],
            worst=[min(row, default=None) for row in defined],
            samples=[len(row) for row in defined],
            undefined=[len(row) - len(own) for row, own in zip(self._rows, defined, strict=True)],
        )


def cosines_of_states(cores: Cores, rescaled: Collection[str]) -> dict[str, StateCosines]:
    """Return what collects the cosines of every state of floats, by its name.

    Args:
        cores: Of the float graph.
        rescaled: Values that the quantized model holds in another scale, channel by channel: no direction to compare.
    """
    return {
        state: StateCosines(core, state)
        for core in cores
        for state in core.states
        if state not in rescaled
    }


def _axes_of_state(core: CoreView, state: str) -> list[int | str | None] | None:
    """Return the sizes and names of a state's axes; None where the graph does not say them."""
    graph = core.loop.body if isinstance(core, LoopCore) else core.model.graph
    names = {state, name_in_iteration(state, 0)}
    made = (value for node in graph for value in node.outputs if value.name in names)
    shape = next((value.shape for value in made), None)
    if shape is None:
        return None
    return [axis if isinstance(axis, int) else axis.value for axis in shape]


def _sample_axis(
    shape: Sequence[int], axes: Sequence[int | str | None] | None, count: int
) -> int | None:
    """Return the axis of a state that holds the samples; None: none is known to, and the batch is one vector.

    It has as many entries as there are samples, and the graph says no fixed size of it.
    """
    fits = [axis for axis, size in enumerate(shape) if size == count]
    if axes is not None and len(axes) == len(shape):
        fits = [axis for axis in fits if not isinstance(axes[axis], int)] or fits[:1]
    return fits[0] if fits and count > 1 else None


def _by_sample(array: Array, axis: int | None, mask: Array | None) -> Array:
    """Return a state as float64 (samples, values), zeros where a mask hides a position."""
    wide = array.astype(np.float64)
    if mask is not None and wide.shape[:2] == mask.shape:
        kept = np.asarray(mask).astype(bool)
        wide = np.where(kept.reshape(*kept.shape, *[1] * (wide.ndim - 2)), wide, 0.0)
    if axis is None:
        return wide.reshape(1, -1)
    first = np.moveaxis(wide, axis, 0)
    return first.reshape(len(first), -1)


def _cosines(exact: Array, given: Array) -> list[float]:
    """Return the cosine of each sample, NaN where it is not defined."""
    known = np.isfinite(exact).all(axis=1) & exact.any(axis=1)
    there = np.isfinite(given).all(axis=1) & given.any(axis=1)
    cosines = np.where(known, 0.0, np.nan)
    for row in np.flatnonzero(known & there):
        # Against the largest value, so that no square leaves the range of float64.
        one, other = (array[row] / np.abs(array[row]).max() for array in (exact, given))
        cosine = one @ other / np.sqrt((one @ one) * (other @ other))
        cosines[row] = np.clip(cosine, -1.0, 1.0)
    return [float(value) for value in cosines]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
