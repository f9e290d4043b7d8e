"""What rounding does to each quantized model, as its file says: metric, SQNR, and the cosine of the state by iteration."""

from collections.abc import Sequence

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Fidelity, Run, StateCosine
from loopedge.report.page import Cell, table
from loopedge.units import cosine_text

__all__ = ["quantized_section"]

MEASURED_ON = {
    "validation": "of the validation part",
    "data": "held out of the data",
    "calibrating": "that also calibrated",
    "generated": "generated",
}


def quantized_section(runs: Sequence[Run]) -> list[str]:
    """Return a row for each quantized model that says what it was measured at; each file once."""
    found: dict[str, tuple[str, Run, Fidelity]] = {}
    for label, run in zip(run_labels(runs), runs, strict=True):
        if run.fidelity is not None and run.twin is None:
            found.setdefault(run.path, (label, run, run.fidelity))
    if not found:
        return []
    heads = ("model", "scheme", "metric", "SQNR", "samples", "state", "first", "worst", "last")
    rows: list[Sequence[Cell]] = []
    for label, run, item in found.values():
        about = (label, run.quantization or "-", _metric(item), f"{item.sqnr_db:.1f} dB")
        samples = (str(item.samples), MEASURED_ON.get(item.measured_on, item.measured_on))
        states = [(state.state, *_cosines(state)) for state in item.states] or [("-",) * 4]
        rows += [(*about, samples, *cells) for cells in states]
    return [
        "<h2>What rounding does</h2>",
        *table(heads, rows),
        '<p class="note">As each file says: measured when it was quantized, not here. First, worst and last: the cosine of the '
        "recurrent state to the float model's after these iterations, mean over samples, the worst sample below.</p>",
    ]


def _metric(item: Fidelity) -> Cell:
    if item.metric is None or item.float_score is None or item.score is None:
        return "-"
    return f"{item.float_score:.4g} to {item.score:.4g}", item.metric


def _cosines(state: StateCosine) -> list[Cell]:
    """Return the first, the worst and the last iteration that has a cosine."""
    known = [
        (mean, worst, t)
        for t, (mean, worst) in enumerate(zip(state.mean, state.worst, strict=False))
        if mean is not None and worst is not None
    ]
    if not known:
        return ["-", "-", "-"]
    chosen = (known[0], min(known), known[-1])
    return [
        (cosine_text(mean), f"{cosine_text(worst)}, iteration {t}") for mean, worst, t in chosen
    ]
