"""``loopedge evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from loopedge_cli.counts import Counts, parse_counts
from loopedge_cli.evaluate_view import evaluate_view
from loopedge_cli.output import Debug, Json, Quiet, sink


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.onnx...", help="Language models of one tokenizer."),
    ],
    text: Annotated[Path, typer.Option(help="A text file, or a folder of them, in UTF-8.")],
    loops: Annotated[
        Counts | None,
        typer.Option(
            parser=parse_counts,
            metavar="N[,N...]",
            help="Iterations, for models with a selectable count; default: as each file says.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a window; default: as many as the first model was trained on."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Most windows, evenly spread over the text.")
    ] = 256,
    tolerance: Annotated[
        float | None,
        typer.Option(help="For models with an early exit by tolerance: another tolerance."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads inside an operator; default: all cores.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure the perplexity of language models on a text, side by side."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        import loopedge

        with output.status(
            f"evaluating {len(models)} models" if len(models) > 1 else f"evaluating {models[0]}"
        ):
            result = loopedge.evaluate(
                models,
                text,
                loops=loops,
                context=context,
                samples=samples,
                tolerance=tolerance,
                threads=threads,
            )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, evaluate_view)
