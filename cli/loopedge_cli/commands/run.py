"""``loopedge run``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from loopedge.errors import InputError
from loopedge_cli.output import Debug, Force, Json, Quiet, sink
from loopedge_cli.views import inference_view

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported model.")]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        help="One array per input by name (.npz); for a model of one input any .npz, .npy or .csv.",
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
    typer.Option("--output", "-o", help="Where the outputs go (.npz, .npy); default: nowhere."),
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
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the model runs.")]
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
    device: Device = "cpu",
    memory: Memory = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a model on the arrays of a file, or a language model on a text."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.inference.completion import complete
        from loopedge.inference.run import InferenceResult, run_file

        shared: dict[str, Any] = {
            "loops": loops,
            "tolerance": tolerance,
            "threads": threads,
            "device": device,
            "memory": memory,
        }
        _check(input, text, new_tokens, {"--output": path, "--seed": seed})
        result: InferenceResult = (
            run_file(model, input, path, seed=seed, force=force, **shared)
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
