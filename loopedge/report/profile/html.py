"""The profile as one self-contained HTML file: no script, no network, light and dark."""

from collections.abc import Sequence
from pathlib import Path

from loopedge.files.targets import write_text_atomic
from loopedge.invocation import command_text
from loopedge.profiler.result import ProfileResult
from loopedge.report.page import render_page
from loopedge.report.profile.cautions import cautions
from loopedge.report.profile.sections.decoding import decoding_section
from loopedge.report.profile.sections.gpu import gpu_section
from loopedge.report.profile.sections.machine import machine_section
from loopedge.report.profile.sections.memory import meaning_section, sources_section
from loopedge.report.profile.sections.operators import operator_section
from loopedge.report.profile.sections.overview import overview_section
from loopedge.report.profile.sections.provider import provider_section
from loopedge.report.profile.sections.quantized import quantized_section
from loopedge.report.profile.sections.roofline import roofline_section
from loopedge.report.profile.sections.scaling import scaling_section
from loopedge.report.profile.sections.soak import soak_section
from loopedge.report.profile.sections.table import failure_section, table_section
from loopedge.report.profile.sections.tradeoff import tradeoff_section
from loopedge.report.profile.verdict import verdicts

__all__ = ["write_profile_html"]


def write_profile_html(
    result: ProfileResult,
    path: str | Path,
    *,
    command: Sequence[str] | None = None,
    force: bool = False,
) -> None:
    """Write the report of a profile; what was not measured has no section.

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
    runs = result.runs
    first, *further = verdicts(result) or [_nothing_to_compare(result)]
    body = [
        *failure_section(result.failures),
        *overview_section(runs),
        *table_section(runs),
        *decoding_section(runs),
        *quantized_section(runs),
        *scaling_section(runs),
        *tradeoff_section(runs),
        *sources_section(runs),
        *operator_section(runs),
        *roofline_section(runs, result.limits),
        *soak_section(runs),
        *gpu_section(runs),
        *provider_section(runs),
        *meaning_section(runs),
        *machine_section(result, command),
    ]
    return render_page(
        "loopedge profile", first, further, body, cautions=cautions(result), notes=result.notes
    )


def _nothing_to_compare(result: ProfileResult) -> str:
    if not result.runs:
        return "No model could be measured."
    return f"{result.runs[0].name}: one model, nothing to compare with."
