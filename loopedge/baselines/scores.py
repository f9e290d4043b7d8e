"""What a baseline reached: as much as a run of the pilot leaves, without a network."""

from dataclasses import dataclass, field
from typing import Any

from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.task import Split

__all__ = ["BaselineScores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineScores:
    """A plain baseline on the samples of `Task.evaluation`.

    Args:
        name: In words, as it stands in the leaderboard: ``climatology + autoregression``.
        about: What was fitted and chosen, in one line: lags, season (also where it was found), penalty.
        validation: Metrics of the validation split; empty where it failed.
        test: Metrics of the test split; empty where it failed.
        tallies: By split what each sample adds, as `sample_tallies`; empty where the task scores it as a whole.
        upper_bound: No model is expected to beat it, as the best estimate there is.
        seconds: It took to fit and score.
        reason: Why it failed; None where it did not.
    """

    name: str
    about: str = ""
    validation: Metrics = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    tallies: dict[Split, Tally] = field(default_factory=dict)
    upper_bound: bool = False
    seconds: float = 0.0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without what each sample adds."""
        return {
            "name": self.name,
            "about": self.about,
            "validation": self.validation,
            "test": self.test,
            "upper_bound": self.upper_bound,
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
        }
