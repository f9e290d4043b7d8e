"""The frame of a report: one self-contained HTML file, no script, no network, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

__all__ = ["Cell", "facts", "render_frame", "render_page", "table"]

Cell = str | tuple[str, str] | tuple[str, str, str]


def render_page(
    title: str,
    verdict: str,
    sentences: Sequence[str],
    body: Iterable[str],
    *,
    cautions: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return a page: what speaks against the figures, the verdict, further sentences, then the body.

    Args:
        title: Of the page.
        verdict: The sentence that matters.
        sentences: The others.
        body: Lines of HTML.
        cautions: What a reader must know before the verdict.
        notes: What else is to be known of the figures.
    """
    return render_frame(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            *_before(cautions, notes),
            f'<p class="verdict">{_answer_first(verdict)}</p>',
            *(f"<p>{escape(sentence)}</p>" for sentence in sentences),
            *body,
        ],
    )


def render_frame(title: str, body: Iterable[str], *, language: str = "en", style: str = "") -> str:
    """Return a page that holds its style itself.

    Args:
        title: Of the window.
        body: Lines of HTML.
        language: Its code, ``en`` or ``ja``.
        style: CSS beside that of every report.
    """
    shared = files("loopedge.report").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="{language}">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{shared}{style}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _before(cautions: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Return what qualifies the figures, in a box above them."""
    if not cautions and not notes:
        return []
    return [
        '<div class="caution">',
        *(f"<p>{escape(text)}</p>" for text in cautions),
        *(f'<p class="note">Note: {escape(text)}</p>' for text in notes),
        "</div>",
    ]


def _answer_first(verdict: str) -> str:
    """Set the answer apart from the figures that it rests on, which follow a semicolon."""
    answer, mark, figures = escape(verdict, quote=False).partition("; ")
    return f"{answer}{mark}<span>{figures}</span>" if mark else answer


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, marked: Sequence[int] = ()
) -> list[str]:
    """Return the lines of a table that scrolls where it is wider than the page.

    Args:
        heads: Names of the columns.
        rows: Cells; a pair is a value and the smaller note below it, a third part the note's language.
        marked: Numbers of the rows that stand out, from 0.
    """
    lines = ['<div class="scroll"><table>', "<thead><tr>"]
    lines += [f"<th>{escape(head)}</th>" for head in heads]
    lines += ["</tr></thead>", "<tbody>"]
    for number, cells in enumerate(rows):
        row = '<tr class="marked">' if number in marked else "<tr>"
        lines.append(row + "".join(map(_cell, cells)) + "</tr>")
    return [*lines, "</tbody></table></div>"]


def _cell(cell: Cell) -> str:
    text, note, *language = (cell, "") if isinstance(cell, str) else cell
    spoken = f' lang="{language[0]}"' if language else ""
    below = f"<small{spoken}>{escape(note)}</small>" if note else ""
    return f"<td>{escape(text)}{below}</td>"


def facts(pairs: Iterable[tuple[str, str]], command: str) -> list[str]:
    """Return the lines of a list of facts, the command last."""
    lines = ["<dl>"]
    lines += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs]
    return [*lines, f"<dt>command</dt><dd><code>{escape(command)}</code></dd>", "</dl>"]
