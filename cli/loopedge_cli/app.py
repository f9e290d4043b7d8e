"""The ``loopedge`` command.

A command is a file of `loopedge_cli.commands` that holds a function, or a `typer.Typer` of
subcommands, of the file's own name: put the file there and it is registered. Nothing here or there imports torch, onnx, onnxruntime or numpy
before a command runs, so that ``loopedge --help`` answers at once.
"""

import importlib
import pkgutil
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loopedge import __version__
from loopedge_cli import commands
from loopedge_cli.arguments import USAGE_ERROR, CheckedCommand
from loopedge_cli.exits import ExitCode
from loopedge_cli.output import print_error, speaks
from loopedge_cli.streams import flush_streams, open_streams, unprinted

__all__ = ["PROGRAM", "app", "run"]

PROGRAM = "loopedge"
ORDER = (
    "diagnose",
    "train",
    "pilot",
    "export",
    "reroll",
    "unroll",
    "quantize",
    "to-generate",
    "convert",
    "prepare",
    "profile",
    "compare",
    "inspect",
    "evaluate",
    "run",
    "generate",
)
"""How ``--help`` lists the commands: along the chain; others follow by name."""


class OneLineGroup(TyperGroup):
    """A command group whose usage errors are one line and a hint, like all others."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run the command line; with ``standalone_mode``, leave with the exit code."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except USAGE_ERROR as error:
            path = error.ctx.command_path if error.ctx else PROGRAM
            if speaks():
                message = error.format_message().replace(
                    ": Value error, ", ": "
                )  # typer's own choices
                print_error(message, getattr(error, "hint", None) or f"{path} --help")
            code = int(ExitCode.BAD_INPUT)
        except typer.Abort:
            code = int(ExitCode.INTERRUPTED)
        if standalone_mode:
            sys.exit(code or 0)
        return code

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names along the chain; typer would put groups of commands last."""
        found = super().list_commands(ctx)
        return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=OneLineGroup,
    help="Take a looped (weight-tied) transformer from training to the device, its tie intact.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _register() -> None:
    found = {
        module.name.replace("_", "-"): module.name
        for module in pkgutil.iter_modules(commands.__path__)
    }
    for name in [*(name for name in ORDER if name in found), *sorted(found.keys() - set(ORDER))]:
        module = importlib.import_module(f"{commands.__name__}.{found[name]}")
        command = getattr(module, found[name])
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, cls=CheckedCommand)(command)


def run() -> int:
    """Run the command line of this process and return its exit code; what was printed has got there."""
    open_streams()
    code, failed = 0, None
    try:
        code = int(app(prog_name=PROGRAM, standalone_mode=False) or 0)
    except OSError as error:  # of help and the like; a command's own errors became its code
        failed = unprinted(error)
    failed = flush_streams() or failed
    if failed is None:
        return code
    print_error(failed.message, failed.hint)
    return code or ExitCode.BAD_INPUT


_register()
