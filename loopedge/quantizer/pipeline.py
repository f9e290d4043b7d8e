"""Quantize an exported model: rewrite, write, verify."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from loopedge.artifact.artifact import Artifact, write_artifact
from loopedge.artifact.companions import check_companion_targets, companions_to_copy
from loopedge.artifact.seal import check_whole
from loopedge.errors import InputError
from loopedge.files.paths import ArtifactTarget, check_paths
from loopedge.files.targets import check_artifact_target
from loopedge.graph.metadata import (
    Metadata,
    write_metadata,
)
from loopedge.graph.positions.last_iteration import narrow_last_iteration
from loopedge.graph.split.activations import shrink_head
from loopedge.options import option, option_name, with_keywords
from loopedge.quantizer.activations.ranges import RangeTable, read_ranges
from loopedge.quantizer.check import SourceCheck
from loopedge.quantizer.floors import check_coverage, floors_of
from loopedge.quantizer.noise import Feeds
from loopedge.quantizer.options import QuantizeKeywords, QuantizeOptions
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.result import QuantizeResult, make_result
from loopedge.quantizer.schemes.operators import check_operators
from loopedge.quantizer.source import FloatSource, with_source
from loopedge.runtime.memory_profiles import check_profile

__all__ = ["QuantizeResult", "quantize", "quantize_source"]


def quantize(
    model: str | Path,
    path: str | Path,
    *,
    ranges: RangeTable | str | Path | None = None,
    inputs: Sequence[Feeds] | None = None,
    options: QuantizeOptions | None = None,
    **keywords: Unpack[QuantizeKeywords],
) -> QuantizeResult:
    """Quantize the linears and embeddings of an exported model and verify the file against its source.

    Args:
        model: An artifact of `loopedge.export`, loop or unrolled, or another float ONNX file.
        path: Target, usually ``model.int8.onnx``.
        ranges: A table of `loopedge_calibration.collect`, or its file.
        inputs: Batches to verify on; default: generated ones.
        options: The keywords below as one object, `loopedge.QuantizeOptions`; a keyword wins over the
            object's field.

    Keyword Args:
        scheme: ``static``: activations are rounded with calibrated ranges; ``dynamic``: they are
            measured at run time, no data is needed; ``weight-int8`` and ``weight-int4``: weights
            alone, in blocks. Default: static where ranges are given, else dynamic.
        ops: ``microsoft`` (MatMulIntegerToFloat and DynamicQuantizeMatMul, default), or ``standard``: operators of
            ONNX alone, for static and dynamic.
        keep: Linears to leave in float, by node name as in the loop form, and embedding tables, by
            their own name.
        weight_only: Linears whose weights alone are stored in eight bits, whatever the scheme, by
            node name; linears that share a weight go together.
        as_core: Linears of prelude and coda that static int8 treats as the core's, whatever their place; ``all``:
            every one. Their ranges must have been collected so.
        block_size: Most values that share a scale in a weight-only linear; default: 128 in eight
            bits, 32 in four.
        reduce_range: Store weights in seven bits: on processors without VNNI eight can overflow;
            default: False.
        min_coverage: Share of the core's linears that must become int8, 0 to 1; linears kept on
            request do not count as missed; default: 1.
        min_sqnr_db: Floor of the outputs' SQNR against the float model, in dB; default: 15, with
            four-bit weights 10.
        memory: How sessions keep the weights: ``balanced``, ``low`` or ``mapped`` (docs/memory.md);
            default: as the source says.
        threads: Threads of ONNX Runtime during verification.
        force: Replace an existing artifact; default: False.

    Returns:
        Coverage, SQNR of the outputs and of every iteration's state, bytes, times, and the time of
        one inference against the float model's.

    Raises:
        InputError: The file, an option or the target cannot be used.
        BudgetError: Fewer linears became int8 than asked for.
        VerificationError: The outputs moved further than allowed; nothing is left.
    """
    chosen = with_keywords("quantize", QuantizeOptions, options, keywords)
    target = Path(path)

    def work(artifact: Artifact) -> QuantizeResult:
        read_from = ranges if isinstance(ranges, str | Path) else None
        check_paths(
            inputs={"MODEL": artifact.needed_files(), "the file of ranges": read_from},
            outputs={option_name("path"): ArtifactTarget(target)},
        )
        table = read_ranges(ranges) if isinstance(ranges, str | Path) else ranges
        recipe = chosen.recipe(table)
        check_artifact_target(target, artifact.files, force=chosen.force)
        return quantize_source(
            FloatSource.of(artifact), target, recipe, options=chosen, inputs=inputs
        )

    return with_source(model, work)


def quantize_source(
    source: FloatSource,
    target: Path,
    recipe: Recipe,
    *,
    options: QuantizeOptions,
    inputs: Sequence[Feeds] | None = None,
) -> QuantizeResult:
    """Quantize a model that is open by a recipe that was checked; the target may be written.

    Args:
        source: The float model.
        target: Path of the file.
        recipe: How the graph is rewritten.
        options: What must be reached, how sessions keep the weights, and whether files are replaced.
        inputs: Batches to verify on; None: generated ones.

    Raises:
        InputError: As `quantize`, like the rest.
        BudgetError: As said.
        VerificationError: As said.
    """
    changed = check_whole(source.path)
    recipe.check_model(source.graph, source.path)
    metadata = _with_memory(source, options.memory)
    companions = companions_to_copy(source.path, metadata, target)
    check_companion_targets(target.parent, companions)
    started = time.perf_counter()
    quantized = source.graph.clone()
    write_metadata(metadata, quantized.metadata_props)  # it is verified as it will run
    rewritten = recipe.apply(quantized)
    if not metadata.foreign and recipe.ops == "microsoft":  # it writes an operator of ONNX Runtime
        shrink_head(quantized, metadata.memory, metadata.trained_length)
    check_operators(quantized, recipe.ops, source.path)
    check_coverage(rewritten.coverage, rewritten.kept, options, source.path)
    computes_fewer = source.artifact.metadata.last_rows is not None
    last = narrow_last_iteration(quantized) if computes_fewer else None
    rewrite_ended = time.perf_counter()
    check = SourceCheck(
        source=source,
        recipe=recipe,
        rewritten=rewritten,
        graph=quantized,
        metadata=metadata,
        floors=floors_of(recipe, options.min_sqnr_db),
        inputs=inputs,
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
