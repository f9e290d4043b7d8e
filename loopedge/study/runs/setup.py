"""What all runs of a pilot share."""

from dataclasses import dataclass
from pathlib import Path

from loopedge.study.design import Design

__all__ = ["RunSetup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What all runs of a pilot share.

    Args:
        design: Their options.
        folder: Of the pilot.
        threads: Of a training; default: PyTorch's choice.
    """

    design: Design
    folder: Path
    threads: int | None = None
