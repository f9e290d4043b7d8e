"""The second station: captured parts become the graph that is written, with its metadata."""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import loopedge
from loopedge.artifact.companions import describe_companions
from loopedge.exporter.assembly import assemble_loop
from loopedge.exporter.capture.captured import Captured
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.passes import optimise
from loopedge.exporter.targets import Settings
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.inputs import takes_missing
from loopedge.graph.metadata import ArtifactMetadata, Metadata, read_metadata, write_metadata
from loopedge.graph.passes.last_position import keep_last_position
from loopedge.graph.passes.simplify import tidy
from loopedge.graph.passes.storage import store_float16
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.graph.positions.last_iteration import LastIterationOutcome, narrow_last_iteration
from loopedge.graph.split.activations import shrink_head, split_layers
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["Assembled", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A graph as it is written.

    ``last_outputs`` are the outputs for the last position alone, ``split`` the initializers that were
    split with the number of their parts, ``last_iteration`` what became of the last iteration, ``domains`` the
    versions of operators that are not ONNX's own.
    """

    graph: ir.Model
    metadata: Metadata
    last_outputs: list[str]
    split: dict[str, int]
    last_iteration: LastIterationOutcome
    domains: dict[str, int]


def assemble(
    captured: Captured, options: ExportOptions, settings: Settings, target: Path
) -> Assembled:
    """Assemble captured parts, in the form and the storage of the options.

    Args:
        captured: Its parts are moved: it cannot be assembled again.
        options: Of the export.
        settings: What they and the target choose.
        target: Path of the file; its companions are named after it.
    """
    graph = assemble_loop(captured.parts, captured.axes, captured.plan)
    for name, tensor in captured.stored.items():
        if name in graph.graph.initializers:
            graph.graph.initializers[name].const_value = tensor
    last_outputs = (
        keep_last_position(graph, captured.axes.fixed_sequence) if options.logits == "last" else []
    )
    optimise(graph)
    small = settings.activations == "small"
    split = split_layers(graph, settings.memory, captured.length) if small else {}
    if settings.form == "unrolled":
        graph = unroll(graph, captured.plan.loops)
        tidy(graph)
    if options.storage == "float16":
        store_float16(graph)
    written = _metadata(captured, graph, options, settings, target)
    write_metadata(written, graph.metadata_props)
    last = _take_out_last(graph, options.last_rows)
    fused = small and shrink_head(graph, settings.memory, captured.length)
    return Assembled(
        graph=graph,
        metadata=read_metadata(graph.metadata_props),
        last_outputs=last_outputs,
        split=split,
        last_iteration=last,
        domains={MICROSOFT: 1} if fused else {},
    )


def _metadata(
    captured: Captured,
    graph: ir.Model,
    options: ExportOptions,
    settings: Settings,
    target: Path,
) -> ArtifactMetadata:
    module, axes, plan = captured.module, captured.axes, captured.plan
    return ArtifactMetadata(
        version=loopedge.__version__,
        form=settings.form,
        loops=plan.loops,
        trained_loops=module.looped.loops,
        loop_range=module.loop_range,
        max_loops=plan.loops,
        dynamic_loops=plan.dynamic_loops,
        exit=captured.exit,
        trained_length=captured.length,
        min_length=module.min_length,
        max_length=axes.fixed_sequence or module.max_length or axes.longest,
        random_inputs=dict(module.random_inputs),
        missing_values=any(takes_missing(value) for value in graph.graph.inputs),
        tables=[name for name in graph.graph.initializers if name.startswith(TABLE_PREFIX)],
        checkpoint_sha256=module.sha256,
        task=module.task,
        storage="float16" if options.storage == "float16" else None,
        memory=settings.memory,
        target=options.target,
        logits="last" if options.logits == "last" else None,
        companions=describe_companions(module.companions, target),
    )


def _take_out_last(graph: ir.Model, wanted: bool | None) -> LastIterationOutcome:
    """Apply `narrow_last_iteration`, unless it is not wanted; None: where it is possible."""
    if wanted is False:
        return LastIterationOutcome(applied=False, reason="it was switched off")
    return narrow_last_iteration(graph)
