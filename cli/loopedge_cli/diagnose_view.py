"""What people see of a description of data: what to act on first, then what was found."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loopedge.units import score_text
from loopedge_cli.page import count_text, page, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["diagnose_view"]

SHOWN = 6
"""Advice and findings that are shown; the JSON holds all."""


def diagnose_view(result: "Result") -> "RenderableType":
    """Show a `Diagnosis`: what to act on, then each family of figures in a line."""
    fields = result.to_json()
    rows = [*_advice_rows(fields), *_finding_rows(fields)]
    for name, family, say in FAMILIES:
        if fields[family] is not None and (text := say(fields[family], fields)):
            rows.append((name, text))
    return page(fields["subject"], rows)


def _advice_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what to act on, the most important first."""
    advice = fields["advice"]
    if not advice:
        return [("to do", "nothing stands out")]
    rows = []
    for each in advice[:SHOWN]:
        option = "" if each["option"] is None else f"  [bold]{plain(each['option'])}[/bold]"
        rows.append(("to do", f"{plain(each['message'])}{option}"))
    if len(advice) > SHOWN:
        rows.append(("to do", f"[dim]and {len(advice) - SHOWN} more, see --json[/dim]"))
    return rows


def _finding_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which faults the file has."""
    found = fields["findings"]
    rows = []
    for each in found[:SHOWN]:
        hint = "" if each["hint"] is None else f"  [bold]{plain(each['hint'])}[/bold]"
        rows.append(("file", f"{plain(each['message'])}{hint}"))
    if len(found) > SHOWN:
        rows.append(("file", f"[dim]and {len(found) - SHOWN} more, see --json[/dim]"))
    return rows


def _forecastability(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how much is explained at each step."""
    if not found["rows"]:
        return "nothing beyond the mean or the last value"
    steps = found["steps"]
    if steps[0]["step"] == 0:
        return f"{max(steps[0]['gain'], 0):.0%} of the error of the class frequencies is taken away, by {found['regression']}"
    said = ", ".join(f"step {each['step']}: {max(each['r2'], 0):.0%}" for each in steps)
    gains = ", ".join(f"{max(each['gain'], 0):.0%}" for each in steps)
    return (
        f"{said} of the variance, by {found['regression']} on {count_text(found['rows'], 'row')}; "
        f"{gains} of the error of the last value or the mean"
    )


def _look_back(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how far back the rows reach that explain most."""
    if found["rows"] is None:
        return f"none of up to {count_text(found['searched'], 'row')} explains anything"
    return (
        f"{count_text(found['rows'], 'row')} give 90 % of what the best of up to {found['searched']} gives; "
        f"the context is {found['context']}"
    )


def _season(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say what repeats itself."""
    if found["period"] is None:
        return "none was found"
    where = "" if found["found_in"] == "values" else ", found in the changes"
    return f"{found['period']} rows, strength {found['strength']:.2f}{where}; training holds {found['seasons']:.3g} of them"


def _drift(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how level and swing differ between training and test."""
    trend = (
        f", a straight line explains {found['trend']:.0%} of training"
        if found["trend"] > 0.1
        else ""
    )
    return (
        f"test against training: level {found['level']:+.2g} deviations, swing {found['swing']:.2f} times, "
        f"{found['outside']:.0%} of its rows outside the range of training{trend}"
    )


def _jumps(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how much of the changes is in few steps."""
    still = f", {found['still']:.0%} of the steps change nothing" if found["still"] > 0.05 else ""
    return (
        f"the largest step is {found['largest']:.2g} deviations; a hundredth of the steps holds "
        f"{found['concentration']:.0%} of the squared changes (8 % where they are normal){still}"
    )


def _test_split(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say what the test split tells apart, and how the best baseline does in it."""
    value = f"{plain(found['baseline'])} reaches {found['metric']} {score_text(found['value'])}"
    if found["deviation"] is not None:
        value += (
            f", from fifth to fifth of the period give or take {score_text(found['deviation'])}"
        )
    if found["smallest_difference"] is None:
        return value
    share = "" if found["share"] is None else f" ({found['share']:.1%} of its error)"
    return (
        f"{value}; a difference of [bold]{found['smallest_difference']:.3g}[/bold]{share} is the smallest that is seen in four of "
        f"five such periods, {count_text(found['blocks'], 'independent piece')} of {count_text(found['samples'], 'sample')}"
    )


def _lengths(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how long samples are."""
    if found["fixed"]:
        return f"all {found['shortest']:,} {found['unit']}"
    longest = max(found["longest"].values())
    return f"{found['shortest']:,} to {longest:,} {found['unit']}, half of them up to {found['median']:,.0f}"


def _classes(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how many classes there are, and how frequent the most frequent one is."""
    names = found["counts"]["train"]
    rarest = min(names, key=lambda each: names[each])
    return (
        f"{len(names)}; {plain(found['most_frequent'])} is {found['share']:.0%} of training and {found['test_share']:.0%} of "
        f"test, the rarest, {plain(rarest)}, has {count_text(names[rarest], 'sample')} in training and "
        f"{found['counts']['test'][rarest]} in test"
    )


def _duplicates(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how many test samples stand in training."""
    both = found["repeated"] + found["contradicted"]
    return f"{both} of {found['test']} test samples stand among {found['train']} of training"


def _vocabulary(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say which tokens are used."""
    return (
        f"{found['used']:,} of {found['size']:,} tokens are used, {found['entropy']:.2f} bits a token by frequency alone; "
        f"{found['unseen']:.2%} of the test tokens never in training"
    )


FAMILIES: tuple[tuple[str, str, Callable[[dict[str, Any], dict[str, Any]], str]], ...] = (
    ("test split", "test_split", _test_split),
    ("explained", "forecastability", _forecastability),
    ("look-back", "look_back", _look_back),
    ("season", "season", _season),
    ("drift", "drift", _drift),
    ("jumps", "jumps", _jumps),
    ("classes", "classes", _classes),
    ("lengths", "lengths", _lengths),
    ("vocabulary", "vocabulary", _vocabulary),
    ("duplicates", "duplicates", _duplicates),
)
