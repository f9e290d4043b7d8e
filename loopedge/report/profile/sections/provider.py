"""Runs on another execution provider than the CPU: where their nodes are, and outputs and times against the CPU."""

from collections.abc import Sequence
from html import escape

from loopedge.graph.operators import PRODUCTS
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import AgainstCpu, Run
from loopedge.report.page import table
from loopedge.runtime.placement import elsewhere_notes
from loopedge.runtime.providers import short_name
from loopedge.units import ratio_text, time_text

__all__ = ["PROVIDER_HEADS", "provider_cells", "provider_section"]

PROVIDER_HEADS = ("provider", "nodes", "products", "outputs", "needed", "CPU", "time")
AGREES = "equal to the CPU's"


def provider_section(runs: Sequence[Run]) -> list[str]:
    """Return a table of placement, outputs and times against the CPU, and what did not run on the provider."""
    known = [
        (label, run, run.against_cpu)
        for label, run in zip(run_labels(runs), runs, strict=True)
        if run.against_cpu is not None
    ]
    if not known:
        return []
    rows = [(label, *provider_cells(run, against)) for label, run, against in known]
    elsewhere = [
        f"<p>{escape(f'{label}: {note}.')}</p>"
        for label, run, _ in known
        for note in elsewhere_notes(run.assigned, run.provider)
    ]
    return [
        "<h2>Against the CPU</h2>",
        *table(("model", *PROVIDER_HEADS), rows),
        *elsewhere,
        '<p class="note">Nodes and matrix products of the graph that the provider took, of all. Outputs: signal to noise '
        "against the CPU, or for a quantized file against its float model on the CPU. CPU: the median time of the same file "
        "there; time: that of the provider against it, in turns.</p>",
    ]


def provider_cells(run: Run, against: AgainstCpu) -> list[str]:
    """Return provider, nodes and products there, outputs, what they must reach, the CPU's time, the time against it."""
    counts = {name: sum(ops.values()) for name, ops in run.assigned.items()}
    products = {
        name: sum(count for op, count in ops.items() if op in PRODUCTS)
        for name, ops in run.assigned.items()
    }
    agrees = against.limit_db is None
    return [
        short_name(run.provider),
        f"{counts.get(run.provider, 0)} of {sum(counts.values())}",
        f"{products.get(run.provider, 0)} of {sum(products.values())}",
        AGREES if agrees else f"{against.sqnr_db:.1f} dB",
        "-" if against.limit_db is None else f"{against.limit_db:.1f} dB",
        time_text(against.cpu_ms),
        ratio_text(against.time_ratio),
    ]
