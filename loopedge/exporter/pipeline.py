"""Export a looped model: capture, assemble, write, verify."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError
from loopedge.exporter.assembly import Plan, assemble_loop
from loopedge.exporter.axes import Axes, AxisNames, find_axes
from loopedge.exporter.capture import capture_parts
from loopedge.exporter.example import example_inputs
from loopedge.exporter.verify import Case, ExampleMaker, Measured, resized_examples, verify_artifact
from loopedge.files import check_target, file_sha256
from loopedge.graph.artifact import write_artifact
from loopedge.graph.attention import merge_head_axes
from loopedge.graph.folding import fold_constants
from loopedge.graph.layout import fold_weight_layouts
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.simplify import hoist_invariants, simplify_reshapes, tidy
from loopedge.graph.unrolling import unroll
from loopedge.graph.weights import TABLE_PREFIX, TiedWeight, tied_weights, weight_bytes
from loopedge.memory import WISH_NOTE, check_profile
from loopedge.model.checkpoint import load_checkpoint, model_from
from loopedge.model.contract import LoopedProtocol
from loopedge.model.transformer import LoopedTransformer

__all__ = ["ExportResult", "export"]

OPSETS = (18, 20, 21, 22, 23)
"""Opsets that are written; 23 has fused norm and attention, the others decompose them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote and how well it agrees with PyTorch."""

    path: str
    form: str
    loops: int
    opset: int
    files: list[dict[str, Any]]
    weight_bytes: int
    tied_weights: list[TiedWeight]
    max_abs_error: float
    max_rel_error: float
    verified: bool
    cases: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    *,
    form: Literal["loop", "unrolled"] = "loop",
    loops: int | None = None,
    dynamic_loops: bool = False,
    opset: int = 23,
    padding: bool | None = None,
    example: tuple[Tensor, ...] | None = None,
    dynamic_shapes: tuple[AxisNames, ...] | None = None,
    memory: str = "balanced",
    force: bool = False,
) -> ExportResult:
    """Export a looped model to ONNX and verify the file against PyTorch.

    Args:
        model: A `LoopedModule`, any module with its methods, or the path of a ``model.pt``.
        path: Target, usually ``model.onnx``.
        form: ``loop`` (one Loop node) or ``unrolled``.
        loops: Iterations to run; default: the trained count.
        dynamic_loops: Make the count an input ``loops``, clamped to 1 .. ``loops``.
        opset: 23 (fused norm and attention), or 18 to 22 (decomposed).
        padding: Take an ``attention_mask``; default: what the model was configured for.
        example: Example inputs, for modules that are not ours; axis 0 batch, axis 1 sequence.
        dynamic_shapes: Says otherwise, per input: axis number to ``"batch"`` or ``"sequence"``.
        memory: How sessions keep the weights, unless told else: ``balanced``, ``low`` or ``mapped``
            (docs/memory.md).
        force: Replace an existing artifact.

    Returns:
        Files, ties, errors and times.

    Raises:
        InputError: The model, an option or the target cannot be used.
        VerificationError: The file does not compute what PyTorch computes; nothing is left.
    """
    target = Path(path)
    _check_options(form=form, loops=loops, dynamic_loops=dynamic_loops, opset=opset)
    check_target(target, force=force)
    subject = _subject(model, padding=padding, example=example)
    count = subject.looped.loops if loops is None else loops
    profile = check_profile(memory)
    notes = [WISH_NOTE] if profile == "mapped" else []
    if count > subject.looped.loops:
        notes.append(f"{count} loops asked for, the model was trained with {subject.looped.loops}")

    started = time.perf_counter()
    axes = find_axes(subject.looped, subject.example, dynamic_shapes, longest=subject.max_length)
    if axes.fixed_sequence is not None:
        notes.append(f"the sequence length is fixed to {axes.fixed_sequence} by the model")
    with torch.no_grad():
        tables = {
            name: values.detach().cpu().numpy().copy()
            for name, values in subject.looped.timestep_table(count).items()
        }
    _check_tables(tables, count)
    parts = capture_parts(subject.module, subject.example, axes, opset=opset)
    captured = time.perf_counter()

    plan = Plan(
        input_names=subject.input_names,
        output_names=subject.output_names or _default_outputs(len(parts.coda.graph.outputs)),
        tables=tables,
        loops=count,
        dynamic_loops=dynamic_loops,
        opset=opset,
    )
    graph = assemble_loop(parts, axes, plan)
    optimise(graph)
    if form == "unrolled":
        graph = unroll(graph, count)
        tidy(graph)
    table_names = [name for name in graph.graph.initializers if name.startswith(TABLE_PREFIX)]
    metadata = ArtifactMetadata(
        version=loopedge.__version__,
        form=form,
        loops=count,
        trained_loops=subject.looped.loops,
        max_loops=count if tables or not dynamic_loops else None,
        dynamic_loops=dynamic_loops,
        trained_length=axes.fixed_sequence or subject.trained_length,
        max_length=axes.fixed_sequence or subject.max_length,
        tables=table_names,
        checkpoint_sha256=subject.sha256,
        task=subject.task,
        memory=profile,
    )
    write_metadata(metadata, graph.metadata_props)
    assembled = time.perf_counter()

    checked: list[tuple[Measured, float]] = []

    def verify(staged: Path) -> ArtifactMetadata:
        begun = time.perf_counter()
        measured = verify_artifact(
            staged,
            subject.module,
            _cases(subject, axes, count, dynamic_loops=dynamic_loops, has_tables=bool(tables)),
            subject.make_inputs or resized_examples(subject.example, axes),
            input_names=plan.input_names,
            output_names=plan.output_names,
            tables=tables,
            loops=count,
        )
        checked.append((measured, time.perf_counter() - begun))
        return metadata.model_copy(update={"max_rel_error": measured.max_rel_error})

    files = write_artifact(graph, target, force=force, verify=verify)
    measured, verify_seconds = checked[0]
    return ExportResult(
        path=str(target),
        form=form,
        loops=count,
        opset=opset,
        files=[{"path": str(file), "bytes": file.stat().st_size} for file in files],
        weight_bytes=weight_bytes(graph),
        tied_weights=tied_weights(graph),
        max_abs_error=measured.max_abs_error,
        max_rel_error=measured.max_rel_error,
        verified=True,
        cases=measured.cases,
        notes=notes,
        seconds={
            "capture": captured - started,
            "assemble": assembled - captured,
            "write": time.perf_counter() - assembled - verify_seconds,
            "verify": verify_seconds,
        },
    )


def optimise(graph: ir.Model) -> None:
    """Run the passes that make a freshly assembled loop form ready for the device."""
    fold_weight_layouts(graph)
    simplify_reshapes(graph)
    fold_constants(graph)
    merge_head_axes(graph)
    hoist_invariants(graph)
    tidy(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The model to export and what is known about its inputs."""

    module: nn.Module
    example: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    make_inputs: ExampleMaker | None = None
    trained_length: int | None = None
    max_length: int | None = None
    sha256: str | None = None
    task: dict[str, Any]

    @property
    def looped(self) -> LoopedProtocol:
        return cast("LoopedProtocol", self.module)


def _subject(
    model: str | Path | nn.Module, *, padding: bool | None, example: tuple[Tensor, ...] | None
) -> _Subject:
    if isinstance(model, str | Path):
        checkpoint = load_checkpoint(model)
        known = _subject(model_from(checkpoint, model), padding=padding, example=example)
        return replace(
            known, sha256=file_sha256(Path(model)), task=dict(checkpoint.get("task") or {})
        )
    if not isinstance(model, nn.Module):
        raise InputError(f"a torch module or the path of a model.pt is needed, not {type(model)}")
    missing = [
        name
        for name in ("prelude", "core", "coda", "timestep_table", "loops")
        if not hasattr(model, name)
    ]
    if missing:
        raise InputError(
            f"{type(model).__name__} is no LoopedModule: it lacks {', '.join(missing)}",
            hint="see loopedge.LoopedModule and docs/export.md",
        )
    module = model.eval()
    if isinstance(module, LoopedTransformer):
        return _own_subject(module, padding=padding)
    if example is None:
        raise InputError(
            f"{type(model).__name__} needs example inputs",
            hint="loopedge.export(model, path, example=(tensor, ...))",
        )
    names = getattr(module, "input_names", None) or _default_inputs(example)
    return _Subject(
        module=module,
        example=tuple(example),
        input_names=tuple(names),
        output_names=tuple(getattr(module, "output_names", ())),
        trained_length=getattr(module, "max_length", None),
        max_length=getattr(module, "max_length", None),
        task={},
    )


def _own_subject(model: LoopedTransformer, *, padding: bool | None) -> _Subject:
    config = model.config
    padded = config.padding if padding is None else padding

    def make(batch: int, sequence: int, seed: int) -> tuple[Tensor, ...]:
        return example_inputs(model, batch=batch, sequence=sequence, padding=padded, seed=seed)

    return _Subject(
        module=model,
        example=make(2, min(7, config.max_length), 0),
        input_names=(model.input_names[0], "attention_mask")[: 1 + padded],
        output_names=model.output_names,
        make_inputs=make,
        trained_length=config.max_length,
        max_length=config.max_length if config.positions == "learned" else None,
        task={},
    )


def _default_inputs(example: tuple[Tensor, ...]) -> tuple[str, ...]:
    first = "inputs" if example[0].is_floating_point() else "input_ids"
    return (first, *(f"input_{i}" for i in range(1, len(example))))


def _default_outputs(count: int) -> tuple[str, ...]:
    return ("outputs", *(f"output_{i}" for i in range(1, count)))


def _check_options(*, form: str, loops: int | None, dynamic_loops: bool, opset: int) -> None:
    if form not in {"loop", "unrolled"}:
        raise InputError(f"form {form!r} is not known", hint="--form loop or --form unrolled")
    if loops is not None and loops < 1:
        raise InputError(f"loops is {loops}, at least 1 is needed", hint="--loops 1")
    if dynamic_loops and form == "unrolled":
        raise InputError(
            "an unrolled graph has a fixed loop count", hint="--dynamic-loops --form loop"
        )
    if opset not in OPSETS:
        raise InputError(
            f"opset {opset} is not supported, allowed are {', '.join(map(str, OPSETS))}",
            hint="--opset 23 (ONNX Runtime 1.23 and later) or --opset 20",
        )


def _check_tables(tables: dict[str, Any], loops: int) -> None:
    for name, table in tables.items():
        if table.ndim < 1 or len(table) != loops:
            raise InputError(
                f"timestep_table({loops}) gives {name} with shape {table.shape}, "
                f"axis 0 must be {loops}"
            )
        if not np.isfinite(table).all():
            raise InputError(f"timestep_table gives values that are not finite in {name}")


def _cases(
    subject: _Subject, axes: Axes, loops: int, *, dynamic_loops: bool, has_tables: bool
) -> list[Case]:
    """Batches {1, 3}, lengths {1, traced, longer}, loop counts {1, given, past the table}."""
    longest = subject.max_length or 29
    lengths = sorted({1, axes.traced_sequence, min(29, longest)})
    if axes.fixed_sequence:
        lengths = [axes.fixed_sequence]
    lengths = [length for length in lengths if length <= longest] or [longest]
    counts: list[int | None] = [1, loops, loops + 2] if dynamic_loops else [None]
    cases = [
        Case(batch=batch, sequence=length, loops=count)
        for batch in (1, 3)
        for length in lengths
        for count in counts
    ]
    if has_tables:
        cases += [
            Case(batch=2, sequence=length, loops=counts[-1], random_rows=True) for length in lengths
        ]
    return cases
