"""Inputs of other sizes than a user's example has."""

import torch
from torch import Tensor

from loopedge.exporter.capture.axes import Axes, resized
from loopedge.exporter.module.exported_module import ExampleMaker

__all__ = ["resized_examples"]


def resized_examples(example: tuple[Tensor, ...], axes: Axes) -> ExampleMaker:
    """Make inputs of other sizes from a user's example: batch rows and positions repeated or cut.

    Each batch row gets its positions in an order of its own, so that rows and seeds differ.
    """

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        made = []
        sizes = resized(example, axes.inputs, batch, sequence)
        for tensor, sized, names in zip(example, sizes, axes.inputs, strict=True):
            if names.get(0) == "batch" and names.get(1) == "sequence" and not _is_mask(tensor):
                order = torch.rand(sized.shape[:2], generator=generator).argsort(dim=1)
                rows = torch.arange(sized.shape[0])[:, None]
                sized = sized[rows, order]
            made.append(sized)
        return tuple(made)

    return make


def _is_mask(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all())
