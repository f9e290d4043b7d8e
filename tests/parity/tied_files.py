"""Files of weight-tied models by tools that know nothing of loopedge, and what re-rolling makes of each.

They are subjects of `benchmarks/reroll`, which measures the whole matrix; here each goes through one exporter and at most
one more tool.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.reroll.exporters import export
from benchmarks.reroll.optimizers import optimize
from benchmarks.reroll.subjects import SUBJECTS

__all__ = ["TIED", "Tied", "write_tied"]

FLOAT32, FLOAT16, INT8 = 1e-5, 5e-3, 1e-2
"""Largest difference of an output against its largest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tied:
    """A file and what it becomes.

    ``loops`` are the iterations of each Loop, ``nodes`` those of source and result with their bodies', ``weight_bytes`` those of
    the result, ``error`` the most that an output may be off.
    """

    exporter: str
    tool: str | None = None
    loops: list[int]
    nodes: tuple[int, int]
    weight_bytes: int
    error: float = FLOAT32


TIED = {
    "tmlt-1": Tied(exporter="dynamo", loops=[6], nodes=(248, 50), weight_bytes=44320),
    "tmlt-2": Tied(
        exporter="torchscript",
        tool="float16",
        loops=[4],
        nodes=(1105, 107),
        weight_bytes=38992,
        error=FLOAT16,
    ),
    "albert-1": Tied(
        exporter="torchscript", tool="ort extended", loops=[6], nodes=(347, 98), weight_bytes=44800
    ),
    "albert-2": Tied(exporter="torchscript", loops=[4, 4], nodes=(954, 164), weight_bytes=78720),
    "x-transformers": Tied(
        exporter="torchscript", tool="ort basic", loops=[6], nodes=(256, 43), weight_bytes=55680
    ),
    "trm": Tied(
        exporter="torchscript", tool="ort extended", loops=[3], nodes=(281, 100), weight_bytes=11460
    ),
    "universal": Tied(exporter="torchscript", loops=[6], nodes=(621, 49), weight_bytes=44512),
    "convolution": Tied(exporter="dynamo", loops=[8], nodes=(35, 9), weight_bytes=12500),
    "tied-prelude": Tied(
        exporter="dynamo",
        tool="dynamic int8",
        loops=[6],
        nodes=(139, 31),
        weight_bytes=5888,
        error=INT8,
    ),
    "abab": Tied(
        exporter="torchscript", tool="ort extended", loops=[4], nodes=(347, 57), weight_bytes=69152
    ),
    "aaabbb": Tied(
        exporter="torchscript",
        tool="float16",
        loops=[3, 3],
        nodes=(589, 73),
        weight_bytes=34576,
        error=FLOAT16,
    ),
    "two-loops": Tied(
        exporter="torchscript",
        tool="dynamic int8",
        loops=[3, 5],
        nodes=(1021, 177),
        weight_bytes=85920,
        error=INT8,
    ),
    "lstm": Tied(exporter="torchscript", loops=[10], nodes=(177, 24), weight_bytes=22032),
    "second-order": Tied(
        exporter="dynamo unoptimized", loops=[6], nodes=(84, 16), weight_bytes=17024
    ),
    "every-output": Tied(exporter="torchscript", loops=[4], nodes=(405, 42), weight_bytes=34968),
}
"""By the name of the subject: at most fifteen, for each takes seconds."""


def write_tied(name: str, folder: Path) -> Path:
    """Write the file of a name as its tools do."""
    tied = TIED[name]
    path = export(tied.exporter, SUBJECTS[name], folder / f"{name}.plain.onnx")
    return optimize(tied.tool, path, folder / f"{name}.onnx") if tied.tool else path
