"""``loopedge quantize``."""

from pathlib import Path

from loopedge_cli.options import quantize as options
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.quantize_view import quantize_view

BITS = {"weight-int4": "int4", "weight-int2": "int2"}
"""What a file is called after its scheme; after the others ``int8``."""


def quantize(  # long: one line per option, taken and handed on
    model: options.Model,
    path: options.TargetFile = None,
    data: options.Data = None,
    scheme: options.Scheme = None,
    ranges: options.Ranges = None,
    method: options.Method = None,
    smoothing: options.Smoothing = None,
    samples: options.Samples = 128,
    loops: options.Loops = None,
    ranges_file: options.RangesFile = None,
    save_ranges: options.SaveRanges = None,
    ops: options.Ops = "microsoft",
    target: options.Target = None,
    keep: options.Keep = None,
    weight_only: options.WeightOnly = None,
    as_core: options.AsCore = None,
    block_size: options.BlockSize = None,
    rounding: options.Rounding = None,
    reduce_range: options.ReduceRange = False,
    min_coverage: options.MinCoverage = 1.0,
    min_sqnr_db: options.MinSqnrDb = None,
    max_drop: options.MaxDrop = None,
    metric: options.Metric = None,
    refine: options.Refine = None,
    module: options.Module = None,
    max_bytes: options.MaxBytes = None,
    min_speed_up: options.MinSpeedUp = None,
    budget: options.Budget = None,
    recipe: options.Recipe = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Store and multiply the weights in int8, verified against the float model."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.quantizer.options import QuantizeOptions
        from loopedge.quantizer.pipeline import quantize as write_quantized

        chosen = QuantizeOptions(
            data=data,
            scheme=scheme,
            granularity=ranges,
            method=method,
            smoothing=smoothing,
            samples=samples,
            loops=loops,
            ranges=ranges_file,
            save_ranges=save_ranges,
            ops=ops,
            target=target,
            keep=keep or (),
            weight_only=weight_only or (),
            as_core=as_core or (),
            block_size=block_size,
            rounding=rounding,
            reduce_range=reduce_range,
            min_coverage=min_coverage,
            min_sqnr_db=min_sqnr_db,
            max_drop=max_drop,
            metric=metric,
            refine=refine,
            module=module,
            max_bytes=max_bytes,
            min_speed_up=min_speed_up,
            budget=budget,
            recipe=recipe,
            memory=memory,
            threads=threads,
            force=force,
        )
        file = path or model.with_suffix(f".{_bits(scheme, recipe)}.onnx")
        with output.status(f"quantizing {model}") as report_progress:
            result = write_quantized(model, file, options=chosen, report_progress=report_progress)
        for note in result.notes:
            warns = note == f"WARNING: {result.warning}"
            if json or not warns:  # else it is the first line of the view
                output.note(note if warns else f"note: {note}")
        output.result(result, quantize_view, written=result.path)


def _bits(scheme: str | None, recipe: Path | None) -> str:
    """Return what the target is called for: ``int8``, ``int4``, ``int2``."""
    if recipe is not None:
        from loopedge.quantizer.choice.recorded import read_recorded

        scheme = read_recorded(recipe).scheme
    return BITS.get(scheme or "", "int8")
