"""The pilot for the terminal: the sentences of the verdict, the leaderboard, what the models cost."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopedge.report.pilot.first_screen import place_name
from loopedge.report.pilot.leaderboard import is_recommended
from loopedge.report.pilot.wording import Wording, wording
from loopedge.study.judging.summary import Summary
from loopedge.study.result import PilotResult, Place

__all__ = ["pilot_table"]


def pilot_table(result: PilotResult, *, language: str = "en") -> RenderableType:
    """Return the verdict, the leaderboard with the cost of each model, and what its figures are.

    Args:
        result: What the pilot found.
        language: ``en`` or ``ja``.

    Raises:
        InputError: There are no words of the language.
    """
    words = wording(language)
    shown: list[RenderableType] = []
    if not result.complete:
        text = words("unfinished", made=result.made, planned=result.planned)
        shown += [Text(text, "bold yellow"), ""]
    shown.append(Text(words.headline(result), "bold"))
    shown += [Text(sentence) for sentence in words.sentences(result.verdict.statements[1:], result)]
    better = words("higher" if result.higher_is_better else "lower")
    note = words("leaderboard_note", metric=result.metric, better=better)
    return Group(*shown, "", _board(result, words), Text(note, "dim"))


def _board(result: PilotResult, words: Wording) -> Table:
    """Return a row per place; long names are folded, numbers never cut."""
    forecast = result.task.get("mase_season") is not None
    costs = {(row.arm, row.loops): row for row in result.summary}
    measured = any("float" in row.cost for row in result.summary)
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    shown.add_column(words("head_model"), overflow="fold", min_width=12)
    heads = ["validation", "test", *(["mase"] if forecast else []), "runs"]
    heads += ["file", "p50"] if measured else []
    for head in heads:
        shown.add_column(words(f"head_{head}"), justify="right", overflow="fold")
    for place in result.leaderboard:
        row = costs.get((place.arm or "", place.loops or 0))
        shown.add_row(
            *(Text(cell) for cell in _cells(place, words, forecast=forecast)),
            *(Text(cell) for cell in _cost(row, words) if measured),
            style="bold" if is_recommended(place, result) else None,
        )
        if place.reason:
            shown.add_row(Text(f"  {place.reason}", "dim"))
    return shown


def _cells(place: Place, words: Wording, *, forecast: bool) -> list[str]:
    scored = place.test is not None
    mase = words.score(place.mase) if place.mase is not None else words("undefined")
    return [
        place_name(place, words),
        words.score(place.validation) if scored else words("no_score"),
        words.spread(place.test, place.deviation),
        *((mase if scored else "-",) if forecast else ()),
        f"{place.finished}/{place.runs}",
    ]


def _cost(row: Summary | None, words: Wording) -> list[str]:
    if row is None or "float" not in row.cost:
        return ["-", "-"]
    figures = row.cost["float"]
    return [
        words.size(figures["file_bytes"]),
        words.sample_time(figures["latency_ms"]["p50"] / 1000),
    ]
