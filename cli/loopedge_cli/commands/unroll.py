"""``loopedge unroll``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.unroll_view import unroll_view


def unroll(
    model: Annotated[
        Path, typer.Argument(metavar="LOOP.onnx", help="An ONNX file with a Loop, of any tool.")
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Target; default: LOOP.unrolled.onnx beside the model."
        ),
    ] = None,
    loops: Annotated[
        int | None,
        typer.Option(min=1, help="Iterations to write, where an input of the model chooses them."),
    ] = None,
    inner: Annotated[
        Literal["loop", "unrolled"],
        typer.Option(help="Loops inside an iteration: they stay, or are written out too."),
    ] = "loop",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the Loops of a model out, once per iteration, its weights stored once."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"unrolling {model}"):
            result = loopedge.unroll(
                model, path, loops=loops, inner=inner, threads=threads, force=force
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, unroll_view, written=result.path)
