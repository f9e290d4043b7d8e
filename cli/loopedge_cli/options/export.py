"""Options of ``loopedge export``; `loopedge.exporter.options.ExportOptions` has the same names."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Activations",
    "DynamicLoops",
    "DynamicShapes",
    "Exit",
    "Form",
    "Format",
    "Inner",
    "LastRows",
    "Logits",
    "Loops",
    "Memory",
    "Model",
    "Opset",
    "Padding",
    "Storage",
    "Target",
    "TargetFile",
    "Task",
    "WeightBits",
    "Weights",
    "read_weight_bits",
]

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="model.pt, a folder (save_pretrained, or a published model), or package.module:factory.",
    ),
]
TargetFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Target; default: MODEL.onnx or MODEL.ort beside it."),
]
Target = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(help="Device that it is for: chooses --form and --memory; default: cpu."),
]
Form = Annotated[
    Literal["loop", "unrolled"] | None,
    typer.Option(help="One Loop node, or the core written out per iteration; by the target."),
]
Loops = Annotated[
    int | None, typer.Option(min=1, help="Iterations to run; default: the trained count.")
]
DynamicLoops = Annotated[
    bool, typer.Option("--dynamic-loops", help="Make the loop count an input of the model.")
]
Exit = Annotated[
    str | None,
    typer.Option(
        "--exit",
        help="Stop early: tolerance=X, halt (the model's own) or none; default: halt, if it has one.",
    ),
]
Inner = Annotated[
    Literal["loop", "unrolled"],
    typer.Option(help="Inner loops of the core: written out in its body, or Loops of their own."),
]
Opset = Annotated[
    int, typer.Option(help="23 has fused norm and attention; 18 to 22 are decomposed.")
]
Format = Annotated[
    Literal["onnx", "ort"],
    typer.Option(help="ONNX, or ORT format for reduced builds of ONNX Runtime."),
]
Storage = Annotated[
    Literal["float32", "float16"],
    typer.Option(help="float16 rounds the weights and halves the file."),
]
Padding = Annotated[
    bool | None,
    typer.Option(
        "--padding/--no-padding",
        help="Take an attention_mask; default: as the model was configured.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Weights of package.module:factory (.safetensors, .pt of tensors)."),
]
DynamicShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic-shapes",
        metavar="NAME=AXIS,...",
        help="Names of an input's axes: batch, sequence, one of your own, or - for a fixed one; for "
        "several inputs several times. Default: found by running the module.",
    ),
]
Memory = Annotated[
    Literal["balanced", "low", "mapped"] | None,
    typer.Option(
        help="How sessions keep the weights: packed (default), as stored, or packed in a file."
    ),
]
Logits = Annotated[
    Literal["all", "last"],
    typer.Option(help="Outputs of all positions, or of the last one: what generating takes."),
]
LastRows = Annotated[
    bool | None,
    typer.Option(
        "--last-rows/--no-last-rows",
        help="Let the last iteration compute only the positions that are read; default: where "
        "that is possible.",
    ),
]
Activations = Annotated[
    Literal["small", "whole"] | None,
    typer.Option(help="Compute wide layers in parts, where that pays, or as the model has them."),
]
Task = Annotated[
    Literal["generate"] | None,
    typer.Option(help="generate: a file that decodes text with a cache, as loopedge to-generate."),
]
WeightBits = Annotated[
    Literal["8", "4"] | None,
    typer.Option(
        help="Folders of published models: pack the weights in 8 or 4 bits as they are read."
    ),
]


def read_weight_bits(given: str | None) -> Literal[8, 4] | None:
    """Return the bits as a number; typer's choices are texts."""
    known: dict[str | None, Literal[8, 4]] = {"8": 8, "4": 4}
    return known.get(given)
