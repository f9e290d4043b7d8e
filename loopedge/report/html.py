"""The profile as one self-contained HTML file: no script, no network, light and dark."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from loopedge.files import write_text_atomic
from loopedge.invocation import command_text
from loopedge.profiler.pipeline import ProfileResult, Run
from loopedge.report.page import facts, render_page, table
from loopedge.report.tables import SHOWN_OPERATORS
from loopedge.report.verdict import cautions, verdicts
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["write_profile_html"]

WIDTH = 1000
"""Of a bar, in SVG units; the page stretches it."""


def write_profile_html(
    result: ProfileResult,
    path: str | Path,
    *,
    command: Sequence[str] | None = None,
    force: bool = False,
) -> None:
    """Write the report of a profile.

    Args:
        result: What was measured.
        path: Target, usually ``report.html``.
        command: The command line to print; default: that of this process.
        force: Replace an existing file.

    Raises:
        InputError: The target exists or cannot be written.
    """
    page = _page(result, command_text(command))
    write_text_atomic(Path(path), page, force=force)


def _page(result: ProfileResult, command: str) -> str:
    sentences = verdicts(result) or [f"{result.runs[0].name}: one model, nothing to compare with."]
    body = [
        *_charts(result.runs),
        *_table(result.runs),
        *_operators(result.runs),
        *_machine(result, command),
    ]
    return render_page("loopedge profile", sentences[0], [*sentences[1:], *cautions(result)], body)


def _charts(runs: Sequence[Run]) -> list[str]:
    charts: tuple[tuple[str, str, Callable[[Run], float], Callable[[float], str]], ...] = (
        ("File", "the .onnx file and its data", lambda run: run.file_bytes, size_text),
        (
            "Anonymous memory after load",
            "what the kernel cannot drop again",
            lambda run: run.anon_bytes,
            size_text,
        ),
        ("Peak memory", "highest resident memory", lambda run: run.rss_peak_bytes, size_text),
        ("Latency", "median of one inference", lambda run: run.latency_ms.p50, time_text),
    )
    lines = ["<h2>Memory and time</h2>", '<div class="panels">']
    for title, note, value, text in charts:
        lines += [
            "<figure>",
            f"<figcaption><b>{title}</b>: {note}</figcaption>",
            *_bars(runs, [max(0.0, float(value(run))) for run in runs], text),
            "</figure>",
        ]
    return [
        *lines,
        "</div>",
        '<p class="note">Memory is the growth over the same process with ONNX Runtime imported '
        "and nothing loaded; each model ran in a process of its own.</p>",
    ]


def _bars(runs: Sequence[Run], values: Sequence[float], text: Callable[[float], str]) -> list[str]:
    largest = max([*values, 1e-12])
    lines = []
    for run, value in zip(runs, values, strict=True):
        part = (_colour(run), run.name, value / largest)
        lines += _bar(run.name, text(value), [part])
    return lines


def _bar(name: str, value: str, parts: Sequence[tuple[str, str, float]]) -> list[str]:
    """Draw one labelled bar; ``parts`` are (class, title, share of the whole width)."""
    lines = [
        f'<div class="row"><span>{escape(name)}</span><span>{escape(value)}</span></div>',
        f'<svg viewBox="0 0 {WIDTH} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{name}: {value}")}">',
        f'<rect class="track" width="{WIDTH}" height="1"/>',
    ]
    left = 0.0
    for name_class, title, share in parts:
        length = max(WIDTH * share, 0.0)
        lines.append(
            f'<rect class="{name_class}" x="{left:.1f}" width="{length:.1f}" height="1">'
            f"<title>{escape(title)}</title></rect>"
        )
        left += length
    return [*lines, "</svg>"]


def _colour(run: Run) -> str:
    if run.twin == "untied":
        return "untied"
    return "int8" if run.quantization else "tied"


def _table(runs: Sequence[Run]) -> list[str]:
    heads = [
        "model",
        "loops",
        "form",
        "file",
        "load",
        "anonymous",
        "mapped",
        "RSS",
        "peak",
        "p50",
        "p95",
        "p99",
        "time",
    ]
    rows = [
        (
            run.name,
            str(run.loops or "-"),
            run.form or "-",
            size_text(run.file_bytes),
            time_text(run.load_seconds * 1000),
            size_text(run.anon_bytes),
            size_text(run.mapped_bytes),
            size_text(run.rss_load_bytes),
            size_text(run.rss_peak_bytes),
            time_text(run.latency_ms.p50),
            time_text(run.latency_ms.p95),
            time_text(run.latency_ms.p99),
            ratio_text(run.time_ratio),
        )
        for run in runs
    ]
    return ["<h2>All figures</h2>", *table(heads, rows)]


def _operators(runs: Sequence[Run]) -> list[str]:
    totals: dict[str, float] = {}
    for run in runs:
        for item in run.ops:
            totals[item.op] = max(totals.get(item.op, 0.0), item.ms)
    names = sorted(totals, key=lambda name: -totals[name])[:SHOWN_OPERATORS]
    longest = max([sum(item.ms for item in run.ops) for run in runs] + [1e-12])
    lines = [
        "<h2>Where the time goes</h2>",
        "<figure>",
        "<figcaption>Own time of each operator in one traced inference, what a Loop contains "
        "subtracted from it. Tracing makes small operators slower: compare shares, and take times "
        "from the latency.</figcaption>",
    ]
    for run in runs:
        times = {item.op: item.ms for item in run.ops}
        total = sum(times.values())
        parts = [(f"op{i}", name, times.get(name, 0.0)) for i, name in enumerate(names)]
        parts.append(("rest", "other", total - sum(ms for _, _, ms in parts)))
        shares = [(key, f"{name}: {time_text(ms)}", ms / longest) for key, name, ms in parts]
        lines += _bar(run.name, time_text(total), shares)
    lines.append('<ul class="legend">')
    lines += [f'<li><i class="op{i}"></i>{escape(name)}</li>' for i, name in enumerate(names)]
    lines += ['<li><i class="rest"></i>other</li>', "</ul>", "</figure>"]
    return lines


def _machine(result: ProfileResult, command: str) -> list[str]:
    machine, run = result.machine, result.runs[0]
    shape = f"batch {run.batch}" + (f", sequence {run.sequence}" if run.sequence else "")
    features = ", ".join(machine["cpu_features"])
    pairs = (
        ("processor", f"{machine['cpu']}, {machine['cores']} cores ({features})"),
        ("memory", size_text(machine["memory_bytes"])),
        ("system", machine["system"]),
        ("runtime", f"ONNX Runtime {machine['onnxruntime']}, {run.provider}, Python "
         f"{machine['python']}, loopedge {machine['loopedge']}"),
        ("inputs", f"{shape}, {run.threads} thread(s), {run.latency_ms.runs} timed runs"),
    )  # fmt: skip
    return ["<h2>How it was measured</h2>", *facts(pairs, command)]
