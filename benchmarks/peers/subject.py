"""The files of a model that is compared, and the score of the sorting model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import metric_value

__all__ = ["SORTING", "Subject", "score_sorting"]

SORTING = SortingTask(length=12, vocab=24)


@dataclass(frozen=True, slots=True)
class Subject:
    """The files of a model: checkpoint, inputs, and what PyTorch makes of the judged ones."""

    folder: Path

    @property
    def name(self) -> str:
        """Return the name, as commands and tables have it."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """Return the checkpoint, as `loopedge.save` writes it."""
        return self.folder / "model.pt"

    @property
    def calibration(self) -> Path:
        """Return inputs, int64 (samples, 1, sequence)."""
        return self.folder / "calibration.npy"

    @property
    def judged(self) -> Path:
        """Return other inputs, int64 (samples, 1, sequence)."""
        return self.folder / "judged.npy"

    @property
    def reference(self) -> Path:
        """Return PyTorch's logits of the judged inputs, float32 (samples, 1, sequence, vocabulary)."""
        return self.folder / "reference.npy"

    @property
    def half(self) -> Path:
        """Return the same for half of the iterations."""
        return self.folder / "half.npy"


def score_sorting(subject: Subject, logits: NDArray[Any]) -> float:
    """Return the share of tokens that are in their place.

    Args:
        subject: The sorting model.
        logits: Of its judged inputs, float32 (samples, 1, sequence, vocabulary).
    """
    targets = np.load(subject.folder / "targets.npy")
    return metric_value(SORTING.score(logits[:, 0], targets), "accuracy")
