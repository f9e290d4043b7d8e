"""What an export gives back, and what a user would not expect of the file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from loopedge.artifact.opsets import IR_VERSIONS
from loopedge.exporter.assembled import Assembled
from loopedge.exporter.capture.captured import Captured
from loopedge.exporter.float16_weights import storage_notes
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.targets import Settings
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.files.targets import FileSize
from loopedge.graph.core.ties import TiedWeight, tied_weights
from loopedge.graph.metadata import Metadata
from loopedge.graph.positions.last_iteration import LastIterationOutcome
from loopedge.graph.weights import weight_bytes
from loopedge.options import option
from loopedge.runtime.memory_profiles import WISH_NOTE

__all__ = ["ExportResult", "make_result"]


class Checked(Protocol):
    """What compared a file with PyTorch found."""

    @property
    def errors(self) -> ExportErrors:
        """The largest errors."""
        ...

    @property
    def rounding_error(self) -> float | None:
        """How far weights in float16 move the outputs, where that was measured."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote and how well it agrees with PyTorch."""

    path: str
    target: str | None
    format: str
    form: str
    loops: int
    exit: str | None
    opset: int
    ir_version: int
    storage: str
    kept_float32: list[dict[str, str]]
    rounding_error: float | None
    logits: str
    last_rows: LastIterationOutcome
    files: list[FileSize]
    weight_bytes: int
    tied_weights: list[TiedWeight]
    split_weights: dict[str, int]
    max_abs_error: float
    max_rel_error: float
    verified: bool
    cases: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def make_result(
    options: ExportOptions,
    settings: Settings,
    captured: Captured,
    assembled: Assembled,
    check: Checked,
    files: Sequence[Path],
    seconds: dict[str, float],
) -> ExportResult:
    """Put together what the stations of an export found.

    Args:
        options: Of the export.
        settings: What they and the target chose.
        captured: The captured module.
        assembled: The graph.
        check: The comparison with PyTorch, which was made.
        files: What was written, the artifact first.
        seconds: Time of each station.
    """
    errors, graph = check.errors, assembled.graph
    return ExportResult(
        path=str(files[0]),
        target=options.target,
        format=options.format,
        form=settings.form,
        loops=captured.plan.loops,
        exit=captured.exit,
        opset=options.opset,
        ir_version=IR_VERSIONS[options.opset],
        storage=options.storage,
        kept_float32=captured.kept,
        rounding_error=check.rounding_error,
        logits=options.logits,
        last_rows=assembled.last_iteration,
        files=[FileSize.of(file) for file in files],
        weight_bytes=weight_bytes(graph),
        tied_weights=tied_weights(graph),
        split_weights=assembled.split,
        max_abs_error=errors.max_abs_error,
        max_rel_error=errors.max_rel_error,
        verified=True,
        cases=errors.cases,
        notes=[
            *_notes(options, settings, captured, assembled.metadata),
            *_last_iteration_notes(assembled.last_iteration, options.last_rows),
            *storage_notes(graph, options.format, captured.kept, check.rounding_error),
        ],
        seconds=seconds,
    )


def _notes(
    options: ExportOptions, settings: Settings, captured: Captured, metadata: Metadata
) -> list[str]:
    module, axes, loops = captured.module, captured.axes, captured.plan.loops
    notes = [*settings.notes, *([WISH_NOTE] if settings.memory == "mapped" else [])]
    notes += getattr(module.module, "notes", ())
    if options.inner == "loop" and not axes.inner:
        notes.append(
            f"the core calls no loopedge.inner_loop: {option('inner', 'loop')} changes nothing"
        )
    counted = metadata.loops_note(loops)
    notes += [] if counted is None else [counted]
    if axes.fixed_sequence is not None:
        notes.append(f"{_fixed_axis(captured)} is fixed to {axes.fixed_sequence} by the model")
    elif axes.longest is not None and module.max_length is None:
        notes.append(f"the model takes at most {axes.longest} positions: longer inputs fail in it")
    return notes


def _fixed_axis(captured: Captured) -> str:
    """Say which axis the model runs at one size of alone: of ids it is the sequence, else it may be channels."""
    place, module = captured.axes.fixed_place, captured.module
    if place is None or not module.example[place[0]].is_floating_point():
        return "the sequence length"
    name, axis = module.input_names[place[0]], place[1]
    return f"axis {axis} of {name} (positions or channels)"


def _last_iteration_notes(outcome: LastIterationOutcome, wanted: bool | None) -> list[str]:
    """Say why nothing was done, where it was asked for."""
    if outcome.applied or not wanted:
        return []
    return [f"the last iteration computes all positions: {outcome.reason}"]
