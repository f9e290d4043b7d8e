"""Language modelling and sequence to sequence on the user's own text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.task import Task

Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json", help="A tokenizer of the tokenizers library; default: bytes."
    ),
]
TrainTokenizer = Annotated[
    int | None,
    typer.Option(
        "--train-tokenizer",
        metavar="VOCAB",
        help="Train byte-pair encoding of so many tokens on the training part.",
    ),
]
Validation = Annotated[
    Path | None, typer.Option(help="The validation part, where it is a file of its own.")
]
Test = Annotated[Path | None, typer.Option(help="The test part, where it is a file of its own.")]


@task("text", steps=2000)
def text(
    *,
    data: Annotated[
        Path, typer.Argument(metavar="PATH", help="A text file, or a folder of them, in UTF-8.")
    ],
    context: Annotated[int, typer.Option(min=1, help="Bytes or tokens that are seen.")] = 128,
    tokenizer: Tokenizer = None,
    train_tokenizer: TrainTokenizer = None,
    validation: Validation = None,
    test: Test = None,
    seed: int,
) -> "Task":
    """Predict the next byte or token of a text."""
    from loopedge.tasks.text import TextTask

    return TextTask.from_path(
        data,
        context=context,
        tokenizer=tokenizer,
        train_tokenizer=train_tokenizer,
        validation=validation,
        test=test,
        seed=seed,
    )


@task("pairs", steps=2000)
def pairs(
    *,
    data: Annotated[
        Path, typer.Argument(metavar="DATA.jsonl", help="A JSON object a line, in UTF-8.")
    ],
    source: Annotated[str, typer.Option(help="Key of what the model reads.")] = "input",
    target: Annotated[str, typer.Option(help="Key of what it shall write.")] = "output",
    length: Annotated[
        int, typer.Option(help="Most tokens of source, separator and target together.")
    ] = 256,
    skip_long: Annotated[
        bool, typer.Option("--skip-long", help="Leave out longer pairs instead of refusing them.")
    ] = False,
    tokenizer: Tokenizer = None,
    train_tokenizer: TrainTokenizer = None,
    validation: Validation = None,
    test: Test = None,
    seed: int,
) -> "Task":
    """Write a text from another: translate, convert, correct."""
    from loopedge.tasks.pairs import PairsTask

    return PairsTask.from_jsonl(
        data,
        source=source,
        target=target,
        length=length,
        tokenizer=tokenizer,
        train_tokenizer=train_tokenizer,
        validation=validation,
        test=test,
        skip_long=skip_long,
        seed=seed,
    )
