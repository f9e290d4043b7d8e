"""What people see of a bundle that was written."""

from pathlib import Path
from typing import TYPE_CHECKING

from loopedge.units import size_text
from loopedge_cli.page import count_text, page, plain, rows_list, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["bundle_view", "package_view"]


def bundle_view(result: "Result") -> "RenderableType":
    """Show a `BundleInspection`."""
    fields = result.to_json()
    loops = fields["loops"] or {}
    rows = [
        ("for", ", ".join(fields["clients"])),
        ("made by", f"loopedge {fields['loopedge']}"),
        *(
            [("loops", f"{loops['default']}, {'selectable' if loops['dynamic'] else 'fixed'}")]
            if loops
            else []
        ),
        (
            "bundle",
            f"{size_text(fields['bundle_bytes'])} in {count_text(len(fields['files']), 'file')}",
        ),
        (
            "verified",
            "[green]all files[/green]"
            if fields["verified"]
            else "sizes; --verify compares the content",
        ),
    ]
    models = [
        (
            model["id"],
            model["file"],
            model["form"] or "",
            model["scheme"] or "float",
            model["min_runtime"] or "?",
        )
        for model in fields["models"]
    ]
    vectors = [
        (
            vector["name"],
            vector["check"]["kind"],
            f"{vector['measured']:.3g}",
            f"{vector['check']['limit']:.3g}",
        )
        for vector in fields["vectors"]
    ]
    return page(
        fields["name"],
        rows,
        rows_list("models", ("id", "file", "form", "weights", "needs ONNX Runtime"), models),
        rows_list("test vectors", ("inputs", "check", "measured", "limit"), vectors),
    )


def package_view(result: "Result") -> "RenderableType":
    """Show a `PackageResult`."""
    fields = result.to_json()
    runtime = fields["runtime_bytes"]
    rows = [
        ("source", plain(fields["source"])),
        ("for", ", ".join(fields["clients"])),
        *([("judged by", plain(fields["reference"]))] if fields["reference"] else []),
        (
            "bundle",
            f"{size_text(fields['bundle_bytes'])} in {count_text(len(fields['files']), 'file')}"
            + (f", and {size_text(runtime)} of runtimes" if runtime else ""),
        ),
        ("seconds", seconds_text(fields["seconds"])),
        ("next", plain(str(Path(fields["path"]) / "README.md"))),
    ]
    models = [
        (model["file"], model["form"] or "", size_text(model["bytes"]), ", ".join(model["clients"]))
        for model in fields["models"]
    ]
    vectors = [
        (vector["name"], vector["check"], f"{vector['measured']:.3g}", f"{vector['limit']:.3g}")
        for vector in fields["vectors"]
    ]
    return page(
        Path(fields["path"]).name,
        rows,
        rows_list("models", ("file", "form", "size", "for"), models),
        rows_list("test vectors", ("inputs", "check", "measured", "limit"), vectors),
    )
