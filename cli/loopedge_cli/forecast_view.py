"""What a model says of a table, for people: which series, which times, rounded numbers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from loopedge_cli.page import count_text, plain, rows_list

__all__ = ["decimals_of", "forecast_lists", "forecast_rows"]

SHOWN = 24
"""Lines of a forecast that are shown."""
STEPS = 4
"""Steps of each series that are shown at least, where there are several series."""
TARGETS = 4
"""Columns that are shown, each with its intervals."""


def forecast_rows(forecast: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what was forecast, and of how many series."""
    series = forecast["series"]
    of = plain(forecast["table"])
    if forecast["group"] is not None:
        of = f"{count_text(len(series), 'series', 'series')} of {of}, by {plain(repr(forecast['group']))}"
    if forecast["label"] is not None:
        return [("label", f"{plain(repr(forecast['label']))} of {of}")]
    steps = len(next(iter(series[0]["values"].values())))
    targets = ", ".join(map(repr, forecast["targets"]))
    return [("forecast", f"{plain(targets)}, {count_text(steps, 'step')} ahead, of {of}")]


def forecast_lists(forecast: dict[str, Any]) -> list[Any]:
    """List the first steps of the first series, or the first labels."""
    series = forecast["series"]
    first = "" if forecast["group"] is None else forecast["group"]
    if forecast["label"] is not None:
        rows = [_label(one) for one in series[:SHOWN]]
        last = [] if forecast["time_column"] is None else [forecast["time_column"]]
        heads = [*last, forecast["label"], "probability"]
        more = len(series) - len(rows)
        return [_list(first, heads, rows, more and count_text(more, "series", "series"))]
    targets = forecast["targets"][:TARGETS]
    steps = len(series[0]["values"][targets[0]])
    shown_steps = min(steps, max(STEPS, SHOWN // len(series)))
    shown = series[: max(1, SHOWN // shown_steps)]
    texts = {target: _texts(forecast, target, shown, shown_steps) for target in targets}
    rows = [
        [
            *([] if forecast["group"] is None else [one["name"] if step == 0 else ""]),
            one["times"][step] if one["times"] else str(step + 1),
            *(cell for target in targets for cell in texts[target][number][step]),
        ]
        for number, one in enumerate(shown)
        for step in range(shown_steps)
    ]
    levels = list(shown[0]["intervals"])
    heads = [forecast["time_column"] if series[0]["times"] and forecast["time_column"] else "step"]
    for target in targets:
        heads += [target, *(f"{level} %" for level in levels)]
    more = len(series) * steps - len(rows)
    return [_list(first, heads, rows, more and count_text(more, "step"))]


def _label(one: dict[str, Any]) -> list[str]:
    first = [] if one["name"] is None else [one["name"]]
    return [*first, *one["times"], one["label"], f"{one['probabilities'][one['label']]:.3f}"]


def _texts(
    forecast: dict[str, Any], target: str, shown: Sequence[dict[str, Any]], steps: int
) -> list[list[list[str]]]:
    """Return the cells of a target by series and step: the value and its intervals, with as many decimals as tell them apart."""
    found = []
    for one in shown:
        values = one["values"][target][:steps]
        decimals = decimals_of(values)  # series of one table may stand at 1 and at 40,000
        ends = [levels[target] for levels in one["intervals"].values()]
        found.append(
            [
                [
                    f"{value:z.{decimals}f}",
                    *(
                        f"{end['low'][step]:z.{decimals}f} .. {end['high'][step]:z.{decimals}f}"
                        for end in ends
                    ),
                ]
                for step, value in enumerate(values)
            ]
        )
    return found


def decimals_of(values: Iterable[float]) -> int:
    """Return how many decimals show four digits of values, or three of what they differ by, where that is less."""
    finite = [value for value in values if math.isfinite(value)]
    largest = max(map(abs, finite), default=0.0)
    spread = max(finite, default=0.0) - min(finite, default=0.0)
    digits = 3 - math.floor(math.log10(largest)) if largest else 0
    if spread:
        digits = max(digits, 2 - math.floor(math.log10(spread)))
    return min(max(digits, 0), 12)


def _list(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], more: int | str) -> Any:
    """Return a list of all rows, and below it what more there is: in words, or 0."""
    first, *others = [title, *heads] if title else list(heads)
    found = rows_list(first, others, [tuple(row) for row in rows])
    if more and found is not None:
        found.add_row(f"[dim]and {more} more, see --json or -o FILE.csv[/dim]")
    return found
