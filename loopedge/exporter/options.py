"""What may be asked of an export, checked before any work."""

import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

from loopedge.artifact.reading.ort_format import is_ort_format
from loopedge.deployment.conversion import check_ort_target
from loopedge.errors import InputError
from loopedge.exporter.exits import read_exit
from loopedge.files.targets import check_artifact_target
from loopedge.graph.split.activations import check_activations
from loopedge.options import option, option_name
from loopedge.runtime.memory_profiles import check_profile

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MOST_LOOPS",
    "OPSETS",
    "ExportKeywords",
    "ExportOptions",
    "Form",
    "Target",
    "check_target",
]

MOST_LOOPS = 65_536
"""Rows of a timestep table, and as many iterations of an unrolled graph."""

OPSETS = (18, 20, 21, 22, 23)
"""Opsets that are written; 23 has fused norm and attention, the others decompose them."""

Target = Literal["cpu", "cuda"]
Form = Literal["loop", "unrolled"]
Format = Literal["onnx", "ort"]
Storage = Literal["float32", "float16"]
Logits = Literal["all", "last"]
Task = Literal["generate"]
WeightBits = Literal[8, 4]


class ExportKeywords(TypedDict, total=False):
    """The fields of `ExportOptions` as keywords of `loopedge.export`."""

    target: Target | None
    form: Form | None
    loops: int | None
    dynamic_loops: bool
    exit: str | None
    inner: Form
    opset: int
    format: Format
    storage: Storage
    padding: bool | None
    weights: str | Path | None
    example: "tuple[Tensor, ...] | None"
    dynamic_shapes: tuple[dict[int, str], ...] | dict[str, dict[int, str]] | None
    memory: str | None
    logits: Logits
    last_rows: bool | None
    activations: str | None
    task: Task | None
    weight_bits: WeightBits | None
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How a model is exported; `loopedge.export` says what each field means.

    Raises:
        InputError: A value is unknown, or two do not go together.
    """

    target: Target | None = None
    form: Form | None = None
    loops: int | None = None
    dynamic_loops: bool = False
    exit: str | None = None
    inner: Form = "unrolled"
    opset: int = 23
    format: Format = "onnx"
    storage: Storage = "float32"
    padding: bool | None = None
    weights: str | Path | None = None
    example: "tuple[Tensor, ...] | None" = None
    dynamic_shapes: tuple[dict[int, str], ...] | dict[str, dict[int, str]] | None = None
    memory: str | None = None
    logits: Logits = "all"
    last_rows: bool | None = None
    activations: str | None = None
    task: Task | None = None
    weight_bits: WeightBits | None = None
    force: bool = False

    def __post_init__(self) -> None:
        self._check_device()
        self._check_values()
        self._check_loops()
        self._check_format()
        self._check_task()

    def _check_device(self) -> None:
        if self.target is not None:
            _check_known("target", self.target, get_args(Target))
        if self.memory is not None:
            check_profile(self.memory)
        if self.activations is not None:
            check_activations(self.activations)
        if self.target != "cuda":
            return
        if self.format == "ort":
            raise InputError(
                "ORT format is optimized for the CPU when it is written",
                hint=f"{option('target', 'cuda')} {option('format', 'onnx')}",
            )
        if self.memory == "mapped":
            raise InputError(
                "memory profile mapped packs weights for a CPU, CUDA packs none",
                hint=f"{option('target', 'cuda')} {option('memory', 'balanced')}",
            )

    def _check_values(self) -> None:
        if self.form is not None:
            _check_known("form", self.form, get_args(Form))
        _check_known("inner", self.inner, get_args(Form))
        _check_known("storage", self.storage, get_args(Storage))
        _check_known("logits", self.logits, get_args(Logits))
        if self.task is not None:
            _check_known("task", self.task, get_args(Task))
        if self.weight_bits is not None:
            _check_known("weight_bits", self.weight_bits, get_args(WeightBits))
        read_exit(self.exit)
        if self.opset not in OPSETS:
            raise InputError(
                f"opset {self.opset} is not supported, allowed are {', '.join(map(str, OPSETS))}",
                hint=f"{option('opset', 23)} (ONNX Runtime 1.23 and later) or {option('opset', 20)}",
            )

    def _check_loops(self) -> None:
        if self.loops is not None:
            if not isinstance(self.loops, numbers.Integral):
                raise InputError(f"loops is {self.loops!r}, a whole number is needed")
            if self.loops < 1:
                raise InputError(
                    f"loops is {self.loops}, at least 1 is needed", hint=option("loops", 1)
                )
            if self.loops > MOST_LOOPS:
                raise InputError(f"loops is {self.loops}, at most {MOST_LOOPS} are written")
        if self.form != "unrolled":
            return
        if self.inner == "loop":
            raise InputError(
                "an unrolled graph holds no Loop, an inner one neither",
                hint=f"{option('form', 'loop')} {option('inner', 'loop')}",
            )
        if self.dynamic_loops:
            raise InputError(
                "an unrolled graph has a fixed loop count",
                hint=f"{option('dynamic_loops')} {option('form', 'loop')}",
            )

    def _check_format(self) -> None:
        _check_known("format", self.format, get_args(Format))
        if self.format == "ort" and self.memory == "mapped":
            raise InputError(
                f"ORT format holds no packed weights: {option('memory', 'mapped')} has no use there",
                hint=f"{option('format', 'onnx')}, then loopedge prepare on the device; or "
                f"{option('memory', 'low')}",
            )

    def _check_task(self) -> None:
        if self.weight_bits is not None and self.storage == "float16":
            raise InputError(
                f"weights in {self.weight_bits} bits are not stored in float16",
                hint=f"leave out {option('storage', 'float16')}",
            )
        if self.task is None:
            return
        for name, value, meant in (
            ("format", self.format, self.format == "onnx"),
            ("logits", self.logits, self.logits == "all"),
            ("exit", self.exit, self.exit in {None, "none"}),
            ("dynamic_loops", self.dynamic_loops, not self.dynamic_loops),
            ("last_rows", self.last_rows, not self.last_rows),
        ):
            if not meant:
                raise InputError(
                    f"{option('task', self.task)} and {option(name, value)} do not go together: a file with a cache "
                    "gives logits of the last token, and runs as many loops as its caller asks for",
                    hint=f"leave out {option_name(name)}",
                )


def _check_known(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(
            f"{name} {value!r} is not known",
            hint=" or ".join(option(name, value) for value in known),
        )


def check_target(options: ExportOptions, path: Path, sources: Iterable[str | Path]) -> None:
    """Refuse a target that cannot be written.

    Args:
        options: Of the export.
        path: Its target.
        sources: Files that it is made from.

    Raises:
        InputError: It exists and is not to be replaced, is named as another format, or is a source.
    """
    if options.format == "ort":
        check_ort_target(path, force=options.force)
        return
    if is_ort_format(path):
        raise InputError(f"{path} is named as ORT format", hint=option("format", "ort"))
    check_artifact_target(path, sources, force=options.force)
