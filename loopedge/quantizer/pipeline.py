"""Quantize an exported model: rewrite, write, verify."""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import onnx_ir as ir

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.errors import InputError
from loopedge.graph.metadata import (
    Metadata,
    write_metadata,
)
from loopedge.graph.positions.last_iteration import LastIterationOutcome, narrow_last_iteration
from loopedge.graph.split.activations import shrink_head
from loopedge.options import option, with_keywords
from loopedge.quantizer.check import SourceCheck
from loopedge.quantizer.floors import check_coverage, floors_of
from loopedge.quantizer.held_out.samples import HeldOut
from loopedge.quantizer.options import QuantizeKeywords, QuantizeOptions
from loopedge.quantizer.recipe import Recipe, Rewritten
from loopedge.quantizer.result import QuantizeResult, make_result
from loopedge.quantizer.schemes.operators import check_operators
from loopedge.quantizer.source import FloatSource, with_source
from loopedge.runtime.memory_profiles import check_profile
from loopedge.runtime.session import untrained_inputs

__all__ = ["QuantizeResult", "RewrittenSource", "quantize", "quantize_source", "rewrite_source"]

CALIBRATION = "loopedge_calibration.quantization"
Report = Callable[[str], None]
Work = Callable[[Artifact, Path, QuantizeOptions, Report], QuantizeResult]


def quantize(  # long: its docstring lists the options
    model: str | Path,
    path: str | Path,
    *,
    options: QuantizeOptions | None = None,
    report_progress: Callable[[str], None] | None = None,
    **keywords: Unpack[QuantizeKeywords],
) -> QuantizeResult:
    """Quantize the linears and embeddings of a float model, and measure the file against its source.

    What ``loopedge quantize`` does. Where there is data, the activation ranges of the static scheme are
    found on a part of it, and the file is measured on another part, which did not calibrate.

    Args:
        model: An artifact of `loopedge.export`, loop or unrolled, or another float ONNX file.
        path: Target, usually ``model.int8.onnx``.
        options: The keywords below as one object, `loopedge.QuantizeOptions`; a keyword wins over the
            object's field.
        report_progress: Is called with what is tried next, where a scheme is chosen.

    Keyword Args:
        data: Samples. A path: ``.npz``, a folder of them, ``.npy``, or what the model was trained on: its
            table, text or JSON lines. Or arrays in memory: one per input, ``{name: array}``, the first
            axis the samples; or an iterable of such batches, which is read into memory where it can be
            iterated once alone. Default: the generated task that the model was trained on.
        scheme: ``auto``: candidates are tried on a part of the data, and one is chosen; ``static``: activations are
            rounded with calibrated ranges; ``dynamic``: they are measured at run time, no data is needed;
            ``weight-int8``, ``weight-int4`` and ``weight-int2``: weights alone, in blocks. Default: auto where data is
            named, static with ranges, else dynamic.
        granularity: ``per-iteration`` (default), ``shared`` or ``auto``: how many ranges a tensor of the
            core has. What is named here, in ``method`` or in ``smoothing`` holds for all candidates of ``auto``.
        method: ``mse`` (default), ``minmax``, ``percentile`` or ``entropy``: how a range of the core is found; those of
            prelude and coda have the smallest and largest value, and a margin.
        smoothing: Move outlier channels into the weights first; default: True.
        samples: Most samples to calibrate on, evenly thinned, and most to measure on; default: 128.
        loops: Iterations to calibrate and measure with, for a model whose loop count is an input; default: as
            exported, or as each batch of the data says.
        ranges: A table of `loopedge_calibration.collect`, or its file, instead of calibrating.
        save_ranges: Also write the ranges to this file.
        ops: ``microsoft`` (MatMulIntegerToFloat and DynamicQuantizeMatMul, default), or ``standard``: operators of
            ONNX alone, for static and dynamic.
        keep: Linears to leave in float, by node name as in the loop form, and embedding tables, by
            their own name.
        weight_only: Linears whose weights alone are stored in eight bits, whatever the scheme, by
            node name; linears that share a weight go together.
        as_core: Linears of prelude and coda that static int8 treats as the core's, whatever their place; ``all``:
            every one. Their ranges must have been collected so.
        block_size: Most values that share a scale in a weight-only linear; default: 128 in eight
            bits, 32 in four and two.
        rounding: Of weights alone: ``data``: so that what the linears give changes least on samples (GPTQ), the best of
            several ways by other samples; or ``nearest``. Default: ``data`` where ``data`` is named, else ``nearest``.
        reduce_range: Store weights in seven bits: on processors without VNNI eight can overflow;
            default: False.
        min_coverage: Share of the core's linears that must become int8, 0 to 1; linears kept on
            request do not count as missed; default: 1.
        min_sqnr_db: Floor of the outputs' SQNR against the float model, in dB; default: 15, with
            four-bit weights 10.
        max_drop: Most that the metric may lose; the few linears that this takes are lifted to 8-bit
            weights or float. With ``auto`` a limit of the candidates.
        max_bytes: Of ``auto``: most bytes of the files that are written, ``"2MiB"`` or a number.
        min_speed_up: Of ``auto``: least speed against the float model's, on this machine.
        budget: Of ``auto``: seconds that choosing may take, ``"60s"`` or a number; what was left out is said.
        recipe: A quantized file whose choices are repeated: its scheme, and all but the ranges, which data gives.
        metric: What ``max_drop`` is measured in: ``task`` (default where the model knows its task and
            the data is the task's) or ``relative-error``.
        refine: Steps in which the rounding of the weights is trained towards the float model's outputs, through the whole
            loop and without labels. Needs ``module`` and the extra ``train``.
        module: What was exported, as `loopedge.export` takes it: the path of a ``model.pt``, or a module.
        memory: How sessions keep the weights: ``balanced``, ``low`` or ``mapped`` (docs/memory.md);
            default: as the source says.
        threads: Threads of ONNX Runtime, and of PyTorch where it refines.
        force: Replace an existing artifact; default: False.

    Returns:
        Coverage, the metric and the SQNR on samples that did not calibrate, bytes, times, and the time of
        one inference against the float model's; with ``max_drop`` what the budget took.

    Raises:
        InputError: The file, an option, the data or the target cannot be used.
        BudgetError: Fewer linears became int8 than asked for, or ``max_drop``, ``max_bytes`` or ``min_speed_up`` cannot
            be met.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    chosen = with_keywords("quantize", QuantizeOptions, options, keywords)
    work = _calibrating_quantizer()
    with untrained_inputs():  # its own runs; of the data the notes say it
        report = report_progress or _report_nothing
        result: QuantizeResult = with_source(
            model, lambda found: work(found, Path(path), chosen, report)
        )
    return result


def _report_nothing(text: str) -> None:
    pass


def _calibrating_quantizer() -> Work:
    """Return what reads data and quantizes; it stands above this library and is found at run time."""
    try:
        module = importlib.import_module(CALIBRATION)
    except ModuleNotFoundError as error:
        if error.name != CALIBRATION.partition(".")[0]:
            raise
        raise InputError(
            "loopedge.quantize needs the package loopedge_calibration, which is not installed here",
            hint="install loopedge whole, or in a clone put calibration/ on the path",
        ) from error
    found: Work = module.quantize_artifact
    return found


def quantize_source(
    source: FloatSource,
    target: Path,
    recipe: Recipe,
    *,
    options: QuantizeOptions,
    held_out: HeldOut | None = None,
) -> QuantizeResult:
    """Quantize a model that is open by a recipe that was checked; the target may be written.

    Args:
        source: The float model.
        target: Path of the file.
        recipe: How the graph is rewritten.
        options: What must be reached, how sessions keep the weights, and whether files are replaced.
        held_out: Samples to measure on; None: generated ones.

    Raises:
        InputError: As `quantize`, like the rest.
        BudgetError: As said.
        VerificationError: As said.
    """
    changed = check_whole(source.path)
    recipe.check_model(source.graph, source.path)
    companions = companions_to_copy(source.path, source.metadata, target)
    check_companion_targets(target.parent, companions)
    started = time.perf_counter()
    made = rewrite_source(source, recipe, options)
    quantized, last = made.graph, made.last
    rewrite_ended = time.perf_counter()
    check = SourceCheck(
        source=source,
        recipe=recipe,
        rewritten=made.rewritten,
        graph=quantized,
        metadata=made.metadata,
        floors=floors_of(recipe, options.min_sqnr_db),
        held_out=held_out,
        threads=options.threads,
    )
    files = write_artifact(
        quantized,
        target,
        sources=source.artifact.files,
        force=options.force,
        verify=check,
        companions=companions,
    )
    seconds = {
        "rewrite": rewrite_ended - started,
        "write": time.perf_counter() - rewrite_ended - check.seconds,
        "verify": check.seconds,
    }
    return make_result(check, last, files, changed, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrittenSource:
    """A quantized graph as it is written, but for what is measured.

    Attributes:
        graph: The graph, with what it says of itself.
        rewritten: What the recipe made of it.
        metadata: What the graph says of itself.
        last: What became of the last iteration; None where the source computes all positions, too.
    """

    graph: ir.Model
    rewritten: Rewritten
    metadata: Metadata
    last: LastIterationOutcome | None


def rewrite_source(
    source: FloatSource, recipe: Recipe, options: QuantizeOptions
) -> RewrittenSource:
    """Make the quantized graph of a float model by a recipe that was checked.

    Args:
        source: The float model. Not changed.
        recipe: How the graph is rewritten.
        options: How sessions keep the weights, and what must be reached.

    Raises:
        InputError: Nothing became int8, or the graph holds operators that were not asked for.
        BudgetError: Fewer linears became int8 than asked for.
    """
    metadata = _with_memory(source, options.memory)
    graph = source.graph.clone()
    write_metadata(metadata, graph.metadata_props)  # it is verified as it will run
    rewritten = recipe.apply(graph)
    if not metadata.foreign and recipe.ops == "microsoft":  # it writes an operator of ONNX Runtime
        shrink_head(graph, metadata.memory, metadata.trained_length)
    check_operators(graph, recipe.ops, source.path)
    check_coverage(rewritten.coverage, rewritten.kept, options, source.path)
    computes_fewer = source.artifact.metadata.last_rows is not None
    last = narrow_last_iteration(graph) if computes_fewer else None
    return RewrittenSource(graph=graph, rewritten=rewritten, metadata=metadata, last=last)


def _with_memory(source: FloatSource, memory: str | None) -> Metadata:
    """Return what the file says of itself, with another memory profile where one is named."""
    if memory is None:
        return source.metadata
    profile = check_profile(memory)
    if source.metadata.foreign:
        raise InputError(
            f"{source.path} was not written by loopedge: it cannot hold a memory profile",
            hint=option("memory", profile, command="run"),
        )
    return source.metadata.model_copy(update={"memory": profile})
