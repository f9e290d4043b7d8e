"""Facts that several views show, as rows and text."""

from collections.abc import Sequence
from typing import Any

from loopedge.units import cosine_text, score_text, size_text
from loopedge_cli.page import count_text, decibels_text, number_text, plain, rows_list

__all__ = [
    "copies_list",
    "copies_rows",
    "coverage_text",
    "file_rows",
    "held_out_rows",
    "integers_name",
    "last_rows",
    "loss_text",
    "rolling_rows",
    "state_rows",
    "treatments_list",
]


GROUPS_SHOWN = 4
"""Groups of tied weights that the view describes; the JSON holds all."""


def copies_rows(copies: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Say how many weights are stored more than once, and what that takes."""
    if not copies:
        return []
    number = sum(len(each["names"]) + len(each["transposed"]) - 1 for each in copies)
    saved = sum(each["saved_bytes"] for each in copies)
    text = f"[yellow]{count_text(number, 'equal copy', 'equal copies')}[/yellow] of {count_text(len(copies), 'weight')}"
    return [("copies", f"{text}, {size_text(saved)} could be saved")]


def copies_list(copies: Sequence[dict[str, Any]]) -> Any:
    """List the weights that are stored more than once."""
    rows = [
        (
            each["names"][0],
            f"{len(each['names']) + len(each['transposed'])}x",
            f"{len(each['transposed'])}x" if each["transposed"] else "",
            size_text(each["saved_bytes"]),
        )
        for each in copies
    ]
    return rows_list("equal copies", ("stored", "transposed", "could be saved"), rows)


def rolling_rows(ties: dict[str, Any], rolling: dict[str, Any]) -> list[tuple[str, str]]:
    """Show the order of ties, and whether a Loop can be made of it."""
    rows = [("ties", f"[bold]{ties['order']}[/bold]")] if ties["order"] else []
    for group in ties["groups"][:GROUPS_SHOWN]:
        times = f"{group['reads']} times one after the other" if group["reads"] > 1 else ""
        beside = f"{group['side_by_side']} times side by side" if group["side_by_side"] > 1 else ""
        read = ", ".join(text for text in (times, beside) if text)
        what = f"{group['label']}: {count_text(len(group['weights']), 'weight')}, {size_text(group['bytes'])}"
        rows.append(("ties", f"{what}, read {read}  [dim]{plain(group['weights'][0])}[/dim]"))
    if len(ties["groups"]) > GROUPS_SHOWN:
        rows.append(
            ("ties", f"[dim]and {len(ties['groups']) - GROUPS_SHOWN} more, see --json[/dim]")
        )
    if rolling["command"]:
        up_to = "up to " if rolling["notes"] else ""
        counts = [str(each["times"]) for each in ties["repeats"]]
        loop = f"to give it its Loop of {up_to}{count_text(rolling['iterations'], 'iteration')}"
        if len(counts) > 1:
            several = f"{', '.join(counts[:-1])} and {counts[-1]}"
            loop = f"to give it its Loops of {up_to}{several} iterations"
        rows.append(("rolling", f"[bold]{plain(rolling['command'])}[/bold] {loop}"))
    elif rolling["reason"]:
        rows.append(("rolling", plain(rolling["reason"])))
    return rows + [("rolling", plain(note)) for note in rolling["notes"]]


def coverage_text(coverage: dict[str, Any]) -> str:
    """Say how many linears run in integers, and the share of their bytes."""
    done, total = coverage["quantized"], coverage["total"]
    if total == 0:
        return "no linears"
    style = "green" if done == total else "yellow" if done else "dim"
    percent = (
        100 * coverage["bytes"] // max(1, coverage["total_bytes"])
    )  # 100 where all of them are
    return f"[{style}]{done} of {total}[/{style}] linears, {percent}% of the bytes of their weights"


def file_rows(files: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """List files with their bytes."""
    return [
        ("files", f"{plain(file['path'])}  [dim]{size_text(file['bytes'])}[/dim]") for file in files
    ]


def integers_name(scheme: str | None) -> str:
    """Return what the weights of a scheme are called: ``int4``, ``int2``, of the others ``int8``."""
    return {"weight-int4": "int4", "weight-int2": "int2"}.get(scheme or "", "int8")


def held_out_rows(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Show what was measured, and on which samples."""
    was = "was" if held_out["samples"] == 1 else "were"
    where = {
        "validation": "{} of the task's validation part",
        "data": "{} held out of the data",
        "calibrating": "[yellow]{} that also calibrated[/yellow]",
        "generated": f"[yellow]{{}} that {was} generated[/yellow]: name --data for a figure of yours",
    }[held_out["source"]].format(count_text(held_out["samples"], "sample"))
    rows = [
        (
            "verified",
            f"[green]against the float model[/green], SQNR {decibels_text(held_out['sqnr_db'])} on {where}",
        )
    ]
    if held_out["metric"] is None:
        return rows
    error = held_out["loss_error"]
    noise = "" if error is None else f", standard error {number_text(error)}"
    style = "red" if held_out["moved"] else "green"
    scores = " -> ".join(number_text(held_out[key]) for key in ("float_score", "score"))
    text = f"[{style}]{scores}[/{style}] on the same samples, {loss_text(held_out['loss'])}{noise}"
    return [
        *rows,
        (plain(held_out["metric"]), text),
        *_mase_rows(held_out),
        *_interval_rows(held_out),
    ]


def _mase_rows(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Show the error of forecasts in units of what their series change, beside the metric that decides."""
    scores = [held_out.get(key) or {} for key in ("float_scores", "scores")]
    if held_out["metric"] == "mase" or not all("mase" in each for each in scores):
        return []
    return [("mase", " -> ".join(score_text(each["mase"]) for each in scores))]


def _interval_rows(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Show how often the float model's prediction intervals hold around both models' forecasts."""
    return [
        (
            "intervals",
            f"{each['level']} %: {each['float_share']:.1%} -> {each['share']:.1%} of these values; "
            "the float model's",
        )
        for each in held_out.get("intervals") or []
    ]


def state_rows(states: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Show how much of its direction the state of each core keeps: after the first, the worst and the last iteration.

    Args:
        states: Each with ``core``, ``mean`` and ``worst``. Of several of a core the one is shown whose worst sample is worst.
    """
    by_core: dict[str, list[dict[str, Any]]] = {}
    for state in states:
        by_core.setdefault(state["core"], []).append(state)
    rows = []
    for core, own in by_core.items():
        shown = min(own, key=lambda state: _least(state["worst"]))
        text = _state_text(shown)
        text += f"; state {plain(shown['state'])} of {len(own)}" if len(own) > 1 else ""
        rows.append(("state", f"{plain(core)}: {text}" if len(by_core) > 1 else text))
    return rows


def _state_text(state: dict[str, Any]) -> str:
    """Say ``cosine to float's 0.99998 in iteration 0, 0.99950 in 5 (worst), 0.99971 in 7 (last)``, and the worst sample."""
    mean, worst = state["mean"], state["worst"]
    known = [place for place, value in enumerate(mean) if value is not None]
    if not known:
        return "[yellow]zeros in the float model: no cosine is defined[/yellow]"
    least = min(known, key=lambda place: mean[place])
    marks = {known[0]: ""}
    if len(mean) > 1:
        marks |= {least: " (worst)"} | {known[-1]: " (last)"}
    parts = [f"{cosine_text(mean[at])} in {at}{marks[at]}" for at in sorted(marks)]
    parts[0] = parts[0].replace(" in ", " in iteration ", 1)
    sample = min(known, key=lambda place: worst[place])
    where = f" in {sample}" if len(mean) > 1 else ""
    text = f"cosine to float's {', '.join(parts)}; worst sample {cosine_text(worst[sample])}{where}"
    zeros = max(state.get("undefined", [0]))
    return text + (f"; {count_text(zeros, 'sample')} with none: zeros in float" if zeros else "")


def _least(values: Sequence[float | None]) -> float:
    return min((value for value in values if value is not None), default=2.0)


def last_rows(fields: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the last iteration computes, where it is not everything."""
    if fields is None or not fields["applied"]:
        return []
    products = f"{fields['narrowed']} of {fields['products']} products"
    return [("last iteration", f"computes positions {fields['positions']} alone in {products}")]


def loss_text(loss: float) -> str:
    """Say how far a metric moved, and in which direction: ``loses 0.02``."""
    return f"gains {number_text(-loss)}" if loss < 0 else f"loses {number_text(loss)}"


def treatments_list(treatments: Sequence[dict[str, Any]]) -> Any:
    """List the linears that are not treated as the core's."""
    rows = [(item["name"], _treatment_text(item), item["reason"]) for item in treatments]
    return rows_list("treated otherwise than the core", ("how", "reason"), rows)


def _treatment_text(item: dict[str, Any]) -> str:
    if item["treatment"] != "static":
        return str(item["treatment"])
    return f"static, {item['method']}, margin {item['margin']:g}"
