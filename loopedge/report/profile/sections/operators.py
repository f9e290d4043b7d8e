"""Where the time of an inference goes, by operator, and iteration by iteration."""

from collections.abc import Sequence
from html import escape

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Run
from loopedge.report.svg.bars import Part, bar, columns
from loopedge.report.svg.legend import legend
from loopedge.units import time_text

__all__ = ["SHOWN_OPERATORS", "operator_section"]

SHOWN_OPERATORS = 6
MOST_PANELS = 12


def operator_section(runs: Sequence[Run]) -> list[str]:
    """Return operator bars of whole inferences, and columns of their iterations."""
    traced = [(label, run) for label, run in zip(run_labels(runs), runs, strict=True) if run.ops]
    if not traced:
        return []
    totals: dict[str, float] = {}
    for _, run in traced:
        for item in run.ops:
            totals[item.op] = max(totals.get(item.op, 0.0), item.share)
    names = sorted(totals, key=lambda name: -totals[name])[:SHOWN_OPERATORS]
    longest = max(sum(item.ms for item in run.ops) for _, run in traced) or 1.0
    lines = [
        "<h2>Where the time goes</h2>",
        "<figure>",
        "<figcaption>Own time of each operator in one traced inference, what a Loop contains "
        "subtracted from it. Tracing makes small operators slower: compare shares, and take times "
        "from the latency.</figcaption>",
    ]
    for label, run in traced:
        times = {item.op: item.ms for item in run.ops}
        total = sum(times.values())
        lines += bar(label, time_text(total), _parts(times, names, longest))
    key = legend([(f"op{i}", name) for i, name in enumerate(names)] + [("rest", "other")])
    return [*lines, *key, "</figure>", *_iterations(traced, names, key)]


def _iterations(
    traced: Sequence[tuple[str, Run]], names: Sequence[str], key: Sequence[str]
) -> list[str]:
    looped = [(label, run) for label, run in traced if len(run.iterations) > 1]
    if not looped:
        return []
    lines = ["<h3>Iteration by iteration</h3>", '<div class="panels">']
    for label, run in looped[:MOST_PANELS]:
        times = [item.ms for item in run.iterations]
        longest = max(times) or 1.0
        stacks = [_parts(item.ops, names, longest, item.iteration) for item in run.iterations]
        slowest = run.iterations[times.index(max(times))].iteration
        whole = sum(item.ms for item in run.ops)
        lines += [
            "<figure>",
            f"<figcaption><b>{escape(label)}</b>: {time_text(min(times))} to "
            f"{time_text(max(times))} an iteration (slowest: iteration {slowest}), "
            f"{sum(times) / (whole or 1.0):.0%} of the whole inference</figcaption>",
            *columns(f"{label}: operators by iteration", stacks),
            f'<div class="row"><span>iteration {run.iterations[0].iteration}</span>'
            f"<span>{run.iterations[-1].iteration}</span></div>",
            "</figure>",
        ]
    lines.append("</div>")
    left = len(looped) - MOST_PANELS
    more = [f'<p class="note">And {left} more, see the JSON.</p>'] if left > 0 else []
    return [*lines, *key, *more]


def _parts(
    times: dict[str, float], names: Sequence[str], longest: float, iteration: int | None = None
) -> list[Part]:
    """Return the parts of a bar: the named operators, and the others as one."""
    where = "" if iteration is None else f"iteration {iteration}, "
    shown = [(f"op{i}", name, times.get(name, 0.0)) for i, name in enumerate(names)]
    rest = max(sum(times.values()) - sum(ms for *_, ms in shown), 0.0)
    return [
        Part(colour, f"{where}{name}: {time_text(ms)}", ms / longest)
        for colour, name, ms in [*shown, ("rest", "other", rest)]
        if ms > 0
    ]
