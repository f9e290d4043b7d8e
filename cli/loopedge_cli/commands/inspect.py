"""``loopedge inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.output import Debug, Json, sink
from loopedge_cli.package_view import bundle_view
from loopedge_cli.views import inspection_view


def inspect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file, or a bundle.")
    ],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the content of all files with their checksums."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show form, loops, tied weights, bytes, timestep tables and int8 coverage."""
    with sink(json=json, debug=debug) as output:
        import loopedge
        from loopedge.packager.bundle import inspect_bundle, is_bundle

        if is_bundle(model):
            output.result(inspect_bundle(model, verify=verify), bundle_view)
        else:
            output.result(loopedge.inspect(model, verify=verify), inspection_view)
