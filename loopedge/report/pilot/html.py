"""The pilot as a table for the terminal and as one self-contained HTML file."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopedge.files.targets import write_text_atomic
from loopedge.report.page import facts, render_page, table
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Level, Mark, Series, chart
from loopedge.study.cost import is_busy
from loopedge.study.judging.statistics import Interval, OverSeeds, over_seeds
from loopedge.study.judging.summary import Summary
from loopedge.study.judging.verdict import quality_text
from loopedge.study.pipeline import PilotResult
from loopedge.units import ratio_text, score_text, size_text, time_text

__all__ = ["pilot_table", "write_pilot_html"]


def pilot_table(result: PilotResult) -> RenderableType:
    """Return the verdict, and one row per arm and loop count."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("arm")
    heads = ("parameters", "file", "peak", "p50", "time", "diverged")
    for head in ("loops", *_QUALITY[2:5], *_beside(result), *heads):
        shown.add_column(head, justify="right", no_wrap=True)
    for row in result.summary:
        float_cost = row.cost.get("float")
        shown.add_row(
            _marked(row, result),
            str(row.loops),
            quality_text(row.quality),
            quality_text(row.int8_quality),
            _interval(row.against_fewest),
            *(
                _score_text(row.scores.get(name), row.quality, spread=False)
                for name in _beside(result)
            ),
            f"{row.parameters:,}" if row.parameters else "-",
            *_cost_cells(float_cost)[:1],
            *_cost_cells(float_cost)[2:],
            f"{row.diverged} of {row.runs}",
        )
    sentences = [Text(sentence) for sentence in result.verdict.sentences]
    unit = Text(f"quality is {result.metric} on the test split; differences are paired", "dim")
    return Group(Text(result.verdict.headline, "bold"), *sentences, "", shown, unit)


def write_pilot_html(result: PilotResult, path: str | Path, *, force: bool = False) -> None:
    """Write the report of a pilot.

    Args:
        result: What the pilot found.
        path: Target, usually ``report.html``.
        force: Replace an existing file.

    Raises:
        InputError: The target exists or cannot be written.
    """
    body = [
        *_arms(result),
        *_quality_chart(result),
        *_quality_table(result),
        *_scores(result),
        *_cost(result),
        *_stability(result),
        *_how(result),
    ]
    verdict = result.verdict
    page = render_page(
        "loopedge pilot", verdict.headline, verdict.sentences, body, notes=result.notes
    )
    write_text_atomic(Path(path), page, force=force)


_QUALITY = (
    "arm", "loops", "quality", "int8", "against fewest loops", "against looped", "against constant", "against baseline",
)  # fmt: skip


BUSY_SENTENCE = "The machine was busy while the models were measured: bytes and time ratios hold, take p50 again."

ARM_TEXTS = {
    "looped": "one block applied again and again, every time alike",
    "constant": "the same, with learned gates that are equal in every iteration: the fair control",
    "timestep": "the same, with gates that differ by iteration (timestep encoding)",
    "untied": "as many blocks as loops, each with weights of its own",
}


def _arms(result: PilotResult) -> list[str]:
    """Say what is compared."""
    parts = [f"<b>{escape(arm)}</b>: {escape(ARM_TEXTS[arm])}" for arm in result.design["arms"]]
    return [
        f'<p class="note">{"; ".join(parts)}. More loops: more depth, same weights.</p>',
    ]


def _quality_chart(result: PilotResult) -> list[str]:
    known = result.verdict.baseline
    level = Level(name=known["name"].replace("_", " "), value=known["value"]) if known else None
    better = "higher" if result.higher_is_better else "lower"
    return [
        "<h2>Quality</h2>",
        "<figure>",
        f"<figcaption><b>{escape(result.metric)}</b> on the test split, {better} is better; mean over the "
        "seeds, whiskers of one standard deviation</figcaption>",
        *chart(
            _quality_series(result),
            across=Axis(name="loops", even=True),
            upward=Axis(name=result.metric, from_zero=False),
            level=level,
            wide=True,
        ),
        "</figure>",
    ]


def _quality_series(result: PilotResult) -> list[Series]:
    """Return a line per arm, a mark per loop count."""
    arms = list(dict.fromkeys(row.arm for row in result.summary))
    series = [
        Series(
            name=arm,
            colour=f"op{number}",
            marks=[
                _mark(row, row.quality)
                for row in result.summary
                if row.arm == arm and row.quality is not None
            ],
        )
        for number, arm in enumerate(arms)
    ]
    return [one for one in series if one.marks]


def _mark(row: Summary, quality: OverSeeds) -> Mark:
    sd = quality.sd or 0.0
    return Mark(
        x=float(row.loops),
        y=quality.mean,
        low=quality.mean - sd,
        high=quality.mean + sd,
        title=f"{row.arm}, {row.loops} loops: {quality_text(quality)}",
    )


def _quality_table(result: PilotResult) -> list[str]:
    rows = [
        (
            _marked(row, result),
            str(row.loops),
            quality_text(row.quality),
            quality_text(row.int8_quality),
            _interval(row.against_fewest),
            _interval(row.against_looped),
            _interval(row.against_constant),
            _interval(row.against_baseline),
        )
        for row in result.summary
    ]
    return [
        *table(_QUALITY, rows),
        '<p class="note">Differences are paired by seed, with their 95 % interval; a star marks those that '
        f"count. {result.verdict.rule}</p>",
    ]


def _scores(result: PilotResult) -> list[str]:
    """Show the other metrics, the baselines below."""
    names = list(dict.fromkeys(name for row in result.summary for name in row.scores))
    if not names:
        return []
    rows = [
        (
            row.arm,
            str(row.loops),
            quality_text(row.quality),
            *(_score_text(row.scores.get(name), row.quality) for name in names),
        )
        for row in result.summary
    ]
    rows += _baseline_rows(result, [result.metric, *names])
    unit = result.task.get("mase_season")
    season = "a table row" if unit == 1 else f"a season of {unit} table rows"
    about = (
        f" mase: the mean absolute error, 1 is the mean change over {season} in training."
        if unit
        else ""
    )
    return [
        "<h2>Other scores</h2>",
        *table(("arm", "loops", result.metric, *names), rows),
        f'<p class="note">Of the test split, mean over the seeds.{escape(about)}</p>',
    ]


def _baseline_rows(result: PilotResult, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the mean scores of what needs no training."""
    scored = [cell["baselines"] for cell in result.cells if cell.get("baselines")]
    baselines = dict.fromkeys(name for each in scored for name in each)
    return [
        (
            baseline.replace("_", " "),
            "-",
            *(
                _baseline_text([each.get(baseline, {}).get(name) for each in scored])
                for name in names
            ),
        )
        for baseline in baselines
    ]


def _baseline_text(values: Sequence[float | None]) -> str:
    over = over_seeds([value for value in values if value is not None])
    return score_text(None if over is None else over.mean)


def _beside(result: PilotResult) -> list[str]:
    """Return the metric that the terminal shows beside the one that decides: the errors in units of the series."""
    return ["mase"] if any("mase" in row.scores for row in result.summary) else []


def _score_text(score: OverSeeds | None, quality: OverSeeds | None, *, spread: bool = True) -> str:
    """Say a further score of a row: undefined where its runs ended and it has none."""
    if quality is None or (spread and score is not None):
        return quality_text(score)
    return score_text(None if score is None else score.mean)


def _cost(result: PilotResult) -> list[str]:
    heads = ("arm", "loops", "model", "parameters", "file", "anonymous", "peak", "p50", "time")
    rows = [
        (
            row.arm,
            str(row.loops),
            kind if kind != "untied" else "float, untied twin",
            f"{row.parameters:,}" if kind == "float" and row.parameters else "-",
            *_cost_cells(row.cost[kind]),
        )
        for row in result.summary
        for kind in ("float", "int8", "untied")
        if kind in row.cost
    ]
    if not rows:
        return []
    busy = any(is_busy(row.cost) for row in result.summary)
    return [
        "<h2>Cost</h2>",
        *([f"<p>{BUSY_SENTENCE}</p>"] if busy else []),
        *table(heads, rows),
        '<p class="note">One model of each arm and loop count was measured, for cost does not depend on the '
        "values of the weights: each in a process of its own, in turns, on "
        f"{result.profile['threads']} thread, batch {result.profile['batch']}. Memory is the growth over "
        "the imported runtime: anonymous is what stays after loading, peak the most it ever took; p50 is the "
        "median time of a sample, time its ratio to the first row. The untied twin has weights of its own "
        "for each iteration.</p>",
    ]


def _stability(result: PilotResult) -> list[str]:
    rows = [
        (
            row.arm,
            str(row.loops),
            str(row.runs),
            str(row.diverged),
            str(row.failed),
            f"{row.gradient_norm_max:.3g}" if row.gradient_norm_max else "-",
            " ".join(f"{value:.2g}" for value in _thinned(row.relative_update or [])) or "-",
        )
        for row in result.summary
    ]
    heads = ("arm", "loops", "runs", "diverged", "failed", "largest gradient", "relative update")
    reasons = [
        f"{cell['name']}: {cell['status']}, {cell['reason']}"
        for cell in result.cells
        if cell["status"] != "done"
    ] + [f"{c['name']}: no int8, {c['int8_reason']}" for c in result.cells if c.get("int8_reason")]
    return [
        "<h2>Stability</h2>",
        *table(heads, rows),
        '<p class="note">Relative update: by how much an iteration changes the state, first to last, mean over '
        "seeds. Values that do not shrink towards the end say that the loop has not settled.</p>",
        *(f"<p>{escape(reason)}</p>" for reason in reasons),
    ]


def _how(result: PilotResult) -> list[str]:
    machine, task, design = result.machine, result.task, result.design
    plain = {
        key: value for key, value in task.items() if isinstance(value, str | int | float | bool)
    }
    pairs = [
        ("task", ", ".join(f"{key} {value}" for key, value in plain.items())),
        (
            "split",
            ", ".join(f"{k} {v}" for k, v in (task.get("rows") or {}).items()) or "by the task",
        ),
        ("model", _options(design["model"])),
        ("training", _options(design["train"])),
        ("seeds", f"{design['seeds']}, from {design['first_seed']} on"),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("runtime", f"ONNX Runtime {machine['onnxruntime']}, loopedge {machine['loopedge']}"),
        ("took", time_text(result.seconds * 1000)),
    ]
    return ["<h2>How it was measured</h2>", *facts(pairs, result.command)]


def _options(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)


def _cost_cells(cost: dict[str, Any] | None) -> list[str]:
    """Return file, anonymous memory, peak, median latency and the ratio of times."""
    if cost is None:
        return ["-"] * 5
    return [
        size_text(cost["file_bytes"]),
        size_text(cost["anon_bytes"]),
        size_text(cost["rss_peak_bytes"]),
        time_text(cost["latency_ms"]["p50"]),
        ratio_text(cost["time_ratio"]),
    ]


def _marked(row: Summary, result: PilotResult) -> str:
    """Return the name of an arm, marked where it is recommended at this loop count."""
    chosen = {"arm": row.arm, "loops": row.loops} == result.verdict.recommended
    return f"{row.arm} (recommended)" if chosen else row.arm


def _interval(change: Interval | None) -> str:
    if change is None:
        return "-"
    if change.low is None or change.high is None:
        return f"{change.mean:+.3g}"
    star = " *" if change.excludes_zero else ""
    return f"{change.mean:+.3g} ({change.low:+.2g} to {change.high:+.2g}){star}"


def _thinned(values: Sequence[float], most: int = 8) -> list[float]:
    """Return at most eight values, first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
