"""Export a looped model: capture, assemble, write, verify."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

import loopedge
from loopedge.artifact.artifact import write_artifact
from loopedge.artifact.companions import (
    check_companion_targets,
    companion_contents,
    describe_companions,
)
from loopedge.artifact.opsets import IR_VERSIONS
from loopedge.deployment.conversion import write_converted
from loopedge.errors import InputError, VerificationError
from loopedge.exporter.assembly import AssemblyPlan, HaltPart, assemble_loop
from loopedge.exporter.capture.axes import Axes, AxisNames, find_axes
from loopedge.exporter.capture.capture import capture_halt, capture_parts, traced_inputs
from loopedge.exporter.exits import Exit, Halt, parse_exit
from loopedge.exporter.last_iteration import last_iteration_notes, take_out_last
from loopedge.exporter.options import Options
from loopedge.exporter.passes import optimise
from loopedge.exporter.rounding import Rounded, round_weights, storage_notes
from loopedge.exporter.subject.description import Subject, check_weights
from loopedge.exporter.subject.opening import open_subject, source_files
from loopedge.exporter.targets import Target, choose_settings
from loopedge.exporter.timestep_tables import compute_tables
from loopedge.exporter.verification.check import FileCheck
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.graph.core.ties import TiedWeight, tied_weights
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.inputs import takes_missing
from loopedge.graph.metadata import (
    TOLERANCE_INPUT,
    ArtifactMetadata,
    read_metadata,
    write_metadata,
)
from loopedge.graph.passes.last_position import keep_last_position
from loopedge.graph.passes.simplify import tidy
from loopedge.graph.passes.storage import store_float16
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.graph.positions.last_iteration import LastIterationOutcome
from loopedge.graph.split.activations import shrink_head, split_layers
from loopedge.graph.weights import TABLE_PREFIX, weight_bytes
from loopedge.runtime.memory_profiles import WISH_NOTE

__all__ = ["ExportResult", "export"]


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
    files: list[dict[str, Any]]
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


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    *,
    target: Target | None = None,
    form: Literal["loop", "unrolled"] | None = None,
    loops: int | None = None,
    dynamic_loops: bool = False,
    exit: str | None = None,
    inner: Literal["loop", "unrolled"] = "unrolled",
    opset: int = 23,
    format: Literal["onnx", "ort"] = "onnx",
    storage: Literal["float32", "float16"] = "float32",
    padding: bool | None = None,
    weights: str | Path | None = None,
    example: tuple[Tensor, ...] | None = None,
    dynamic_shapes: tuple[AxisNames, ...] | None = None,
    memory: str | None = None,
    logits: Literal["all", "last"] = "all",
    last_rows: bool | None = None,
    activations: str | None = None,
    force: bool = False,
) -> ExportResult:
    """Export a looped model to ONNX and verify the file against PyTorch.

    Args:
        model: A `LoopedModule`, any module with its methods or one that an adapter knows (in evaluation
            mode while it is exported), the path of a ``model.pt``, a folder that ``save_pretrained``
            wrote, or ``package.module:factory``.
        path: Target, usually ``model.onnx``.
        target: The device that the file is for, ``cpu`` or ``cuda``: chooses what is left None here, by
            `loopedge.exporter.targets.TARGETS`; default: as ``cpu``.
        form: ``loop`` (one Loop node) or ``unrolled``; default: the target's.
        loops: Iterations to run; default: the trained count.
        dynamic_loops: Make the count an input ``loops``, clamped to 1 .. ``loops``.
        exit: When a row is done before: ``tolerance=X`` (its state changes by no more than X of its
            norm; X becomes the default of an input), ``halt`` (the model's own) or ``none``;
            default: the model's own, where it has one.
        inner: What becomes of `loopedge.inner_loop`: written out in the body, or a Loop of its own.
        opset: 23 (fused norm and attention), or 18 to 22 (decomposed).
        format: ``onnx``, or ``ort`` for reduced builds of ONNX Runtime, as `loopedge.convert`.
        storage: ``float16`` rounds the weights and halves the file; computed is in float32.
        padding: Take an ``attention_mask``; default: what the model was configured for.
        weights: File of the weights of ``package.module:factory``.
        example: Example inputs, for modules that are not ours; axis 0 batch, axis 1 sequence;
            default: what the module's ``example_inputs()`` gives.
        dynamic_shapes: Says otherwise, per input: axis number to ``"batch"`` or ``"sequence"``.
        memory: How sessions keep the weights, unless told else: ``balanced``, ``low`` or ``mapped``
            (docs/memory.md); default: the target's.
        logits: Give the outputs of all positions, or of the last one: (batch, 1, vocabulary), what
            generating takes.
        last_rows: Let the last iteration compute only the positions that the coda reads, where it reads
            some (docs/export.md); default: where that is possible; True: and say where it is not.
        activations: ``small``: wide layers are computed in parts, where they are large enough for that
            to pay; ``whole``: as the model has them; default: the target's.
        force: Replace an existing artifact.

    Returns:
        Files, ties, errors and times.

    Raises:
        InputError: The model, an option or the target cannot be used.
        VerificationError: The file does not compute what PyTorch computes; nothing is left.
    """
    settings, notes = choose_settings(
        target,
        form=form,
        memory=memory,
        activations=activations,
        dynamic_loops=dynamic_loops,
        inner=inner,
        exit=exit,
        format=format,
    )
    options = Options(
        target=target,
        form=settings.form,
        loops=loops,
        dynamic_loops=dynamic_loops,
        inner=inner,
        opset=opset,
        format=format,
        storage=storage,
        memory=settings.memory,
        activations=settings.activations,
        logits=logits,
        last_rows=last_rows,
        notes=tuple(notes),
    )
    files = source_files(model)
    check_paths(
        inputs={"MODEL": files, "--weights": weights},
        outputs={"--output": ArtifactTarget(Path(path))},
    )
    files += [Path(weights)] if weights is not None else []
    options.check(Path(path), files, force=force)
    modes = _training_modes(model)
    try:
        subject = open_subject(model, padding=padding, example=example, weights=weights)
        return _export(subject, Path(path), options, exit, dynamic_shapes, files, force=force)
    finally:
        for module, training in modes.items():
            module.training = training


def _training_modes(model: object) -> dict[nn.Module, bool]:
    """Remember which modules train: a caller's model is put into evaluation mode meanwhile."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return {module: module.training for module in modules}


def _export(
    subject: Subject,
    target: Path,
    options: Options,
    exit: str | None,
    dynamic_shapes: tuple[AxisNames, ...] | None,
    sources: Sequence[str | Path],
    *,
    force: bool,
) -> ExportResult:
    """Do what `export` does for a module that was found, with options that were checked."""
    check_weights(subject.module)
    beside = companion_contents(subject.companions, target)
    check_companion_targets(target.parent, beside)
    check_paths(
        inputs={"MODEL": sources},
        outputs={"what stands beside --output": [target.parent / name for name in beside]},
    )
    rule = parse_exit(exit, subject.module, options.form)
    count = subject.looped.loops if options.loops is None else options.loops

    started = time.perf_counter()
    axes = find_axes(subject.looped, subject.example, dynamic_shapes, longest=subject.max_length)
    tables = compute_tables(subject, count)
    original = subject.module
    rounded = (
        round_weights(original)
        if options.storage == "float16"
        else Rounded(module=original, kept=[])
    )
    subject = replace(subject, module=rounded.module)
    parts = capture_parts(
        subject.module,
        subject.example,
        axes,
        opset=options.opset,
        inner_loops=options.inner == "loop",
    )
    halt = None if rule is None else Halt(subject.module, rule, axes)
    plan = AssemblyPlan(
        input_names=subject.input_names,
        output_names=subject.output_names or _default_outputs(len(parts.coda.graph.outputs)),
        tables=tables,
        loops=count,
        dynamic_loops=options.dynamic_loops,
        opset=options.opset,
        halt=None if halt is None else _capture_halt(halt, subject, axes, options.opset),
    )
    captured = time.perf_counter()

    graph = assemble_loop(parts, axes, plan)
    last = keep_last_position(graph, axes.fixed_sequence) if options.logits == "last" else []
    optimise(graph)
    small = options.activations == "small"
    length = axes.fixed_sequence or subject.trained_length
    split = split_layers(graph, options.memory, length) if small else {}
    if options.form == "unrolled":
        graph = unroll(graph, count)
        tidy(graph)
    if options.storage == "float16":
        store_float16(graph)
    metadata = _metadata(subject, axes, graph, plan, options, rule).model_copy(
        update={"companions": describe_companions(subject.companions, target)}
    )
    write_metadata(metadata, graph.metadata_props)
    rows = take_out_last(graph, options.last_rows)
    fused = small and shrink_head(graph, options.memory, length)
    metadata = read_metadata(graph.metadata_props) or metadata
    assembled = time.perf_counter()

    check = FileCheck(
        subject=subject,
        original=original,
        axes=axes,
        plan=plan,
        options=options,
        halt=halt,
        metadata=metadata,
        last_outputs=last,
        domains={MICROSOFT: 1} if fused else {},
    )
    write = write_converted if options.format == "ort" else write_artifact
    try:
        files = write(graph, target, sources=sources, force=force, verify=check, companions=beside)
    except VerificationError as error:
        if not parts.fixed:
            raise
        raise InputError(
            parts.fixed[0],
            hint="leave sizes as tensor.shape gives them: no int(), range() or comparison; or name the "
            "fixed axes with dynamic_shapes",
        ) from error
    measured = check.measured
    assert measured is not None  # writing calls the check
    return ExportResult(
        path=str(target),
        target=options.target,
        format=options.format,
        form=options.form,
        loops=count,
        exit=None if rule is None else str(rule),
        opset=options.opset,
        ir_version=IR_VERSIONS[options.opset],
        storage=options.storage,
        kept_float32=rounded.kept,
        rounding_error=check.rounding_error,
        logits=options.logits,
        last_rows=rows,
        files=[{"path": str(file), "bytes": file.stat().st_size} for file in files],
        weight_bytes=weight_bytes(graph),
        tied_weights=tied_weights(graph),
        split_weights=split,
        max_abs_error=measured.max_abs_error,
        max_rel_error=measured.max_rel_error,
        verified=True,
        cases=measured.cases,
        notes=[
            *_notes(subject, axes, count, options),
            *last_iteration_notes(rows, options.last_rows),
            *storage_notes(graph, options.format, rounded.kept, check.rounding_error),
        ],
        seconds={
            "capture": captured - started,
            "assemble": assembled - captured,
            "write": time.perf_counter() - assembled - check.seconds,
            "verify": check.seconds,
        },
    )


def _notes(subject: Subject, axes: Axes, loops: int, options: Options) -> list[str]:
    """Say what a user would not expect of the file."""
    notes = [*options.notes, *([WISH_NOTE] if options.memory == "mapped" else [])]
    notes += getattr(subject.module, "notes", ())
    if options.inner == "loop" and not axes.inner:
        notes.append("the core calls no loopedge.inner_loop: --inner loop changes nothing")
    least, most = subject.loop_range
    if not least <= loops <= most:
        trained = str(most) if least in {1, most} else f"{least} to {most}"
        notes.append(f"{loops} loops asked for, the model was trained with {trained}")
    if axes.fixed_sequence is not None:
        notes.append(f"the sequence length is fixed to {axes.fixed_sequence} by the model")
    elif axes.longest is not None and subject.max_length is None:
        notes.append(f"the model takes at most {axes.longest} positions: longer inputs fail in it")
    return notes


def _metadata(
    subject: Subject,
    axes: Axes,
    graph: ir.Model,
    plan: AssemblyPlan,
    options: Options,
    rule: Exit | None,
) -> ArtifactMetadata:
    return ArtifactMetadata(
        version=loopedge.__version__,
        form=options.form,
        loops=plan.loops,
        trained_loops=subject.looped.loops,
        loop_range=subject.loop_range,
        max_loops=plan.loops if plan.tables or not plan.dynamic_loops else None,
        dynamic_loops=plan.dynamic_loops,
        exit=None if rule is None else str(rule),
        trained_length=axes.fixed_sequence or subject.trained_length,
        max_length=axes.fixed_sequence or subject.max_length or axes.longest,
        random_inputs=dict(subject.random_inputs),
        missing_values=any(takes_missing(value) for value in graph.graph.inputs),
        tables=[name for name in graph.graph.initializers if name.startswith(TABLE_PREFIX)],
        checkpoint_sha256=subject.sha256,
        task=subject.task,
        storage="float16" if options.storage == "float16" else None,
        memory=options.memory,
        target=options.target,
        logits="last" if options.logits == "last" else None,
    )


def _capture_halt(halt: Halt, subject: Subject, axes: Axes, opset: int) -> HaltPart:
    """Capture what ends the loop; a padding mask and the tolerance are inputs of the graph."""
    example = traced_inputs(subject.example, axes)
    with torch.no_grad():
        state, _ = subject.looped.prelude(*example)
    halt.check(state)
    state_axes: Any = axes.state[0] if isinstance(state, Tensor) else axes.state
    inputs: dict[str, Any] = {"state": state, "previous": state}
    shapes: dict[str, Any] = {"state": state_axes, "previous": state_axes}
    others: list[str] = []
    if halt.rule.tolerance is not None:
        if subject.mask is not None:
            place = subject.input_names.index(subject.mask)
            inputs["mask"], shapes["mask"] = example[place], axes.inputs[place]
            others.append(subject.mask)
        inputs["tolerance"] = torch.tensor(halt.rule.tolerance, dtype=torch.float32)
        shapes["tolerance"] = {}
        others.append(TOLERANCE_INPUT)
    return HaltPart(
        graph=capture_halt(halt, inputs, shapes, opset=opset),
        others=tuple(others),
        tolerance=halt.rule.tolerance,
    )


def _default_outputs(count: int) -> tuple[str, ...]:
    return ("outputs", *(f"output_{i}" for i in range(1, count)))
