"""What people see of a result. Views read the JSON keys, so that both tell the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import size_text
from loopedge_cli.page import (
    LISTED,
    count_text,
    decibels_text,
    number_text,
    page,
    plain,
    rows_list,
    seconds_text,
    shape_text,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = [
    "compare_view",
    "convert_view",
    "export_view",
    "inference_view",
    "inspection_view",
    "prepare_view",
    "profile_view",
    "quantize_view",
    "train_view",
]


SHOWN_SHARE = 0.0005
"""Share of values outside their range from which on a linear is listed."""


def inspection_view(result: "Result") -> "RenderableType":
    """Show an `loopedge.artifact.inspection.Inspection`."""
    fields = result.to_json()
    ratio = fields["untied_bytes"] / fields["weight_bytes"] if fields["weight_bytes"] else 1.0
    weights = f"{size_text(fields['weight_bytes'])} stored once"
    if ratio > 1:
        untied = size_text(fields["untied_bytes"])
        up_to = "up to " if fields["exit"] else ""
        weights += f"; untied iterations would take {up_to}{untied}, [bold]{ratio:.3g} x[/bold]"
    rows = [
        ("form", _form_text(fields)),
        ("opset", f"{fields['opset']}, IR {fields['ir_version']}, {fields['nodes']} nodes"),
        *(("input", _port_text(port)) for port in fields["inputs"]),
        *(("output", _port_text(port)) for port in fields["outputs"]),
        ("weights", weights),
        ("int8", _coverage_text(fields["int8"])),
        *_quality_rows(fields["metadata"]),
        *_inspected_rows(fields["last_rows"]),
        *_memory_rows(fields),
        *_file_rows(fields["files"]),
        *_companion_rows(fields["companions"]),
    ]
    return page(
        Path(fields["path"]).name,
        rows,
        rows_list("tied weights", ("read", "bytes"), _tie_rows(fields["tied_weights"])),
        rows_list(
            "timestep tables",
            ("shape",),
            [(t["name"], shape_text(t["shape"])) for t in fields["tables"]],
        ),
        _treatments_list((fields["metadata"].get("quantization") or {}).get("treatments", [])),
    )


def export_view(result: "Result") -> "RenderableType":
    """Show an `ExportResult`."""
    fields = result.to_json()
    cases = f" on {fields['cases']} cases" if "cases" in fields else ""
    rows = [
        (
            "form",
            f"{fields['form']}, {count_text(fields['loops'], 'loop')}, opset {fields['opset']}",
        ),
        (
            "weights",
            f"{size_text(fields['weight_bytes'])} stored once"
            + (f" in {fields['storage']}" if fields["storage"] != "float32" else "")
            + ", "
            f"{count_text(len(fields['tied_weights']), 'tensor')} tied",
        ),
        (
            "verified",
            f"[green]against PyTorch[/green]{cases}, "
            f"largest relative error {fields['max_rel_error']:.1e}",
        ),
        *_last_rows(fields["last_rows"]),
        ("seconds", seconds_text(fields["seconds"])),
        *_file_rows(fields["files"]),
    ]
    return page(Path(fields["path"]).name, rows)


def convert_view(result: "Result") -> "RenderableType":
    """Show a `ConvertResult`."""
    fields = result.to_json()
    rows = [
        ("source", plain(fields["source"])),
        (
            "operators",
            f"{count_text(len(fields['operators']), 'kind')}, optimization level {fields['optimization']}",
        ),
        ("weights", f"{size_text(fields['weight_bytes'])} stored once"),
        (
            "verified",
            f"[green]against its source[/green] on {fields['cases']} cases, "
            f"largest relative error {fields['max_rel_error']:.1e}",
        ),
        ("seconds", seconds_text(fields["seconds"])),
        *_file_rows(fields["files"]),
    ]
    return page(Path(fields["path"]).name, rows)


def quantize_view(result: "Result") -> "RenderableType":
    """Show a `QuantizeResult`, or a `BudgetedResult` with what its budget took."""
    fields = result.to_json()
    budget = fields.get("budget")
    skipped = [
        (item["name"], item["reason"])
        for kind in ("matmuls", "embeddings")
        for item in fields[kind]["skipped"]
    ]
    rows = [
        ("scheme", _scheme_text(fields)),
        (
            "int4" if fields["scheme"] == "weight-int4" else "int8",
            _coverage_text(fields["matmuls"]),
        ),
        *_weight_only_rows(fields),
        *([("budget", _budget_text(budget))] if budget else []),
        *_held_out_rows(fields["held_out"]),
        (
            "weights",
            f"{size_text(fields['source_weight_bytes'])} -> {size_text(fields['weight_bytes'])}",
        ),
        *_last_rows(fields["last_rows"]),
        ("time", _time_text(fields["time_ratio"])),
        ("seconds", seconds_text(fields["seconds"])),
        *_file_rows(fields["files"]),
    ]
    lists = [
        _treatments_list([item for item in fields["treatments"] if item["treatment"] != "float"]),
        rows_list("left in float", ("reason",), skipped),
        rows_list("values outside their range", ("share", "iteration"), _clipped_rows(fields)),
    ]
    budget_lists = _budget_lists(budget) if budget else []
    return page(Path(fields["path"]).name, rows, *lists, *budget_lists, warning=fields["warning"])


def prepare_view(result: "Result") -> "RenderableType":
    """Show a `PrepareResult`."""
    fields = result.to_json()
    rows = [
        ("made for", _device_text(fields)),
        (
            "packed",
            f"{count_text(fields['packed'], 'weight')}, {size_text(fields['packed_bytes'])}, "
            "mapped when it is loaded",
        ),
        (
            "verified",
            f"[green]against {plain(fields['source'])}[/green] on {fields['cases']} cases, "
            f"largest error {fields['max_abs_error']:.1e}",
        ),
        ("seconds", seconds_text(fields["seconds"])),
        *_file_rows(fields["files"]),
    ]
    others = [
        (item["name"], item["weight"], size_text(item["bytes"]), item["reason"])
        for item in fields["not_packed"]
    ]
    lists = [rows_list("left as stored", ("weight", "bytes", "reason"), others)]
    return page(Path(fields["path"]).name, rows, *lists)


def _quality_rows(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what a quantized file was measured at when it was written, and on which samples."""
    found = metadata.get("quantization") or {}
    if not isinstance(found, dict) or "measured_on" not in found:
        return []
    measured = {
        "sqnr_db": found["sqnr_db"],
        "source": found["measured_on"],
        "samples": found["measured_samples"],
        "metric": found.get("metric"),
    }
    measured |= {key: found.get(key) for key in ("float_score", "score", "loss", "loss_error")}
    return _held_out_rows({**measured, "moved": found.get("moved", False)})


def _inspected_rows(positions: str | None) -> list[tuple[str, str]]:
    return (
        [] if positions is None else [("last iteration", f"computes positions {positions} alone")]
    )


def _last_rows(fields: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the last iteration computes, where it is not everything."""
    if fields is None or not fields["applied"]:
        return []
    products = f"{fields['narrowed']} of {fields['products']} products"
    return [("last iteration", f"computes positions {fields['positions']} alone in {products}")]


def _companion_rows(companions: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    styles = {"present": "green"}
    return [
        (
            "beside it",
            f"{plain(item['file'])}  [{styles.get(item['state'], 'red')}]{item['state']}[/]",
        )
        for item in companions
    ]


def _memory_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how sessions keep the weights, and what a prepared file was made for."""
    prepared, memory = fields["prepared"], fields["memory"]
    if memory is None:
        return []
    if prepared:
        return [("memory", "mapped, prepared"), ("made for", _device_text(prepared))]
    wish = "; runs as balanced until [bold]loopedge prepare[/bold] makes the device's file"
    return [("memory", memory + wish if memory == "mapped" else memory)]


def _device_text(fields: dict[str, Any]) -> str:
    return plain(
        f"{fields['processor']}, {fields['architecture']}, onnxruntime {fields['onnxruntime']}"
    )


def _loss_text(loss: float) -> str:
    return f"gains {number_text(-loss)}" if loss < 0 else f"loses {number_text(loss)}"


def _budget_text(budget: dict[str, Any]) -> str:
    name, allowed = budget["metric"], number_text(budget["max_drop"])
    if budget["score"] is not None:
        name += f" {number_text(budget['float_score'])} -> {number_text(budget['score'])}"
    text = f"{name}, {_loss_text(budget['loss'])} of {allowed} allowed"
    if budget["loss"] < 0:
        text = f"{name}, {_loss_text(budget['loss'])} where {allowed} may be lost"
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


def _held_out_rows(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Show what was measured, and on which samples."""
    where = {
        "validation": "{} of the task's validation part",
        "data": "{} held out of the data",
        "calibrating": "[yellow]{} that also calibrated[/yellow]",
        "generated": "[yellow]{} that were generated[/yellow]: name --data for a figure of yours",
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
    text = f"[{style}]{scores}[/{style}] on the same samples, {_loss_text(held_out['loss'])}{noise}"
    return [*rows, (plain(held_out["metric"]), text)]


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


def _treatments_list(treatments: Sequence[dict[str, Any]]) -> Any:
    """List the linears that are not treated as the core's."""
    rows = [(item["name"], _treatment_text(item), item["reason"]) for item in treatments]
    return rows_list("treated otherwise than the core", ("how", "reason"), rows)


def _treatment_text(item: dict[str, Any]) -> str:
    if item["treatment"] != "static":
        return str(item["treatment"])
    return f"static, {item['method']}, margin {item['margin']:g}"


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


def inference_view(result: "Result") -> "RenderableType":
    """Show an `loopedge.inference.run.InferenceResult`."""
    fields = result.to_json()
    loops = "" if fields["loops"] is None else f"{count_text(fields['loops'], 'loop')}, "
    rows = [
        (
            "run",
            f"{loops}{fields['run_ms']:.3g} ms, {fields['provider']}, memory {fields['memory']}",
        )
    ]
    rows += [("label", plain(label)) for label in (fields["labels"] or [])[:LISTED]]
    if fields["path"]:
        rows.append(("file", plain(fields["path"])))
    if "next_tokens" in fields:
        rows += _text_rows(fields)
    outputs = [
        (
            item["name"],
            item["dtype"],
            shape_text(item["shape"]),
            *(number_text(item[key]) for key in ("min", "mean", "max")),
            item["not_finite"],
        )
        for item in fields["outputs"]
    ]
    heads = ("type", "shape", "min", "mean", "max", "not finite")
    return page(Path(fields["model"]).name, rows, rows_list("outputs", heads, outputs))


def _text_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Show the text as Python writes it, so that spaces and line breaks can be seen."""
    likely = ", ".join(
        f"{item['token']!r} {item['probability']:.1%}" for item in fields["next_tokens"]
    )
    rows = [
        (
            "text",
            f"{plain(repr(fields['text']))}  [dim]{count_text(fields['tokens'], 'token')}[/dim]",
        ),
        ("next token", plain(likely)),
    ]
    if fields["completion"] is not None:
        added = count_text(fields["new_tokens"], "token")
        rows.append(("completion", f"{plain(repr(fields['completion']))}  [dim]{added}[/dim]"))
    return rows


def profile_view(result: Any) -> "RenderableType":
    """Show a `ProfileResult`."""
    from loopedge.report.profile.terminal import profile_table

    return profile_table(result)


def compare_view(result: Any) -> "RenderableType":
    """Show a `Comparison` of two profiles."""
    from loopedge.report.comparison_table import comparison_table

    return comparison_table(result)


def train_view(result: "Result") -> "RenderableType":
    """Show a `TrainResult`, or a `RollingResult`: the model beside what needs no training."""
    fields = result.to_json()
    names = list(fields["test"])
    scores = [
        (
            f"{fields['task']} (validation)",
            *(number_text(fields["validation"][name]) for name in names),
        ),
        (f"{fields['task']} (test)", *(number_text(fields["test"][name]) for name in names)),
        *(
            (
                f"{baseline.replace('_', ' ')} (test)",
                *(number_text(baseline_scores[name]) for name in names),
            )
            for baseline, baseline_scores in fields["baselines"].items()
        ),
    ]
    rows = [
        ("model", f"{fields['parameters']:,} parameters, {count_text(fields['loops'], 'loop')}"),
        (
            "trained",
            f"{count_text(fields['steps'], 'step')} in {fields['seconds']:.0f} s, "
            f"{fields['tokens_per_second']:,.0f} tokens/s, best at step {fields['best_step']}",
        ),
        ("metrics", plain(fields["metrics_path"])),
        ("file", plain(fields["path"])),
    ]
    title = "scores of the last origin" if "origins" in fields else "scores"
    lists = [rows_list(title, names, scores)]
    if "origins" in fields:
        lists.append(rows_list("origins", names, _origin_rows(fields, names)))
    return page(Path(fields["path"]).name, rows, *lists)


def _origin_rows(fields: dict[str, Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Show the test scores of each origin, their mean and deviation, and those of the baselines."""
    each = [
        (f"origin {number} (test)", *(number_text(origin["test"][name]) for name in names))
        for number, origin in enumerate(fields["origins"], start=1)
    ]
    summed = [
        ("mean", *(number_text(fields["mean"][name]) for name in names)),
        ("standard deviation", *(number_text(fields["deviation"][name]) for name in names)),
    ]
    baselines = [
        (f"{name.replace('_', ' ')}, mean", *(number_text(scores[metric]) for metric in names))
        for name, scores in fields["baselines_mean"].items()
    ]
    return [*each, *summed, *baselines]


def _form_text(fields: dict[str, Any]) -> str:
    loops = fields["loops"]
    if fields["form"] is None:
        producer = plain(fields["producer"] or "another tool")
        return f"not written by loopedge but by {producer}{_foreign_loop_text(fields)}"
    parts = [f"[bold]{fields['form']}[/bold]", count_text(loops, "loop")]
    if fields["dynamic_loops"]:
        parts.append("selectable when it runs")
    if fields["trained_loops"] != loops:
        parts.append(f"trained with {fields['trained_loops']}")
    if fields["exit"] is not None:
        parts.append(f"or until {plain(fields['exit'])}")
    return ", ".join(parts)


def _foreign_loop_text(fields: dict[str, Any]) -> str:
    loops = fields["loops"]
    if fields["dynamic_loops"] is None:
        return ""
    if loops is None:
        chosen = ", whose count is an input" if fields["dynamic_loops"] else ""
        return f"; a Loop{chosen or (' that its condition ends' if fields['exit'] else '')}"
    at_most = "at most " if fields["exit"] else ""
    return f"; a Loop of {at_most}{count_text(loops, 'iteration')}"


def _port_text(port: dict[str, Any]) -> str:
    shape = "of unknown rank" if port["shape"] is None else shape_text(port["shape"])
    return f"{plain(port['name'])}  [dim]{port['dtype']}[/dim] {shape}"


def _coverage_text(coverage: dict[str, Any]) -> str:
    done, total = coverage["quantized"], coverage["total"]
    if total == 0:
        return "no linears"
    style = "green" if done == total else "yellow" if done else "dim"
    share = coverage["bytes"] / max(1, coverage["total_bytes"])
    return (
        f"[{style}]{done} of {total}[/{style}] linears, {share:.0%} of the bytes of their weights"
    )


def _tie_rows(ties: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(tie["name"], f"{tie['uses']}x", size_text(tie["bytes"])) for tie in ties]


def _file_rows(files: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        ("files", f"{plain(file['path'])}  [dim]{size_text(file['bytes'])}[/dim]") for file in files
    ]
