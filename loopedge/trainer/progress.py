"""Progress of a run: a bar on a terminal, or one line per evaluation for logs."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from loopedge.tasks.metrics import Metrics
from loopedge.units import score_text

__all__ = [
    "Bar",
    "Progress",
    "ProgressLines",
    "bar_on_terminal",
    "duration_text",
    "scores_text",
]


class Progress(Protocol):
    """What the loop reports of itself."""

    def stepped(
        self, step: int, *, loss: float, tokens_per_second: float, seconds_left: float
    ) -> None:
        """Take note of a finished step."""
        ...

    def evaluated(self, step: int, validation: Metrics) -> None:
        """Take note of an evaluation."""
        ...


class ProgressLines:
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
        figures = f"{self._last}, validation {scores_text(validation)}{self._left}"
        self._write(f"step {step} of {self._steps}: {figures}")


class Bar:
    """Draws on a rich progress bar; see `bar_on_terminal`."""

    def __init__(self, update: Callable[..., None], metric: str) -> None:
        self._update, self._metric = update, metric
        self._score = ""

    def stepped(
        self, step: int, *, loss: float, tokens_per_second: float, seconds_left: float
    ) -> None:
        """Move the bar, which reckons the time left itself."""
        figures = f"loss {loss:.4f}{self._score}, {tokens_per_second:,.0f} tokens/s"
        self._update(completed=step, figures=figures)

    def evaluated(self, step: int, validation: Metrics) -> None:
        """Show the metric that decides from here on."""
        self._score = f", {self._metric} {score_text(validation[self._metric])}"


@contextlib.contextmanager
def bar_on_terminal(steps: int, metric: str, *, done: int = 0) -> Iterator[Progress | None]:
    """Draw a bar on stderr with time left, loss, metric and speed; None without a terminal.

    On a narrow terminal the figures are cut, not the bar.

    Args:
        steps: Of the whole run.
        metric: The one that is shown.
        done: Steps that an earlier run made.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class Figures(TextColumn):
        def render(self, task: Task) -> Text:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    columns = (
        BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        Figures("{task.fields[figures]}", table_column=Column()),  # the only one that may shrink
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("", total=steps, completed=done, figures="")
        yield Bar(lambda **fields: bar.update(row, **fields), metric)


def duration_text(seconds: float) -> str:
    """Say a time the way people do: ``40 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def scores_text(metrics: Mapping[str, float | None]) -> str:
    """Say the scores over all that is asked: ``rmse 1.2, mase 0.9``; those of each of several targets are left out."""
    return ", ".join(
        f"{name} {score_text(value)}" for name, value in metrics.items() if "." not in name
    )
