"""What a comparison of two profiles found."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["COMPARISON_VERSION", "Change", "ComparedRun", "Comparison", "Regression"]

COMPARISON_VERSION = 2
"""Of its JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure of a run, before and after.

    ``ratio`` is after over before, None where that is not a number; ``beyond_noise`` whether the ranges
    over the processes do not meet, None where one process measured it; ``judged`` whether the figure
    counts against an allowed regression, ``past`` whether it is past that.
    """

    figure: str
    before: float
    after: float
    ratio: float | None
    beyond_noise: bool | None
    judged: bool
    past: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run that both profiles hold, named as in the second; ``label`` distinguishes it from its namesakes.

    ``differences``: before and after of the settings in which runs of two clients differ.
    """

    label: str
    name: str
    path: str
    twin: str | None
    runtime: str
    provider: str
    memory: str | None
    threads: int | None
    batch: int
    sequence: int | None
    loops: int | None
    compute: str
    cuda_graph: bool
    changes: list[Change]
    differences: dict[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A judged figure that is past what is allowed, or a run that can no longer be measured.

    ``figure`` is None for the latter, and so are the numbers.
    """

    label: str
    figure: str | None
    before: float | None
    after: float | None
    ratio: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two profiles: the runs of both, those of one alone, what speaks against it, what regressed.

    A client is None where ``loopedge profile`` measured.
    """

    schema_version: int
    before_client: str | None
    after_client: str | None
    before_created: str | None
    after_created: str | None
    same_machine: bool
    max_regression: float | None
    cautions: list[str]
    runs: list[ComparedRun]
    new: list[str]
    gone: list[str]
    regressions: list[Regression]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)
