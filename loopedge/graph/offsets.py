"""What a graph adds to its outputs last: the mean of the data, which says nothing of the computation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.data.description import TABLES
from loopedge.data.tables.window_scaling import window_statistics
from loopedge.graph.agreement import at_kept
from loopedge.graph.inputs import scaling_of
from loopedge.graph.metadata import read_metadata

__all__ = ["OutputOffsets", "output_offsets"]

Array = npt.NDArray[Any]

MASK = "attention_mask"


def output_offsets(model: ir.Model) -> dict[str, Array]:
    """Return the stored constants that are added to outputs by their last node, by output.

    A series far from zero has outputs that are nearly all mean. Errors and signals are judged without
    it: against the raw outputs every model of such a series would look exact.
    """
    offsets: dict[str, Array] = {}
    for value in model.graph.outputs:
        node = value.producer()
        if node is None or node.op_type != "Add":
            continue
        stored = [s for s in node.inputs if s is not None and s.const_value is not None]
        if len(stored) == 1 and stored[0].const_value is not None:
            offsets[value.name or ""] = stored[0].const_value.numpy()
    return offsets


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """The input whose windows scale outputs, and what its columns are scaled by before."""

    name: str
    mean: Array
    scale: Array


class OutputOffsets:
    """What is added to each output last, on given inputs: a constant, or the mean of each window's own rows.

    Args:
        model: The graph; its metadata says whether windows are scaled by themselves.
    """

    def __init__(self, model: ir.Model) -> None:
        self._constants = output_offsets(model)
        self._windows = _find_windows(model) if self._constants else None

    def of(self, name: str, feeds: Mapping[str, Array]) -> Array | None:
        """Return what is added to an output: (outputs,), or (batch, 1, outputs) where windows scale.

        Args:
            name: The output.
            feeds: The inputs by name.
        """
        constant = self._constants.get(name)
        windows = self._windows
        if constant is None or windows is None or windows.name not in feeds:
            return constant
        mean, _ = window_statistics(
            np.asarray(feeds[windows.name]), feeds.get(MASK), windows.mean, windows.scale
        )
        found: Array = mean[:, None, : constant.shape[-1]]
        return found

    def at_kept(self, name: str, output: Array, feeds: Mapping[str, Array]) -> Array | None:
        """Return what is added to the values that `loopedge.graph.agreement.at_kept` gives of an output."""
        found = self.of(name, feeds)
        if found is None or found.ndim < 2:
            return found
        return at_kept(np.broadcast_to(found, output.shape), feeds.get(MASK))


def _find_windows(model: ir.Model) -> _Windows | None:
    task = read_metadata(model.metadata_props).task
    if task.get("name") not in TABLES or task.get("scaling") != "window":
        return None
    for value in model.graph.inputs:
        mean, scale = (scaling_of(value, name) for name in ("input_mean", "input_scale"))
        if mean is not None and scale is not None:
            return _Windows(name=value.name or "", mean=mean, scale=scale)
    return None
