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
REGULAR = 0.3
"""Strength from which on a season is called regular."""


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
        return [] if fields["findings"] else [("to do", "nothing stands out")]
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
    steps = found["steps"]
    if not found["rows"]:
        return "nothing beyond the mean or the last value" if steps[0]["step"] else "nothing"
    by = f"{found['regression']} on {count_text(found['rows'], 'row')}"
    if steps[0]["step"] == 0:
        return f"{max(steps[0]['gain'], 0):.0%} of what class frequencies leave open, by {by}"
    said = ", ".join(f"{max(each['r2'], 0):.0%} at step {each['step']}" for each in steps)
    gains = ", ".join(f"{max(each['gain'], 0):.0%}" for each in steps)
    return f"{said} of the variance ({by}); of what the last value or the mean leaves open {gains}"


def _look_back(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how far back the rows reach that explain most."""
    if found["rows"] is None:
        return f"none: up to {count_text(found['searched'], 'row')} explain nothing"
    return (
        f"{count_text(found['rows'], 'row')} for 90 % of what up to {found['searched']} explain, {found['enough']} for nearly all; "
        f"the context is {found['context']}"
    )


def _season(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say what repeats itself."""
    if found["period"] is None:
        return "none was found"
    where = "" if found["found_in"] == "values" else ", found in the changes from row to row"
    regular = "regular" if found["strength"] >= REGULAR else "not regular"
    return f"{found['period']} rows, {regular} (strength {found['strength']:.2f} of 1){where}; training holds {found['seasons']:.3g}"


def _drift(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how level and swing differ between training and test."""
    trend = (
        f"; a straight line explains {found['trend']:.0%} of training"
        if found["trend"] > 0.1
        else ""
    )
    return (
        f"from training to test the mean moves by {found['level']:+.2g} deviations, the swing is {found['swing']:.2f} times as "
        f"wide, {found['outside']:.0%} of the rows are outside{trend}"
    )


def _jumps(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say how much of the changes is in few steps."""
    still = f"; {found['still']:.0%} of the steps change nothing" if found["still"] > 0.05 else ""
    return (
        f"largest step {found['largest']:.2g} deviations; the largest 1 % of the steps hold {found['concentration']:.0%} of all "
        f"squared change (8 % is usual){still}"
    )


def _test_split(found: dict[str, Any], fields: dict[str, Any]) -> str:
    """Say what the test split tells apart, and how the best baseline does in it."""
    value = f"{found['metric']} {score_text(found['value'])} by {plain(found['baseline'])}"
    if found["deviation"] is not None:
        value += f" (± {found['deviation']:.2g} between fifths of the period)"
    if found["smallest_difference"] is None:
        return value
    share = "" if found["share"] is None else f" ({found['share']:.1%} of its error)"
    return (
        f"smallest difference that it sees [bold]{found['smallest_difference']:.3g}[/bold]{share}; {value}; "
        f"{count_text(found['samples'], 'sample')}, as good as {count_text(found['blocks'], 'independent one')}"
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
