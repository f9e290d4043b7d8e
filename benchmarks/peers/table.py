"""The figures as Markdown: one table a model, and how all of it depends on the loop count."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.peers.measurement import Figures
from benchmarks.peers.products import SORTING

__all__ = ["flat_table", "main_table"]

MB = 10**6
HEADER = (
    "file MB",
    "load s",
    "after load MB",
    "anonymous MB",
    "peak MB",
    "time",
    "time x peak MB",
    "loop count at run time",
    "products in int8",
)


def main_table(found: Sequence[Figures], loops_taken: Mapping[str, bool | None]) -> list[str]:
    """Return the lines of a model's table, float first.

    Args:
        found: The figures of one model.
        loops_taken: By label, whether another loop count can be asked for at run time.
    """
    accuracy = [*(("token accuracy",) if found[0].subject == SORTING else ())]
    lines = []
    for precision, judged in (("float", ["error"]), ("int8", ["SQNR dB"])):
        header = [precision, *HEADER, *judged, *accuracy]
        lines += [_row(header), _row(["---"] * len(header))]
        chosen = [one for one in found if one.precision == precision]
        lines += [_row(_cells(one, loops_taken, bool(accuracy))) for one in chosen]
        lines.append("")
    return lines


def _cells(one: Figures, loops_taken: Mapping[str, bool | None], with_accuracy: bool) -> list[str]:
    name = f"**{one.label}**" if one.ours else one.label
    if one.failed:
        return [name, one.failed.replace("|", "/"), *([""] * (len(HEADER) + with_accuracy))]
    taken = {True: "yes", False: "no", None: "-"}[loops_taken.get(one.label)]
    cells = [
        name,
        f"{one.file_bytes / MB:.{1 if one.file_bytes > MB else 2}f}",
        f"{one.load_seconds:.2f}",
        f"{one.rss_bytes / MB:.1f}",
        f"{one.anon_bytes / MB:.1f}",
        f"{one.peak_bytes / MB:.1f}",
        f"{one.time_ratio:.3f}",
        f"{one.time_times_peak:.1f}",
        taken,
        _eight_bit(one),
        f"{one.error:.1e}" if one.precision == "float" else f"{one.sqnr_db or 0.0:.1f}",
    ]
    if with_accuracy:
        cells.append("" if one.accuracy is None else f"{one.accuracy:.4f}")
    return cells


def _eight_bit(one: Figures) -> str:
    """Say how many products run in eight bits, as counted in the artifact, and how."""
    if one.precision == "float" or one.products is None:
        return "-"
    skipped = " silently skipped" if not one.quantized else ""
    return f"{one.quantized} of {one.products}, {one.how}{skipped}"


def flat_table(by_loops: Mapping[int, Sequence[Figures]]) -> list[str]:
    """Return a table of file, peak and time by loop count.

    Args:
        by_loops: The figures of the same model for several loop counts.
    """
    counts = sorted(by_loops)
    found = {loops: {one.label: one for one in by_loops[loops]} for loops in counts}
    header = ["", *(f"{what}, r={r}" for what in ("file MB", "peak MB", "time") for r in counts)]
    lines = [_row(header), _row(["---"] * len(header))]
    for label in found[counts[0]]:
        rows = [found[loops].get(label) for loops in counts]
        name = f"**{label}**" if rows[0] is not None and rows[0].ours else label
        cells = [
            *(_cell(one, f"{one.file_bytes / MB:.1f}" if one else "") for one in rows),
            *(_cell(one, f"{one.peak_bytes / MB:.1f}" if one else "") for one in rows),
            *(_cell(one, f"{one.time_ratio:.3f}" if one else "") for one in rows),
        ]
        lines.append(_row([name, *cells]))
    reasons = [
        f"r={loops}, {one.label}: {one.failed}."
        for loops in counts
        for one in by_loops[loops]
        if one.failed and one.label in found[counts[0]]
    ]
    return [*lines, "", *_listed(reasons)]


def _cell(one: Figures | None, text: str) -> str:
    return "-" if one is None or one.failed else text


def _listed(items: Iterable[str]) -> list[str]:
    listed = [f"- {item}" for item in items]
    return [*listed, ""] if listed else []


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
