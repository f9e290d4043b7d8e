"""What refining the rounding of weights reached."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Refined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What training the rounding reached, on the samples that choose.

    ``before_db`` and ``after_db``: SQNR of the outputs; ``best_step``: of the state that was taken, 0: what training began with;
    ``stopped``: why not all steps were made; ``seconds``: with opening and comparing.
    """

    steps: int
    best_step: int
    before_db: float
    after_db: float
    samples: int
    stopped: str | None
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """What the file says of it: plain values."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in {"seconds", "stopped"}
        }

    def notes(self) -> list[str]:
        """Say why training ended before its last step, and that it changed nothing."""
        notes = [] if self.stopped is None else [f"refining stopped: {self.stopped}"]
        if self.best_step == 0:
            notes.append(
                f"refining reached nothing better on {self.samples} samples that choose: the weights are as they were before"
            )
        return notes
