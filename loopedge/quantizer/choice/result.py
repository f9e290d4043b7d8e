"""What was compared before a quantization was chosen, and what the choice rests on."""

from dataclasses import asdict, dataclass, field
from typing import Any

from loopedge.quantizer.held_out.samples import Kind

__all__ = ["Candidate", "ChoiceResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to quantize a model, as it was measured.

    ``lifted`` are the linears and tables that stand above the scheme, each with its level, and ``mix_of`` the name of the
    candidate that has none of them. ``samples``: that it was measured on; ``metric`` to ``moved`` as in `HeldOutResult`, the
    loss in units of the metric, without a task the relative error. ``bytes`` are those of the files. ``time_ratio`` to
    ``time_high``: the time against the float model's and the quartiles of its rounds, None where it was not timed;
    ``steady``: whether the rounds agree. ``verdict`` says in a few words what became of it.
    """

    name: str
    scheme: str
    ranges: str | None = None
    method: str | None = None
    smoothing: bool | None = None
    lifted: dict[str, str] = field(default_factory=dict)
    mix_of: str | None = None
    samples: int
    sqnr_db: float
    min_sqnr_db: float
    score: float | None = None
    loss: float
    loss_error: float | None = None
    moved: bool = False
    bytes: int
    time_ratio: float | None = None
    time_low: float | None = None
    time_high: float | None = None
    steady: bool = True
    verdict: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceResult:
    """Which candidate was chosen, among which, and why.

    ``source`` and ``samples``: where the samples come from that the choice was made on, and how many they are; no file is
    judged on them. ``metric`` and ``float_score``: the task's, None without one. ``left_out`` says what was not tried.
    """

    chosen: str
    reason: str
    source: Kind
    samples: int
    metric: str | None
    float_score: float | None
    candidates: list[Candidate]
    left_out: list[str]
    notes: list[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)
