"""One sentence per comparison: what tying saves, and what it costs."""

from loopedge.profiler.pipeline import ProfileResult, Run
from loopedge.report.text import ratio_text, size_text

__all__ = ["verdicts"]


def verdicts(result: ProfileResult) -> list[str]:
    """Return one sentence per untied twin; without twins, one per model after the first."""
    pairs = list(zip(result.runs, result.runs[1:], strict=False))
    told = [_tie_verdict(run, twin) for run, twin in pairs if twin.twin == "untied"]
    if told:
        return told
    first = result.runs[0]
    return [_plain_verdict(first, other) for other in result.runs[1:]]


def _tie_verdict(run: Run, twin: Run) -> str:
    return (
        f"{run.name}: tying {run.loops} iterations makes the file "
        f"{_saving(twin.file_bytes, run.file_bytes)}, memory after load "
        f"{_saving(twin.anon_bytes, run.anon_bytes)}, peak memory "
        f"{_saving(twin.rss_peak_bytes, run.rss_peak_bytes)}, at "
        f"{ratio_text(run.latency_ms.p50 / twin.latency_ms.p50)} the time of untied weights."
    )


def _saving(untied: int, tied: int) -> str:
    if tied <= 0 or untied <= 0:
        return f"{size_text(untied - tied)} smaller"
    sizes = f"({size_text(tied)} against {size_text(untied)})"
    if untied < tied:
        return f"{ratio_text(tied / untied)} larger {sizes}"
    return f"{ratio_text(untied / tied)} smaller {sizes}"


def _plain_verdict(first: Run, other: Run) -> str:
    return (
        f"{other.name} against {first.name}: "
        f"{ratio_text(other.file_bytes / first.file_bytes)} the file, "
        f"{ratio_text(max(other.rss_peak_bytes, 0) / max(first.rss_peak_bytes, 1))} the peak memory, "
        f"{ratio_text(other.latency_ms.p50 / first.latency_ms.p50)} the time."
    )
