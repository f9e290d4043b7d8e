"""``loopedge generate``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from loopedge.errors import InputError
from loopedge.files.plain_json import dump_json
from loopedge.units import time_text
from loopedge_cli.output import Debug, Json, Output, Quiet, sink
from loopedge_cli.page import count_text
from loopedge_cli.streamed_text import StreamedText
from loopedge_cli.streams import printing

if TYPE_CHECKING:
    from loopedge.inference.generation import GeneratedText, Rate, TextPiece

STDIN = "-"
MOST_PROMPT_BYTES = 64 << 20

Model = Annotated[Path, typer.Argument(metavar="LM.onnx", help="A file of loopedge to-generate.")]
Prompt = Annotated[
    str, typer.Option("--prompt", "-p", help="What the model goes on with; -: standard input.")
]
NewTokens = Annotated[int, typer.Option(min=0, help="Tokens to add at most.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="Text that ends it, and is not shown; may be repeated."),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Draw tokens at this temperature; default: the most likely one each time."),
]
TopK = Annotated[int | None, typer.Option(help="Draw from so many tokens.")]
TopP = Annotated[
    float | None, typer.Option(help="Draw from the most likely tokens that add up to this.")
]
MinP = Annotated[
    float | None, typer.Option(help="Draw from tokens this likely, as a part of the most likely.")
]
Penalty = Annotated[
    float | None,
    typer.Option(help="Above 1: makes tokens that stand in the text less likely."),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Of the draws, and of the noise that a model takes."),
]
Chat = Annotated[
    bool, typer.Option("--chat", help="The prompt is a message, by the model's chat template.")
]
System = Annotated[str | None, typer.Option(help="The system's message, with --chat.")]
Loops = Annotated[int | None, typer.Option(min=1, help="Iterations; default: as the file says.")]
Context = Annotated[
    int | None, typer.Option(min=1, help="Positions at most; default: what the file takes.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads inside an operator; default: all cores.")
]
Memory = Annotated[
    Literal["balanced", "low", "mapped"] | None,
    typer.Option(help="How the weights are kept; default: as the file says."),
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Then measure decoding behind a text of this length, tied and untied, as loopedge profile does.",
    ),
]


def generate(
    model: Model,
    prompt: Prompt,
    new_tokens: NewTokens = 256,
    stop: Stop = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    chat: Chat = False,
    system: System = None,
    loops: Loops = None,
    context: Context = None,
    threads: Threads = None,
    memory: Memory = None,
    profile: Profile = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Let a language model go on with a text, token by token, with a cache."""
    with sink(json=json, quiet=quiet, debug=debug) as output:
        from loopedge.inference.generation import generate_text
        from loopedge.runtime.decoding.sampling import Sampling

        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
        )
        text = StreamedText()
        try:
            result = generate_text(
                model,
                _read_prompt() if prompt == STDIN else prompt,
                new_tokens=new_tokens,
                stop=stop or (),
                sampling=sampling,
                chat=chat,
                system=system,
                loops=loops,
                context=context,
                threads=threads,
                memory=memory,
                seed=seed,
                report_piece=_print_line if json else lambda piece: text.add(piece.text),
            )
            if not json:
                text.add(result.rest)
        finally:
            if sys.exc_info()[0] is not BrokenPipeError:
                text.end()
        _end(result, output)
        if profile:
            _measure(model, result, loops, threads, output)


def _measure(
    model: Path,
    result: "GeneratedText",
    loops: int | None,
    threads: int | None,
    output: Output,
) -> None:
    """Print what decoding takes behind a text as long as the one that was written, and what an untied twin takes."""
    import loopedge
    from loopedge_cli.views import profile_view

    with output.status(f"measuring {model}"):
        measured = loopedge.profile(
            [model],
            untied=True,
            threads=threads or 1,
            sequence=result.prompt_tokens + result.new_tokens,
            loops=loops,
        )
    for note in measured.notes:
        output.note(f"note: {note}")
    if not output.json:
        output.result(measured, profile_view)
        return
    with printing():
        line = dump_json({"profile": measured.to_json()}, indent=None)
        sys.stdout.write(f"{line}\n")


def _print_line(piece: "TextPiece") -> None:
    line = {"id": piece.id, "text": piece.text, "probability": piece.probability}
    with printing():
        sys.stdout.write(f"{dump_json(line, indent=None)}\n")


def _end(result: "GeneratedText", output: Output) -> None:
    for note in result.notes:
        output.note(f"note: {note}")
    if output.json:
        with printing():
            sys.stdout.write(f"{dump_json(result.to_json(), indent=None)}\n")
        return
    prefill = _rate_text(result.prefill, "prompt")
    output.note(f"{prefill}; {_rate_text(result.decode, 'generated')}")


def _rate_text(rate: "Rate", what: str) -> str:
    speed = rate.tokens_per_second
    fast = ""
    if speed is not None:
        taken = time_text(rate.seconds * 1e3)
        fast = f" in {taken}, {speed:,.{0 if speed >= 100 else 1}f} tokens/s"
    return f"{what}: {count_text(rate.tokens, 'token')}{fast}"


def _read_prompt() -> str:
    """Read standard input; one line break at its end is not of the prompt.

    Raises:
        InputError: It is closed, too long, or not UTF-8.
    """
    content = _standard_input().read(MOST_PROMPT_BYTES + 1)
    if len(content) > MOST_PROMPT_BYTES:
        raise InputError(
            f"the prompt on standard input has more than {MOST_PROMPT_BYTES >> 20} MiB"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt on standard input is not UTF-8: byte {error.start}"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("standard input is closed: there is no prompt to read")
    return sys.stdin.buffer
