"""What a pilot says, as facts: `loopedge.study.words` makes sentences of them, in English or Japanese.

Facts first, words later: so the page, the terminal and results.json tell one story, and a test can ask a verdict
whether two of its statements contradict each other.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from loopedge.study.judging.statistics import Interval, OverSeeds

__all__ = [
    "AgainstBaseline",
    "Candidate",
    "Cost",
    "Decision",
    "Encoding",
    "Equivalence",
    "MoreLoops",
    "NextStep",
    "NotConverged",
    "Outcome",
    "Requirements",
    "Rounding",
    "Stability",
    "Statement",
    "Untied",
]

Outcome = Literal["yes", "no", "undecided"]
"""Of the question: is a looped model worth it for this data?"""

Effect = Literal["better", "worse", "equal", "undecided"]
"""``equal``: within the margin, and surely so. ``undecided``: the runs cannot tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An arm at a loop count."""

    arm: str
    loops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that a pilot says. ``kind`` is its name in results.json."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the kind among them."""
        return {"kind": self.kind} | asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Statement):
    """The first sentence.

    Args:
        outcome: Is a looped model worth it?
        why: ``loops``: more loops pay. ``one-loop``: one loop is as good. ``baseline``, ``untied``: that wins.
            ``seeds``: the seeds cannot tell the loop counts apart. ``period``: the test period cannot tell the
            model from the baseline. ``few-seeds``: fewer than three. ``nothing-finished``.
        chosen: What is recommended; None where nothing is.
        best: The best on the validation split.
        winner: Name of the baseline or the untied model that wins.
        sure: Probability that the chosen one is within the margin of the best.
    """

    kind: ClassVar[str] = "decision"
    outcome: Outcome
    why: Literal[
        "loops",
        "one-loop",
        "baseline",
        "untied",
        "seeds",
        "period",
        "few-seeds",
        "nothing-finished",
    ]
    chosen: Candidate | None = None
    best: Candidate | None = None
    winner: str | None = None
    sure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstBaseline(Statement):
    """The chosen model, or else the best, against the strongest plain baseline.

    Args:
        candidate: Which model.
        baseline: Its name.
        about: How it was fitted.
        value: What it reached on the test split.
        quality: What the model reached there.
        difference: Model less baseline with its simultaneous 95 % interval; None bounds: there is none.
        effect: Of the model.
        over: What the interval is over.
        samples: Of the test split.
        seasonal: MASE of the model and of the baseline; None where there is none.
    """

    kind: ClassVar[str] = "against-baseline"
    candidate: Candidate
    baseline: str
    about: str
    value: float
    quality: OverSeeds
    difference: Interval | None
    effect: Effect
    over: Literal["seeds", "seeds and windows", "seeds, windows and origins", "seeds and samples"]
    samples: int | None = None
    seasonal: tuple[float | None, float | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreLoops(Statement):
    """What the most useful count does against the fewest, in the arm that is chosen."""

    kind: ClassVar[str] = "more-loops"
    arm: str
    few: int
    many: int
    few_quality: OverSeeds
    many_quality: OverSeeds
    difference: Interval | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding(Statement):
    """What an arm does against another at the same loop count: timestep encoding against its fair control."""

    kind: ClassVar[str] = "encoding"
    arm: str
    against: str
    loops: int
    difference: Interval | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Untied(Statement):
    """What blocks of their own reach: as many of the same size (``untied``), or with as many parameters (``narrow``)."""

    kind: ClassVar[str] = "untied"
    arm: str
    loops: int
    quality: OverSeeds
    parameters_ratio: float
    difference: Interval | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence(Statement):
    """Recurrence-equivalence exponent: 0, a loop more is worth nothing; 1, as much as a block of its own.

    Args:
        exponent: None where it cannot be identified.
        low: Of its 95 % interval.
        high: Of its 95 % interval.
        reason: Why it cannot be identified.
    """

    kind: ClassVar[str] = "equivalence"
    exponent: float | None
    low: float | None
    high: float | None
    reason: Literal["untied-gain-within-noise", "no-untied-arm", "too-few-runs"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding(Statement):
    """What int8 does to the chosen model's quality and to its time on this machine."""

    kind: ClassVar[str] = "rounding"
    candidate: Candidate
    change: Interval
    share: float
    effect: Effect
    time_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Statement):
    """What the chosen model takes on this machine; bytes, and seconds a sample."""

    kind: ClassVar[str] = "cost"
    candidate: Candidate
    file_bytes: int
    memory_bytes: int
    seconds: float
    int8_bytes: int | None
    int8_seconds: float | None
    untied_bytes: int | None
    fewest: int | None
    time_ratio: float | None
    busy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability(Statement):
    """How runs ended: ``diverged``, ``failed``, ``no-int8`` by arm and loop count, of all runs."""

    kind: ClassVar[str] = "stability"
    runs: int
    diverged: dict[str, int]
    failed: dict[str, int]
    no_int8: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotConverged(Statement):
    """Runs that were still getting better by more than the margin when they ended."""

    kind: ClassVar[str] = "not-converged"
    runs: int
    of: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements(Statement):
    """What was required of memory, time and quality: the best that meets it, or what misses it by least."""

    kind: ClassVar[str] = "requirements"
    meets: Candidate | None
    nearest: Candidate | None
    model: Literal["float", "int8"] | None
    missed: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep(Statement):
    """What would decide it, or what comes after it."""

    kind: ClassVar[str] = "next-step"
    what: Literal[
        "more-seeds", "more-origins", "longer-training", "deploy", "take-baseline", "mend-runs"
    ]
    seeds: int | None = None
    seconds: float | None = None
    command: str | None = None
