"""``loopedge to-generate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.generate_view import generate_file_view
from loopedge_cli.output import Debug, Force, Json, Quiet, sink


def to_generate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="LM.onnx", help="A causal language model, quantized or not; of any tool."
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: LM.generate.onnx beside the model."),
    ] = None,
    form: Annotated[
        Literal["scan", "unrolled", "tensorscatter"] | None,
        typer.Option(
            help="The core as one Scan, written out once per iteration, or a Scan of standard operators; default: scan."
        ),
    ] = None,
    cache: Annotated[
        Literal["per-loop", "last-loop"],
        typer.Option(help="Each iteration keeps its own keys and values, or the last one alone."),
    ] = "per-loop",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Let a language model decode with a cache of keys and values, verified against its source."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(f"rewriting {model}"):
            result = loopedge.to_generate(
                model, path, form=form, cache=cache, threads=threads, force=force
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, generate_file_view, written=result.path)
