"""``loopedge run``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import inference_view


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported model.")],
    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="One array per input by name (.npz); .npy or .csv for a model of one input.",
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the outputs go (.npz, .npy); default: nowhere."),
    ] = None,
    loops: Annotated[
        int | None, typer.Option(min=1, help="Iterations, for a model with a selectable count.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="For a model with an early exit by tolerance: another tolerance."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the noise that a model takes as an input; default 0."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads inside an operator; default: all cores.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the model runs.")] = "cpu",
    memory: Annotated[
        Literal["balanced", "low", "mapped"] | None,
        typer.Option(help="How the weights are kept; default: as the file says."),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a model on the arrays of a file; print a summary of each output."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.inference import run_file

        result = run_file(
            model,
            input,
            path,
            loops=loops,
            tolerance=tolerance,
            seed=seed,
            threads=threads,
            device=device,
            memory=memory,
            force=force,
        )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, inference_view, written=path)
