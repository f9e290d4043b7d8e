"""Tables for the terminal."""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopedge.profiler.figures import figure_of
from loopedge.profiler.labels import SETTINGS, run_labels, setting_columns
from loopedge.profiler.result import ProfileResult, Run
from loopedge.report.profile.cautions import cautions
from loopedge.report.profile.sections.decoding import tokens_text
from loopedge.report.profile.sections.gpu import gpu_cells
from loopedge.report.profile.sections.memory import SHORT_SOURCES, sources_by_moment
from loopedge.report.profile.sections.provider import PROVIDER_HEADS, provider_cells
from loopedge.report.profile.sections.roofline import limits_text
from loopedge.report.profile.sections.soak import soak_text
from loopedge.report.profile.spread import spread_text
from loopedge.report.profile.verdict import verdicts
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["operator_table", "profile_table", "run_table"]

SHOWN_OPERATORS = 5
SMALL = 0.01
"""Sources of memory that are nowhere more than this part of a peak are shown as one."""

MANY = 7
"""Columns of sources beyond which they stand closer, to fit into 80 characters."""

NUMBERS = ("loops", "batch", "sequence", "threads")
"""Settings that have columns where they differ; others stand behind the name."""

FIGURES: tuple[tuple[str, str, Callable[[float], str], float], ...] = (
    ("file", "file_bytes", size_text, 0.02),
    ("anonymous", "anon_bytes", size_text, 0.02),
    ("peak", "rss_peak_bytes", size_text, 0.02),
    ("p50", "latency_ms.p50", time_text, 0.05),
    ("time", "time_ratio", ratio_text, 0.005),
)
"""Columns: head, figure, and from which half width on its spread is shown."""


def profile_table(result: ProfileResult) -> RenderableType:
    """Return what speaks against the figures, the figures, what failed, and the verdict of a profile."""
    runs = result.runs
    shown: list[RenderableType] = [
        item for text in cautions(result) for item in (Text(text, "bold yellow"), "")
    ]
    for table in (
        run_table(result),
        decoding_table(runs),
        operator_table(result),
        _iteration_table(runs),
        _source_table(runs),
        _roofline_table(runs),
        _gpu_table(runs),
        _provider_table(runs),
    ):
        if table.row_count:
            shown += [table, ""]
    shown += [Text(line, "dim") for line in _where(result)]
    labels = zip(run_labels(runs), runs, strict=True)
    shown += [Text(f"{name}: {soak_text(run.soak)}") for name, run in labels if run.soak]
    for failure in result.failures:
        shown.append(Text(f"{failure.name} could not be measured: {failure.reason}", "red"))
    for sentence in verdicts(result):
        shown += ["", Text(sentence, "bold")]
    return Group(*shown)


def run_table(result: ProfileResult) -> Table:
    """Return one row per run: in what it differs, bytes, memory, latency, time against the first."""
    runs = result.runs
    settings = [name for name in setting_columns(runs) if name in NUMBERS]
    table = _table("model", *(SETTINGS[name][0] for name in settings), *(f[0] for f in FIGURES))
    for label, run in zip(run_labels(runs, without=NUMBERS), runs, strict=True):
        table.add_row(
            Text(label),
            *("-" if getattr(run, name) is None else str(getattr(run, name)) for name in settings),
            *(
                text(figure_of(run, key)) + spread_text(run, key, least=least)
                for _, key, text, least in FIGURES
            ),
        )
    return table


def decoding_table(runs: Sequence[Run]) -> Table:
    """Return what each run that decodes reads for a token: of its weights, of them each once, of its cache."""
    table = _table(
        "decoding",
        "tokens/s",
        "of a prompt",
        "weights read",
        "once each",
        "an iteration",
        "in",
        "keys, values",
    )
    for label, run in zip(run_labels(runs), runs, strict=True):
        if (item := run.decoding) is not None:
            table.add_row(
                Text(label),
                tokens_text(item.tokens_per_second),
                tokens_text(item.prompt_tokens_per_second),
                size_text(item.weight_bytes),
                size_text(item.distinct_bytes),
                size_text(item.block_bytes),
                item.fits or "memory",
                size_text(item.cache_bytes),
            )
    return table


def operator_table(result: ProfileResult) -> Table:
    """Return the share of the time of the largest operators, one row per run."""
    names = _largest_operators(result.runs)
    table = _table("share of the time", *names, "other")
    for label, run in zip(run_labels(result.runs), result.runs, strict=True):
        if run.ops:
            shares = {item.op: item.share for item in run.ops}
            cells = [shares.get(name, 0.0) for name in names]
            shown = [*cells, max(0.0, 1 - sum(cells))]
            table.add_row(Text(label), *(f"{cell:.0%}" for cell in shown))
    return table


def _iteration_table(runs: Sequence[Run]) -> Table:
    table = _table("an iteration", "first", "fastest", "slowest", "last", "largest operator")
    for label, run in zip(run_labels(runs), runs, strict=True):
        if len(run.iterations) > 1:
            times = [item.ms for item in run.iterations]
            shown = (times[0], min(times), max(times), times[-1])
            sums: dict[str, float] = {}
            for item in run.iterations:
                for op, ms in item.ops.items():
                    sums[op] = sums.get(op, 0.0) + ms
            largest = max(sums, key=lambda op: sums[op], default="-")
            table.add_row(Text(label), *map(time_text, shown), largest)
    return table


def _source_table(runs: Sequence[Run]) -> Table:
    """Return the peak by source; sources that are small everywhere are one column."""
    known = sources_by_moment(runs)
    large = [
        key
        for key in SHORT_SOURCES
        if any(abs(getattr(item, key)) > SMALL * item.peak_bytes for _, item in known)
    ]
    heads = [*(SHORT_SOURCES[key] for key in large), "rest"]
    table = _table("peak by source, MiB", *heads, gap=1 if len(heads) > MANY else 2)
    for label, item in known:
        sizes = [int(getattr(item, key)) for key in large]
        table.add_row(Text(label), *map(_mib, [*sizes, item.peak_bytes - sum(sizes)]))
    return table


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _roofline_table(runs: Sequence[Run]) -> Table:
    table = _table("against the limits", "GFLOP/s", "of GEMM", "GB/s", "of copy", "bound by")
    for label, run in zip(run_labels(runs), runs, strict=True):
        if (item := run.roofline) is not None:
            table.add_row(
                Text(label),
                f"{item.gflops_per_second:.3g}",
                f"{item.compute_share:.0%}",
                f"{item.gb_per_second:.3g}",
                f"{item.copy_share:.0%}",
                item.bound,
            )
    return table


def _gpu_table(runs: Sequence[Run]) -> Table:
    table = _table("GPU", "weights", "workspace", "activations", "context", "Memcpy", "on CPU")
    for label, run in zip(run_labels(runs), runs, strict=True):
        if run.gpu is not None:
            table.add_row(Text(label), *gpu_cells(run, run.gpu))
    return table


def _provider_table(runs: Sequence[Run]) -> Table:
    table = _table("against the CPU", *PROVIDER_HEADS)
    for label, run in zip(run_labels(runs), runs, strict=True):
        if run.against_cpu is not None:
            table.add_row(Text(label), *provider_cells(run, run.against_cpu))
    return table


def _where(result: ProfileResult) -> list[str]:
    machine, runs = result.machine, result.runs
    threads = sorted({run.threads for run in runs})
    plural = "" if threads == [1] else "s"
    counted = f", {' and '.join(map(str, threads))} thread{plural}" if threads else ""
    version = machine.get("onnxruntime", "?")
    levels = machine.get("cache_bytes") or {} if any(run.decoding for run in runs) else {}
    caches = "".join(f", {name} {size_text(size)}" for name, size in levels.items())
    return [
        f"{machine.get('cpu', '?')}{counted}{caches}, onnxruntime {version}; memory on top of the imported "
        "runtime; ± half the range over the processes",
        *map(limits_text, result.limits),
    ]


def _table(first: str, *heads: str, gap: int = 2) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold", min_width=8)
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    return table


def _largest_operators(runs: Sequence[Run]) -> list[str]:
    largest: dict[str, float] = {}
    for run in runs:
        for item in run.ops:
            largest[item.op] = max(largest.get(item.op, 0.0), item.share)
    return sorted(largest, key=lambda name: -largest[name])[:SHOWN_OPERATORS]
