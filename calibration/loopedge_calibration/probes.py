"""Run a model on samples and give what its linears read."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.artifact import write_scratch
from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.core.probe import activation_of, can_probe, probe, stack_probed
from loopedge.graph.weights import Linear, linears
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge_calibration.histogram import RowHistograms
from loopedge_calibration.options import CollectOptions
from loopedge_calibration.readers import Feeds, SampleBatch

__all__ = ["Probes", "linears_by_name", "same_activation"]


def linears_by_name(model: ir.Model) -> dict[str, Linear]:
    """Return every linear whose activation can be seen once, named as in the loop form: ``core.<t>/x`` is ``core/x``."""
    found: dict[str, Linear] = {}
    cores = Cores(model)
    for item in linears(model):
        if can_probe(cores, item.node):
            found.setdefault(loop_name(item.node), item)
    return found


class Probes:
    """Sessions that give what the linears read, a chunk of them at a time.

    Args:
        model: The float graph.
        folder: Where probed copies may be written.
        options: The bytes of activations at once, threads, and iterations where their count is not known.
        only: Linears to look at, by name; default: all.
    """

    def __init__(
        self,
        model: ir.Model,
        folder: Path,
        options: CollectOptions,
        *,
        only: Collection[str] | None = None,
    ) -> None:
        found = linears_by_name(model)
        self._linears = {n: item for n, item in found.items() if only is None or n in only}
        self._cores = Cores(model)
        self._model, self._folder, self._options = model, folder, options
        self._twins = same_activation(self._linears, model)
        self._sessions: list[tuple[list[str], Session]] = []

    @property
    def repeated(self) -> dict[str, str]:
        """The linears that run once per iteration, each with the name of its core."""
        return {
            name: core.name
            for name, item in self._linears.items()
            if (core := self._cores.of(item.node)) is not None
        }

    def histograms(self) -> dict[str, RowHistograms]:
        """Return an empty histogram per linear; those of a core get a row per iteration."""
        return {name: RowHistograms(1) for name in self._linears}

    def run(self, batch: SampleBatch) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Run a batch; yield what each linear read, float32 (rows, ..., channels).

        Raises:
            InputError: What a linear reads is not finite.
        """
        feeds = batch.feeds
        if not self._sessions:
            self._open(feeds)
        mask = feeds.get(MASK)
        for names, session in self._sessions:
            given = session.run(feeds)
            rows = stack_probed(given, [f"{name}.input" for name in names])
            for name in names:
                _check_finite(rows[f"{name}.input"], mask, name, batch)
                values = _kept(rows[f"{name}.input"], mask)
                for twin in self._twins[name]:
                    yield twin, values

    def _open(self, feeds: Feeds) -> None:
        first = next(iter(feeds.values()))
        tokens = int(np.prod(first.shape[:2]))
        chunk: list[str] = []
        chunks, size = [chunk], 0
        for name in self._twins:
            bytes_needed = 4 * tokens * self._width(name) * self._iterations(name)
            if chunk and size + bytes_needed > self._options.chunk_bytes:
                chunk, size = [], 0
                chunks.append(chunk)
            chunk.append(name)
            size += bytes_needed
        for index, names in enumerate(chunks):
            path = self._folder / f"{index}.onnx"
            probed = probe(self._model, [f"{name}.input" for name in names])
            write_scratch(probed, path)
            self._sessions.append((names, Session(path, threads=self._options.threads)))

    def _iterations(self, name: str) -> int:
        """Return how often a linear runs, as far as it is known."""
        core = self._cores.of(self._linears[name].node)
        return 1 if core is None else core.iterations or self._options.loops or 1

    def _width(self, name: str) -> int:
        item = self._linears[name]
        stored = item.weight.const_value
        return 1 if stored is None else int(stored.numpy().shape[1 - item.index])


def same_activation(found: dict[str, Linear], model: ir.Model) -> dict[str, list[str]]:
    """Group linears that read the same value as often (query, key, value): the first stands for all."""
    groups: dict[object, list[str]] = {}
    cores = Cores(model)
    for name, item in found.items():
        key = (activation_of(item.node), cores.of(item.node))
        groups.setdefault(key, []).append(name)
    return {group[0]: group for group in groups.values()}


def _kept(
    rows: npt.NDArray[np.float32], mask: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32]:
    """Leave padded positions out: nothing reads what they compute."""
    if mask is None or rows.shape[1:3] != mask.shape:
        return rows
    return rows[:, mask.astype(bool)]


def _check_finite(
    rows: npt.NDArray[np.float32],
    mask: npt.NDArray[np.int64] | None,
    name: str,
    batch: SampleBatch,
) -> None:
    """Refuse a sample that makes what a linear reads infinite or not a number, where it is not padding."""
    wrong = ~np.isfinite(rows)
    if mask is not None and rows.shape[1:3] == mask.shape:
        wrong &= mask.astype(bool).reshape(1, *mask.shape, *[1] * (rows.ndim - 3))
    if not wrong.any():
        return
    place = tuple(int(at) for at in np.argwhere(wrong)[0])
    iteration = f" in iteration {place[0]}" if len(rows) > 1 else ""
    raise InputError(
        f"{batch.where(place[1] if len(place) > 1 else 0)}: {name} reads {rows[place]}{iteration}, which no range holds",
        hint="leave that sample out, or look at the model: its activations overflow float32 there",
    )
