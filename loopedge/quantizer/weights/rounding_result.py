"""What was tried to round the weights by data, and what was chosen."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["NEAREST", "RoundingCandidate", "RoundingResult"]

NEAREST = "nearest"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingCandidate:
    """A way to round the weights, measured on the samples that choose.

    ``name``: ``nearest``, or ``gptq`` with how iterations count: ``gptq/normalised``. ``weighting``, ``act_order`` and
    ``damping`` are None for ``nearest``. ``score``: the task's own metric, None where it is not known.
    """

    name: str
    weighting: str | None = None
    act_order: bool | None = None
    damping: float | None = None
    sqnr_db: float
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingResult:
    """How the weights of a file were rounded by data.

    ``method``: ``nearest`` or ``gptq``; ``chosen``: the candidate's name; ``metric``: what ``score`` of the candidates and
    ``float_score`` are, None where no task is known; ``samples``, ``positions``: that the Hessians were summed over, ``choosing``: samples that
    chose; ``nearest``: weights that no sample reads where it can be seen, rounded to nearest; ``lifted``: linears outside the cores
    that stand in eight bits for what that wins.
    """

    method: str
    chosen: str
    candidates: list[RoundingCandidate]
    metric: str | None
    float_score: float | None
    samples: int
    positions: int
    choosing: int
    weights: int
    nearest: list[str]
    lifted: list[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)

    @property
    def summary(self) -> dict[str, Any]:
        """What the file keeps of it."""
        names = {item.name: item for item in self.candidates}
        return {
            "method": self.method,
            "chosen": self.chosen,
            "sqnr_db": {name: item.sqnr_db for name, item in names.items()},
            "samples": self.samples,
            "choosing": self.choosing,
            "lifted": self.lifted,
        }
