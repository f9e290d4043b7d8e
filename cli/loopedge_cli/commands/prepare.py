"""``loopedge prepare``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import prepare_view


def prepare(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="An exported or quantized model.")
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Target; default: MODEL.prepared.onnx beside the model."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Pack the weights into a file for this very device, so that they are mapped."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"preparing {model}"):
            result = loopedge.prepare(model, path, threads=threads, force=force)
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, prepare_view, written=result.path)
