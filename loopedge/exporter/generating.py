"""Export a language model that decodes with a cache: its Loop form first, for a while, then what `to_generate` makes of it."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loopedge.deployment.decoding.generate_graph import GenerateForm
from loopedge.deployment.generating import to_generate
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.result import ExportResult
from loopedge.files.scratch import never_named

__all__ = ["export_generating", "generate_form"]


def export_generating(
    export: Callable[[Path, ExportOptions], ExportResult], target: Path, options: ExportOptions
) -> ExportResult:
    """Export a model as a Loop beside the target, and write the file that decodes with a cache.

    Args:
        export: Writes the model to a path, by options.
        target: Of the file with a cache.
        options: Of the export.

    Raises:
        InputError: The model cannot be exported, or cannot be given a cache.
        VerificationError: A file does not compute what it should; nothing is left.
    """
    looped = replace(options, task=None, form="loop", exit="none", last_rows=False, force=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".loop.") as place:
        source = Path(place) / target.name
        with never_named(Path(place), target):
            result = export(source, looped)
            made = to_generate(source, target, form=generate_form(options), force=options.force)
    return replace(
        result,
        path=made.path,
        form=made.form,
        files=made.files,
        weight_bytes=made.weight_bytes,
        max_abs_error=max(result.max_abs_error, made.max_abs_error),
        max_rel_error=max(result.max_rel_error, made.max_rel_error),
        notes=[*result.notes, *made.notes],
        seconds={**result.seconds, "generate": sum(made.seconds.values())},
    )


def generate_form(options: ExportOptions) -> GenerateForm:
    """Return the form of a file with a cache: written out where that is asked for, else a Scan."""
    return "unrolled" if options.form == "unrolled" else "scan"
