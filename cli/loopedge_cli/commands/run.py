"""``loopedge run``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from loopedge.errors import InputError
from loopedge.options import option_name
from loopedge_cli.options import table
from loopedge_cli.options.provider import Provider, ProviderOptions, read_provider_options
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import inference_view

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported model.")]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        help="A table, for a model that was trained on one (CSV, Parquet); or one array per input by name (.npz); "
        "for a model of one input any .npz, .npy or .csv.",
    ),
]
Text = Annotated[
    str | None,
    typer.Option(help="Instead of arrays: text, for a model of the task text or pairs."),
]
NewTokens = Annotated[
    int,
    typer.Option(
        "--new-tokens", min=0, help="Tokens to add to the text, the most likely one each time."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where the outputs go (.npz, .npy; of a table also .csv, .parquet); default: nowhere.",
    ),
]
Loops = Annotated[
    int | None, typer.Option(min=1, help="Iterations, for a model with a selectable count.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="For a model with an early exit by tolerance: another tolerance."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Of the noise that a model takes as an input; default 0.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads inside an operator; default: all cores.")
]
Memory = Annotated[
    Literal["balanced", "low", "mapped"] | None,
    typer.Option(help="How the weights are kept; default: as the file says."),
]


def run(
    model: Model,
    input: Input = None,
    text: Text = None,
    new_tokens: NewTokens = 0,
    path: Output = None,
    loops: Loops = None,
    tolerance: Tolerance = None,
    seed: Seed = None,
    threads: Threads = None,
    provider: Provider = "cpu",
    provider_options: ProviderOptions = None,
    memory: Memory = None,
    encoding: table.Encoding = None,
    delimiter: table.Delimiter = None,
    decimal: table.Decimal = None,
    thousands: table.Thousands = None,
    comment: table.Comment = None,
    na_values: table.NaValues = None,
    time_format: table.TimeFormat = None,
    timezone: table.Timezone = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a model on a table or on arrays, or a language model on a text.

    A model that was trained on a table reads columns by their names, forecasts every series of it, and writes the times
    that follow: loopedge run MODEL.onnx -i table.csv -o forecast.csv. A table is read as that of training was written,
    unless the options under Table say otherwise.
    """
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.inference.completion import complete
        from loopedge.inference.run import InferenceResult, run_file

        shared: dict[str, Any] = {
            "loops": loops,
            "tolerance": tolerance,
            "threads": threads,
            "provider": provider,
            "provider_options": read_provider_options(provider_options),
            "memory": memory,
        }
        form = table.named_fields(
            encoding=encoding,
            delimiter=delimiter,
            decimal=decimal,
            thousands=thousands,
            comment=comment,
            na_values=na_values,
            time_format=time_format,
            timezone=timezone,
        )
        of_input = {
            "--output": path,
            "--seed": seed,
            **{option_name(name): form[name] for name in form},
        }
        _check(input, text, new_tokens, of_input)
        result: InferenceResult = (
            run_file(model, input, path, seed=seed, form=form, force=force, **shared)
            if input is not None
            else complete(model, text or "", new_tokens=new_tokens, **shared)
        )
        for note in result.notes:
            output.note(f"note: {note}")
        output.result(result, inference_view, written=path)


def _check(
    input: Path | None, text: str | None, new_tokens: int, of_input: dict[str, object]
) -> None:
    """Refuse options that do not go together."""
    if (input is None) == (text is None):
        what = "neither --input nor --text" if input is None else "both --input and --text"
        raise InputError(f"{what} is given, one is needed", hint="loopedge run --help")
    if text is None and new_tokens:
        raise InputError("--new-tokens goes with a text", hint="add --text")
    for option, value in of_input.items():
        if text is not None and value is not None:
            raise InputError(f"{option} goes with --input, not with --text", hint="leave it out")
