"""What people see of a result. Views read the JSON keys, so that both tell the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import size_text
from loopedge_cli.forecast_view import decimals_of, forecast_lists, forecast_rows
from loopedge_cli.generate_view import cache_rows, without_cache
from loopedge_cli.page import (
    LISTED,
    count_text,
    number_text,
    page,
    plain,
    rows_list,
    seconds_text,
    shape_text,
)
from loopedge_cli.view_rows import (
    copies_list,
    copies_rows,
    coverage_text,
    file_rows,
    held_out_rows,
    integers_name,
    last_rows,
    rolling_rows,
    state_rows,
    treatments_list,
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
]


def inspection_view(result: "Result") -> "RenderableType":
    """Show an `loopedge.artifact.inspection.Inspection`."""
    fields = result.to_json()
    ratio = fields["untied_bytes"] / fields["weight_bytes"] if fields["weight_bytes"] else 1.0
    weights = f"{size_text(fields['weight_bytes'])} stored{'' if fields['copies'] else ' once'}"
    if ratio > 1:
        untied = size_text(fields["untied_bytes"])
        up_to = "up to " if fields["exit"] else ""
        weights += f"; untied iterations would take {up_to}{untied}, [bold]{ratio:.3g} x[/bold]"
    rows = [
        ("form", _form_text(fields)),
        ("opset", f"{fields['opset']}, IR {fields['ir_version']}, {fields['nodes']} nodes"),
        *(("input", _port_text(port)) for port in without_cache(fields["inputs"])),
        *(("output", _port_text(port)) for port in without_cache(fields["outputs"])),
        *cache_rows(fields),
        ("weights", weights),
        *copies_rows(fields["copies"]),
        *(
            []
            if fields["form"] == "loop" or fields["metadata"].get("generate")
            else rolling_rows(fields["ties"], fields["rolling"])
        ),
        (integers_name(_scheme(fields["metadata"])), coverage_text(fields["int8"])),
        *_quality_rows(fields["metadata"]),
        *_inspected_rows(fields["last_rows"]),
        *_memory_rows(fields),
        *file_rows(fields["files"]),
        *_companion_rows(fields["companions"]),
    ]
    return page(
        Path(fields["path"]).name,
        rows,
        rows_list("loops", ("iterations", "tables", "tied weights"), _core_rows(fields["cores"])),
        rows_list("tied weights", ("read", "bytes"), _tie_rows(fields["tied_weights"])),
        copies_list(fields["copies"]),
        rows_list(
            "timestep tables",
            ("shape",),
            [(t["name"], shape_text(t["shape"])) for t in fields["tables"]],
        ),
        treatments_list((fields["metadata"].get("quantization") or {}).get("treatments", [])),
        warning="; ".join(fields["unloadable"]) or None,
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
        *last_rows(fields["last_rows"]),
        ("seconds", seconds_text(fields["seconds"])),
        *file_rows(fields["files"]),
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
        *file_rows(fields["files"]),
    ]
    return page(Path(fields["path"]).name, rows)


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
        *file_rows(fields["files"]),
    ]
    others = [
        (item["name"], item["weight"], size_text(item["bytes"]), item["reason"])
        for item in fields["not_packed"]
    ]
    lists = [rows_list("left as stored", ("weight", "bytes", "reason"), others)]
    return page(Path(fields["path"]).name, rows, *lists)


def _scheme(metadata: dict[str, Any]) -> str | None:
    found = metadata.get("quantization") or {}
    return found.get("scheme")


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
    states = state_rows(found.get("state_cosines", []))
    return [*held_out_rows({**measured, "moved": found.get("moved", False)}), *states]


def _inspected_rows(positions: str | None) -> list[tuple[str, str]]:
    return (
        [] if positions is None else [("last iteration", f"computes positions {positions} alone")]
    )


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
    if fields.get("forecast") is None:
        rows += [("label", plain(label)) for label in (fields["labels"] or [])[:LISTED]]
    else:
        rows += forecast_rows(fields["forecast"])
    if fields["path"]:
        rows.append(("file", plain(fields["path"])))
    if "next_tokens" in fields:
        rows += _text_rows(fields)
    outputs = [
        (
            item["name"],
            item["dtype"],
            shape_text(item["shape"]),
            *_range_texts([item[key] for key in ("min", "mean", "max")]),
            item["not_finite"],
        )
        for item in fields["outputs"]
    ]
    heads = ("type", "shape", "min", "mean", "max", "not finite")
    forecast = fields.get("forecast")
    listed = [] if forecast is None else forecast_lists(forecast)
    return page(Path(fields["model"]).name, rows, *listed, rows_list("outputs", heads, outputs))


def _range_texts(values: list[float | None]) -> list[str]:
    """Return the least, the mean and the largest value of an output; one that stands high is told from the others."""
    texts = [number_text(value) for value in values]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(set(known)) == 1 or len(set(texts)) > 1:
        return texts
    decimals = decimals_of(known)
    return [f"{value:.{decimals}f}" for value in known]


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


def _form_text(fields: dict[str, Any]) -> str:
    loops = fields["loops"]
    if fields["form"] is None:
        producer = plain(fields["producer"] or "another tool")
        return f"not written by loopedge but by {producer}{_foreign_loop_text(fields)}"
    several = len(fields["cores"]) > 1
    parts = [
        f"[bold]{fields['form']}[/bold]",
        _counts_text(fields["cores"], "loop") if several else count_text(loops, "loop"),
    ]
    if fields["dynamic_loops"]:
        parts.append("selectable when it runs")
    if fields["trained_loops"] != loops and not several:
        parts.append(f"trained with {fields['trained_loops']}")
    if fields["exit"] is not None:
        parts.append(f"or until {plain(fields['exit'])}")
    return ", ".join(parts)


def _foreign_loop_text(fields: dict[str, Any]) -> str:
    loops, cores = fields["loops"], fields["cores"]
    if fields["dynamic_loops"] is None:
        return ""
    if len(cores) > 1:
        return f"; {len(cores)} Loops of {_counts_text(cores, 'iteration')}"
    if loops is None:
        chosen = ", whose count is an input" if fields["dynamic_loops"] else ""
        return f"; a Loop{chosen or (' that its condition ends' if fields['exit'] else '')}"
    at_most = "at most " if fields["exit"] else ""
    return f"; a Loop of {at_most}{count_text(loops, 'iteration')}"


def _counts_text(cores: Sequence[dict[str, Any]], noun: str) -> str:
    """Say ``4 and 3 loops`` of several cores, ``?`` where only the run tells."""
    *first, last = (
        "?" if core["iterations"] is None else str(core["iterations"]) for core in cores
    )
    return f"{', '.join(first)} and {last} {noun}s"


def _core_rows(cores: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Show each of several cores: what is alone stands in the other rows."""
    if len(cores) < 2:
        return []
    return [
        (
            core["name"],
            _iterations_text(core),
            len(core["tables"]),
            f"{core['weights']}, {size_text(core['weight_bytes'])}",
        )
        for core in cores
    ]


def _iterations_text(core: dict[str, Any]) -> str:
    if core["iterations"] is None:
        other = "until its condition ends it" if core["exit"] else "only the run tells"
        return "an input says it" if core["dynamic_loops"] else other
    return f"{'at most ' if core['exit'] else ''}{core['iterations']}"


def _port_text(port: dict[str, Any]) -> str:
    shape = "of unknown rank" if port["shape"] is None else shape_text(port["shape"])
    return f"{plain(port['name'])}  [dim]{port['dtype']}[/dim] {shape}"


def _tie_rows(ties: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(tie["name"], f"{tie['uses']}x", size_text(tie["bytes"])) for tie in ties]
