"""The first screen: the decision, what it costs and saves, how sure it is, where it is weak, what comes next."""

import re
from html import escape

from loopedge.report.pilot.facts import count_words, first_facts, statement_of
from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.dots import Dot, dots
from loopedge.study.judging.statements import AgainstBaseline, Decision
from loopedge.study.judging.verdict import subject_of
from loopedge.study.options import UNLOOPED
from loopedge.study.result import PilotResult, Place

__all__ = ["first_screen", "place_name"]

MOST_WORDS = 120
MOST_DOTS = 7
FAR = 3.0
"""Rows that stand further off than so many times the distance of model and baseline would squeeze the others."""


def first_screen(result: PilotResult, words: Wording) -> list[str]:
    """Return the lines of the first screen: at most 120 words and one chart."""
    decision = statement_of(result, Decision)
    outcome = decision.outcome if decision else "undecided"
    question = words("question", task=_task_name(result))
    headline, chart = _headline(result, words), _chart(result, words)
    said = [question, words.outcomes[outcome], *headline, *chart[1:2]]
    room = MOST_WORDS - sum(count_words(re.sub("<[^>]*>", " ", text)) for text in said)
    facts = first_facts(result, words, most_words=room)
    return [
        '<header class="first">',
        '<div class="answer">',
        f'<p class="question">{escape(question)}</p>',
        f'<p class="outcome {outcome}">{escape(words.outcomes[outcome])}</p>',
        *(f'<p class="headline">{escape(text)}</p>' for text in headline),
        "<dl>",
        *(f"<dt>{escape(words(key))}</dt><dd>{escape(text)}</dd>" for key, text in facts.items()),
        "</dl>",
        "</div>",
        *chart,
        "</header>",
    ]


def _task_name(result: PilotResult) -> str:
    """Return the name of the task, with the columns that it forecasts or labels."""
    task = result.task
    columns = task.get("targets") or [task.get("label")]
    named = ", ".join(str(column) for column in columns[:3] if column)
    return f"{task['name']} ({named})" if named else str(task["name"])


def _headline(result: PilotResult, words: Wording) -> list[str]:
    """Return the sentence of the decision, and the comparison with the strongest baseline in short."""
    against = statement_of(result, AgainstBaseline)
    texts = [words.reason(result), _against(against, result, words) if against else ""]
    return [text for text in texts if text]


def _against(against: AgainstBaseline, result: PilotResult, words: Wording) -> str:
    text = words(
        "against",
        metric=result.metric,
        quality=words.quality(against.quality),
        baseline=words.baseline(against.baseline),
        value=words.score(against.value),
    )
    model = words.candidate(against.candidate)
    if model not in words.reason(result):
        text = words("against_model", model=model, text=text)
    change = against.difference
    if change is None or change.low is None or change.high is None:
        return words("sentence", text=text)
    if against.effect in {"better", "worse"}:
        low, high = sorted((abs(change.low), abs(change.high)))
        gap = abs(change.mean)
    else:
        gap, low, high = change.mean, change.low, change.high
    key = f"against_{against.effect}"
    interval = words("interval", low=words.rounded(low), high=words.rounded(high))
    more = words(key, gap=words.rounded(gap), interval=interval)
    return words("sentence", text=words("clauses", first=text, second=more))


def _chart(result: PilotResult, words: Wording) -> list[str]:
    """Draw the models and baselines that the decision is about, best first."""
    rows, far = _shown(result)
    if not rows:
        return []
    best_plain = _strongest(result)
    shown = [
        Dot(
            name=place_name(place, words),
            value=place.test or 0.0,
            spread=place.deviation,
            text=words.score(place.test),
            kind=_kind(place, result),
        )
        for place in rows
    ]
    better = words("higher" if result.higher_is_better else "lower")
    caption = words("first_caption", metric=result.metric, better=better)
    names = ", ".join(place_name(place, words) for place in far)
    beyond = f" {escape(words('off_chart', names=names))}" if far else ""
    level = None if best_plain is None else best_plain.test
    return [
        '<figure class="lead">',
        f"<figcaption>{escape(caption)}{beyond}</figcaption>",
        *dots(shown, level=level, name=caption, score=words.score),
        "</figure>",
    ]


def _shown(result: PilotResult) -> tuple[list[Place], list[Place]]:
    """Return the rows of the chart, best on the test split first, and those that stand too far off."""
    subject, plain = _subject(result), _strongest(result)
    scored = [place for place in result.leaderboard if place.test is not None]
    wanted = [place for place in (subject, plain) if place is not None]
    if subject is not None:
        wanted += [p for p in scored if p.arm == subject.arm][:1]
        same_arm = [p for p in scored if p.arm == subject.arm and p.loops is not None]
        wanted += sorted(same_arm, key=lambda p: p.loops or 0)[:1]
    wanted += [p for p in scored if p.arm in UNLOOPED]
    for arm in dict.fromkeys(p.arm for p in scored if p.kind == "looped"):
        wanted += [p for p in scored if p.arm == arm][:1]
    wanted += [p for p in scored if p.kind == "plain"]
    unique = list(dict.fromkeys(id(p) for p in wanted))
    rows = [next(p for p in wanted if id(p) == key) for key in unique]
    core = [p.test for p in (subject, plain) if p is not None and p.test is not None]
    if core:
        room = FAR * max(max(core) - min(core), 0.05 * max(map(abs, core)))
        near = [p for p in rows if min(core) - room <= (p.test or 0.0) <= max(core) + room]
    else:
        near = rows
    far = [p for p in rows if p not in near and p.kind != "plain"][:2]
    sign = -1.0 if result.higher_is_better else 1.0
    return sorted(near[:MOST_DOTS], key=lambda p: sign * (p.test or 0.0)), far


def _subject(result: PilotResult) -> Place | None:
    """Return the row of the model that the decision is about."""
    decision = statement_of(result, Decision)
    chosen = subject_of(result.verdict.choice, decision) if decision else None
    if chosen is None:
        return None
    found = (p for p in result.leaderboard if (p.arm, p.loops) == (chosen.arm, chosen.loops))
    return next((place for place in found if place.test is not None), None)


def _strongest(result: PilotResult) -> Place | None:
    """Return the row of the plain baseline that the model is held against."""
    against = statement_of(result, AgainstBaseline)
    plain = [p for p in result.leaderboard if p.kind == "plain" and not p.upper_bound]
    if against is not None:
        return next((p for p in plain if p.name == against.baseline), None)
    return next((p for p in plain if p.test is not None), None)


def _kind(place: Place, result: PilotResult) -> str:
    if place is _subject(result):
        return "chosen"
    return place.kind


def place_name(place: Place, words: Wording) -> str:
    """Return the name of a row of the leaderboard."""
    if place.arm is not None and place.loops is not None:
        return words.candidate({"arm": place.arm, "loops": place.loops})
    return words.baseline(place.name)
