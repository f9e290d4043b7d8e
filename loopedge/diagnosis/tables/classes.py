"""How often each class occurs, in training and in test."""

from dataclasses import asdict, dataclass
from typing import Any

from loopedge.diagnosis.advice import Advice
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.task import SPLITS

__all__ = ["ClassBalance", "advise_classes", "measure_classes"]

UNBALANCED = 0.8
"""Share of the most frequent class from which on accuracy hides the others."""
FEW = 5
"""Test samples of a class below which its score is chance."""
MOVED = 0.2
"""By so much the share of a class differs between training and test."""
NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalance:
    """Samples of each class by split.

    Args:
        counts: By split and class.
        most_frequent: Of training.
        share: Of that class in training.
        test_share: Of that class in test.
        rare: Classes with fewer than five test samples.
        moved: The class whose share differs most between training and test.
        moved_by: By how much: test less training.
    """

    counts: dict[str, dict[str, int]]
    most_frequent: str
    share: float
    test_share: float
    rare: list[str]
    moved: str
    moved_by: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_classes(task: LabelledSeriesTask) -> ClassBalance:
    """Count the classes of each split."""
    shares = {split: task.counts[split] / max(1, task.counts[split].sum()) for split in SPLITS}
    most = int(task.counts["train"].argmax())
    changes = shares["test"] - shares["train"]
    moved = int(abs(changes).argmax())
    return ClassBalance(
        counts={
            split: dict(zip(task.classes, task.counts[split].tolist(), strict=True))
            for split in SPLITS
        },
        most_frequent=task.classes[most],
        share=float(shares["train"][most]),
        test_share=float(shares["test"][most]),
        rare=[
            name
            for name, count in zip(task.classes, task.counts["test"], strict=True)
            if count < FEW
        ],
        moved=task.classes[moved],
        moved_by=float(changes[moved]),
    )


def advise_classes(found: ClassBalance) -> list[Advice]:
    """Say where accuracy hides classes, or where the test split cannot judge one."""
    advice = []
    if found.share >= UNBALANCED:
        message = (
            f"{found.share:.0%} of training is {found.most_frequent!r}: to say so always is right in {found.test_share:.0%} of "
            "test; read macro_f1 beside accuracy"
        )
        advice.append(Advice(kind="classes", message=message, weight=0.7))
    if found.rare:
        names = ", ".join(map(repr, found.rare[:NAMED]))
        more = f" and {len(found.rare) - NAMED} more" if len(found.rare) > NAMED else ""
        have = "have" if len(found.rare) > 1 else "has"
        message = (
            f"{names}{more} {have} fewer than {FEW} samples in test: what is right there is chance"
        )
        advice.append(Advice(kind="classes", message=message, weight=0.65))
    if abs(found.moved_by) >= MOVED:
        share = found.counts["train"][found.moved] / max(1, sum(found.counts["train"].values()))
        message = f"{found.moved!r} is {share:.0%} of training and {share + found.moved_by:.0%} of test: the classes move with time"
        advice.append(Advice(kind="classes", message=message, weight=0.6))
    return advice
