"""What a pilot says, as facts: `loopedge.study.words` makes sentences of them, in English or Japanese.

Facts first, words later: so the page, the terminal and results.json tell one story, and a test can ask a verdict
whether two of its statements contradict each other. Differences and intervals are in the unit of the metric, model less
what it is compared with; an `Effect` knows which direction is better.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from loopedge.study.judging.statistics import Interval, OverSeeds

__all__ = [
    "AgainstBaseline",
    "Alternative",
    "Candidate",
    "Chosen",
    "Cost",
    "Decision",
    "Effect",
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
    "Why",
    "effect_of",
]

Outcome = Literal["yes", "no", "undecided"]
"""Of the question: is a looped model worth it for this data?"""

Effect = Literal["better", "worse", "equal", "undecided"]
"""``equal``: within the margin, and surely so. ``undecided``: the runs cannot tell."""

Why = Literal[
    "loops", "one-loop", "baseline", "baseline-as-good", "untied",
    "seeds", "period", "splits", "few-seeds", "one-count", "nothing-finished",
]  # fmt: skip
"""What an outcome rests on, as `Decision` says."""


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
        why: ``yes`` for ``loops``: more loops pay. ``no`` for ``one-loop``: one loop is as good; ``baseline``: that is
            better; ``baseline-as-good``: it is within the margin of the chosen model; ``untied``: a network without
            a loop is better, with as many parameters. ``undecided`` for ``seeds``: they cannot tell the loop counts
            apart, or the chosen model from the baseline; ``period``: the test split cannot tell the chosen model
            from the baseline; ``splits``: validation and test disagree on what is best; ``few-seeds``: fewer than three;
            ``one-count``: one loop alone was made, and says nothing of more; ``nothing-finished``.
        blocks: Seeds, or seeds and origins, that it rests on.
        counts: Loop counts that were compared, ascending.
        chosen: What is recommended; None where nothing is.
        best: The best on the validation split.
        fewest: The loop count that could be neither accepted nor passed by, where ``why`` is ``seeds``; None where the
            count is clear and the seeds cannot tell the model from the baseline.
        most: The best model's loop count there.
        winner: What wins: the baseline, or the arm without a loop with ``untied``. Also beside ``yes``, where an arm with
            more parameters is better.
        sure: Probability that the chosen one is within the margin of the best.
    """

    kind: ClassVar[str] = "decision"
    outcome: Outcome
    why: Why
    blocks: int
    counts: tuple[int, ...] = ()
    chosen: Candidate | None = None
    best: Candidate | None = None
    fewest: int | None = None
    most: int | None = None
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
        ahead: Whether the model is better on average, surely or not.
        over: What the interval is over.
        samples: Of the test split.
        visible: The smallest true difference that this test split shows in 80 of 100 such periods; None: not known.
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
    visible: float | None = None
    seasonal: tuple[float | None, float | None] | None = None
    ahead: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Statement):
    """How the recommended model was chosen, and what that choice is worth on data that did not choose.

    Args:
        candidate: Chosen on the validation split.
        sure: Probability that it is within the margin of the best.
        quality: Its test metric.
        honest: Mean test metric where the choice is made again without each block in turn, and judged on that block:
            of the way of choosing, without its luck.
    """

    kind: ClassVar[str] = "chosen"
    candidate: Candidate
    sure: float
    quality: OverSeeds
    honest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreLoops(Statement):
    """What the most useful count does against the fewest, in the arm that is chosen, on the test split."""

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
    """What blocks of their own reach: as many of the same size (``untied``), or with as many parameters (``narrow``).

    Args:
        arm: ``untied`` or ``narrow``.
        loops: Its layers.
        against: The looped model that it is compared with.
        quality: Its test metric.
        parameters_ratio: Its parameters to those of the looped model.
        difference: Untied less looped.
        effect: Of the untied one.
    """

    kind: ClassVar[str] = "untied"
    arm: str
    loops: int
    against: Candidate
    quality: OverSeeds
    parameters_ratio: float
    difference: Interval | None
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative(Statement):
    """The elastic model, which takes any loop count: named where it is within the margin of the chosen one."""

    kind: ClassVar[str] = "alternative"
    candidate: Candidate
    against: Candidate
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
    """What int8 does to the chosen model's quality and to its time on this machine; ``share`` is of the metric."""

    kind: ClassVar[str] = "rounding"
    candidate: Candidate
    change: Interval
    share: float
    effect: Effect
    time_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Statement):
    """What the chosen model takes on this machine; bytes, and seconds a sample.

    ``time_ratio`` is to the same arm at ``fewest`` loops; None where that is the model itself.
    """

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
    """What would decide it, or what comes after it.

    Args:
        what: ``longer-data``: no number of seeds would help, only a longer test split. ``wider-margin``: no number of
            seeds is near that would help, ``margin`` decides it with the runs there are.
        seeds: How many more.
        origins: How many origins to take.
        margin: In the metric's unit.
        seconds: About how long the runs take.
        command: What to run.
    """

    kind: ClassVar[str] = "next-step"
    what: Literal[
        "more-seeds", "more-origins", "longer-data", "longer-training", "wider-margin", "more-loops",
        "deploy", "take-baseline", "compare-untied", "mend-runs", "go-on",
    ]  # fmt: skip
    seeds: int | None = None
    origins: int | None = None
    margin: float | None = None
    seconds: float | None = None
    command: str | None = None


def effect_of(difference: Interval | None, margin: float, *, higher_is_better: bool) -> Effect:
    """Return what a difference says: surely within the margin, on one side of zero, or neither.

    Args:
        difference: Of a model less another.
        margin: The difference that does not matter.
        higher_is_better: Of the metric.
    """
    if difference is None or difference.low is None or difference.high is None:
        return "undecided"
    if -margin <= difference.low and difference.high <= margin:
        return "equal"
    if not difference.excludes_zero:
        return "undecided"
    return "better" if (difference.low > 0) == higher_is_better else "worse"
