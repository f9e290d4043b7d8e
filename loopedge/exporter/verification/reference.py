"""The model in PyTorch: what a written file must agree with."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn

from loopedge.exporter.capture.halt import Halt
from loopedge.files.arrays import largest_errors
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple, copied, keep_halted

__all__ = ["NEVER", "Reference"]

Array = npt.NDArray[Any]

NEVER = 0.0
"""A tolerance under which no batch row is done."""

CLEAR_RATIO, CLEAR_SHARE = 1e-3, 2e-5
"""How far a tolerance must be from every change of a batch row's state, as a share of itself and of the state:
rounding must not decide whether one is done."""


class Reference:
    """A model on given inputs with given timestep rows.

    Args:
        model: A module under the contract.
        inputs: Of its prelude.
        tables: Timestep tables by the name of the row.
        mask: int64 (batch, sequence), 1 = keep; where there is one.
        halt: What ends the loop early, where something does.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        tables: Mapping[str, Array],
        mask: Tensor | None,
        halt: Halt | None,
    ) -> None:
        self.looped = cast("LoopedProtocol", model)
        self.inputs = inputs
        self.rows = {name: torch.from_numpy(table.copy()) for name, table in tables.items()}
        self.mask = mask
        self.halt = halt

    @torch.no_grad()
    def run(self, loops: int, tolerance: float | None) -> tuple[list[Array], Array | None]:
        """Run the model.

        Args:
            loops: Iterations at most.
            tolerance: Instead of the halt's own.

        Returns:
            The outputs, and with an early exit the iterations that each row ran.
        """
        state, context = self._start()
        done: Tensor | None = None
        ran = None
        bound = None if tolerance is None else torch.tensor(tolerance, dtype=torch.float32)
        for t in range(loops):
            previous = state
            state = keep_halted(done, previous, self._step(state, context, t))
            if self.halt is None:
                continue
            halted = self.halt(state, previous, self.mask, bound)
            done = torch.zeros_like(halted) if done is None else done
            ran = (~done).to(torch.int64) + (0 if ran is None else ran)
            done = done | halted
            if bool(done.all()):
                break
        outputs = [output.numpy() for output in as_tuple(self.looped.coda(state, context))]
        return outputs, None if ran is None else ran.numpy()

    def own_error(self, loops: int) -> float | None:
        """Return how far float32 is from float64 in PyTorch itself, as a share of the largest output.

        None where the model does not run in float64, or stops early.
        """
        if self.halt is not None:
            return None
        try:
            exact = Reference(
                copy.deepcopy(cast("nn.Module", self.looped)).double(),
                tuple(_double(tensor) for tensor in self.inputs),
                {name: _double(rows).numpy() for name, rows in self.rows.items()},
                self.mask,
                None,
            ).run(loops, None)[0]
            given = self.run(loops, None)[0]
        except Exception:  # user code may ask for float32
            return None
        return max(largest_errors(one, two)[1] for one, two in zip(given, exact, strict=True))

    def tolerance(self, stop: str | None, loops: int) -> float | None:
        """Choose the tolerance of a run.

        Args:
            stop: ``never``: no row shall stop; ``some``: a tolerance in the midst of what the states
                change by; None: the halt's own, or `NEVER` where it is too close to a change.
            loops: Iterations.

        Returns:
            The tolerance; None where the model says itself when a row is done.
        """
        if self.halt is None or self.halt.rule.tolerance is None:
            return None
        if stop == "never":
            return NEVER
        changes = self._changes(loops)
        if stop is None:
            own = self.halt.rule.tolerance
            return own if all(_clear(own, change) for change in changes) else NEVER
        wide = [
            (abs(i - len(changes) / 2), math.sqrt(low * high))
            for i, (low, high) in enumerate(itertools.pairwise(changes))
            if low > 0
            and _clear(math.sqrt(low * high), low)
            and _clear(math.sqrt(low * high), high)
        ]
        return min(wide)[1] if wide else NEVER

    @torch.no_grad()
    def _changes(self, loops: int) -> list[float]:
        """Return by which share of its norm the state of each batch row changes in each iteration, sorted."""
        assert self.halt is not None
        state, context = self._start()
        changes: list[float] = []
        for t in range(loops):
            previous, state = state, self._step(state, context, t)
            moved, size = self.halt.norms(state, previous, self.mask)
            changes += (moved / size.clamp_min(1e-30)).tolist()
        return sorted(change for change in changes if math.isfinite(change))

    def _start(self) -> tuple[Tensors, Tensors]:
        return self.looped.prelude(*(tensor.clone() for tensor in self.inputs))

    def _step(self, state: Tensors, context: Tensors, t: int) -> Tensors:
        """Run the core on copies: it may change its arguments in place."""
        row = {name: rows[t].clone() for name, rows in self.rows.items()}
        return self.looped.core(copied(state), context, row)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _clear(tolerance: float, change: float) -> bool:
    return abs(tolerance - change) > max(CLEAR_RATIO * tolerance, CLEAR_SHARE)
