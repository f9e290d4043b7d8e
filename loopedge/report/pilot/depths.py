"""Depth after training: each model run with other loop counts than it was trained with."""

from collections.abc import Sequence
from html import escape
from statistics import fmean
from typing import Any

from loopedge.report.page import table
from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from loopedge.study.result import PilotResult

__all__ = ["depth_curve", "depths_section"]


def depths_section(result: PilotResult, words: Wording) -> list[str]:
    """Return a panel of curves for each arm; nothing where no run was judged at other counts."""
    arms = list(dict.fromkeys(cell["arm"] for cell in result.cells if cell.get("depths")))
    panels = [line for arm in arms for line in _panel(arm, result, words)]
    if not panels:
        return []
    return [
        f"<h2>{escape(words('depths'))}</h2>",
        '<div class="panels">',
        *panels,
        "</div>",
        f'<p class="note">{escape(words("depths_note"))}</p>',
        *_early_exits(result, words),
    ]


def _early_exits(result: PilotResult, words: Wording) -> list[str]:
    """Return a row for each model that may stop early; nothing where none may."""
    keys = dict.fromkeys((cell["arm"], cell["loops"]) for cell in result.cells)
    rows = [row for key in keys if (row := _early_exit(key, result, words))]
    if not rows:
        return []
    heads = ("model", "exit_runs", "exit_loops", "exit_test", "test", "exit_tolerance")
    return [
        f"<h3>{escape(words('early_exit'))}</h3>",
        *table([words(f"head_{head}") for head in heads], rows),
        f'<p class="note">{escape(words("early_exit_note"))}</p>',
    ]


def _early_exit(key: tuple[str, int], result: PilotResult, words: Wording) -> list[str]:
    """Return how many runs of a model may stop early, after how many loops, and what that does to the metric."""
    of_key = [cell for cell in result.cells if (cell["arm"], cell["loops"]) == key]
    exits = [cell for cell in of_key if cell.get("early_exit")]
    if not exits:
        return []
    found = [cell["early_exit"] for cell in exits]
    tested = [one["test"].get(result.metric) for one in found]
    whole = [cell["test"].get(result.metric) for cell in exits]
    return [
        words.candidate({"arm": key[0], "loops": key[1]}),
        words("runs_of", finished=len(exits), runs=len(of_key)),
        f"{fmean(one['loops'] for one in found):.1f}",
        words.score(fmean(value for value in tested if value is not None)),
        words.score(fmean(value for value in whole if value is not None)),
        " ".join(dict.fromkeys(f"{one['tolerance']:g}" for one in found)),
    ]


def depth_curve(
    cells: Sequence[dict[str, Any]], split: str, metric: str
) -> list[tuple[int, float]]:
    """Return loop counts and the mean metric over the runs that have them all."""
    values: dict[int, list[float]] = {}
    for cell in cells:
        for loops, scores in (cell.get("depths") or {}).items():
            value = (scores.get(split) or {}).get(metric)
            if value is not None:
                values.setdefault(int(loops), []).append(value)
    most = max(map(len, values.values()), default=0)
    return [(loops, fmean(found)) for loops, found in sorted(values.items()) if len(found) == most]


def _panel(arm: str, result: PilotResult, words: Wording) -> list[str]:
    of_arm = [cell for cell in result.cells if cell["arm"] == arm and cell.get("depths")]
    trained = sorted({cell["loops"] for cell in of_arm})
    series = []
    for number, loops in enumerate(trained):
        cells = [cell for cell in of_arm if cell["loops"] == loops]
        for split in ("test", "validation"):
            curve = depth_curve(cells, split, result.metric)
            if curve:
                series.append(_series(curve, split, loops, number, words))
    if not series:
        return []
    return [
        "<figure>",
        f"<figcaption><b>{escape(arm)}</b></figcaption>",
        *chart(
            series,
            across=Axis(name=words("axis_loops"), ticks=sorted({1, *trained, 2 * trained[-1]})),
            upward=Axis(name=result.metric, from_zero=False),
            words=words.chart,
        ),
        "</figure>",
    ]


def _series(
    curve: Sequence[tuple[int, float]], split: str, trained: int, number: int, words: Wording
) -> Series:
    """Return a curve; the count that it was trained with is a ring."""
    return Series(
        name=words("trained_at", loops=words.loops(trained)) if split == "test" else "",
        colour=f"op{number}",
        marks=[
            Mark(
                x=float(loops),
                y=value,
                hollow=True,
                dot=loops == trained,
                title=f"{words.loops(loops)}, {words(f'split_{split}')}: {words.score(value)}",
            )
            for loops, value in curve
        ],
        broken=split == "validation",
    )
