"""What a step minimises: the loss of a task, and of a teacher's outputs where there is one."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor

from loopedge.model.contract import as_tuple
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.metrics import IGNORED
from loopedge.tasks.task import Batch

__all__ = ["Objective", "asked_of", "inputs_of", "outputs_of", "scale_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The training loss, as a sum over what a batch asks.

    Cross entropy for classes; for values the squared error in units of the training part's
    standard deviation, over what was observed. With a teacher, its share is the divergence of the
    softened classes (times the squared temperature; Hinton et al. 2015), or the squared difference
    to its values.

    Args:
        kind: ``classes`` or ``values``.
        teacher: In evaluation mode; None: there is none.
        weight: Share of the teacher.
        temperature: Softens the classes of both.
    """

    kind: str
    teacher: LoopedTransformer | None = None
    weight: float = 0.5
    temperature: float = 2.0

    def __call__(
        self, outputs: Tensor, targets: Tensor, inputs: tuple[Tensor, ...], scale: Tensor | None
    ) -> Tensor:
        """Return the summed loss, a scalar.

        Args:
            outputs: Logits (..., classes), or values.
            targets: int64 (...) with `IGNORED`, or float64 or float32 as the outputs with NaN.
            inputs: What the model took, for the teacher.
            scale: What the errors are divided by, as `scale_of` gives; None: one.
        """
        outputs = _at_least_float32(outputs)
        asked = targets != IGNORED if self.kind == "classes" else ~targets.isnan()
        loss = self._loss(outputs, targets, scale)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = _at_least_float32(as_tuple(self.teacher(*inputs))[0])
        soft = self._soft_loss(outputs, taught, asked, scale)
        return (1 - self.weight) * loss + self.weight * soft

    def _loss(self, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> Tensor:
        if self.kind == "classes":
            flat = outputs.flatten(0, -2)
            return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")
        # A target that is not there is the output itself: no error, and no gradient of NaN.
        error = outputs - torch.where(targets.isnan(), outputs.detach(), targets)
        return _squared(error, scale)

    def _soft_loss(
        self, outputs: Tensor, taught: Tensor, asked: Tensor, scale: Tensor | None
    ) -> Tensor:
        if self.kind == "classes":
            t = self.temperature
            divergence = F.kl_div(
                (outputs / t).log_softmax(-1),
                (taught / t).log_softmax(-1),
                reduction="none",
                log_target=True,
            )
            return (divergence.sum(-1) * asked).sum() * t**2
        return _squared((outputs - taught) * asked, scale)


def _at_least_float32(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def _squared(error: Tensor, scale: Tensor | None) -> Tensor:
    """Return the sum of squares; the difference, in float64 where one of both was, is small by now."""
    return (error if scale is None else error / scale).float().square().sum()


def asked_of(kind: str, batch: Batch) -> int:
    """Return how many classes or values a batch asks; at least 1, for it divides the loss."""
    asked = batch.targets != IGNORED if kind == "classes" else ~np.isnan(batch.targets)
    return max(1, int(asked.sum()))


def inputs_of(batch: Batch, device: torch.device) -> tuple[Tensor, ...]:
    """Return what the model takes."""
    arrays = [batch.inputs, *([] if batch.attention_mask is None else [batch.attention_mask])]
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def outputs_of(
    model: torch.nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    loops: int | None = None,
    backprop_loops: int | None = None,
) -> Tensor:
    """Return the first output of a model."""
    options = {"loops": loops, "backprop_loops": backprop_loops}
    chosen = {name: value for name, value in options.items() if value is not None}
    return as_tuple(model(*inputs, **chosen))[0]


def scale_of(model: LoopedTransformer, batch: Batch) -> Tensor | None:
    """Return what errors of a batch are divided by: None for tokens.

    The standard deviation of a model's outputs (outputs,), or of each sample's (batch, 1, outputs).
    """
    if model.config.features is None:
        return None
    stored = model.get_buffer("output_scale")
    if batch.scales is None:
        return stored
    scales = torch.from_numpy(batch.scales).to(stored.device)
    return scales if model.config.horizon is None else scales[:, None]
