"""Options of ``loopedge quantize``; `loopedge.QuantizeOptions` has the same names.

``--ranges`` is its ``granularity``, ``--ranges-file`` its ``ranges``.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "AsCore",
    "BlockSize",
    "Budget",
    "Data",
    "Keep",
    "Loops",
    "MaxBytes",
    "MaxDrop",
    "Memory",
    "Method",
    "Metric",
    "MinCoverage",
    "MinSpeedUp",
    "MinSqnrDb",
    "Model",
    "Module",
    "Ops",
    "Ranges",
    "RangesFile",
    "Recipe",
    "ReduceRange",
    "Refine",
    "Rounding",
    "Samples",
    "SaveRanges",
    "Scheme",
    "Smoothing",
    "Target",
    "TargetFile",
    "Threads",
    "WeightOnly",
]

Model = Annotated[
    Path, typer.Argument(metavar="MODEL.onnx", help="A float model, looped or unrolled.")
]
TargetFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Target; default: MODEL.int8.onnx (weight-int4: .int4.onnx, weight-int2: .int2.onnx) beside the model.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Samples, some to calibrate static ranges on and others to measure on: .npz, a folder of "
        "them, or what the model was trained on: its table, text or JSON lines."
    ),
]
Scheme = Annotated[
    Literal["auto", "static", "dynamic", "weight-int8", "weight-int4", "weight-int2"] | None,
    typer.Option(
        help="auto: what does best on a part of the data; static: activations rounded with calibrated ranges; "
        "dynamic: ranges found while it runs; weight-int8, weight-int4, weight-int2: weights alone, in blocks. Default: "
        "auto with --data, static with a file of ranges, else dynamic."
    ),
]
Ranges = Annotated[
    Literal["per-iteration", "shared", "auto"] | None,
    typer.Option(
        help="A range per iteration (default), one for all, or what does better for each tensor."
    ),
]
Method = Annotated[
    Literal["minmax", "mse", "percentile", "entropy"] | None,
    typer.Option(help="How a range is found from the samples; default: mse."),
]
Smoothing = Annotated[
    bool | None,
    typer.Option(
        "--smoothing/--no-smoothing",
        help="Move outlier channels into the weights first (default), or not.",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Most samples to calibrate on, evenly thinned.")]
Loops = Annotated[
    int | None,
    typer.Option(
        min=1, help="Iterations to run where the loop count is an input; default: as exported."
    ),
]
RangesFile = Annotated[
    Path | None,
    typer.Option("--ranges-file", help="Take these ranges instead of calibrating."),
]
SaveRanges = Annotated[
    Path | None, typer.Option("--save-ranges", help="Also write the ranges to this file.")
]
Ops = Annotated[
    Literal["microsoft", "standard", "qdq"],
    typer.Option(
        help="microsoft: ONNX Runtime's fused product; standard: ONNX alone; qdq: unrolled, with QuantizeLinear and "
        "DequantizeLinear pairs, for accelerators."
    ),
]
Target = Annotated[
    Literal["common", "qnn", "openvino", "tensorrt", "coreml", "xnnpack"] | None,
    typer.Option(help="With --ops qdq: whose rules the pairs follow; default: common."),
]
Keep = Annotated[
    list[str] | None, typer.Option(help="Leave this linear in float; may be repeated.")
]
WeightOnly = Annotated[
    list[str] | None,
    typer.Option(
        "--weight-only",
        metavar="LINEAR",
        help="Store the weight of this linear alone in eight bits; may be repeated.",
    ),
]
AsCore = Annotated[
    list[str] | None,
    typer.Option(
        "--as-core",
        metavar="LINEAR",
        help="Static int8: treat this linear of prelude or coda as the core's; all: every one; may be repeated.",
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-size",
        help="Values that share a scale where weights alone are stored: 16, 32, 64, 128, 256.",
    ),
]
Rounding = Annotated[
    Literal["data", "nearest"] | None,
    typer.Option(
        help="Of weights alone. data: so that what the linears give changes least on the samples; default where "
        "--data is there. nearest: without them."
    ),
]
ReduceRange = Annotated[
    bool,
    typer.Option("--reduce-range", help="Weights in seven bits, for processors without VNNI."),
]
MinCoverage = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Share of the core's linears that must become int8."),
]
MinSqnrDb = Annotated[
    float | None,
    typer.Option("--min-sqnr-db", help="Floor of the outputs' SQNR against the float model."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Most that the metric may lose; the few linears that it takes are lifted to 8-bit "
        "weight-only or to float.",
    ),
]
Metric = Annotated[
    Literal["task", "relative-error"] | None,
    typer.Option(
        help="Of --max-drop: the task's own (default where the model knows its task), or the "
        "relative error of the outputs."
    ),
]
Refine = Annotated[
    int | None,
    typer.Option(
        help="Steps in which the rounding of the weights is trained towards the float model's outputs, without labels; needs "
        "--module, data and the extra 'train'."
    ),
]
Module = Annotated[Path | None, typer.Option(help="The model.pt that was exported, for --refine.")]
MaxBytes = Annotated[
    str | None,
    typer.Option(
        "--max-bytes", metavar="SIZE", help="Of auto: most that the files may take, as 2MiB."
    ),
]
MinSpeedUp = Annotated[
    float | None,
    typer.Option(
        "--min-speed-up",
        metavar="X",
        help="Of auto: at least so many times as fast as the float model, on this machine.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Of auto: how long it may try, as 60s; it says what was left out."
    ),
]
Recipe = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.int8.onnx",
        help="Repeat what was decided for this quantized file: its scheme, and all but the ranges.",
    ),
]
Memory = Annotated[
    Literal["balanced", "low", "mapped"] | None,
    typer.Option(help="How sessions keep the weights; default: as the source says."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the check.")]
