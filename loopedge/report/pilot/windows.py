"""Plotted forecasts: the chosen model and the strongest baseline against what was observed."""

from html import escape

from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from loopedge.study.plotted.window import PlottedWindow
from loopedge.study.result import PilotResult

__all__ = ["windows_section"]


def windows_section(result: PilotResult, words: Wording) -> list[str]:
    """Return a chart per stored window; nothing where none is stored."""
    if not result.windows:
        return []
    first = result.windows[0]
    candidate = words.candidate({"arm": first.arm, "loops": first.loops})
    note = words("windows_note", candidate=candidate)
    return [
        f"<h2>{escape(words('windows'))}</h2>",
        '<div class="panels">',
        *(line for window in result.windows for line in _figure(window, words)),
        "</div>",
        f'<p class="note">{escape(note)}</p>',
    ]


def _figure(window: PlottedWindow, words: Wording) -> list[str]:
    chosen = words(f"windows_caption_{window.chosen_by}")
    name = (
        words("window_series", target=window.target, series=window.series, chosen=chosen)
        if window.series
        else words("window_of", target=window.target, chosen=chosen)
    )
    candidate = words.candidate({"arm": window.arm, "loops": window.loops})
    values = {"model": words.score(window.error), "candidate": candidate}
    errors = words("window_error", **values)
    if window.baseline_name is not None and window.baseline_error is not None:
        other, baseline = words.score(window.baseline_error), words.baseline(window.baseline_name)
        errors = words("window_error_both", **values, other=other, baseline=baseline)
    past, ahead = len(window.history), len(window.truth)
    observed = _marks([*window.history, *window.truth], first=1 - past)
    series = [
        Series(name=words("truth"), colour="ink", marks=observed, dots=False),
        Series(
            name=candidate, colour="op0", marks=_marks(window.forecast, first=1), dots=ahead <= 24
        ),
    ]
    if window.baseline is not None and window.baseline_name is not None:
        marks = _marks(window.baseline, first=1)
        name_of = words.baseline(window.baseline_name)
        series.append(Series(name=name_of, colour="op2", marks=marks, dots=False, broken=True))
    return [
        "<figure>",
        f"<figcaption><b>{escape(name)}</b><br>{escape(errors)}</figcaption>",
        *chart(
            [one for one in series if one.marks],
            across=Axis(name=words("axis_steps"), from_zero=False),
            upward=Axis(name=window.target, from_zero=False),
            words=words.chart,
            divide=0.5,
        ),
        "</figure>",
    ]


def _marks(values: list[float | None], *, first: int) -> list[Mark]:
    return [Mark(x=float(first + i), y=v) for i, v in enumerate(values) if v is not None]
