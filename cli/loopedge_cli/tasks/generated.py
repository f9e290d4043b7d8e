"""Tasks whose data is generated: those of the paper, and sorting."""

from typing import TYPE_CHECKING, Annotated

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.data.task import Task


@task("edit-distance", loops=12, steps=5000, batch_size=64)
def edit_distance(
    *,
    length: Annotated[int, typer.Option(help="Letters of the strings.")] = 20,
    letters: Annotated[int, typer.Option(help="Letters of the alphabet, 3 to 26.")] = 26,
    prefixes: Annotated[
        bool, typer.Option("--prefixes", help="Ask for the distance of each prefix too.")
    ] = False,
    seed: int,
) -> "Task":
    """Tell the edit distance of two random strings (the paper's task)."""
    from loopedge.data.edit_distance import EditDistanceTask

    return EditDistanceTask(length=length, letters=letters, prefixes=prefixes, seed=seed)


@task("sorting", steps=2000, batch_size=64)
def sorting(
    *,
    length: Annotated[int, typer.Option(help="Tokens to sort.")] = 16,
    vocab: Annotated[int, typer.Option(help="Distinct tokens.")] = 64,
    seed: int,
) -> "Task":
    """Sort random tokens."""
    from loopedge.data.sorting import SortingTask

    return SortingTask(length=length, vocab=vocab, seed=seed)
