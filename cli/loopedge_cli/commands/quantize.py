"""``loopedge quantize``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import quantize_view


def quantize(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="A float model, looped or unrolled.")
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Target; default: MODEL.int8.onnx (weight-int4: .int4.onnx) beside the model.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Samples for static ranges: .npz, a folder of them, or what the model was trained "
            "on: its table, text or JSON lines."
        ),
    ] = None,
    scheme: Annotated[
        Literal["static", "dynamic", "weight-int8", "weight-int4"] | None,
        typer.Option(
            help="static: activations rounded with calibrated ranges; dynamic: ranges found while "
            "it runs; weight-int8, weight-int4: weights alone, in blocks. Default: static where "
            "there is data or a file of ranges."
        ),
    ] = None,
    ranges: Annotated[
        Literal["per-iteration", "shared", "auto"],
        typer.Option(help="A range per iteration, one for all, or what does better."),
    ] = "per-iteration",
    method: Annotated[
        Literal["minmax", "mse", "percentile", "entropy"],
        typer.Option(help="How a range is found from the samples."),
    ] = "mse",
    smoothing: Annotated[
        bool,
        typer.Option(
            "--smoothing/--no-smoothing", help="Move outlier channels into the weights first."
        ),
    ] = True,
    samples: Annotated[int, typer.Option(min=1, help="Most samples to run.")] = 128,
    ranges_file: Annotated[
        Path | None,
        typer.Option("--ranges-file", help="Take these ranges instead of calibrating."),
    ] = None,
    save_ranges: Annotated[
        Path | None, typer.Option("--save-ranges", help="Also write the ranges to this file.")
    ] = None,
    ops: Annotated[
        Literal["microsoft", "standard"],
        typer.Option(help="microsoft: ONNX Runtime's fused product; standard: ONNX alone."),
    ] = "microsoft",
    keep: Annotated[
        list[str] | None, typer.Option(help="Leave this linear in float; may be repeated.")
    ] = None,
    weight_only: Annotated[
        list[str] | None,
        typer.Option(
            "--weight-only",
            metavar="LINEAR",
            help="Store the weight of this linear alone in eight bits; may be repeated.",
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            "--block-size",
            help="Values that share a scale where weights alone are stored: 16, 32, 64, 128, 256.",
        ),
    ] = None,
    reduce_range: Annotated[
        bool,
        typer.Option("--reduce-range", help="Weights in seven bits, for processors without VNNI."),
    ] = False,
    min_coverage: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the core's linears that must become int8."),
    ] = 1.0,
    min_sqnr_db: Annotated[
        float | None,
        typer.Option("--min-sqnr-db", help="Floor of the outputs' SQNR against the float model."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Most that the metric may lose; the few linears that it takes are lifted to 8-bit "
            "weight-only or to float.",
        ),
    ] = None,
    metric: Annotated[
        Literal["task", "relative-error"] | None,
        typer.Option(
            help="Of --max-drop: the task's own (default where the model knows its task), or the "
            "relative error of the outputs."
        ),
    ] = None,
    memory: Annotated[
        Literal["balanced", "low", "mapped"] | None,
        typer.Option(help="How sessions keep the weights; default: as the source says."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Store and multiply the weights in int8, verified against the float model."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge_calibration.quantization import calibrate_and_quantize

        suffix = ".int4.onnx" if scheme == "weight-int4" else ".int8.onnx"
        with output.status(f"quantizing {model}"):
            result = calibrate_and_quantize(
                model,
                path or model.with_suffix(suffix),
                data=data,
                scheme=scheme,
                granularity=ranges,
                method=method,
                smoothing=smoothing,
                samples=samples,
                ranges_file=ranges_file,
                save_ranges=save_ranges,
                ops=ops,
                keep=keep or (),
                weight_only=weight_only or (),
                block_size=block_size,
                reduce_range=reduce_range,
                min_coverage=min_coverage,
                min_sqnr_db=min_sqnr_db,
                max_drop=max_drop,
                metric=metric,
                memory=memory,
                threads=threads,
                force=force,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, quantize_view, written=result.path)
