"""What a pilot found, as results.json holds it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loopedge.study.judging.summary import Summary
from loopedge.study.judging.verdict import Verdict
from loopedge.study.plotted.window import PlottedWindow

__all__ = ["SCHEMA_VERSION", "PilotResult", "Place"]

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A row of the leaderboard, best on the validation split first, failed ones last.

    Args:
        name: In words, ``timestep with 8 loops``, ``ridge on lags``.
        kind: A looped arm, an arm without a loop, or a plain baseline.
        arm: Of a network.
        loops: Of a network.
        validation: Mean of the metric over the blocks.
        test: Likewise.
        deviation: Of the test metric over the blocks; None below two.
        mase: Of the test split; None: undefined, or not a forecast.
        runs: How many were made.
        finished: How many of them count.
        about: How a plain baseline was fitted.
        reason: Why a row has no score.
        upper_bound: No model is expected to beat it.
    """

    name: str
    kind: Literal["looped", "unlooped", "plain"]
    arm: str | None = None
    loops: int | None = None
    validation: float | None = None
    test: float | None = None
    deviation: float | None = None
    mase: float | None = None
    runs: int = 1
    finished: int = 1
    about: str = ""
    reason: str | None = None
    upper_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotResult:
    """What a pilot found; docs/pilot.md says how to read it.

    ``baselines`` are by block; ``margin`` has ``value`` in the metric's unit, ``text`` as it was asked for and ``of``, what
    a share is of; ``looks`` say after how many seeds it was decided; ``left_out`` what the budget left out and why.
    ``seconds`` are those of all calls that worked on the folder. ``complete`` is false while it goes on and where it was
    stopped: ``made`` of ``planned`` runs are there then, and nothing is profiled. ``windows`` are the only values of the
    user's data in it.
    """

    schema_version: int
    path: str
    command: str
    machine: dict[str, Any]
    task: dict[str, Any]
    notes: list[str]
    design: dict[str, Any]
    metric: str
    higher_is_better: bool
    margin: dict[str, Any]
    verdict: Verdict
    leaderboard: list[Place]
    baselines: dict[str, list[dict[str, Any]]]
    summary: list[Summary]
    cells: list[dict[str, Any]]
    profile: dict[str, Any]
    seconds: float
    looks: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    made: int = 0
    planned: int = 0
    windows: list[PlottedWindow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/pilot.md."""
        return asdict(self) | {
            "verdict": self.verdict.to_json(),
            "summary": [row.to_json() for row in self.summary],
        }
