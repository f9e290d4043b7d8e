"""What the state does over the iterations of the loop, and what the gradient does on its way back."""

import itertools
from typing import Any

import torch
from torch import Tensor

from loopedge.model.contract import Tensors, as_tuple
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.task import Batch
from loopedge.trainer.objective import Objective, asked_of, inputs_of

__all__ = ["measure_stability"]


def measure_stability(
    model: LoopedTransformer, objective: Objective, batch: Batch, device: torch.device
) -> dict[str, list[float]]:
    """Run one batch and follow its state; weights, their gradients and the mode stay as they are.

    Args:
        model: The model.
        objective: Whose gradient is followed; the mean over what the batch asks.
        batch: A few samples.
        device: Where the model is.

    Returns:
        Lists over the iterations t: ``residual_norm`` |h_t|, the mean norm of a position's state,
        after each iteration; ``relative_update`` |h_t - h_(t-1)| / |h_(t-1)|; ``gradient_norm``
        |d loss / d h_t|.
    """
    was_training = model.training
    model.eval()
    inputs, states = inputs_of(batch, device), list[Tensors]()
    with torch.enable_grad():
        outputs = as_tuple(model(*inputs, states=states))[0]
        targets = torch.from_numpy(batch.targets).to(device)
        loss = objective(outputs, targets, inputs, scale_of(model))
        loss = loss / asked_of(objective.kind, batch)
        path: list[Tensor] = [as_tuple(state)[0] for state in states]
        gradients = torch.autograd.grad(loss, path[1:])
    model.train(was_training)
    pairs = list(itertools.pairwise(state.detach() for state in path))
    told: dict[str, Any] = {
        "residual_norm": [after.norm(dim=-1).mean() for _, after in pairs],
        "relative_update": [(after - before).norm() / before.norm() for before, after in pairs],
        "gradient_norm": [gradient.norm() for gradient in gradients],
    }
    return {name: [float(f"{float(value):.6g}") for value in told[name]] for name in told}


def scale_of(model: LoopedTransformer) -> Tensor | None:
    """Return the standard deviation of a model's outputs, float32 (outputs,); None for tokens."""
    return None if model.config.features is None else model.get_buffer("output_scale")
