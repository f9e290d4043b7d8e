"""Does weight tying save memory on this device, and what does it cost? In one sentence."""

from collections.abc import Sequence

from loopedge.profiler.figures import (
    FIGURE_NAMES,
    GPU_FIGURES,
    beyond_noise,
    figure_of,
    memory_figure,
    quotient_range,
    spread_of,
)
from loopedge.profiler.labels import run_labels, swept
from loopedge.profiler.result import ProfileResult, Run
from loopedge.report.profile.cautions import time_caveat
from loopedge.report.profile.spread import half_width
from loopedge.units import error_text, ratio_text, size_text

__all__ = ["twin_pairs", "verdicts"]

COMPARED = 5
"""Further models that are compared in sentences; the table has them all."""

SETTING = ("batch", "sequence", "loops", "threads", "provider", "memory", "compute", "cuda_graph")
LEAST = 0.0005
"""Half ranges below this part of a figure round to nothing."""


def verdicts(result: ProfileResult) -> list[str]:
    """Return the answer first, then what a sweep shows, then one sentence per further model."""
    labels = dict(zip(map(id, result.runs), run_labels(result.runs), strict=True))
    of_models: dict[str, list[tuple[Run, Run]]] = {}
    for tied, untied in twin_pairs(result.runs):
        of_models.setdefault(tied.path, []).append((tied, untied))
    answers = [
        [_answer(*max(pairs, key=lambda pair: pair[0].loops or 0)), *_over_loops(pairs)]
        for pairs in of_models.values()
    ]
    first = answers[0] if answers else []
    rest = [sentence for of_model in answers[1:] for sentence in of_model]
    return [*first, *_others(result.runs, labels), *rest]


def twin_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Return each tied run that has an untied twin of the same settings, with that twin."""
    twins = {_identity(run): run for run in runs if run.twin == "untied"}
    return [
        (run, twins[_identity(run)]) for run in runs if run.twin is None and _identity(run) in twins
    ]


def _identity(run: Run) -> tuple[object, ...]:
    return (run.path, run.runtime, *(getattr(run, name) for name in SETTING))


def _answer(tied: Run, untied: Run) -> str:
    """Answer for one model: what tying does to memory, file and time, each against the noise."""
    main = memory_figure((tied, untied))
    figures = (main, "rss_peak_bytes" if main in GPU_FIGURES else "anon_bytes")
    saved = [figure for figure in figures if _direction(tied, untied, figure) < 0]
    grown = [figure for figure in figures if _direction(tied, untied, figure) > 0]
    if saved and not grown:
        answer = "saves memory on this device"
    elif grown and not saved:
        answer = "takes more memory on this device"
    elif saved:
        answer = "saves some memory on this device and takes more elsewhere"
    else:
        answer = "makes no difference of memory beyond the noise on this device"
    plural = "" if tied.loops == 1 else "s"
    what = f"tying {tied.loops} iteration{plural}" if tied.loops else "tying its weights"
    first, second = (_memory_clause(tied, untied, figure) for figure in figures)
    file = f"the file is {_change(tied, untied, 'file_bytes')}"
    return (
        f"{tied.name}: {what} {answer}{_time_clause(tied, untied)}; "
        f"against the untied twin {first}, {second} and {file}."
    )


def _direction(tied: Run, untied: Run, figure: str) -> int:
    """Return -1 where tying takes less of a figure, 1 where more, 0 within the noise."""
    a, b = figure_of(tied, figure), figure_of(untied, figure)
    if a == b or beyond_noise(tied, untied, figure) is False:
        return 0
    return -1 if a < b else 1


def _memory_clause(tied: Run, untied: Run, figure: str) -> str:
    if not _direction(tied, untied, figure):
        sizes = f"{_measured(tied, figure)} against {_measured(untied, figure)}"
        return f"{FIGURE_NAMES[figure]} is the same within the noise ({sizes})"
    return f"{FIGURE_NAMES[figure]} is {_change(tied, untied, figure)}"


def _change(tied: Run, untied: Run, figure: str) -> str:
    a, b = figure_of(tied, figure), figure_of(untied, figure)
    sizes = f"({_measured(tied, figure)} against {_measured(untied, figure)})"
    if size_text(a) == size_text(b):
        return f"as large {sizes}"
    smaller = "smaller" if a < b else "larger"
    if min(a, b) <= 0 or ratio_text(max(a, b) / min(a, b)) == ratio_text(1.0):
        return f"{size_text(abs(a - b))} {smaller} {sizes}"
    return f"{ratio_text(max(a, b) / min(a, b))} {smaller} {sizes}"


def _measured(run: Run, figure: str) -> str:
    """Say a size, and half its range over the processes in percent: ``66 MiB ±0.4%``."""
    text = size_text(figure_of(run, figure))
    spread = spread_of(run, figure)
    if spread is None or (half := half_width(run, figure)) < LEAST:
        return text
    return f"{text} ±{half:.1%}"


def _time_clause(tied: Run, untied: Run) -> str:
    ratio = tied.time_ratio / untied.time_ratio
    spread = quotient_range(tied, untied, "time_ratio")
    caveat = time_caveat(tied, untied)
    if spread is None:
        return f", at {ratio_text(ratio)} the time{f' ({caveat})' if caveat else ''}"
    between = f"range {ratio_text(spread.low)} to {ratio_text(spread.high)}"
    known = ", ".join([ratio_text(ratio), between, *([caveat] if caveat else [])])
    if spread.low <= 1 <= spread.high:
        return f", at no cost of time beyond the noise ({known})"
    less = "less" if ratio < 1 else "more"
    return f" and takes {less} time ({known})"


def _over_loops(pairs: Sequence[tuple[Run, Run]]) -> list[str]:
    """Say how both twins grow with the loop count, where several were run."""
    by_loops = {run.loops: (run, twin) for run, twin in pairs if run.loops}
    if len(by_loops) < 2:
        return []
    (tied, untied), (last, last_untied) = (
        by_loops[min(by_loops, key=int)],
        by_loops[max(by_loops, key=int)],
    )
    figure = memory_figure((tied, untied, last, last_untied))
    growth = [
        f"{kind} {_growth(figure_of(one, figure), figure_of(other, figure))}"
        for kind, one, other in (("tied", tied, last), ("untied", untied, last_untied))
    ]
    name = FIGURE_NAMES[figure]
    return [
        f"{name[0].upper()}{name[1:]} from {tied.loops} to {last.loops} loops: {', '.join(growth)}."
    ]


def _growth(low: float, high: float) -> str:
    first, last = size_text(low), size_text(high)
    return f"{first} throughout" if first == last else f"{first} to {last}"


def _others(runs: Sequence[Run], labels: dict[int, str]) -> list[str]:
    """Compare the first model with the others and with its twins at the same work, at most loops each."""
    alike = [*swept(runs), "threads"]
    bases: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.path == runs[0].path and run.twin is None:
            bases.setdefault(tuple(getattr(run, name) for name in alike), run)
    found = [
        (base, run)
        for run in runs
        if (base := bases.get(tuple(getattr(run, name) for name in alike))) is not None
        and run is not base
        and run.twin != "untied"
    ]
    most: dict[tuple[object, ...], tuple[Run, Run]] = {}
    for base, run in found:
        how = (run.memory, run.threads, run.provider, run.compute, run.cuda_graph)
        key = (run.path, run.twin, run.runtime, *how)
        if key not in most or (run.loops or 0) > (most[key][1].loops or 0):
            most[key] = (base, run)
    said = [_plain_verdict(base, run, labels) for base, run in most.values()]
    return [*said[:COMPARED], *_left_out(len(said) - COMPARED)]


def _left_out(count: int) -> list[str]:
    if count <= 0:
        return []
    runs = "run is" if count == 1 else "runs are"
    return [f"{count} more {runs} in the table alone."]


def _plain_verdict(first: Run, other: Run, labels: dict[int, str]) -> str:
    spread = quotient_range(other, first, "time_ratio")
    time = f"{ratio_text(other.time_ratio / first.time_ratio)} the time"
    if spread is not None and spread.low <= 1 <= spread.high:
        time += ", the same within the noise"
    if caveat := time_caveat(first, other):
        time += f" ({caveat})"
    figure = memory_figure((first, other))
    a, b = figure_of(first, figure), figure_of(other, figure)
    memory = f"{ratio_text(max(b, 0.0) / max(a, 1.0))} the {FIGURE_NAMES[figure]}"
    if a != b and not _direction(other, first, figure):
        memory += " (the same within the noise)"
    return (
        f"{labels[id(other)]} against {labels[id(first)]}: "
        f"{ratio_text(other.file_bytes / max(first.file_bytes, 1))} the file, {memory}, {time}"
        f"{_outputs_text(first, other)}."
    )


def _outputs_text(first: Run, other: Run) -> str:
    """Say how far the outputs are from those of the first run, where they were compared with them."""
    work = [(run.loops, run.batch, run.sequence) for run in (first, other)]
    if other.output_error is None or first.output_error is not None or work[0] != work[1]:
        return ""
    return f"; its outputs differ by {error_text(other.output_error)} of their norm"
