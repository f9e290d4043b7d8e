"""A few forecasts that the page may plot: what was observed, the chosen model, the strongest baseline."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ChosenBy", "PlottedWindow"]

ChosenBy = Literal["median", "worst"]
"""By which rule a window was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlottedWindow:
    """One window of the test split, in the user's units; None stands for a value that was not observed.

    Args:
        arm: Of the model that forecasts.
        loops: Its loop count.
        chosen_by: ``median``: its error is the middle one; ``worst``: a tenth of the windows is worse.
        sample: Its number in the evaluation, from 0.
        target: The column.
        series: Which series of several.
        error: Root mean square error of the model on it.
        history: The last values before it, oldest first.
        truth: What was observed.
        forecast: Of the model.
        baseline_name: The strongest plain baseline.
        baseline_error: Its error.
        baseline: Its forecast; None where it is not known.
    """

    arm: str
    loops: int
    chosen_by: ChosenBy
    sample: int
    target: str
    error: float
    history: list[float | None]
    truth: list[float | None]
    forecast: list[float | None]
    series: str | None = None
    baseline_name: str | None = None
    baseline_error: float | None = None
    baseline: list[float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
