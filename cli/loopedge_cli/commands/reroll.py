"""``loopedge reroll``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.reroll_view import reroll_view


def reroll(
    model: Annotated[
        Path,
        typer.Argument(metavar="TIED.onnx", help="An ONNX file that repeats the same nodes."),
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: TIED.loop.onnx beside the model."),
    ] = None,
    inner: Annotated[
        Literal["unrolled", "loop"],
        typer.Option(help="What repeats inside an iteration: left as it is, or a Loop each."),
    ] = "unrolled",
    dynamic_loops: Annotated[
        bool,
        typer.Option(
            "--dynamic-loops",
            help="Make the loop count an input, clamped to 1 .. what tables hold.",
        ),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Give a graph that was written out once per iteration its Loop back, its weights stored once."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"rolling {model}"):
            result = loopedge.reroll(
                model,
                path,
                inner=inner,
                dynamic_loops=dynamic_loops,
                threads=threads,
                force=force,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, reroll_view, written=result.path)
