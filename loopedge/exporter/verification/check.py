"""The check of a staged file against PyTorch, which writing calls."""

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from loopedge.artifact.artifact import Artifact
from loopedge.artifact.opsets import check_versions
from loopedge.artifact.reading.ort_format import ORT_SUFFIX
from loopedge.deployment.conversion import convert_file
from loopedge.deployment.optimizers import nothing_to_optimize
from loopedge.exporter.assembled import Assembled
from loopedge.exporter.capture.captured import Captured
from loopedge.exporter.options import ExportOptions
from loopedge.exporter.verification.cases import Case, cases_of, example_case
from loopedge.exporter.verification.resized_examples import resized_examples
from loopedge.exporter.verification.torch_side import TorchSide
from loopedge.exporter.verification.verify import ExportErrors, verify_artifact
from loopedge.graph.agreement import TOLERANCE
from loopedge.graph.metadata import MemoryProfile, Metadata

__all__ = ["FileCheck"]


@dataclass(slots=True, kw_only=True)
class FileCheck:
    """Compares a staged file with PyTorch when it is called, and keeps what it measured.

    ``rounding_error`` is how far weights in float16 move the outputs, where they are stored so.
    """

    captured: Captured
    assembled: Assembled
    options: ExportOptions
    memory: MemoryProfile
    rounding_error: float | None = None
    seconds: float = 0.0
    _errors: ExportErrors | None = field(default=None, init=False)

    @property
    def errors(self) -> ExportErrors:
        """The largest errors, once the file was compared."""
        assert self._errors is not None  # writing calls the check
        return self._errors

    def __call__(self, staged: Path) -> Metadata:
        begun = time.perf_counter()
        written = Artifact.open(staged)
        check_versions(written.graph, self.options.opset, self.assembled.domains)
        captured = self.captured
        rule = None if captured.halt is None else captured.halt.rule
        module = captured.module
        cases = cases_of(captured.axes, captured.plan, rule, max_length=module.max_length)
        if module.make_inputs is None:
            cases.append(example_case(module.example))
        stored = self._torch_side()
        errors = self._errors = self._compare(written, stored, cases, TOLERANCE)
        if self.options.storage == "float16":
            trained = replace(stored, module=captured.original)
            plain = [case for case in cases if not (case.random_rows or case.stop)]
            self.rounding_error = self._compare(written, trained, plain, math.inf).max_rel_error
        self.seconds = time.perf_counter() - begun
        idle = (
            self.memory == "low" and self.options.format == "onnx" and nothing_to_optimize(staged)
        )
        return self.assembled.metadata.model_copy(
            update={"max_rel_error": errors.max_rel_error, "optimized": idle}
        )

    def _torch_side(self) -> TorchSide:
        module, plan = self.captured.module, self.captured.plan
        return TorchSide(
            module=module.module,
            make_inputs=module.make_inputs or resized_examples(module.example, self.captured.axes),
            example=module.example,
            input_names=plan.input_names,
            output_names=plan.output_names,
            tables=plan.tables,
            loops=plan.loops,
            mask=module.mask,
            last_outputs=self.assembled.last_outputs,
            halt=self.captured.halt,
        )

    def _compare(
        self, written: Artifact, torch_side: TorchSide, cases: list[Case], tolerance: float
    ) -> ExportErrors:
        load = self._to_ort if self.options.format == "ort" else Path
        return verify_artifact(written, torch_side, cases, tolerance=tolerance, load=load)

    def _to_ort(self, path: Path) -> Path:
        return convert_file(path, path.with_suffix(ORT_SUFFIX), self.assembled.metadata)
