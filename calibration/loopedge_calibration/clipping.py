"""How much of what linears read lies outside the ranges that static int8 rounds with."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loopedge.files.scratch import never_named
from loopedge.quantizer.activations.ranges import RangeTable, TensorRange
from loopedge.quantizer.activations.smoothing import apply_smoothing
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.source import FloatSource
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.probes import Probes
from loopedge_calibration.readers import SampleBatch

__all__ = ["measure_clipping"]


def measure_clipping(
    source: FloatSource,
    table: RangeTable,
    held_out: HeldOut,
    options: CollectOptions,
) -> dict[str, list[float]]:
    """Run the float model; count the values that rounding would cut off by more than half a step.

    Args:
        source: The float model.
        table: Its ranges.
        held_out: Samples; a part of them is run.
        options: As they were collected.

    Returns:
        By linear, for each iteration the share of the values that it reads, 0 to 1; outside the core one share.
    """
    graph = source.graph
    if factors := table.factors():
        graph = graph.clone()
        apply_smoothing(graph, factors)
    counts: dict[str, _Counts] = {}
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), source.path),
    ):
        probes = Probes(graph, Path(folder), options)
        for number in held_out.few_numbers():
            places = tuple(held_out.places[number])
            batch = SampleBatch(
                feeds=held_out.batches[number], numbers=tuple(range(len(places))), places=places
            )
            for name, values in probes.run(batch):
                if name in table.tensors:
                    known = counts.setdefault(name, _Counts())
                    known.add(_outside(values, table.tensors[name]), values[0].size)
    return {name: known.shares for name, known in counts.items()}


class _Counts:
    """Values outside and altogether, by iteration; a Loop that ends itself runs some less often than others."""

    def __init__(self) -> None:
        self._outside: list[int] = []
        self._total: list[int] = []

    def add(self, outside: npt.NDArray[np.int64], size: int) -> None:
        """Count the rows of a batch, of so many values each."""
        missing = [0] * (len(outside) - len(self._total))
        self._outside += missing
        self._total += missing
        for row, count in enumerate(outside.tolist()):
            self._outside[row] += count
            self._total[row] += size

    @property
    def shares(self) -> list[float]:
        return [
            part / max(1, whole) for part, whole in zip(self._outside, self._total, strict=True)
        ]


def _outside(values: npt.NDArray[np.float32], found: TensorRange) -> npt.NDArray[np.int64]:
    """Return for each row how many of its values lie outside what u8 stands for, int64 (rows,)."""
    scale, zero_point = (ends.astype(np.float64) for ends in found.quantization())
    low, high = -(zero_point + 0.5) * scale, (255.5 - zero_point) * scale
    flat = values.reshape(len(values), -1)
    last = np.minimum(np.arange(len(flat)), len(scale) - 1)
    cut = (flat < low[last, None]) | (flat > high[last, None])
    return np.asarray(cut.sum(axis=1), np.int64)
