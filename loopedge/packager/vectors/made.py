"""A test vector: before it is written, how it is judged, and as files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.deployment.separate_check import tolerated_error
from loopedge.graph.integer_linears import count_integer_linears
from loopedge.packager.manifest import ArrayFile, Check, Vector
from loopedge.packager.source import Source

__all__ = [
    "FOLDER",
    "MANY",
    "MANY_ROWS",
    "MadeVector",
    "float_check",
    "settle_limits",
    "write_vector",
]

Array = npt.NDArray[Any]

FOLDER = "vectors"
RELATIVE = 1e-5
OWN_OUTPUTS = 5e-2
"""Of a quantized model without its float one, against its own outputs: what releases and processors differ by (docs/reach.md)."""
SQNR_MARGIN_DB = 1.0
MANY_ROWS = 32
MANY = f"batch of {MANY_ROWS}"
"""Of a quantized model: what its noise is, is seen on many values."""


@dataclass(slots=True, kw_only=True)
class MadeVector:
    """A vector before it is written.

    Args:
        name: What is special about it.
        inputs: What a program hands over.
        outputs: What must come out.
        judged: How: ``relative``, ``sqnr`` or ``equal``.
        limit: Of ``relative`` and ``equal``; that of ``sqnr`` is found by measuring.
        text: Prompt and completion, of text.
        last_time: Of the last table row, of a table.
        measured: The worst of all models of the bundle.
    """

    name: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    judged: str
    limit: float
    text: dict[str, str] | None = None
    last_time: str | None = None
    measured: float | None = field(default=None)

    def worsen(self, measured: float) -> None:
        """Take a measured value where it is the worst one so far."""
        worst = max if self.judged == "relative" else min
        self.measured = measured if self.measured is None else worst(self.measured, measured)
        if self.judged == "sqnr":
            self.limit = self.measured - SQNR_MARGIN_DB


def settle_limits(vectors: Iterable[MadeVector]) -> None:
    """Allow 1 dB less than was measured, once all is measured.

    A few values may agree by luck: no vector asks for more than that of many batch rows, where there is one.
    """
    judged = [
        vector for vector in vectors if vector.judged == "sqnr" and vector.measured is not None
    ]
    many = [vector.measured for vector in judged if vector.name == MANY]
    for vector in judged:
        least = min(measured for measured in (vector.measured, *many) if measured is not None)
        vector.limit = least - SQNR_MARGIN_DB


def float_check(source: Source, reference: Artifact | None) -> tuple[str, float]:
    """Return how outputs of a model are judged: the kind of the check, and its limit."""
    integers = count_integer_linears(source.artifact.graph).quantized
    if source.quantized or integers:
        return ("sqnr", 0.0) if reference is not None else ("relative", OWN_OUTPUTS)
    loops = source.metadata.loops or 1
    return "relative", max(RELATIVE, tolerated_error(source.artifact.graph, loops))


def write_vector(made: MadeVector, number: int, folder: Path) -> Vector:
    """Write the arrays of a vector, and return what the manifest says of it.

    Args:
        made: The vector, measured.
        number: Of the vector; its files are called by it.
        folder: The bundle.
    """
    (folder / FOLDER).mkdir(exist_ok=True)

    def written(kind: str, arrays: Mapping[str, Array]) -> list[ArrayFile]:
        return [
            _write_array(array, name, f"{FOLDER}/{number:02}.{kind}{place}.bin", folder)
            for place, (name, array) in enumerate(arrays.items())
        ]

    return Vector(
        name=made.name,
        inputs=written("in", made.inputs),
        outputs=written("out", made.outputs),
        check=Check(kind=made.judged, limit=made.limit),  # type: ignore[arg-type]
        measured=0.0 if made.measured is None else made.measured,
        text=made.text,
        last_time=made.last_time,
    )


def _write_array(array: Array, name: str, file: str, folder: Path) -> ArrayFile:
    data = np.ascontiguousarray(array)
    (folder / file).write_bytes(data.astype(data.dtype.newbyteorder("<")).tobytes())
    return ArrayFile(
        name=name,
        dtype=str(data.dtype),  # type: ignore[arg-type]
        shape=list(np.shape(array)),
        file=file,
    )
