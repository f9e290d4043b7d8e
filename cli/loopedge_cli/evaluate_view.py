"""What people see of language models that were judged on a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge_cli.page import count_text, number_text, page, plain, rows_list

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["evaluate_view"]


def evaluate_view(result: "Result") -> "RenderableType":
    """Show an `EvaluateResult`."""
    fields = result.to_json()
    windows = f"{count_text(fields['windows'], 'window')} of {fields['context']} tokens"
    rows = [
        ("text", f"{plain(fields['text'])}, {windows}"),
        ("seconds", f"{fields['seconds']:.1f}"),
    ]
    found = fields["evaluations"]
    exits = any(each["iterations"] is not None for each in found)
    heads = ("loops", "computed", "perplexity", "bits per byte", "accuracy", "change")
    table = rows_list(
        "models",
        (*heads, "iterations") if exits else heads,
        [_row(each, exits=exits) for each in found],
    )
    return page("perplexity", rows, table)


def _row(each: dict[str, Any], *, exits: bool) -> tuple[Any, ...]:
    cells = (
        Path(each["model"]).name,
        "" if each["loops"] is None else each["loops"],
        {"windows": "whole windows", "cache": "token by token"}[each["mode"]],
        number_text(each["perplexity"]),
        f"{each['bits_per_byte']:.4f}",
        f"{each['accuracy']:.1%}",
        _change_text(each),
    )
    if not exits:
        return cells
    return (*cells, "" if each["iterations"] is None else f"{each['iterations']:.2f}")


def _change_text(each: dict[str, Any]) -> str:
    """Say ``+0.42% (0.05)``: the change and its standard error."""
    if each["change"] is None:
        return ""
    error = "" if each["change_error"] is None else f" ({each['change_error']:.2%})"
    return f"{each['change']:+.2%}{error}"
