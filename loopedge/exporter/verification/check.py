"""The check of a staged file against PyTorch, which writing calls."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from loopedge.artifact.opsets import check_versions
from loopedge.artifact.reading.ort_format import ORT_SUFFIX
from loopedge.deployment.conversion import convert_file
from loopedge.exporter.assembly import AssemblyPlan
from loopedge.exporter.capture.axes import Axes
from loopedge.exporter.exits import Halt
from loopedge.exporter.options import Options
from loopedge.exporter.subject.description import Subject
from loopedge.exporter.verification.cases import Case, cases_of
from loopedge.exporter.verification.verify import Measured, resized_examples, verify_artifact
from loopedge.graph.agreement import TOLERANCE
from loopedge.graph.metadata import ArtifactMetadata
from loopedge.runtime.optimizers import nothing_to_optimize

__all__ = ["FileCheck"]


@dataclass(slots=True, kw_only=True)
class FileCheck:
    """Compares a staged file with PyTorch when it is called, and keeps what it measured.

    ``subject`` holds the weights as the file stores them, ``original`` as they were trained;
    ``last_outputs`` are given for the last position alone.
    """

    subject: Subject
    original: nn.Module
    axes: Axes
    plan: AssemblyPlan
    options: Options
    halt: Halt | None
    metadata: ArtifactMetadata
    last_outputs: list[str]
    domains: Mapping[str, int]
    measured: Measured | None = None
    rounding_error: float | None = None
    seconds: float = 0.0

    def __call__(self, staged: Path) -> ArtifactMetadata:
        begun = time.perf_counter()
        check_versions(staged, self.options.opset, self.domains)
        rule = None if self.halt is None else self.halt.rule
        cases = cases_of(self.axes, self.plan, rule, max_length=self.subject.max_length)
        self.measured = self._against(staged, self.subject.module, cases, TOLERANCE)
        if self.options.storage == "float16":
            stored = [case for case in cases if not (case.random_rows or case.stop)]
            moved = self._against(staged, self.original, stored, math.inf)
            self.rounding_error = moved.max_rel_error
        self.seconds = time.perf_counter() - begun
        plain = self.options.memory == "low" and self.options.format == "onnx"
        idle = plain and nothing_to_optimize(staged)
        return self.metadata.model_copy(
            update={"max_rel_error": self.measured.max_rel_error, "optimized": idle}
        )

    def _against(
        self, staged: Path, module: nn.Module, cases: list[Case], tolerance: float
    ) -> Measured:
        return verify_artifact(
            staged,
            module,
            cases,
            self.subject.make_inputs or resized_examples(self.subject.example, self.axes),
            input_names=self.plan.input_names,
            output_names=self.plan.output_names,
            tables=self.plan.tables,
            loops=self.plan.loops,
            mask_name=self.subject.mask,
            last_outputs=self.last_outputs,
            halt=self.halt,
            tolerance=tolerance,
            prepare=_to_ort if self.options.format == "ort" else None,
        )


def _to_ort(path: Path) -> Path:
    return convert_file(path, path.with_suffix(ORT_SUFFIX))
