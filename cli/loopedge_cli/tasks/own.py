"""A task of the user's own."""

from typing import TYPE_CHECKING, Annotated

import typer

from loopedge_cli.tasks import task

if TYPE_CHECKING:
    from loopedge.tasks.task import Task


@task("task", steps=2000, batch_size=64)
def own(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:CLASS",
            help="A subclass of loopedge.Task, looked for in the current folder too.",
        ),
    ],
    seed: int,
) -> "Task":
    """Train on a task of your own, a small Python class."""
    from loopedge.tasks.own import load_task

    return load_task(source, seed=seed)
