"""Progress of a run: a bar on a terminal, or one line per evaluation for logs."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from loopedge.tasks.metrics import Metrics

__all__ = ["Bar", "Lines", "Progress", "bar_on_terminal", "duration_text"]


class Progress(Protocol):
    """What the loop tells of itself."""

    def stepped(
        self, step: int, *, loss: float, tokens_per_second: float, seconds_left: float
    ) -> None:
        """Take note of a finished step."""
        ...

    def evaluated(self, step: int, validation: Metrics) -> None:
        """Take note of an evaluation."""
        ...


class Lines:
    """Hands one line per evaluation to ``write``.

    Args:
        steps: Of the whole run.
        write: Takes a line without its end.
    """

    def __init__(self, steps: int, write: Callable[[str], None]) -> None:
        self._steps, self._write = steps, write
        self._last = self._left = ""

    def stepped(
        self, step: int, *, loss: float, tokens_per_second: float, seconds_left: float
    ) -> None:
        """Keep the figures for the next evaluation."""
        self._last = f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s"
        self._left = f", {duration_text(seconds_left)} left" if step < self._steps else ""

    def evaluated(self, step: int, validation: Metrics) -> None:
        """Write a line."""
        told = f"{self._last}, validation {_text(validation)}{self._left}"
        self._write(f"step {step} of {self._steps}: {told}")


class Bar:
    """Draws on a rich progress bar; see `bar_on_terminal`."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def stepped(
        self, step: int, *, loss: float, tokens_per_second: float, seconds_left: float
    ) -> None:
        """Move the bar, which reckons the time left itself."""
        self._update(completed=step, loss=f"{loss:.4f}", speed=f"{tokens_per_second:,.0f}")

    def evaluated(self, step: int, validation: Metrics) -> None:
        """Show the metrics."""
        self._update(metrics=_text(validation))


@contextlib.contextmanager
def bar_on_terminal(steps: int, *, done: int = 0) -> Iterator[Progress | None]:
    """Draw a bar on stderr with loss, tokens per second and time left; None without a terminal.

    Args:
        steps: Of the whole run.
        done: Steps that an earlier run made.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[speed]} tokens/s"),
        TextColumn("{task.fields[metrics]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("", total=steps, completed=done, loss="-", speed="-", metrics="")
        yield Bar(lambda **fields: bar.update(row, **fields))


def duration_text(seconds: float) -> str:
    """Say a time the way people do: ``40 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _text(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
