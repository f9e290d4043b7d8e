"""``loopedge package``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.package_view import package_view


def package(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="An exported or quantized model.")
    ],
    clients: Annotated[
        list[str] | None,
        typer.Option("--for", help="web, node, c or python; once for each client."),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; default: MODEL.bundle beside it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the model is called; default: the name of its file.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="Execution provider that it shall run on: chooses the form of the model."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Float model of a quantized one; default: found beside it."),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            help="File as run takes it: the first test vector, and what the page shows first.",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text that the test vector of a language model goes on with.")
    ] = None,
    new_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of that test vector, at most.")
    ] = 16,
    with_runtime: Annotated[
        bool, typer.Option("--with-runtime", help="Put the runtime of each client into the bundle.")
    ] = False,
    packages: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the runtimes' packages, for --with-runtime without a network."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the checks.")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a folder for an app: model, loader, test vectors and a page that explains them."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        options = loopedge.PackageOptions(
            clients=tuple(clients or ()),  # type: ignore[arg-type]
            name=name,
            provider=provider,
            reference=reference,
            input=input,
            prompt=prompt,
            new_tokens=new_tokens,
            with_runtime=with_runtime,
            packages=packages,
            threads=threads,
            force=force,
        )
        with output.status(f"packaging {model}"):
            result = loopedge.package(model, path or model.with_suffix(".bundle"), options=options)
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, package_view, written=result.path)
