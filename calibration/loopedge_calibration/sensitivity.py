"""Which roundings hurt: the error of the outputs when one linear alone is rounded, per iteration."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.artifact import write_scratch
from loopedge.files.scratch import never_named
from loopedge.graph.agreement import noise_ratio
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.offsets import OutputOffsets
from loopedge.quantizer.budget_result import LinearSensitivity
from loopedge.quantizer.emulation import ROUNDED_INPUT, emulate
from loopedge.quantizer.recipe import Recipe
from loopedge.runtime.session import Session
from loopedge_calibration.readers import Feeds

__all__ = ["Emulated", "emulated", "measure_sensitivity"]

DETAILED = 12
"""Linears whose iterations are measured one by one: the most sensitive ones."""


def measure_sensitivity(
    model: ir.Model,
    recipe: Recipe,
    batches: Sequence[Feeds],
    *,
    detailed: int = DETAILED,
    threads: int | None = None,
) -> list[LinearSensitivity]:
    """Round one linear at a time, then one iteration at a time, and measure the outputs.

    Args:
        model: The float graph.
        recipe: How it is to be quantized.
        batches: Inputs; each is run once per linear, and once per iteration of the detailed ones.
        detailed: Linears whose iterations are measured one by one.
        threads: Threads of ONNX Runtime.

    Returns:
        All linears, the most sensitive first.
    """
    cores = Cores(model)
    counts = {loop_name(item.node): core.iterations or 1 for core in cores for item in core.linears}
    loops = max((core.iterations or 1 for core in cores), default=1)
    with emulated(model, recipe, batches, loops=loops, threads=threads) as (trial, names):
        errors = {name: trial.error(row, slice(None)) for row, name in enumerate(names)}
        ranked = sorted(errors, key=lambda name: -errors[name])
        return [
            LinearSensitivity(
                name=name,
                error=errors[name],
                per_iteration=[
                    trial.error(names.index(name), t)
                    for t in range(counts.get(name, 0) if place < detailed else 0)
                ],
            )
            for place, name in enumerate(ranked)
        ]


@contextmanager
def emulated(
    model: ir.Model,
    recipe: Recipe,
    batches: Sequence[Feeds],
    *,
    loops: int,
    threads: int | None,
) -> Iterator[tuple["Emulated", list[str]]]:
    """Open a graph in which every rounding has a switch.

    Args:
        model: The float graph.
        recipe: How it is to be quantized.
        batches: Inputs.
        loops: Iterations of the longest core.
        threads: Threads of ONNX Runtime.

    Yields:
        What runs it, and the linears in the order of its rows.
    """
    graph, names = emulate(
        model,
        loops=loops,
        activations=recipe.activations,
        round_weight=recipe.round_weight,
        others=recipe.others(model),
    )
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
        never_named(Path(folder), "the model"),
    ):
        path = Path(folder) / "emulated.onnx"
        write_scratch(graph, path)
        session, offsets = Session(path, threads=threads), OutputOffsets(model)
        yield Emulated(session, batches, (len(names), loops), offsets), names


class Emulated:
    """Runs an emulated graph with some switches on, and compares it with all of them off."""

    def __init__(
        self,
        session: Session,
        batches: Sequence[Feeds],
        shape: tuple[int, int],
        offsets: OutputOffsets,
    ) -> None:
        self._session, self._batches, self._shape = session, batches, shape
        self._offsets = offsets
        self._exact = [self._run(feeds, np.zeros(shape, np.bool_)) for feeds in batches]

    def error(self, row: int | list[int], iterations: int | slice) -> float:
        """Return ||y - exact|| / ||exact|| with one linear or several rounded in these iterations."""
        switches = np.zeros(self._shape, np.bool_)
        switches[row, iterations] = True
        given = (self._run(feeds, switches) for feeds in self._batches)
        return noise_ratio(self._exact, given).share

    def _run(self, feeds: Feeds, switches: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        """Return the model's own outputs, without what is added last: it says nothing of the rounding."""
        given = self._session.run({**feeds, ROUNDED_INPUT: switches})
        judged = {}
        for name, array in self._session.metadata.answers(given).items():
            offset = self._offsets.of(name, feeds)
            judged[name] = array if offset is None else array.astype(np.float64) - offset
        return judged
