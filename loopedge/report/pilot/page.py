"""The page of a pilot for the one who decides: one HTML file, no script, no network, light and dark."""

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path

from loopedge.files.targets import write_text_atomic
from loopedge.report.page import render_frame
from loopedge.report.pilot.depths import depths_section
from loopedge.report.pilot.findings import findings_section
from loopedge.report.pilot.first_screen import first_screen
from loopedge.report.pilot.how import decided_section, measured_section
from loopedge.report.pilot.leaderboard import leaderboard_section
from loopedge.report.pilot.quality_cost import quality_cost_section
from loopedge.report.pilot.stability import stability_section
from loopedge.report.pilot.windows import windows_section
from loopedge.report.pilot.wording import Wording, wording
from loopedge.study.result import PilotResult

__all__ = ["pilot_page", "write_pilot_html"]


def write_pilot_html(
    result: PilotResult,
    path: str | Path,
    *,
    language: str = "en",
    data: bool = True,
    force: bool = False,
) -> None:
    """Write the page of a pilot.

    Args:
        result: What the pilot found.
        path: Target, usually ``report.html``.
        language: ``en`` or ``ja``.
        data: Plot windows of the user's data; without them no value of it stands on the page.
        force: Replace an existing file.

    Raises:
        InputError: The target exists or cannot be written, or the page is not written in the language.
    """
    write_text_atomic(Path(path), pilot_page(result, language=language, data=data), force=force)


def pilot_page(result: PilotResult, *, language: str = "en", data: bool = True) -> str:
    """Return the page as `write_pilot_html` writes it.

    Raises:
        InputError: The page is not written in the language.
    """
    words = wording(language)
    body = [
        *_cautions(result, words),
        *first_screen(result, words),
        *findings_section(result, words),
        *leaderboard_section(result, words),
        *quality_cost_section(result, words),
        *depths_section(result, words),
        *stability_section(result, words),
        *(windows_section(result, words) if data else ()),
        *decided_section(result, words),
        *measured_section(result, words),
    ]
    style = files("loopedge.report.pilot").joinpath("pilot.css").read_text(encoding="utf-8")
    return render_frame(words("title"), body, language=words.language, style=style)


def _cautions(result: PilotResult, words: Wording) -> Iterator[str]:
    """Yield what qualifies all figures, in a box above them: that the pilot was stopped."""
    if not result.complete:
        text = words("unfinished", made=result.made, planned=result.planned)
        yield f'<div class="caution"><p>{escape(text)}</p></div>'
