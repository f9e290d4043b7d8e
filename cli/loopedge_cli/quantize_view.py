"""What people see of a quantization."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import size_text
from loopedge_cli.choice_view import choice_lists
from loopedge_cli.page import count_text, number_text, page, plain, rows_list, seconds_text
from loopedge_cli.view_rows import (
    coverage_text,
    file_rows,
    held_out_rows,
    integers_name,
    last_rows,
    loss_text,
    state_rows,
    treatments_list,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["quantize_view"]

SHOWN_SHARE = 0.0005
"""Share of values outside their range from which on a linear is listed."""


def quantize_view(result: "Result") -> "RenderableType":
    """Show a `QuantizeResult`, and what its budget took."""
    fields = result.to_json()
    budget, choice = fields.get("budget"), fields.get("choice")
    skipped = [
        (item["name"], item["reason"])
        for kind in ("matmuls", "embeddings")
        for item in fields[kind]["skipped"]
    ]
    rows = [
        ("scheme", _scheme_text(fields)),
        *([("chosen", plain(choice["reason"]))] if choice else []),
        (
            integers_name(fields["scheme"]),
            coverage_text(fields["matmuls"]),
        ),
        *_rounding_rows(fields["rounding"]),
        *_refined_rows(fields["refined"]),
        *_weight_only_rows(fields),
        *([("budget", _budget_text(budget))] if budget else []),
        *held_out_rows(fields["held_out"]),
        *state_rows(fields["state_cosines"]),
        (
            "weights",
            f"{size_text(fields['source_weight_bytes'])} -> {size_text(fields['weight_bytes'])}",
        ),
        *last_rows(fields["last_rows"]),
        ("time", _time_text(fields["time_ratio"])),
        ("seconds", seconds_text(fields["seconds"])),
        *file_rows(fields["files"]),
    ]
    lists = [
        treatments_list([item for item in fields["treatments"] if item["treatment"] != "float"]),
        rows_list("left in float", ("reason",), skipped),
        rows_list("values outside their range", ("share", "iteration"), _clipped_rows(fields)),
    ]
    lists += _budget_lists(budget) if budget else []
    before = choice_lists(choice) if choice else []
    return page(Path(fields["path"]).name, rows, *before, *lists, warning=fields["warning"])


def _budget_text(budget: dict[str, Any]) -> str:
    name, allowed = budget["metric"], number_text(budget["max_drop"])
    if budget["score"] is not None:
        name += f" {number_text(budget['float_score'])} -> {number_text(budget['score'])}"
    text = f"{name}, {loss_text(budget['loss'])} of {allowed} allowed"
    if budget["loss"] < 0:
        text = f"{name}, {loss_text(budget['loss'])} where {allowed} may be lost"
    return (
        f"{text}; {number_text(budget['loss_int8'])} with none lifted" if budget["lifted"] else text
    )


def _budget_lists(budget: dict[str, Any]) -> list[Any]:
    """Show what was lifted, what that cost and won, and what the rounding of each linear does."""
    lifted = [
        (
            item["name"],
            item["level"],
            number_text(item["won"]),
            size_text(item["bytes"]),
            f"{item['ms']:+.3f}",
        )
        for item in budget["lifted"]
    ]
    sensitivity = [
        (item["name"], f"{item['error']:.2e}", *_worst(item["per_iteration"]))
        for item in budget["sensitivity"]
    ]
    return [
        rows_list("lifted for the budget", ("to", "won", "bytes more", "ms more"), lifted),
        rows_list("error when rounded alone", ("relative", "worst iteration", "its"), sensitivity),
    ]


def _worst(errors: list[float]) -> tuple[str, str]:
    if not errors:
        return "-", "-"
    worst = max(range(len(errors)), key=errors.__getitem__)
    return str(worst), f"{errors[worst]:.2e}"


def _clipped_rows(fields: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Show of each linear the iteration in which most of what it reads is cut off; none where hardly any is."""
    worst = {name: _worst_share(shares) for name, shares in fields["held_out"]["clipped"].items()}
    ranked = sorted(worst.items(), key=lambda item: -item[1][0])
    return [
        (name, f"{share:.2%}", "-" if place is None else place)
        for name, (share, place) in ranked
        if share >= SHOWN_SHARE
    ]


def _worst_share(shares: list[float]) -> tuple[float, int | None]:
    largest = max(shares)
    return largest, shares.index(largest) if len(shares) > 1 else None


def _weight_only_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Name the linears whose weights alone were asked for, and count the embedding tables."""
    rows = [("8-bit weight alone", plain(name)) for name in fields["weight_only"]]
    tables = fields["embeddings"]
    if tables["total"]:
        rows.append(("embeddings", f"{tables['quantized']} of {tables['total']} tables"))
    return rows


def _refined_rows(refined: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what training the rounding reached on the samples that choose."""
    if refined is None:
        return []
    samples = count_text(refined["samples"], "sample")
    if not refined["best_step"]:
        return [
            ("refined", f"nothing better in {count_text(refined['steps'], 'step')}, on {samples}")
        ]
    reached = f"{refined['before_db']:.1f} -> {refined['after_db']:.1f} dB on {samples} that choose"
    return [
        ("refined", f"{reached}, {refined['best_step']} of {count_text(refined['steps'], 'step')}")
    ]


def _rounding_rows(rounding: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say how the weights were rounded by data, and what rounding to nearest would have given."""
    if rounding is None:
        return []
    found = {item["name"]: item["sqnr_db"] for item in rounding["candidates"]}
    chosen, samples = rounding["chosen"], count_text(rounding["choosing"], "sample")
    text = f"{chosen}, {found[chosen]:.1f} dB on {samples} that chose"
    if chosen != "nearest":
        text += f"; to nearest {found['nearest']:.1f} dB"
    return [("rounding", text)]


def _time_text(ratio: float | None) -> str:
    return (
        "not known, see the note"
        if ratio is None
        else f"{ratio:.2f} of the float model's, one sample"
    )


def _scheme_text(fields: dict[str, Any]) -> str:
    """Say ``static, ranges per-iteration, mse, 128 samples``, or the scheme alone."""
    if fields["ranges"] is None:
        return str(fields["scheme"])
    samples = count_text(fields["samples"], "sample")
    total = fields["samples_of"]
    if total is not None and total > fields["samples"]:
        samples = f"{fields['samples']} of {total:,} samples, evenly thinned"
    return f"{fields['scheme']}, ranges {fields['ranges']}, {fields['method']}, {samples}"
