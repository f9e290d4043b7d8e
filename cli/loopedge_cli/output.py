"""The one output sink: data on stdout, people's notes and progress on stderr, errors in one line.

Every command opens `sink` around its work, hands its result to `Output.result`, and says what else a
person should know with `Output.note`. The options that all commands share are typed here.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from loopedge.errors import (
    DivergedError,
    InputError,
    InterruptedRunError,
    LoopedgeError,
    MissingExtraError,
)
from loopedge.files.plain_json import dump_json
from loopedge.options import naming_flags
from loopedge_cli.exits import ExitCode, exit_code
from loopedge_cli.interrupts import raise_as_exception
from loopedge_cli.streams import printing, say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "Debug",
    "Force",
    "Json",
    "Output",
    "Quiet",
    "Result",
    "print_error",
    "sink",
    "speaks",
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but the path that was written.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing target.")]

PIPE_WIDTH = 140  # rich takes 80 columns where there is no terminal, and cuts tables to fit
SHARED = (InputError, InterruptedRunError, DivergedError)
"""Errors that are the same in all processes of a run: one process prints them."""
EXTRA_OF = {"torch": "train", "onnxscript": "train", "scipy": "train"}
"""Packages that the base install leaves out, and the extra that brings them."""


class Result(Protocol):
    """What every verb of loopedge returns."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values under documented keys."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where a command's words go.

    Args:
        json: The result is printed as JSON instead of for people.
        quiet: Notes and progress are dropped; a result is only the path that was written.
        debug: Errors come with their traceback.
    """

    json: bool = False
    quiet: bool = False
    debug: bool = False

    @property
    def interactive(self) -> bool:
        """Whether progress may be drawn: a person watches stderr and did not ask for quiet."""
        return not self.quiet and sys.stderr is not None and sys.stderr.isatty()

    def result(
        self,
        result: Result,
        render: Callable[[Any], "RenderableType"],
        *,
        written: str | Path | None = None,
    ) -> None:
        """Print a result on stdout.

        Args:
            result: The result of a verb.
            render: Makes it readable for people; called in human mode only.
            written: The path a quiet command prints; an error says that it stands there.

        Raises:
            InputError: Standard output is closed, or its disk is full.
        """
        text = f"{written}\n" if written is not None else ""
        if self.json:
            text = dump_json(result.to_json()) + "\n"
        elif not self.quiet:
            shown = render(result)
            with printing(written):
                console(sys.stdout).print(shown)
            return
        if text:
            with printing(written):
                sys.stdout.write(text)

    def note(self, text: str) -> None:
        """Print one line for people on stderr."""
        if not self.quiet:
            say(f"{text}\n")

    @contextlib.contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner on stderr while the block runs, on a terminal only; yield what adds to its text."""
        if not self.interactive:
            yield lambda more: None
            return
        with console(sys.stderr).status(text) as shown:
            yield lambda more: shown.update(f"{text}: {more}")

    @contextlib.contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Yield ``update(done, note)`` that draws a bar on stderr, on a terminal only.

        Args:
            text: What is under way.
            total: Steps altogether.
        """
        if not self.interactive:
            yield lambda done, note: None
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
            task = bar.add_task(text, total=total, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)


@contextlib.contextmanager
def sink(*, json: bool = False, quiet: bool = False, debug: bool = False) -> Iterator[Output]:
    """Yield the output of a command; turn what it raises into one line and an exit code.

    Raises:
        typer.Exit: With the code of `loopedge_cli.exits`.
    """
    try:
        raise_as_exception()
        with naming_flags():
            yield Output(json=json, quiet=quiet, debug=debug)
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        print_error("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        if debug:
            say(traceback.format_exc())
        explained = _explain(error)
        if speaks() or not isinstance(explained, SHARED):
            print_error(explained.message, explained.hint)
        raise typer.Exit(exit_code(explained)) from None


def speaks() -> bool:
    """Return whether this process prints what all processes of a run on this machine find."""
    return os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0"


def print_error(message: str, hint: str | None = None) -> None:
    """Print ``error: message`` and ``hint: command`` on stderr, one line each."""
    say(f"error: {_one_line(message)}\n")
    if hint:
        say(f"hint: {_one_line(hint)}\n")


def console(stream: Any) -> "Console":
    """Return a console that writes to ``stream`` and does not cut tables where it is a pipe."""
    from rich.console import Console

    return Console(
        file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, emoji=False
    )


def _explain(error: Exception) -> LoopedgeError:
    if isinstance(error, LoopedgeError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
        return MissingExtraError("this command", extra=EXTRA_OF[error.name])
    if isinstance(error, OSError) and error.filename:
        return InputError(f"{error.filename}: {error.strerror}")
    return LoopedgeError(
        f"unexpected {type(error).__name__}: {error}", hint="run it again with --debug"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
