"""``loopedge export``."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import export_view


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="model.pt, a folder that save_pretrained wrote, or package.module:factory.",
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: MODEL.onnx or MODEL.ort beside it."),
    ] = None,
    target: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="Device that it is for: chooses --form and --memory; default: cpu."),
    ] = None,
    form: Annotated[
        Literal["loop", "unrolled"] | None,
        typer.Option(help="One Loop node, or the core written out per iteration; by the target."),
    ] = None,
    loops: Annotated[
        int | None, typer.Option(min=1, help="Iterations to run; default: the trained count.")
    ] = None,
    dynamic_loops: Annotated[
        bool, typer.Option("--dynamic-loops", help="Make the loop count an input of the model.")
    ] = False,
    exit: Annotated[
        str | None,
        typer.Option(
            "--exit",
            help="Stop early: tolerance=X, halt (the model's own) or none; default: halt, if it has one.",
        ),
    ] = None,
    inner: Annotated[
        Literal["loop", "unrolled"],
        typer.Option(
            help="Inner loops of the core: written out in its body, or Loops of their own."
        ),
    ] = "unrolled",
    opset: Annotated[
        int, typer.Option(help="23 has fused norm and attention; 18 to 22 are decomposed.")
    ] = 23,
    format: Annotated[
        Literal["onnx", "ort"],
        typer.Option(help="ONNX, or ORT format for reduced builds of ONNX Runtime."),
    ] = "onnx",
    storage: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="float16 rounds the weights and halves the file."),
    ] = "float32",
    padding: Annotated[
        bool | None,
        typer.Option(
            "--padding/--no-padding",
            help="Take an attention_mask; default: as the model was configured.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of package.module:factory (.safetensors, .pt of tensors)."),
    ] = None,
    memory: Annotated[
        Literal["balanced", "low", "mapped"] | None,
        typer.Option(
            help="How sessions keep the weights: packed (default), as stored, or packed in a file."
        ),
    ] = None,
    logits: Annotated[
        Literal["all", "last"],
        typer.Option(help="Outputs of all positions, or of the last one: what generating takes."),
    ] = "all",
    last_rows: Annotated[
        bool | None,
        typer.Option(
            "--last-rows/--no-last-rows",
            help="Let the last iteration compute only the positions that are read; default: where "
            "that is possible.",
        ),
    ] = None,
    activations: Annotated[
        Literal["small", "whole"] | None,
        typer.Option(
            help="Compute wide layers in parts, where that pays, or as the model has them."
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a trained model as ONNX, verified against PyTorch."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge
        from loopedge.exporter.module.opening import default_target

        # What a user's module prints is no part of the result.
        with output.status(f"exporting {model}"), contextlib.redirect_stdout(sys.stderr):
            result = loopedge.export(
                model,
                path or default_target(model, format),
                target=target,
                form=form,
                loops=loops,
                dynamic_loops=dynamic_loops,
                exit=exit,
                inner=inner,
                opset=opset,
                format=format,
                storage=storage,
                padding=padding,
                weights=weights,
                memory=memory,
                logits=logits,
                last_rows=last_rows,
                activations=activations,
                force=force,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, export_view, written=result.path)
