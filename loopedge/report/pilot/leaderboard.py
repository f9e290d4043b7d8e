"""Everything that was compared, best on the validation split first; rows that failed stay."""

from html import escape

from loopedge.report.page import Cell, table
from loopedge.report.pilot.first_screen import place_name
from loopedge.report.pilot.wording import Wording
from loopedge.study.result import PilotResult, Place

__all__ = ["leaderboard_section"]


def leaderboard_section(result: PilotResult, words: Wording) -> list[str]:
    """Return the table, and how to read it."""
    if not result.leaderboard:
        return []
    forecast = result.task.get("mase_season") is not None
    heads = ["model", "kind", "validation", "test", *(["mase"] if forecast else []), "runs"]
    rows = [_row(place, result, words, forecast=forecast) for place in result.leaderboard]
    better = words("higher" if result.higher_is_better else "lower")
    notes = [words("leaderboard_note", metric=result.metric, better=better)]
    if forecast:
        season = words.count("season", int(result.task["mase_season"]))
        notes.append(words("mase_note", season=season))
    if any(place.upper_bound for place in result.leaderboard):
        notes.append(words("upper_bound_note"))
    return [
        f"<h2>{escape(words('leaderboard'))}</h2>",
        *table([words(f"head_{head}") for head in heads], rows, marked=_marked(result)),
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
    ]


def is_recommended(place: Place, result: PilotResult) -> bool:
    """Return whether a row is the recommended model."""
    return {"arm": place.arm, "loops": place.loops} == result.verdict.recommended


def _marked(result: PilotResult) -> list[int]:
    return [i for i, place in enumerate(result.leaderboard) if is_recommended(place, result)]


def _row(place: Place, result: PilotResult, words: Wording, *, forecast: bool) -> list[Cell]:
    name = place_name(place, words)
    label = words("recommended") if is_recommended(place, result) else ""
    label = words("upper_bound") if place.upper_bound else label
    about = place.reason or place.about
    model: Cell = (words.joined([name, label]) if label else name, about, "en")
    scored = place.test is not None or place.validation is not None
    mase = [words.score(place.mase) if place.mase is not None else words("undefined")]
    return [
        model if about else (name, label),
        words(f"kind_{place.kind}"),
        words.score(place.validation) if scored else words("no_score"),
        words.spread(place.test, place.deviation),
        *((mase if scored else ["-"]) if forecast else ()),
        words("runs_of", finished=place.finished, runs=place.runs),
    ]
