"""Train the rounding of weights towards the float model's outputs, through the whole loop and without labels."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loopedge.graph.integer_weights.rounded_weights import RoundedWeight
from loopedge.runtime.inputs import MASK
from loopedge_calibration.refining.module import Example, FloatModule, last_positions
from loopedge_calibration.refining.trained_rounding import TrainedRounding

__all__ = ["Distillation", "Distilled", "Report"]

LEARNING_RATE = 0.003
"""Of a level in a step, falling to zero: with 0.006 so many weights are rounded anew at once that the loss jumps."""
EVALUATIONS = 10
MOST_DB = 200.0

Report = Callable[[int, int, float], None]
"""Takes the steps made, their number in all, and the SQNR in dB of the last evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What training ended with: the best weights on the samples that choose, and the SQNR there before and after, in dB.

    ``best_step``: 0: none was better than the weights that it began with. ``stopped``: why not all steps were made.
    """

    rounded: dict[str, RoundedWeight]
    steps: int
    best_step: int
    before_db: float
    after_db: float
    stopped: str | None


class Distillation:
    """Trains what a `TrainedRounding` rounds.

    Args:
        module: Computes the outputs.
        rounding: Is trained in place.
        training: Samples to train on, in steps of one batch each.
        choosing: Samples that say which state is the best.
        steps: Steps of the optimizer.
        report: Is called after each step.
    """

    def __init__(
        self,
        module: FloatModule,
        rounding: TrainedRounding,
        *,
        training: Sequence[Example],
        choosing: Sequence[Example],
        steps: int,
        report: Report | None = None,
    ) -> None:
        self._module, self._rounding = module, rounding
        self._training, self._choosing, self._steps = training, choosing, steps
        self._report = report
        self._signal = max(self._power(training), float(np.finfo(np.float32).tiny))

    def run(self) -> Distilled:
        """Make the steps; a state that is no better on the samples that choose is left behind."""
        levels = self._rounding.levels
        optimizer = torch.optim.Adam(list(levels.values()), lr=LEARNING_RATE, betas=(0.9, 0.99))
        before = best = self._evaluate()
        best_levels, best_step, stopped, made = self._state(), 0, None, 0
        every = max(1, self._steps // EVALUATIONS)
        order = _order(len(self._training))
        for step in range(self._steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / self._steps))
            optimizer.zero_grad()
            loss = self._loss(self._training[next(order)])
            self._differentiate(loss)
            if not self._is_finite(loss):
                stopped = f"the loss was not finite in step {step + 1}"
                break
            optimizer.step()
            self._rounding.clamp()
            made = step + 1
            if made % every == 0 or made == self._steps:
                found = self._evaluate()
                if found > best:
                    best, best_step, best_levels = found, made, self._state()
            if self._report is not None:
                self._report(made, self._steps, best)
        with torch.no_grad():
            for name, values in best_levels.items():
                levels[name].copy_(values)
        return Distilled(
            rounded=self._rounding.rounded(),
            steps=made,
            best_step=best_step,
            before_db=before,
            after_db=best,
            stopped=stopped,
        )

    def _differentiate(self, loss: Tensor) -> None:
        """Set the gradients of the levels alone: the module's parameters are the user's, and keep the gradients they have."""
        levels = list(self._rounding.levels.values())
        gradients = torch.autograd.grad(loss, levels, allow_unused=True)
        for found, gradient in zip(levels, gradients, strict=True):
            found.grad = gradient

    def _state(self) -> dict[str, Tensor]:
        return {name: found.detach().clone() for name, found in self._rounding.levels.items()}

    def _is_finite(self, loss: Tensor) -> bool:
        gradients = (found.grad for found in self._rounding.levels.values())
        return bool(loss.isfinite()) and all(
            bool(each.isfinite().all()) for each in gradients if each is not None
        )

    def _loss(self, example: Example) -> Tensor:
        """Return the mean squared error of the outputs, in units of the signal's power."""
        with self._rounding.rounding():
            given = self._module.run(example.feeds)
        noise, count = self._noise(given, example)
        return noise / (count * self._signal)

    def _noise(self, given: Sequence[Tensor], example: Example) -> tuple[Tensor, int]:
        """Return the summed squared error at the positions that count, and their number of values."""
        total, count = torch.zeros(()), 0
        for output, expected in zip(given, example.outputs, strict=True):
            difference = kept(last_positions(output, expected) - expected, example)
            total = total + difference.square().sum()
            count += difference.numel()
        return total, max(1, count)

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Return the SQNR on the samples that choose, in dB."""
        noise = signal = 0.0
        for example in self._choosing:
            with self._rounding.rounding():
                given = self._module.run(example.feeds)
            noise += float(self._noise(given, example)[0])
            signal += self._signal_of(example)[0]
        if not math.isfinite(noise):
            return -math.inf
        return min(MOST_DB, 10 * math.log10(max(signal, 1e-38) / max(noise, 1e-38)))

    def _power(self, examples: Sequence[Example]) -> float:
        parts = [self._signal_of(example) for example in examples]
        return sum(power for power, _ in parts) / max(1, sum(count for _, count in parts))

    def _signal_of(self, example: Example) -> tuple[float, int]:
        total, count = 0.0, 0
        for place, expected in enumerate(example.outputs):
            offset = self._module.offset(place, example.feeds)
            own = kept(expected if offset is None else expected - offset, example)
            total, count = total + float(own.double().square().sum()), count + own.numel()
        return total, count


def kept(output: Tensor, example: Example) -> Tensor:
    """Return an output at the positions that a mask keeps, as `loopedge.graph.agreement.at_kept`."""
    mask = example.feeds.get(MASK)
    if mask is None or output.dim() < 2 or output.shape[:2] != mask.shape or not np.any(mask):
        return output
    return output[torch.from_numpy(np.asarray(mask).astype(bool))]


def _order(count: int) -> Iterator[int]:
    """Yield places in an order that is drawn anew in each epoch."""
    generator = np.random.default_rng(0)
    while True:
        yield from generator.permutation(count).tolist()
