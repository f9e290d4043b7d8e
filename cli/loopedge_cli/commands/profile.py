"""``loopedge profile``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import profile_view


def profile(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL.onnx...", help="Models to compare.")
    ],
    untied: Annotated[
        bool,
        typer.Option("--untied", help="Also profile each model with own weights per iteration."),
    ] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the models run.")] = "cpu",
    memory: Annotated[
        Literal["balanced", "low", "mapped"] | None,
        typer.Option(help="How the weights are kept; default: as each file says."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside an operator.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Size of the batch axis.")] = 1,
    sequence: Annotated[
        int | None, typer.Option(min=1, help="Size of the sequence axis; default: as trained.")
    ] = None,
    loops: Annotated[
        int | None, typer.Option(min=1, help="Iterations, for models with a selectable count.")
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", help="Inputs to run on (.npz); default: seeded random ones."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Timed runs; default: as many as a second holds.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the report as one HTML file.")
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure bytes, load time, memory, latency and operators, each model in its own process."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge
        from loopedge.files import check_target
        from loopedge.report.html import write_profile_html

        if html is not None:
            check_target(html, force=force)
        with output.status(f"profiling {', '.join(map(str, models))}"):
            result = loopedge.profile(
                models,
                untied=untied,
                device=device,
                memory=memory,
                threads=threads,
                batch=batch,
                sequence=sequence,
                loops=loops,
                input=input,
                runs=runs,
                seed=seed,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        if html is not None:
            write_profile_html(result, html, force=force)
            output.note(f"report: {html}")
        output.result(result, profile_view, written=html)
