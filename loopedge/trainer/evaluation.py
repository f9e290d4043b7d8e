"""Loss and metrics of a model on a task's batches."""

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor

from loopedge.data.metrics import IGNORED, Metrics, total
from loopedge.data.task import Batch, Split, Task
from loopedge.model.contract import as_tuple
from loopedge.model.transformer import LoopedTransformer

__all__ = ["evaluate", "loss_of"]

BATCH_SIZE = 128


def _forward(model: LoopedTransformer, batch: Batch) -> Tensor:
    tensors = [torch.from_numpy(batch.inputs)]
    if batch.attention_mask is not None:
        tensors.append(torch.from_numpy(batch.attention_mask))
    return as_tuple(model(*tensors))[0]


def loss_of(model: LoopedTransformer, batch: Batch) -> Tensor:
    """Return the training loss, a scalar.

    Cross entropy for classes; for values the mean squared error in units of the training part's
    standard deviation, over what was observed.
    """
    outputs, targets = _forward(model, batch), torch.from_numpy(batch.targets)
    if model.config.gives_classes:
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)
    error = (outputs - targets) / model.get_buffer("output_scale")
    return error[~targets.isnan()].square().mean()


def evaluate(model: LoopedTransformer, task: Task, split: Split, samples: int) -> Metrics:
    """Return the task's metrics on a split; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        tally = total(
            task.tally(_forward(model, batch).numpy(), batch.targets)
            for batch in task.evaluation(split, BATCH_SIZE, samples)
        )
    model.train(was_training)
    return task.metrics(tally)
