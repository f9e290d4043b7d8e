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
    cache_type: Annotated[
        Literal["float32", "int8", "int4"],
        typer.Option(help="Of keys and values; integers need text to find their scales on."),
    ] = "float32",
    data: Annotated[
        Path | None,
        typer.Option(help="With int8 and int4: text like that of the task, or ids in .npz."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Texts of the data that find scales, at most.")
    ] = 64,
    exit: Annotated[
        Literal["copy", "holes"] | None,
        typer.Option(
            help="For a model with an early exit: each token ends for itself; what skipped iterations keep of it."
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="With --exit: another tolerance than the exported one.")
    ] = None,
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
                model,
                path,
                form=form,
                cache=cache,
                cache_type=cache_type,
                data=data,
                samples=samples,
                exit=exit,
                tolerance=tolerance,
                threads=threads,
                force=force,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, generate_file_view, written=result.path)
