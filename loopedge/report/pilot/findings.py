"""What was found, in whole sentences, and the command of the next step."""

from dataclasses import replace
from html import escape

from loopedge.report.pilot.facts import statement_of
from loopedge.report.pilot.wording import Wording
from loopedge.study.judging.statements import NextStep
from loopedge.study.result import PilotResult

__all__ = ["findings_section"]


def findings_section(result: PilotResult, words: Wording) -> list[str]:
    """Return every sentence of the verdict, what is to be known of the data, and what is compared."""
    step = statement_of(result, NextStep)
    plain = [
        replace(one, command=None) if isinstance(one, NextStep) else one
        for one in result.verdict.statements[1:]
    ]
    sentences = words.sentences(plain, result)
    command = [] if step is None or not step.command else [step.command]
    arms = [
        f"<dt>{escape(arm)}</dt><dd>{escape(words.arms[arm])}</dd>"
        for arm in result.design["arms"]
        if arm in words.arms
    ]
    return [
        f"<h2>{escape(words('found'))}</h2>",
        '<ul class="findings">',
        *(f"<li>{escape(sentence)}</li>" for sentence in sentences),
        "</ul>",
        *(
            f"<p>{escape(words('next_command'))}</p><pre><code>{escape(text)}</code></pre>"
            for text in command
        ),
        *(f'<p class="note" lang="en">{escape(f"Note: {note}")}</p>' for note in result.notes),
        '<dl class="arms">',
        *arms,
        "</dl>",
        f'<p class="note">{escape(words("arms_note"))}</p>',
    ]
