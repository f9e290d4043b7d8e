"""Ways to quantize one model, measured on the samples that choose; the best one."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from loopedge.artifact.artifact import write_scratch
from loopedge.files.scratch import never_named
from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.offsets import OutputOffsets
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.held_out.significance import loss_error, moved
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge.tasks.metrics import Tally
from loopedge_calibration.readers import Feeds
from loopedge_calibration.rounding.few_samples import FEWEST_BATCHES, evenly, positions_of

__all__ = ["CHOOSING_POSITIONS", "Contest", "Entry"]

Array = npt.NDArray[Any]
OUTPUT_BYTES = 256 * 2**20
"""Of the float model's outputs, which are kept: of a large vocabulary fewer positions fit."""
Outputs = Mapping[str, Array]

CHOOSING_POSITIONS = 4096
"""On so many, about, a candidate is measured, where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a candidate does on the samples: SQNR of the outputs, the task's metric, and what each batch adds to that."""

    name: str
    sqnr_db: float
    score: float | None
    tallies: Sequence[Tally]


class Contest:
    """Measures recipes against the float model, which runs once.

    An early exit is part of the metric and left out of the SQNR: what another number of iterations changes is no noise.

    Args:
        source: The float model.
        choosing: The samples.
        positions: On so many, about, each candidate is measured, evenly spread.
        threads: Threads of ONNX Runtime.

    Attributes:
        samples: That are measured on.
        metric: The task's; None where it is not known.
        float_score: The float model's.
    """

    def __init__(
        self,
        source: FloatSource,
        choosing: HeldOut,
        *,
        positions: int = CHOOSING_POSITIONS,
        threads: int | None,
    ) -> None:
        self._source, self._threads, self._judge = source, threads, choosing.judge
        session = Session(source.path, threads=threads)
        self._numbers = _few_numbers(choosing, session, positions)
        self._batches = [choosing.batches[number] for number in self._numbers]
        self.samples = sum(len(choosing.places[number]) for number in self._numbers)
        self._offsets = OutputOffsets(source.graph)
        self._ends_early = session.metadata.tolerance is not None
        self._exact: list[Outputs] = []
        tallies: list[Tally] = []
        for number, feeds in zip(self._numbers, self._batches, strict=True):
            given, whole = self._run(session, feeds)
            self._exact.append(session.metadata.answers(whole))
            tallies += self._tally(number, given)
        self.metric = None if self._judge is None else self._judge.task.metric
        self.float_score = None if self._judge is None else self._judge.score(tallies)

    def measure(self, name: str, recipe: Recipe) -> Entry:
        """Run a model that a recipe makes."""
        model = self._source.graph.clone()
        recipe.apply(model)
        ratio, tallies = NoiseRatio(), list[Tally]()
        with (
            tempfile.TemporaryDirectory(prefix="loopedge.") as folder,
            never_named(Path(folder), self._source.path),
        ):
            path = Path(folder) / "candidate.onnx"
            write_scratch(model, path)
            session = Session(path, threads=self._threads)
            for number, feeds, exact in zip(self._numbers, self._batches, self._exact, strict=True):
                given, whole = self._run(session, feeds)
                mask = feeds.get(MASK)
                for output, values in exact.items():
                    found = at_kept(whole[output], mask)
                    offset = self._offsets.at_kept(output, values, feeds)
                    ratio.add(at_kept(values, mask), found, offset)
                tallies += self._tally(number, given)
        score = None if self._judge is None else self._judge.score(tallies)
        return Entry(name=name, sqnr_db=ratio.db, score=score, tallies=tallies)

    def best(self, entries: Sequence[Entry]) -> Entry:
        """Return the one with the best metric where that moves beyond its noise, else with the best SQNR."""
        ranked = sorted(entries, key=lambda entry: -entry.sqnr_db)
        best = ranked[0]
        for entry in ranked[1:]:
            if self._is_better(entry, best):
                best = entry
        return best

    def _is_better(self, entry: Entry, than: Entry) -> bool:
        """Tell whether a metric is better by more than its noise."""
        judge = self._judge
        if judge is None or entry.score is None or than.score is None:
            return False

        def loss(one: list[Tally], other: list[Tally]) -> float:
            return judge.loss(judge.score(one), judge.score(other))

        error = loss_error(entry.tallies, than.tallies, loss)
        lost = judge.loss(entry.score, than.score)
        if error is None:  # of one batch the noise is not known
            return False
        return moved(lost, error, entry.score, batches=len(entry.tallies))

    def _run(self, session: Session, feeds: Feeds) -> tuple[Outputs, Outputs]:
        """Return the outputs for a batch, as the model gives them and after all iterations."""
        given = session.run(feeds)
        return given, session.run(feeds, tolerance=0.0) if self._ends_early else given

    def _tally(self, number: int, given: Outputs) -> list[Tally]:
        return [] if self._judge is None else [self._judge.tally(number, given)]


def _few_numbers(choosing: HeldOut, session: Session, positions: int) -> list[int]:
    """Return which batches are run, so that the outputs of all fit in memory."""
    sizes = [positions_of(feeds) for feeds in choosing.batches]
    if not sizes:
        return []
    outputs = session.run(choosing.batches[0]).values()
    each = sum(output.nbytes for output in outputs) / max(1, sizes[0])
    share = min(positions, OUTPUT_BYTES / max(1.0, each)) / max(1, sum(sizes))
    fewest = FEWEST_BATCHES if each * max(sizes) * FEWEST_BATCHES <= OUTPUT_BYTES else 1
    return evenly(len(sizes), max(min(fewest, len(sizes)), int(share * len(sizes))))
