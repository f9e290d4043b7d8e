"""``loopedge convert``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import convert_view


def convert(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="An exported or quantized model.")
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: MODEL.ort beside the model."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a model to ORT format, with the operators that a reduced build needs."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"converting {model}"):
            result = loopedge.convert(
                model, path or model.with_suffix(".ort"), threads=threads, force=force
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, convert_view, written=result.path)
