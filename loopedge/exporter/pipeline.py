"""Export a looped model: capture, assemble, write, verify."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from torch import nn

from loopedge.artifact.artifact import write_artifact
from loopedge.artifact.companions import check_companion_targets, companion_contents
from loopedge.deployment.conversion import write_converted
from loopedge.errors import InputError, VerificationError
from loopedge.exporter.assembled import Assembled, assemble
from loopedge.exporter.capture.captured import Captured, capture_module
from loopedge.exporter.generating import export_generating
from loopedge.exporter.module.exported_module import ExportedModule, check_weights
from loopedge.exporter.module.opening import open_module, source_files
from loopedge.exporter.options import ExportKeywords, ExportOptions, check_target
from loopedge.exporter.published.pipeline import export_published, find_published
from loopedge.exporter.result import ExportResult, make_result
from loopedge.exporter.targets import choose_settings
from loopedge.exporter.verification.check import FileCheck
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.options import option, option_name, with_keywords

__all__ = ["ExportResult", "export"]


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    *,
    options: ExportOptions | None = None,
    **keywords: Unpack[ExportKeywords],
) -> ExportResult:
    """Export a looped model to ONNX and verify the file against PyTorch.

    Args:
        model: A `LoopedModule`, any module with its methods or one that an adapter knows (in evaluation
            mode while it is exported), the path of a ``model.pt``, a folder that ``save_pretrained``
            wrote, or ``package.module:factory``.
        path: Target, usually ``model.onnx``.
        options: The keywords below as one object, `loopedge.ExportOptions`; a keyword wins over the
            object's field.

    Keyword Args:
        target: The device that the file is for, ``cpu`` or ``cuda``: chooses what is left None here, by
            `loopedge.exporter.targets.TARGETS`; default: as ``cpu``.
        form: ``loop`` (one Loop node) or ``unrolled``; default: the target's.
        loops: Iterations to run; default: the trained count.
        dynamic_loops: Make the count an input ``loops``, clamped to 1 .. ``loops``; default: False.
        exit: When a row is done before: ``tolerance=X`` (its state changes by no more than X of its
            norm; X becomes the default of an input), ``halt`` (the model's own) or ``none``;
            default: the model's own, where it has one.
        inner: What becomes of `loopedge.inner_loop`: ``unrolled``, written out in the body (default),
            or ``loop``, a Loop of its own.
        opset: 23 (default: fused norm and attention), or 18, 20, 21 and 22 (decomposed).
        format: ``onnx`` (default), or ``ort`` for reduced builds of ONNX Runtime, as `loopedge.convert`.
        storage: ``float32`` (default), or ``float16``, which rounds the weights and halves the file;
            the file still computes in float32.
        padding: Take an ``attention_mask``; default: what the model was configured for.
        weights: File of the weights of ``package.module:factory``.
        example: Example inputs, for modules that are not ours; axis 0 batch, axis 1 sequence;
            default: what the module's ``example_inputs()`` gives.
        dynamic_shapes: Names the free axes, per input in order or by its name: axis number to ``"batch"``,
            ``"sequence"``, or a name of a length of its own; axes without a name are fixed. Default: the
            module's own ``dynamic_shapes``, else what running it at several sizes shows.
        memory: How sessions keep the weights, where they name nothing: ``balanced``, ``low`` or
            ``mapped`` (docs/memory.md); default: the target's.
        logits: Give the outputs of ``all`` positions (default), or of the ``last`` one: (batch, 1,
            vocabulary), what generating takes.
        last_rows: Let the last iteration compute only the positions that the coda reads, where it reads
            some (docs/export.md); default: where that is possible; True: and say where it is not.
        activations: ``small``: wide layers are computed in parts, where they are large enough for that
            to pay; ``whole``: as the model has them; default: the target's.
        task: ``generate``: the file decodes with a cache, as `loopedge.to_generate` makes it of an exported one.
        weight_bits: 8 or 4: the weights of a published model's folder are packed while they are read, as
            ``weight-int8`` and ``weight-int4`` of `loopedge.quantize` have them.
        force: Replace an existing artifact; default: False.

    Returns:
        Files, ties, errors and times.

    Raises:
        InputError: The model, an option or the target cannot be used.
        VerificationError: The file does not compute what PyTorch computes; nothing is left.
    """
    chosen = with_keywords("export", ExportOptions, options, keywords)
    target = Path(path)
    sources = _check_paths(model, target, chosen)
    published = find_published(model, chosen)
    if published is not None:
        return export_published(published, target, sources, chosen)
    if chosen.weight_bits is not None:
        raise InputError(
            f"{option('weight_bits', chosen.weight_bits)} is for folders of published models, whose weights are read once",
            hint=f"loopedge quantize model.onnx --scheme weight-int{chosen.weight_bits}",
        )
    with _evaluating(model):
        module = open_module(model, chosen)
        if chosen.task == "generate":
            return export_generating(
                lambda path, options: _export(module, path, sources, options), target, chosen
            )
        return _export(module, target, sources, chosen)


def _check_paths(model: object, target: Path, options: ExportOptions) -> list[Path]:
    """Return the files that a model is read from, of which the target is none."""
    sources = source_files(model)
    check_paths(
        inputs={"MODEL": sources, option_name("weights"): options.weights},
        outputs={option_name("path"): ArtifactTarget(target)},
    )
    sources += [Path(options.weights)] if options.weights is not None else []
    check_target(options, target, sources)
    return sources


@contextmanager
def _evaluating(model: object) -> Iterator[None]:
    """Give a caller's modules back in the mode that they were in: they are exported in evaluation mode."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    modes = {module: module.training for module in modules}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _export(
    module: ExportedModule, target: Path, sources: list[Path], options: ExportOptions
) -> ExportResult:
    """Send a module through the stations."""
    check_weights(module.module)
    companions = _companions(module, target, sources)
    settings = choose_settings(options)
    started = time.perf_counter()
    captured = capture_module(module, options, settings)
    capture_ended = time.perf_counter()
    assembled = assemble(captured, options, settings, target)
    assembly_ended = time.perf_counter()
    check = FileCheck(
        captured=captured, assembled=assembled, options=options, memory=settings.memory
    )
    files = _write(captured, assembled, check, target, sources, companions, options)
    return make_result(
        options,
        settings,
        captured,
        assembled,
        check,
        files,
        seconds={
            "capture": capture_ended - started,
            "assemble": assembly_ended - capture_ended,
            "write": time.perf_counter() - assembly_ended - check.seconds,
            "verify": check.seconds,
        },
    )


def _companions(module: ExportedModule, target: Path, sources: list[Path]) -> dict[str, bytes]:
    """Return the files that stand beside the artifact, by name; none is a source."""
    beside = companion_contents(module.companions, target)
    check_companion_targets(target.parent, beside)
    check_paths(
        inputs={"MODEL": sources},
        outputs={
            f"what stands beside {option_name('path')}": [target.parent / name for name in beside]
        },
    )
    return beside


def _write(
    captured: Captured,
    assembled: Assembled,
    check: FileCheck,
    target: Path,
    sources: list[Path],
    companions: dict[str, bytes],
    options: ExportOptions,
) -> list[Path]:
    """Write the graph, verify the staged file, and put it in its place; return the files."""
    write = write_converted if options.format == "ort" else write_artifact
    try:
        return write(
            assembled.graph,
            target,
            sources=sources,
            force=options.force,
            verify=check,
            companions=companions,
        )
    except VerificationError as error:
        if not captured.parts.fixed:
            raise
        raise InputError(
            captured.parts.fixed[0],
            hint="leave sizes as tensor.shape gives them: no int(), range() or comparison; or name the "
            "fixed axes with dynamic_shapes",
        ) from error
