"""Export a published model: checked small, captured without weights, written from its folder, compared with it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companion_contents
from loopedge.deployment.decoding.generate_graph import cached_graph
from loopedge.errors import InputError, VerificationError
from loopedge.exporter.assembled import Assembled, assemble
from loopedge.exporter.assembly import AssemblyPlan
from loopedge.exporter.capture.capture import capture_parts
from loopedge.exporter.capture.captured import Captured
from loopedge.exporter.generating import generate_form
from loopedge.exporter.module.exported_module import describe
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.published.likeness import check_likeness
from loopedge.exporter.published.packing import pack_weights
from loopedge.exporter.published.pieces import pieces_of
from loopedge.exporter.published.shrunk import ShrunkCheck, check_shrunk
from loopedge.exporter.published.stand_ins import put_stand_ins
from loopedge.exporter.published.stored_check import StoredCheck
from loopedge.exporter.published.weights import graph_tensors, kept_in_float32
from loopedge.exporter.result import ExportResult, make_result
from loopedge.exporter.targets import choose_settings
from loopedge.graph.integer_weights.block_weights import DEFAULT_BLOCK
from loopedge.graph.metadata import Metadata, read_metadata, write_metadata
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.graph.weights import linears
from loopedge.model.published.loading import PublishedFolder, open_folder, published_type
from loopedge.options import option_name

__all__ = ["export_published", "find_published"]


def find_published(model: object, options: ExportOptions) -> PublishedFolder | None:
    """Return the published model of a folder; None where the model is something else.

    Raises:
        InputError: The folder cannot be exported, or an option has no meaning for it.
    """
    if not isinstance(model, str | Path) or not Path(model).is_dir():
        return None
    folder = Path(model)
    if published_type(folder, generates=options.task == "generate") is None:
        return None
    _check_options(options)
    return open_folder(folder)


def _check_options(options: ExportOptions) -> None:
    unmeant = {
        "padding": options.padding is not None,
        "weights": options.weights is not None,
        "example": options.example is not None,
        "dynamic_shapes": options.dynamic_shapes is not None,
        "exit": options.exit not in {None, "none"},
        "format": options.format != "onnx",
        "activations": options.activations == "small",
    }
    for name, given in unmeant.items():
        if given:
            raise InputError(
                f"{option_name(name)} has no meaning for a published model",
                hint=f"leave out {option_name(name)}",
            )


def export_published(
    folder: PublishedFolder, target: Path, sources: Sequence[Path], options: ExportOptions
) -> ExportResult:
    """Write a published model as ONNX; at no time is more than one of its weights in memory.

    Args:
        folder: The model.
        target: The ``.onnx`` file.
        sources: Files of the folder, none of which is written over.
        options: Of the export.

    Raises:
        InputError: Something in the folder cannot be used.
        VerificationError: The small architecture, a weight or the outputs differ; nothing is left.
    """
    companions = companion_contents(folder.companions, target)
    check_companion_targets(target.parent, companions)
    settings = replace(choose_settings(options), activations="whole")
    if options.task == "generate":
        settings = replace(settings, form="loop")
    started = time.perf_counter()
    shrunk = check_shrunk(folder, options, settings)
    shrunk_ended = time.perf_counter()
    captured = _capture(folder, shrunk, options)
    capture_ended = time.perf_counter()
    assembled = assemble(captured, options, settings, target)
    check_likeness(assembled.graph, shrunk.graph)
    held = {piece.name for piece in pieces_of(assembled.graph.graph, folder.tensors)}
    made = _finish(folder, assembled, options, target)
    pieces = pieces_of(made.graph.graph, folder.tensors)
    lost = sorted(held - {piece.name for piece in pieces})
    if lost:
        raise VerificationError(f"{lost[0]} is not known in the graph that would be written")
    assembly_ended = time.perf_counter()
    check = StoredCheck(
        folder=folder,
        graph=made.graph,
        metadata=made.metadata,
        domains=made.domains,
        opset=options.opset,
        loops=captured.plan.loops,
        pieces=pieces,
        rounds=_rounded(captured, options),
        bits=options.weight_bits,
        errors=shrunk.errors,
    )
    files = write_artifact(
        made.graph,
        target,
        sources=sources,
        force=options.force,
        verify=check,
        companions=companions,
    )
    result = make_result(
        options,
        settings,
        captured,
        replace(assembled, graph=made.graph, metadata=made.metadata),
        check,
        files,
        seconds={
            "capture": capture_ended - shrunk_ended,
            "assemble": assembly_ended - capture_ended,
            "write": time.perf_counter() - assembly_ended - check.seconds,
            "verify": check.seconds + shrunk_ended - started,
        },
    )
    return replace(
        result,
        form=made.metadata.form or result.form,
        notes=[*result.notes, *made.notes, *_notes(folder, check)],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What is written: a graph, and what it says of itself."""

    graph: ir.Model
    metadata: Metadata
    domains: dict[str, int]
    notes: list[str]


def _finish(
    folder: PublishedFolder, assembled: Assembled, options: ExportOptions, target: Path
) -> _Made:
    """Pack the weights of an assembled graph, and give it a cache, where that is asked for."""
    graph, notes = assembled.graph, list[str]()
    metadata = assembled.metadata.model_copy(update={"end_ids": list(folder.end_ids)})
    if options.weight_bits is not None:
        total = len(linears(graph))
        pack_weights(graph, options.weight_bits)
        quantization = {
            "scheme": f"weight-int{options.weight_bits}",
            "quantized": total - len(linears(graph)),
            "total": total,
            "treatments": [],
            "weight_only": [],
            "block_size": {str(options.weight_bits): DEFAULT_BLOCK[options.weight_bits]},
        }
        metadata = metadata.model_copy(update={"quantization": quantization})
    write_metadata(metadata, graph.metadata_props)
    if options.task == "generate":
        source = Artifact(
            path=target, graph=graph, metadata=metadata, data=(), data_file=None, identity=None
        )
        graph, notes = cached_graph(source, generate_form(options))
        metadata = read_metadata(graph.metadata_props)
    return _Made(
        graph=graph,
        metadata=metadata,
        domains={MICROSOFT: 1} if MICROSOFT in graph.opset_imports else {},
        notes=notes,
    )


def _capture(folder: PublishedFolder, shrunk: ShrunkCheck, options: ExportOptions) -> Captured:
    """Capture the module in its own sizes, with stand-ins for its weights."""
    module = folder.build()
    put_stand_ins(module)
    module.notes = folder.notes
    described = replace(
        describe(module, module.example_inputs()),
        companions=folder.companions,
    )
    parts = capture_parts(
        module,
        described.example,
        shrunk.axes,
        opset=options.opset,
        inner_loops=options.inner == "loop",
        weightless=True,
    )
    kept = kept_in_float32(folder.tensors) if options.storage == "float16" else []
    plan = AssemblyPlan(
        input_names=described.input_names,
        output_names=described.output_names,
        tables={},
        loops=module.loops if options.loops is None else int(options.loops),
        dynamic_loops=options.dynamic_loops,
        opset=options.opset,
    )
    return Captured(
        module=described,
        original=module,
        kept=kept,
        axes=shrunk.axes,
        parts=parts,
        halt=None,
        plan=plan,
        stored=graph_tensors(folder.tensors, kept=[item["name"] for item in kept]),
    )


def _rounded(captured: Captured, options: ExportOptions) -> frozenset[str]:
    """Return the names of the parameters that float16 holds in the file."""
    if options.storage != "float16":
        return frozenset()
    kept = {item["name"] for item in captured.kept}
    return frozenset(
        name
        for name, tensor in captured.stored.items()
        if len(tensor.shape) > 1 and name not in kept
    )


def _notes(folder: PublishedFolder, check: StoredCheck) -> list[str]:
    stored = ", ".join(folder.checkpoint.dtypes)
    outputs = "the file was not run: that would take more memory than an export may"
    if check.outputs_error is not None:
        found = f"relative error {check.outputs_error:.1e}"
        if check.packed:
            found = f"{check.outputs_db:.1f} dB in {check.bits} bits"
        outputs = f"the outputs on them are PyTorch's: {found}"
    return [
        f"the architecture agrees with PyTorch at small widths; {len(check.pieces)} weights are those of the folder "
        f"({stored}); {outputs}"
    ]
