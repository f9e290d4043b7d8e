"""What may be asked of an export, checked before any work."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.deployment.conversion import check_ort_target
from loopedge.errors import InputError
from loopedge.exporter.rounding import check_storage
from loopedge.exporter.targets import Target
from loopedge.files.targets import check_artifact_target
from loopedge.graph.metadata import Form, MemoryProfile
from loopedge.graph.split.activations import Activations

__all__ = ["OPSETS", "Options"]

MOST_LOOPS = 65_536
"""Rows of a timestep table, and as many iterations of an unrolled graph."""

OPSETS = (18, 20, 21, 22, 23)
"""Opsets that are written; 23 has fused norm and attention, the others decompose them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the file shall be; the fields are arguments of `loopedge.export`.

    ``notes`` says where the target was not followed.
    """

    form: Form
    loops: int | None
    dynamic_loops: bool
    inner: str
    opset: int
    format: str
    storage: str
    memory: MemoryProfile
    activations: Activations
    logits: str
    last_rows: bool | None
    target: Target | None = None
    notes: tuple[str, ...] = ()

    def check(self, target: Path, sources: Iterable[str | Path], *, force: bool) -> None:
        """Refuse what is unknown or does not go together, and a target that cannot be written.

        Args:
            target: Of the export.
            sources: Files that it is made from.
            force: Replace existing files.

        Raises:
            InputError: As said.
        """
        self._check_loops()
        check_storage(self.storage)
        if self.logits not in {"all", "last"}:
            raise InputError(
                f"logits {self.logits!r} is not known", hint="--logits all or --logits last"
            )
        if self.opset not in OPSETS:
            raise InputError(
                f"opset {self.opset} is not supported, allowed are {', '.join(map(str, OPSETS))}",
                hint="--opset 23 (ONNX Runtime 1.23 and later) or --opset 20",
            )
        if self.format == "ort":
            if self.memory == "mapped":
                raise InputError(
                    "ORT format holds no packed weights: --memory mapped has no use there",
                    hint="--format onnx, then loopedge prepare on the device; or --memory low",
                )
            check_ort_target(target, force=force)
            return
        if self.format != "onnx":
            raise InputError(
                f"format {self.format!r} is not known", hint="--format onnx or --format ort"
            )
        if is_ort_format(target):
            raise InputError(f"{target} is named as ORT format", hint="--format ort")
        check_artifact_target(target, sources, force=force)

    def _check_loops(self) -> None:
        if self.form not in {"loop", "unrolled"}:
            raise InputError(
                f"form {self.form!r} is not known", hint="--form loop or --form unrolled"
            )
        if self.inner not in {"loop", "unrolled"}:
            raise InputError(
                f"inner {self.inner!r} is not known", hint="--inner unrolled or --inner loop"
            )
        if self.loops is not None and self.loops < 1:
            raise InputError(f"loops is {self.loops}, at least 1 is needed", hint="--loops 1")
        if self.loops is not None and self.loops > MOST_LOOPS:
            raise InputError(f"loops is {self.loops}, at most {MOST_LOOPS} are written")
        if self.form != "unrolled":
            return
        if self.inner == "loop":
            raise InputError(
                "an unrolled graph holds no Loop, an inner one neither",
                hint="--form loop --inner loop",
            )
        if self.dynamic_loops:
            raise InputError(
                "an unrolled graph has a fixed loop count", hint="--dynamic-loops --form loop"
            )
