"""What the state does over the iterations of the loop, and what the gradient does on its way back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from loopedge.model.contract import Tensors, as_tuple
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.task import Batch
from loopedge.trainer.steps.objective import Objective, asked_of, inputs_of, scale_of

__all__ = ["Stability", "measure_stability"]

Numbers = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Numbers of each iteration t, the first of them t = 1.

    Args:
        residual_norm: |h_t|, the mean norm of a position's state after the iteration.
        relative_update: |h_t - h_(t-1)| / |h_(t-1)|.
        gradient_norm: |d loss / d h_t|; None for iterations that no gradient flows through.
    """

    residual_norm: Numbers
    relative_update: Numbers
    gradient_norm: Numbers

    def to_json(self) -> dict[str, Numbers]:
        """Return plain values under the keys of docs/training.md."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Stability | None":
        """Return what `to_json` gave; None where nothing was measured."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: values[name] for name in names}) if set(names) <= set(values) else None


@dataclass(slots=True, kw_only=True)
class StateTrace:
    """Follows the state of a run from iteration to iteration: numbers of all, and those that a gradient is asked of.

    Args:
        cut: Iterations, the first ones, whose states are dropped.
        norms: Mean norm of a position's state after each iteration.
        updates: Size of each iteration's update against the state before it.
        kept: States after the iterations from ``cut`` on.
    """

    cut: int
    norms: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    _before: Tensor | None = None

    def append(self, state: Tensors) -> None:
        """Take the next state; the first is the one before any iteration."""
        reached = as_tuple(state)[0]
        after, before = reached.detach(), self._before
        self._before = after
        if before is None:
            return
        self.norms.append(float(after.norm(dim=-1).mean()))
        self.updates.append(float((after - before).norm() / before.norm()))
        if len(self.norms) > self.cut:
            self.kept.append(reached)


def measure_stability(
    model: LoopedTransformer,
    objective: Objective,
    batch: Batch,
    device: torch.device,
    *,
    backprop_loops: int | None = None,
) -> Stability:
    """Run one batch and follow its state; weights, their gradients and the mode stay as they are.

    Args:
        model: The model.
        objective: Whose gradient is followed; the mean over what the batch asks.
        batch: A few samples.
        device: Where the model is.
        backprop_loops: Iterations, the last ones, whose gradient is measured, for memory grows with
            their number; default: all.

    Returns:
        Numbers of each iteration; no gradient of those before ``backprop_loops``.
    """
    was_training = model.training
    model.eval()
    inputs = inputs_of(batch, device)
    cut = 0 if backprop_loops is None else max(0, model.config.loops - backprop_loops)
    trace = StateTrace(cut=cut)
    with torch.enable_grad():
        outputs = as_tuple(model(*inputs, states=trace, backprop_loops=backprop_loops))[0]
        targets = torch.from_numpy(batch.targets).to(device)
        loss = objective(outputs, targets, inputs, scale_of(model, batch))
        loss = loss / asked_of(objective.kind, batch)
        gradients = torch.autograd.grad(loss, trace.kept)
    model.train(was_training)
    measured = [float(gradient.norm()) for gradient in gradients]
    return Stability(
        residual_norm=_rounded(trace.norms),
        relative_update=_rounded(trace.updates),
        gradient_norm=[*[None] * trace.cut, *_rounded(measured)],
    )


def _rounded(values: list[float]) -> list[float | None]:
    return [float(f"{value:.6g}") for value in values]
