"""What a quantization gives back, and what a user would not expect of the file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopedge.files.targets import FileSize
from loopedge.graph.passes.foreign_weights import DEFAULTS_IR_VERSION
from loopedge.graph.positions.last_iteration import LastIterationOutcome
from loopedge.graph.weights import weight_bytes
from loopedge.options import option
from loopedge.quantizer.budget_result import BudgetResult
from loopedge.quantizer.check import SourceCheck
from loopedge.quantizer.choice.result import ChoiceResult
from loopedge.quantizer.floors import may_overflow
from loopedge.quantizer.held_out.measurement import HeldOutResult
from loopedge.quantizer.held_out.state_fidelity import StateFidelity
from loopedge.quantizer.refined import Refined
from loopedge.quantizer.schemes.operators import PAIRS
from loopedge.quantizer.schemes.rule import Treated
from loopedge.quantizer.schemes.targets import target_of
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS
from loopedge.quantizer.timing import BUSY, TimeRatio
from loopedge.quantizer.weights.rounding_result import RoundingResult
from loopedge.quantizer.whole_and_written import unchanged_note
from loopedge.runtime.memory_profiles import WISH_NOTE
from loopedge.runtime.processor import FAST_INT8, this_processor

__all__ = ["QuantizeResult", "make_result", "time_note"]

SLOWER = 1.0
"""Time against the float model from which on that is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeResult:
    """What became int8 and how far the outputs moved."""

    path: str
    scheme: str
    ranges: str | None
    method: str | None
    samples: int | None
    samples_of: int | None
    matmuls: dict[str, Any]
    embeddings: dict[str, Any]
    weight_only: list[str]
    treatments: list[Treated]
    sqnr_db: float
    sqnr_db_per_iteration: list[float]
    state_cosines: list[StateFidelity]
    sqnr_db_random_rows: float | None
    sqnr_db_linears: dict[str, float]
    min_sqnr_db: float
    verified: bool
    held_out: HeldOutResult
    warning: str | None
    last_rows: LastIterationOutcome | None
    time_ratio: float | None
    weight_bytes: int
    source_weight_bytes: int
    files: list[FileSize]
    notes: list[str]
    seconds: dict[str, float]
    budget: BudgetResult | None = None
    rounding: RoundingResult | None = None
    refined: Refined | None = None
    choice: ChoiceResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def make_result(
    check: SourceCheck,
    last: LastIterationOutcome | None,
    files: Sequence[Path],
    changed: Sequence[str],
    seconds: dict[str, float],
) -> QuantizeResult:
    """Put together what the stations of a quantization found.

    Args:
        check: The comparison with the source, which was made.
        last: What became of the last iteration; None where the source computes all positions, too.
        files: What was written, the artifact first.
        changed: Notes on a source that another program has written anew.
        seconds: Time of each station.
    """
    recipe, rewritten, noise = check.recipe, check.rewritten, check.noise
    table = recipe.table if recipe.scheme == "static" else None
    held_out, warning = check.held_out, check.measured.warning
    if warning is not None and check.measured.moved and may_overflow(recipe):
        warning += (
            f"; products of eight bits may overflow on this processor: add {option('reduce_range')}"
        )
    first = [] if warning is None else [f"WARNING: {warning}"]
    return QuantizeResult(
        path=str(files[0]),
        scheme=recipe.scheme,
        ranges=table.granularity if table else None,
        method=table.method if table else None,
        samples=table.samples if table else None,
        samples_of=held_out.calibrating_of if held_out else None,
        matmuls=rewritten.coverage.to_json(),
        embeddings=rewritten.embeddings.to_json(),
        weight_only=rewritten.weight_only,
        treatments=rewritten.treatments,
        sqnr_db=noise.sqnr_db,
        sqnr_db_per_iteration=noise.per_iteration_db,
        state_cosines=noise.states,
        sqnr_db_random_rows=noise.random_rows_db,
        sqnr_db_linears=noise.linears_db,
        min_sqnr_db=check.floors.outputs_db,
        verified=True,
        held_out=check.measured,
        warning=warning,
        last_rows=last,
        time_ratio=check.time_ratio.median if check.time_ratio.steady else None,
        weight_bytes=weight_bytes(check.graph),
        source_weight_bytes=weight_bytes(check.source.artifact.graph),
        files=[FileSize.of(file) for file in files],
        notes=[*first, *changed, *_notes(check), *unchanged_note(last), *check.exit_note],
        seconds=seconds,
        rounding=recipe.rounding,
        refined=recipe.refined,
    )


def _notes(check: SourceCheck) -> list[str]:
    recipe, memory = check.recipe, check.metadata.memory
    table = recipe.table if recipe.scheme == "static" else None
    notes = [] if table is None else list(table.warnings)
    if check.held_out is not None:
        notes += [note for note in check.held_out.notes if note not in notes]
    notes += _fixed_note(check)
    if check.metadata.task.get("intervals") and not check.measured.intervals:
        notes.append(
            "the prediction intervals are those of the float model: how often they hold around this file's "
            f"forecasts was not measured, which takes its table: {option('data', 'TABLE')}"
        )
    if recipe.ops == PAIRS:
        notes += target_of(recipe.target).notes(check.graph)
    if memory == "mapped":
        notes.append(WISH_NOTE)
    if memory == "low" and (recipe.scheme in WEIGHT_BITS or check.rewritten.weight_only):
        notes.append(
            "without packing onnxruntime unpacks weight-only linears into floats at each run: memory "
            "profile low takes more memory and two to four times the time, see docs/memory.md"
        )
    notes += time_note(check.time_ratio)
    features = this_processor().features
    if features and FAST_INT8.isdisjoint(features):
        overflow = f", and products may overflow: add {option('reduce_range')}"
        notes.append(
            "this processor has no VNNI, i8mm or dot-product instructions: int8 saves memory here, "
            "but little time" + (overflow if may_overflow(recipe) else "")
        )
    return notes


def _fixed_note(check: SourceCheck) -> list[str]:
    """Name the weights that the source listed among its inputs, where the file has them in another form."""
    source = check.source.artifact.graph
    if source.ir_version < DEFAULTS_IR_VERSION:
        return []
    taken = {value.name for value in check.graph.graph.inputs}
    names = [
        value.name or ""
        for value in source.graph.inputs
        if value.const_value is not None and value.name not in taken
    ]
    if not names:
        return []
    weights, they = ("is a weight", "it") if len(names) == 1 else ("are weights", "they")
    return [
        f"{', '.join(names)} {weights} among the inputs of {check.source.path}: stored in another form, {they} "
        "cannot be fed"
    ]


def time_note(ratio: TimeRatio) -> list[str]:
    """Say that the file saves no time, where that was measured; where other programs disturbed it, say that."""
    spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
    if ratio.steady:
        if ratio.median < SLOWER:
            return []
        return [
            f"one inference takes {ratio.median:.2f} times as long as the float model's on this "
            f"processor (half of the rounds: {spread}): it saves bytes here, no time"
        ]
    cause = "the machine was busy" if ratio.busy > BUSY else "the times were unsteady"
    return [
        f"{cause}, so the time against the float model is not known: half of the rounds took {spread} "
        "times as long; measure again with loopedge profile"
    ]
