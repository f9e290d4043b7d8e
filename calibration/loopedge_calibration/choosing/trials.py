"""Candidates written, run on the samples that choose, timed, and forgotten."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from loopedge.artifact.artifact import open_artifact, write_artifact
from loopedge.errors import VerificationError
from loopedge.graph.core.cores import Cores
from loopedge.graph.metadata import write_metadata
from loopedge.graph.offsets import OutputOffsets
from loopedge.quantizer.check import quantization_fields
from loopedge.quantizer.floors import floors_of
from loopedge.quantizer.held_out.measurement import FloatAnswers, HeldOutResult
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.noise import outputs_db
from loopedge.quantizer.options import QuantizeOptions
from loopedge.quantizer.pipeline import RewrittenSource, rewrite_source
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.source import FloatSource
from loopedge.quantizer.timing import TimeRatio, time_several

__all__ = ["Measured", "Trials", "Written", "without_task"]

KEPT_BYTES = 256 * 2**20
"""Outputs of the float model that are kept from candidate to candidate."""
TOGETHER_BYTES = 2**30
"""Files that are timed in one round of turns; larger ones are timed against the float model one by one."""
UNKNOWN = HeldOutResult(
    source="validation",
    samples=10**4,
    sqnr_db=1 / 3,
    metric="accuracy",
    float_score=1 / 3,
    score=1 / 3,
    loss=1 / 3,
    loss_error=1 / 3,
    clipped={},
)
"""Stands for what is measured later in the metadata of a candidate: as many bytes."""
ROUNDED_BYTES = 512
"""Taken by what a file says of weights that data rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A candidate's file.

    Attributes:
        path: It, until a candidate with the same operators is written.
        bytes: Of it and its data.
        operators: The same for files that run the same operators on the same shapes: their times are equal.
        min_sqnr_db: The floor of its outputs.
    """

    path: Path
    bytes: int
    operators: str
    min_sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a candidate does to the samples that it was run on; ``loss`` without a task is the relative error."""

    samples: int
    sqnr_db: float
    loss: float
    score: float | None = None
    loss_error: float | None = None
    moved: bool = False


class Trials:
    """Writes candidates as they would be written in the end, and measures them.

    Args:
        source: The float model.
        held_out: Samples that choose.
        folder: For the files.
        options: How sessions keep the weights, what must be reached, threads.
    """

    def __init__(
        self, source: FloatSource, held_out: HeldOut, folder: Path, options: QuantizeOptions
    ) -> None:
        self._source, self._folder, self._options = source, folder, options
        self._held_out = held_out
        self._answers = FloatAnswers(
            source.path,
            held_out,
            offsets=OutputOffsets(source.graph),
            threads=options.threads,
            kept_bytes=KEPT_BYTES,
        )
        self.float_bytes = sum(path.stat().st_size for path in source.artifact.files)
        self.float_score: float | None = None

    @property
    def has_few(self) -> bool:
        """Whether a part of the samples is less than all."""
        return len(self._held_out.few_numbers()) < len(self._held_out.batches)

    def write(self, recipe: Recipe) -> Written:
        """Write a candidate.

        Raises:
            LoopedgeError: The recipe cannot be applied, or does too little.
        """
        made = rewrite_source(self._source, recipe, self._options)
        if not made.metadata.foreign:
            fields = quantization_fields(recipe, made.rewritten, UNKNOWN, self._source.graph)
            fields["state_cosines"] = self._unknown_cosines()
            described = made.metadata.model_copy(update={"quantization": fields})
            write_metadata(described, made.graph.metadata_props)
        operators = _operators(made)
        files = write_artifact(made.graph, self._folder / f"{operators}.onnx", force=True)
        return Written(
            path=files[0],
            bytes=sum(path.stat().st_size for path in files)
            + (ROUNDED_BYTES if self._options.rounds(recipe.scheme) else 0),
            operators=operators,
            min_sqnr_db=floors_of(recipe, self._options.min_sqnr_db).outputs_db,
        )

    def _unknown_cosines(self) -> list[dict[str, Any]]:
        """Return what stands for the cosines of the states, as many bytes."""
        found = []
        for core in Cores(self._source.graph):
            count = core.iterations or self._options.loops or 1
            row = [round(1 / 3, 9)] * count
            found += [
                {"core": core.name, "state": state, "mean": row, "worst": row}
                for state in core.states
            ]
        return found

    def measure(self, written: Written, *, few: bool) -> Measured:
        """Run a candidate that was written last with its operators.

        Args:
            written: The candidate.
            few: On a part of the samples.

        Raises:
            InputError: The float model's outputs are not finite on a sample.
        """
        numbers = self._held_out.few_numbers() if few else range(len(self._held_out.batches))
        try:
            found = self._answers.compare(written.path, numbers)
            sqnr_db = self._sqnr_db(written, found, numbers)
        except VerificationError:  # what it gives is not finite
            samples = sum(len(self._held_out.places[number]) for number in numbers)
            return Measured(samples=samples, sqnr_db=-float("inf"), loss=float("inf"), moved=True)
        if found.metric is None or found.loss is None:
            return Measured(samples=found.samples, sqnr_db=sqnr_db, loss=10 ** (-sqnr_db / 20))
        if not few:
            self.float_score = found.float_score
        return Measured(
            samples=found.samples,
            sqnr_db=sqnr_db,
            loss=found.loss,
            score=found.score,
            loss_error=found.loss_error,
            moved=found.moved,
        )

    def time(self, written: Sequence[Written]) -> dict[str, TimeRatio]:
        """Return the times of candidates against the float model's, by their operators."""
        files = {item.operators: item for item in written}
        together = sum(item.bytes for item in files.values()) <= TOGETHER_BYTES
        groups = [list(files)] if together else [[name] for name in files]
        times: dict[str, TimeRatio] = {}
        for names in groups:
            ratios = time_several(
                self._source.path,
                [files[name].path for name in names],
                self._held_out.batches[0],
                threads=self._options.threads,
            )
            times |= dict(zip(names, ratios, strict=True))
        return times

    def _sqnr_db(self, written: Written, found: HeldOutResult, numbers: Sequence[int]) -> float:
        """Return the SQNR; of a model that ends early that of all iterations."""
        if self._source.metadata.exit is None:
            return found.sqnr_db
        return outputs_db(
            self._source.graph,
            open_artifact(written.path),
            self._folder,
            inputs=[self._held_out.batches[number] for number in numbers],
            threads=self._options.threads,
        )


def _operators(made: RewrittenSource) -> str:
    """Return a digest of the operators of a graph and the shapes of what they read, whatever the values are."""
    digest = hashlib.sha256()
    for node in made.graph.graph.all_nodes():
        read = [
            None if value is None or value.const_value is None else _form(value.const_value)
            for value in node.inputs
        ]
        digest.update(repr((node.domain, node.op_type, read)).encode())
    return digest.hexdigest()[:16]


def _form(tensor: ir.TensorProtocol) -> tuple[str, tuple[object, ...]]:
    return str(tensor.dtype), tuple(tensor.shape)


def without_task(held_out: HeldOut) -> HeldOut:
    """Return samples that measure the relative error of the outputs alone."""
    return replace(held_out, judge=None)
