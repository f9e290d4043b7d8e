"""The full check of a published model: its architecture, small, exported the usual way and compared with PyTorch.

Two float32 copies of four billion parameters fit no laptop. What a wrong module, pass or operator would change, it changes at small widths too.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from loopedge.artifact.artifact import write_artifact
from loopedge.deployment.generating import to_generate
from loopedge.exporter.assembled import assemble
from loopedge.exporter.capture.axes import Axes
from loopedge.exporter.capture.captured import capture_module
from loopedge.exporter.generating import generate_form
from loopedge.exporter.module.exported_module import describe
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.targets import Settings
from loopedge.exporter.verification.check import FileCheck
from loopedge.exporter.verification.verify import ExportErrors
from loopedge.files.scratch import never_named
from loopedge.model.published.loading import PublishedFolder

__all__ = ["ShrunkCheck", "check_shrunk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrunkCheck:
    """What agreed with PyTorch: the axes and the graph of the small architecture, and the errors that were found."""

    axes: Axes
    graph: ir.Model
    errors: ExportErrors


def check_shrunk(
    folder: PublishedFolder, options: ExportOptions, settings: Settings
) -> ShrunkCheck:
    """Export the small architecture with random weights, and compare it with PyTorch.

    Args:
        folder: The published model.
        options: Of the export.
        settings: What they choose.

    Raises:
        InputError: The module cannot be captured.
        VerificationError: The file does not compute what PyTorch computes.
    """
    small = folder.build_shrunk()
    plain = replace(options, storage="float32", weight_bits=None, task=None, force=True)
    captured = capture_module(describe(small, small.example_inputs()), plain, settings)
    with (
        tempfile.TemporaryDirectory(prefix="loopedge.") as place,
        never_named(Path(place), folder.folder),
    ):
        target = Path(place) / "shrunk.onnx"
        assembled = assemble(captured, plain, settings, target)
        check = FileCheck(
            captured=captured, assembled=assembled, options=plain, memory=settings.memory
        )
        write_artifact(assembled.graph, target, verify=check)
        if options.task == "generate":
            to_generate(target, form=generate_form(options))
    return ShrunkCheck(axes=captured.axes, graph=assembled.graph, errors=check.errors)
