"""``loopedge quantize``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import quantize_view


def quantize(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="A float model, looped or unrolled.")
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Target; default: MODEL.int8.onnx beside the model."),
    ] = None,
    scheme: Annotated[
        Literal["dynamic"],
        typer.Option(help="dynamic: int8, activation ranges found while it runs."),
    ] = "dynamic",
    min_coverage: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the core's linears that must become int8."),
    ] = 1.0,
    min_sqnr_db: Annotated[
        float | None,
        typer.Option("--min-sqnr-db", help="Floor of the outputs' SQNR against the float model."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the check.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Store and multiply the weights in int8, verified against the float model."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge
        from loopedge.quantizer.pipeline import MIN_SQNR_DB

        with output.status(f"quantizing {model}"):
            result = loopedge.quantize(
                model,
                path or model.with_suffix(".int8.onnx"),
                scheme=scheme,
                threads=threads,
                min_coverage=min_coverage,
                min_sqnr_db=MIN_SQNR_DB if min_sqnr_db is None else min_sqnr_db,
                force=force,
            )
        output.result(result, quantize_view, written=result.path)
