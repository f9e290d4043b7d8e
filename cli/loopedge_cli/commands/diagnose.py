"""``loopedge diagnose DATA``: what a table, a text or pairs hold, before any training."""

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loopedge_cli.arguments import CheckedCommand
from loopedge_cli.diagnose_view import diagnose_view
from loopedge_cli.output import Debug, Json, Quiet, sink
from loopedge_cli.tasks import TaskCommand, command_of, tasks

DESCRIBED = ("series", "text", "pairs")
"""Tasks of data of one's own; the others generate theirs."""
DEFAULT = "series"
HELPS = {"--help", "-h"}


class TableFirst(TyperGroup):
    """A group of commands whose first one is meant where none is named: ``diagnose data.csv --target y``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command before what names none.

        Raises:
            typer.BadParameter: A task is named that has no data.
        """
        if args and args[0] in {each.name for each in tasks()} - set(DESCRIBED):
            raise typer.BadParameter(
                f"the task {args[0]} generates its samples: there is no data to describe", ctx=ctx
            )
        if args and args[0] not in {*self.commands, *HELPS}:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


diagnose = typer.Typer(
    cls=TableFirst,
    help="Describe data before any training: what can be forecast, and what its test split can see. "
    "Without a kind of task: series.",
)


class DiagnoseFlags:
    """How much is looked at, and what is printed."""

    samples: Annotated[int, typer.Option(min=1, help="Most test samples, as of train.")] = 1024
    windows: Annotated[
        int, typer.Option(min=100, help="Most training windows that regressions are fitted on.")
    ] = 3000
    look_back: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most rows that are searched; default: twice the context and the season, at most 512.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False


def _run(command: TaskCommand, values: dict[str, Any]) -> None:
    """Describe the data of a task."""
    with sink(json=values["json"], quiet=values["quiet"], debug=values["debug"]) as output:
        from loopedge.diagnosis.options import DiagnoseOptions
        from loopedge.diagnosis.pipeline import at_found_context
        from loopedge.diagnosis.pipeline import diagnose as describe

        names = inspect.get_annotations(DiagnoseFlags)
        options = DiagnoseOptions(
            **{
                name: values[name]
                for name in names
                if name in {"samples", "windows", "look_back", "seed"}
            }
        )
        with output.status("describing the data"):
            if command.name != DEFAULT:
                task = command.task(values)
            else:
                task = _table(command, values, options, at_found_context)
            result = describe(task, options)
        output.result(result, diagnose_view)


def _table(
    command: TaskCommand, values: dict[str, Any], options: Any, at_found_context: Any
) -> Any:
    """Make the task of a table; without ``--context`` the one that its look-back asks for."""
    least = values["min_context"]
    horizon = values["horizon"]
    if horizon is None and not values["classify"]:
        horizon = 1
    if values["context"] is not None:
        return command.task({**values, "horizon": horizon})
    first = command.task({**values, "horizon": horizon, "context": least or 1})
    return at_found_context(first, options, min_context=least)


def _with_open_context(made: Any) -> Any:
    """Let a command be called without ``--context``."""
    signature = inspect.signature(made)
    parameters = [
        parameter.replace(
            default=None,
            annotation=Annotated[
                int | None,
                typer.Option(
                    min=1, help="Rows that a model sees; default: as many as explain most."
                ),
            ],
        )
        if parameter.name == "context"
        else parameter
        for parameter in signature.parameters.values()
    ]
    made.__signature__ = inspect.Signature(
        sorted(parameters, key=lambda p: p.default is not p.empty)
    )
    made.__annotations__ = {p.name: p.annotation for p in parameters}
    return made


for _task in tasks():
    if _task.name in DESCRIBED:
        _made = command_of(_task, _run, DiagnoseFlags)
        if _task.name == DEFAULT:
            _made = _with_open_context(_made)
        _made.__doc__ = "Describe the data of this task: " + (_task.build.__doc__ or "")
        diagnose.command(_task.name, cls=CheckedCommand)(_made)
