"""What was found of data before any training: figures by family, and what to do about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loopedge.data.tables.findings import Finding
from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.duplicates import Duplicates
from loopedge.diagnosis.lengths import Lengths
from loopedge.diagnosis.tables.classes import ClassBalance
from loopedge.diagnosis.tables.drift import Drift
from loopedge.diagnosis.tables.forecastability import Forecastability
from loopedge.diagnosis.tables.jumps import Jumps
from loopedge.diagnosis.tables.look_back import LookBack
from loopedge.diagnosis.tables.season import Season
from loopedge.diagnosis.test_split import TestSplit
from loopedge.diagnosis.vocabulary import Vocabulary

__all__ = ["Diagnosis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A description of data, made before any training. It says nothing of what a model will reach.

    A family of figures is None where the data has none of it: labels have no season, text has no drift.

    Args:
        task: Name of the task, as on the command line of `train`.
        subject: What was looked at, in words.
        windows: Samples of each split.
        advice: What to act on, the most important first.
        findings: Faults of the file, as training names them.
        forecastability: How much of the target the rows before it explain.
        look_back: How many rows that takes.
        season: What repeats itself.
        drift: How the level moves from training to test.
        jumps: How much of the target's changes is in few steps.
        test_split: What the test split can see.
        lengths: Of series, pairs or texts.
        classes: How often each class occurs.
        duplicates: Samples of the test split that training holds too.
        vocabulary: Tokens of a text.
        seconds: It took.
    """

    task: str
    subject: str
    windows: dict[str, int]
    advice: Sequence[Advice]
    findings: Sequence[Finding]
    forecastability: Forecastability | None
    look_back: LookBack | None
    season: Season | None
    drift: Drift | None
    jumps: Jumps | None
    test_split: TestSplit | None
    lengths: Lengths | None
    classes: ClassBalance | None
    duplicates: Duplicates | None
    vocabulary: Vocabulary | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under documented keys."""
        families = {
            "forecastability": self.forecastability,
            "look_back": self.look_back,
            "season": self.season,
            "drift": self.drift,
            "jumps": self.jumps,
            "test_split": self.test_split,
            "lengths": self.lengths,
            "classes": self.classes,
            "duplicates": self.duplicates,
            "vocabulary": self.vocabulary,
        }
        return {
            "task": self.task,
            "subject": self.subject,
            "windows": self.windows,
            "advice": [each.to_json() for each in self.advice],
            "findings": [each.to_json() for each in self.findings],
            **{name: None if each is None else each.to_json() for name, each in families.items()},
            "seconds": round(self.seconds, 1),
        }
