"""Memory and latency against the loop count, where several were profiled."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from loopedge.profiler.figures import FIGURE_NAMES, figure_of, memory_figure, spread_of
from loopedge.profiler.labels import setting_columns, settings_text, swept
from loopedge.profiler.result import Run
from loopedge.report.profile.colours import colour_of
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from loopedge.report.svg.units import byte_unit, time_unit
from loopedge.units import size_text, time_text

__all__ = ["scaling_section"]

COLOURS = ("op4", "op5", "op0", "op7", "op1")
"""Of further lines of a kind that has one already."""


def scaling_section(runs: Sequence[Run]) -> list[str]:
    """Return a chart of peak memory and one of latency; a line is a model, or a kind of model."""
    lines = _lines([run for run in runs if run.loops is not None])
    if not lines:
        return []
    counts = sorted({run.loops for of_line in lines.values() for run in of_line if run.loops})
    shown = ["<h2>Against the loop count</h2>", '<div class="panels">']
    every = [run for of_line in lines.values() for run in of_line]
    memory = memory_figure(every)
    for title, what, figure, text, unit_of in (
        ("Memory", FIGURE_NAMES[memory], memory, size_text, byte_unit),
        ("Latency", "median latency", "latency_ms.p50", time_text, time_unit),
    ):
        unit = unit_of([figure_of(run, figure) for run in every])
        series = [
            Series(
                name=name,
                colour=colour,
                marks=[_mark(run, figure, unit.divisor, f"{name}, {run.loops} loops: "
                             f"{text(figure_of(run, figure))}") for run in of_line],
            )
            for (name, of_line), colour in zip(lines.items(), _colours(lines), strict=True)
        ]  # fmt: skip
        shown += [
            "<figure>",
            f"<figcaption><b>{title}</b>: {what} against loops</figcaption>",
            *chart(
                series,
                across=Axis(name="loops", ticks=counts),
                upward=Axis(name=f"{what} ({unit.name})"),
            ),
            "</figure>",
        ]
    return [*shown, "</div>"]


def _lines(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each line of several loop counts by its name."""
    settings = [setting for setting in setting_columns(runs, always=()) if setting != "loops"]
    by_file = "loops" in swept(runs) or _meet(runs, settings)
    found: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        shared = (run.twin, *(getattr(run, name) for name in settings))
        found[(run.path if by_file else None, *shared)].append(run)
    lines = [of_line for of_line in found.values() if len({run.loops for run in of_line}) > 1]
    return {
        name: sorted(of_line, key=lambda run: run.loops or 0)
        for name, of_line in zip(_names(lines, settings, by_file), lines, strict=True)
    }


def _names(lines: Sequence[Sequence[Run]], settings: Sequence[str], by_file: bool) -> list[str]:
    """Return the shortest names that tell the lines apart."""
    paths = {of_line[0].path for of_line in lines}
    short_paths = len({Path(path).name for path in paths}) == len(paths)
    parts = [
        (
            _file(of_line[0], short=short_paths),
            settings_text(of_line[0], settings),
            of_line[0].twin or "tied",
        )
        for of_line in lines
    ]
    short = [twin for _, _, twin in parts]
    with_file = [f"{file}, {twin}" for file, _, twin in parts]
    with_settings = [", ".join([*texts, twin]) for _, texts, twin in parts]
    full = [", ".join([file, *texts, twin]) for file, texts, twin in parts]
    for names in (short, *([with_file] if by_file else [with_settings])):
        if len(set(names)) == len(lines):
            return names
    return full


def _file(run: Run, *, short: bool) -> str:
    """Return the name of a run's file, with its folder where another has the same."""
    path = Path(run.path)
    return path.name if short else f"{path.parent.name}/{path.name}"


def _meet(runs: Sequence[Run], settings: Sequence[str]) -> bool:
    """Tell whether two files stand at the same loop count with the same settings."""
    seen = [(run.twin, run.loops, *(getattr(run, name) for name in settings)) for run in runs]
    return len(set(seen)) < len(seen)


def _colours(lines: dict[str, list[Run]]) -> list[str]:
    taken: list[str] = []
    for of_line in lines.values():
        kind = colour_of(of_line[0])
        free = [colour for colour in COLOURS if colour not in taken]
        taken.append(kind if kind not in taken or not free else free[0])
    return taken


def _mark(run: Run, figure: str, divisor: float, title: str) -> Mark:
    spread = spread_of(run, figure)
    return Mark(
        x=float(run.loops or 0),
        y=figure_of(run, figure) / divisor,
        low=spread.low / divisor if spread else None,
        high=spread.high / divisor if spread else None,
        title=title,
    )
