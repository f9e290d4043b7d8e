"""How it was decided and how it was measured."""

from html import escape
from typing import Any

from loopedge.report.page import table
from loopedge.report.pilot.wording import Wording
from loopedge.study.result import PilotResult

__all__ = ["decided_section", "measured_section"]

ACCEPT, REJECT = 0.8, 0.2


def decided_section(result: PilotResult, words: Wording) -> list[str]:
    """Return the rule, the margin, the looks, and what the budget left out."""
    rules = [words("rule_loops", accept=words.percent(ACCEPT), reject=words.percent(REJECT))]
    rules += [words("rule_test"), words("rule_unlooped")]
    if result.margin.get("value") is not None:
        text = result.margin.get("text", "")
        asked = (
            words("rule_margin_of", text=text)
            if result.margin.get("of")
            else words("rule_margin_number")
        )
        value = words.rounded(result.margin["value"])
        rules.insert(0, words("rule_margin", metric=result.metric, value=value, text=asked))
    return [
        f"<h2>{escape(words('decided'))}</h2>",
        *(f"<p>{escape(rule)}</p>" for rule in rules),
        *_looks(result, words),
        *_left_out(result, words),
    ]


def _looks(result: PilotResult, words: Wording) -> list[str]:
    if len(result.looks) < 2:
        return []
    rows = [
        (
            str(look.get("seeds", "-")),
            words.outcomes.get(str(look.get("outcome")), "-"),
            words.duration(look["seconds"]) if look.get("seconds") is not None else "-",
        )
        for look in result.looks
    ]
    heads = [words("head_seeds"), words("head_outcome"), words("head_took")]
    return [
        f"<h3>{escape(words('looks'))}</h3>",
        *table(heads, rows),
        f'<p class="note">{escape(words("looks_note"))}</p>',
    ]


def _left_out(result: PilotResult, words: Wording) -> list[str]:
    if not result.left_out:
        return []
    return [
        f"<h3>{escape(words('left_out'))}</h3>",
        "<ul>",
        *(f"<li>{escape(_left_out_text(one, words))}</li>" for one in result.left_out),
        "</ul>",
    ]


def _left_out_text(one: dict[str, Any], words: Wording) -> str:
    """Say what was left out, and why: the reasons are those of `loopedge.study.schedule.budget.LeftOut`."""
    if one["arm"] is None:
        return words.count("left_runs", one["runs"])
    if one["reason"] == "longest":
        return words("left_longest", model=words.candidate(one))
    score = words.score(one["validation"])
    return words(
        "left_worse", model=words.candidate(one), score=score, share=words.percent(one["share"])
    )


def _count(rows: int | list[int]) -> int:
    """Return how many table rows a split has: of a series their first and the one past their last are known."""
    return rows if isinstance(rows, int) else rows[1] - rows[0]


def measured_section(result: PilotResult, words: Wording) -> list[str]:
    """Return the facts of the task, the models, the training and the machine, and the command."""
    machine, task, design = result.machine, result.task, result.design
    plain = {k: v for k, v in task.items() if isinstance(v, str | int | float)}
    rows = task.get("rows") or {}
    seeds = words("seeds_from", count=design["seeds"], first=design["first_seed"])
    split = ", ".join(f"{name} {_count(of):,}" for name, of in rows.items())
    processor = words("processor", cpu=machine["cpu"], cores=machine["cores"])
    runtime = words("runtime", onnxruntime=machine["onnxruntime"], loopedge=machine["loopedge"])
    pairs = [
        ("task", _code(_options(plain))),
        ("split", _code(split) if split else escape(words("by_task"))),
        ("model", _code(_options(design["model"]))),
        ("training", _code(_options(design["train"]))),
        ("seeds", escape(seeds)),
        ("processor", escape(processor)),
        ("runtime", escape(runtime)),
        ("took", escape(words.duration(result.seconds))),
        ("command", _code(result.command)),
    ]
    return [
        f"<h2>{escape(words('measured'))}</h2>",
        "<dl>",
        *(
            f"<dt>{escape(words(f'fact_{name}'))}</dt><dd>{value}</dd>"
            for name, value in pairs
            if value
        ),
        "</dl>",
    ]


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>" if text else ""


def _options(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
