"""``loopedge export``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import export_view


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pt", help="A loopedge checkpoint.")],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: MODEL.onnx beside the checkpoint."),
    ] = None,
    form: Annotated[
        Literal["loop", "unrolled"],
        typer.Option(help="One Loop node, or the core written out once per iteration."),
    ] = "loop",
    loops: Annotated[
        int | None, typer.Option(min=1, help="Iterations to run; default: the trained count.")
    ] = None,
    dynamic_loops: Annotated[
        bool, typer.Option("--dynamic-loops", help="Make the loop count an input of the model.")
    ] = False,
    opset: Annotated[
        int, typer.Option(help="23 has fused norm and attention; 18 to 22 are decomposed.")
    ] = 23,
    padding: Annotated[
        bool | None,
        typer.Option(
            "--padding/--no-padding",
            help="Take an attention_mask; default: as the model was configured.",
        ),
    ] = None,
    memory: Annotated[
        Literal["balanced", "low", "mapped"],
        typer.Option(
            help="How sessions keep the weights: packed, as they are stored, or packed in a file."
        ),
    ] = "balanced",
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a trained model as ONNX, verified against PyTorch."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"exporting {model}"):
            result = loopedge.export(
                model,
                path or model.with_suffix(".onnx"),
                form=form,
                loops=loops,
                dynamic_loops=dynamic_loops,
                opset=opset,
                padding=padding,
                memory=memory,
                force=force,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, export_view, written=result.path)
