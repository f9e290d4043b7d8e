"""Calibrated activation ranges: one row per iteration, or one for all, in a file of their own."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.targets import write_text_atomic
from loopedge.files.validation import validation_problem
from loopedge.graph.weights import is_weight
from loopedge.options import by_face

__all__ = ["Granularity", "RangeTable", "TensorRange", "read_ranges", "weights_sha256"]

Granularity = Literal["per-iteration", "shared", "auto"]
U8_STEPS = 255
LARGEST = float(np.finfo(np.float32).max)
NO_MARGIN = (
    "was written by an earlier version: linears of prelude and coda have no margin, calibrate again "
    "to give them one"
)
FACTOR = 1e12
"""Most that an activation is divided or multiplied by."""


class TensorRange(BaseModel):
    """The range of one activation.

    ``low`` and ``high`` hold one value per iteration for an activation of the core (all equal where
    the range is shared), one value else. They are as ``method`` found them and ``margin`` widened them; without
    a method it is the table's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: list[float] = Field(min_length=1)
    high: list[float] = Field(min_length=1)
    shared: bool = False
    method: str | None = None
    margin: float = Field(default=1.0, ge=1.0, le=FACTOR)
    smoothing: list[float] | None = Field(
        default=None, description="Factors that the activation's channels are divided by first."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.low) != len(self.high):
            raise ValueError("low and high differ in length")
        for low, high in zip(self.low, self.high, strict=True):
            if not -LARGEST <= low <= high <= LARGEST:
                raise ValueError(f"[{low}, {high}] is not a range of float32")
        if not all(1 / FACTOR <= factor <= FACTOR for factor in self.smoothing or ()):
            raise ValueError(f"a factor of smoothing is not within 1 / {FACTOR:g} and {FACTOR:g}")
        return self

    def quantization(
        self, steps: int = U8_STEPS
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Return scales float32 (rows,) and zero points u8 (rows,); zero is always exact."""
        low = np.minimum(np.array(self.low, np.float64), 0.0)
        high = np.maximum(np.array(self.high, np.float64), 0.0)
        scale = np.maximum((high - low) / steps, np.finfo(np.float32).tiny)
        zero_point = np.rint(-low / scale).clip(0, steps)
        return scale.astype(np.float32), zero_point.astype(np.uint8)


class RangeTable(BaseModel):
    """The ranges of a model, and the data that they come from.

    ``tensors`` maps the name of a linear (``core/...`` as in the loop form) to the range of what it
    reads; ``loops`` are the iterations of the core, of several those of the first, and ``cores`` those of each by its name;
    ``weights_sha256`` identifies the float model; ``lengths`` are the sequence lengths seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = 2
    weights_sha256: str
    loops: int = Field(ge=1)
    cores: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    granularity: Granularity
    method: str
    samples: int = Field(ge=1)
    data_sha256: str
    lengths: list[Annotated[int, Field(ge=1, le=1_048_576)]]
    tensors: dict[str, TensorRange]
    warnings: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        counts = sorted({self.loops, *self.cores.values()})
        for name, found in self.tensors.items():
            if len(found.low) not in {1, *counts}:
                allowed = " or ".join(map(str, counts))
                raise ValueError(f"{name} has {len(found.low)} rows for {allowed} iterations")
        return self

    def rows_of(self, core: str) -> int:
        """Return the iterations of a core, by its name."""
        return self.cores.get(core, self.loops)

    def factors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the smoothing factors, float32 (channels,), of the linears that have some."""
        return {
            name: np.array(found.smoothing, np.float32)
            for name, found in self.tensors.items()
            if found.smoothing is not None
        }

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the table as JSON.

        Raises:
            InputError: The target exists or cannot be written.
        """
        absent = (
            None if self.cores else {"cores"}
        )  # of one core the file is as earlier versions read it
        text = self.model_dump_json(indent=1, exclude=absent)
        write_text_atomic(Path(path), text + "\n", force=force)


def read_ranges(path: str | Path) -> RangeTable:
    """Read a table.

    Raises:
        InputError: The file is missing, is not a range table, or a range is invalid.
    """
    hint = by_face(
        "loopedge quantize --data DATA --save-ranges ranges.json",
        'loopedge.quantize(..., data=DATA, save_ranges="ranges.json")',
    )
    content = read_json(path, needed="a table of ranges", hint=hint)
    try:
        table = RangeTable.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{path} is not a table of ranges: {validation_problem(error)}", hint=hint
        ) from error
    if table.version == 1:  # every range by one method, without a margin
        return table.model_copy(update={"warnings": [*table.warnings, f"{path} {NO_MARGIN}"]})
    return table


def weights_sha256(model: ir.Model) -> str:
    """Return a hash of the weights, the same for the loop form and the unrolled form."""
    digest = hashlib.sha256()
    for name, value in sorted(model.graph.initializers.items()):
        if is_weight(value) and value.const_value is not None:
            digest.update(name.encode())
            digest.update(value.const_value.tobytes())
    return digest.hexdigest()
