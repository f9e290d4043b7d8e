"""Run a quantized file and its float source on the same samples: the task's metric, SQNR, what clips."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError, VerificationError
from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.offsets import OutputOffsets
from loopedge.quantizer.held_out.interval_coverage import HeldInterval, IntervalCoverage
from loopedge.quantizer.held_out.samples import KINDS, HeldOut, Judge, Kind
from loopedge.quantizer.held_out.significance import loss_error, moved
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.metrics import Metrics, Tally

__all__ = ["CLIPPED", "FloatAnswers", "HeldOutResult", "measure_held_out"]

Array = npt.NDArray[Any]

CLIPPED = 0.25
"""Share of the values that a linear reads in an iteration, from which on their clipping alone is a warning.

The least squared error cuts off what costs little: some 10 % of what a GELU gives, all of it just below zero. A series that
leaves its ranges is past 50 %."""
CLIPPED_TOO = 0.05
"""The same where the metric moves: it may be the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutResult:
    """What a quantized file does on samples that did not calibrate it.

    ``source``: ``validation``, the task's validation part; ``data``, held out of the data; ``calibrating``,
    nothing could be held out; ``generated``, there was no data. ``sqnr_db``: of the outputs on these samples.
    ``metric``, ``float_score``, ``score``: the task's own, None where it is not known; ``loss``: by how much
    it is worse, in its units; ``loss_error``: the standard error of that; ``moved``: whether it is worse by
    more than its noise. ``float_scores``, ``scores``: all metrics of the task. ``intervals``: how often the float
    model's prediction intervals hold around each one's forecasts; empty where it has none. ``clipped``: of a static
    scheme by linear, the share of the values that it reads which lie outside the range of each iteration.
    """

    source: Kind
    samples: int
    sqnr_db: float
    metric: str | None = None
    float_score: float | None = None
    score: float | None = None
    loss: float | None = None
    loss_error: float | None = None
    moved: bool = False
    float_scores: Metrics = field(default_factory=dict)
    scores: Metrics = field(default_factory=dict)
    intervals: list[HeldInterval] = field(default_factory=list)
    clipped: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)

    @property
    def where(self) -> str:
        """The samples, as people read it: ``512 samples of the task's validation part``."""
        samples = "sample" if self.samples == 1 else "samples"
        if self.source == "generated":
            return f"{self.samples} generated {samples}"
        return f"{self.samples} {samples} {KINDS[self.source]}"

    @property
    def warning(self) -> str | None:
        """One line where the metric moved, or much of what a linear reads is cut off; else None."""
        if self.moved and self.float_score is not None and self.score is not None:
            error = "" if self.loss_error is None else f", standard error {self.loss_error:.2g}"
            return (
                f"{self.metric} moves from {self.float_score:.4g} to {self.score:.4g} on "
                f"{self.where}{error}" + self._clipped_text(CLIPPED_TOO)
            )
        return self._clipped_text(CLIPPED).removeprefix("; ") or None

    def _clipped_text(self, least: float) -> str:
        worst = max(self.clipped.items(), key=lambda item: max(item[1]), default=None)
        if worst is None or max(worst[1]) < least:
            return ""
        name, shares = worst
        iteration = "" if len(shares) == 1 else f" in iteration {int(np.argmax(shares))}"
        return (
            f"; {max(shares):.0%} of the values that {name} reads{iteration} lie outside its range"
        )


def measure_held_out(
    source: Path,
    written: Path,
    held_out: HeldOut,
    *,
    offsets: OutputOffsets,
    threads: int | None,
) -> HeldOutResult:
    """Run both files on all samples, as they are.

    Args:
        source: The float model.
        written: The quantized file.
        held_out: The samples.
        offsets: What the float model adds to its outputs last: no part of the signal.
        threads: Threads of ONNX Runtime.

    Raises:
        InputError: The float model's outputs are not finite on a sample.
        VerificationError: Those of the quantized file are not, or have other shapes.
    """
    answers = FloatAnswers(source, held_out, offsets=offsets, threads=threads)
    return answers.compare(written)


class FloatAnswers:
    """What a float model gives on samples, to which files are compared one after the other.

    Args:
        source: The float model.
        held_out: The samples.
        offsets: What the float model adds to its outputs last: no part of the signal.
        threads: Threads of ONNX Runtime.
        kept_bytes: Most bytes of outputs that are kept for the next comparison; the others are computed again.
    """

    def __init__(
        self,
        source: Path,
        held_out: HeldOut,
        *,
        offsets: OutputOffsets,
        threads: int | None,
        kept_bytes: int = 0,
    ) -> None:
        self._source, self._held_out, self._offsets = source, held_out, offsets
        self._session, self._threads = Session(source, threads=threads), threads
        self._room = kept_bytes
        self._kept: dict[int, dict[str, Array]] = {}

    def compare(self, written: Path, numbers: Sequence[int] | None = None) -> HeldOutResult:
        """Run a quantized file on the samples.

        Args:
            written: The file.
            numbers: Of the batches that are run; None: all.

        Raises:
            InputError: The float model's outputs are not finite on a sample.
            VerificationError: Those of the quantized file are not, or have other shapes.
        """
        held_out, session = self._held_out, Session(written, threads=self._threads)
        ratio, judge = NoiseRatio(), held_out.judge
        intervals = Intervals.of(self._session.metadata.task)
        covered = None if judge is None or intervals is None else IntervalCoverage(intervals)
        taken = range(len(held_out.batches)) if numbers is None else numbers
        exact_tallies: list[Tally] = []
        given_tallies: list[Tally] = []
        for number in taken:
            feeds = held_out.batches[number]
            exact, given = self._of(number), session.run(feeds)
            for output, values in self._session.metadata.answers(exact).items():
                places = held_out.places[number]
                _check(output, values, given[output], feeds, places, self._source)
                kept = feeds.get(MASK)
                offset = self._offsets.at_kept(output, values, feeds)
                ratio.add(at_kept(values, kept), at_kept(given[output], kept), offset)
            if judge is not None:
                exact_tallies.append(judge.tally(number, exact))
                given_tallies.append(judge.tally(number, given))
                if covered is not None:
                    answers = (judge.answer(outputs) for outputs in (exact, given))
                    covered.add(judge.batches[number], *answers)
        samples = sum(len(held_out.places[number]) for number in taken)
        result = HeldOutResult(
            source=held_out.kind, samples=samples, sqnr_db=ratio.db, clipped=held_out.clipped
        )
        if judge is None:
            return result
        scored = _scored(result, judge, exact_tallies, given_tallies)
        return scored if covered is None else replace(scored, intervals=covered.shares())

    def _of(self, number: int) -> Mapping[str, Array]:
        """Return the outputs of a batch, kept as long as there is room."""
        if number not in self._kept:
            outputs = self._session.run(self._held_out.batches[number])
            size = sum(array.nbytes for array in outputs.values())
            if size > self._room:
                return outputs
            self._room -= size
            self._kept[number] = dict(outputs)
        return self._kept[number]


def _scored(
    result: HeldOutResult, judge: Judge, exact: list[Tally], given: list[Tally]
) -> HeldOutResult:
    """Add the task's metric to what was measured."""

    def loss(one: list[Tally], other: list[Tally]) -> float:
        return judge.loss(judge.score(one), judge.score(other))

    lost, error = loss(exact, given), loss_error(exact, given, loss)
    float_score = judge.score(exact)
    return replace(
        result,
        metric=judge.task.metric,
        float_score=float_score,
        score=judge.score(given),
        loss=lost,
        loss_error=error,
        moved=moved(lost, error, float_score, batches=len(exact)),
        float_scores=judge.scores(exact),
        scores=judge.scores(given),
    )


def _check(
    output: str,
    exact: Array,
    given: Array,
    feeds: Mapping[str, Array],
    places: Sequence[str],
    source: Path,
) -> None:
    """Refuse outputs of another shape, and a sample on which an output is not finite."""
    if exact.shape != given.shape:
        raise VerificationError(
            f"the quantized file gives {output} with shape {given.shape}, its source {exact.shape}"
        )
    if exact.dtype.kind != "f":
        return
    mask = feeds.get(MASK)
    for values, whose, kind in (
        (exact, f"{source}", InputError),
        (given, "the quantized file", VerificationError),
    ):
        wrong = ~np.isfinite(values)
        if mask is not None and wrong.shape[:2] == mask.shape:
            wrong &= mask.astype(bool).reshape(*mask.shape, *[1] * (wrong.ndim - 2))
        if wrong.any():
            row = min(int(np.argwhere(wrong)[0][0]) if wrong.ndim else 0, len(places) - 1)
            raise kind(f"{places[row]}: output {output} of {whose} is not finite")
