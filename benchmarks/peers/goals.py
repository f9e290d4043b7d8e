"""Hold loopedge's figures against its goals, and say who is best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.measurement import Figures
from benchmarks.peers.products import BASELINE

__all__ = ["Goal", "comparable", "ranking", "reach_goals"]

MB = 10**6
FLOAT32_ERROR = 1e-4
"""Largest max |y - ref| / max |ref| of what is called float32: bfloat16 and fast approximations are not."""

TABLE_BYTES = 4 * 768 * 4
"""Of a timestep table, an iteration: what grows with the loop count and has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure, the most it may be, and whether missing it fails the benchmark: bytes do."""

    name: str
    measured: float
    allowed: float
    blocks: bool

    @property
    def is_reached(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.measured <= self.allowed

    def row(self) -> str:
        """Return a row of the Markdown table."""
        verdict = "reached" if self.is_reached else "FAIL" if self.blocks else "missed"
        return f"| {self.name} | {self.measured:.3f} | <= {self.allowed:.3f} | {verdict} |"


BOUNDS = (
    ("loopedge balanced", "time_ratio", 0.97),
    ("loopedge balanced", "peak_bytes", 70.0),
    ("loopedge mapped, prepared", "time_ratio", 0.97),
    ("loopedge mapped, prepared", "anon_bytes", 12.0),
    ("loopedge low", "time_ratio", 1.15),
    ("loopedge low", "peak_bytes", 58.0),
    ("loopedge int8 balanced", "time_ratio", 0.31),
    ("loopedge int8 balanced", "peak_bytes", 32.0),
    ("loopedge int8 low", "peak_bytes", 27.0),
    ("loopedge int8 balanced, last position", "time_ratio", 0.29),
)
"""At 12 loops; bytes in MB."""

NAMES = {
    "time_ratio": f"time against {BASELINE}",
    "peak_bytes": "peak MB",
    "anon_bytes": "anonymous MB after load",
}


def reach_goals(by_loops: Mapping[int, Sequence[Figures]]) -> list[Goal]:
    """Return every goal with what was measured; a product without figures reaches none.

    Args:
        by_loops: The figures of the TMLT by loop count, 12 among them.
    """
    found = {one.label: one for one in by_loops[12]}
    goals = [_bound(found.get(label), label, figure, allowed) for label, figure, allowed in BOUNDS]
    labels = dict.fromkeys(label for label, _, _ in BOUNDS)
    goals += [_flatness(label, by_loops) for label in labels if len(by_loops) > 1]
    return goals + [_best(precision, by_loops[12]) for precision in ("float", "int8")]


def _bound(one: Figures | None, label: str, figure: str, allowed: float) -> Goal:
    of_bytes = figure.endswith("_bytes")
    measured = float("inf")
    if one is not None and not one.failed:
        measured = getattr(one, figure) / (MB if of_bytes else 1)
    name = f"{label}: {NAMES[figure]}"
    return Goal(name=name, measured=measured, allowed=allowed, blocks=of_bytes)


def _flatness(label: str, by_loops: Mapping[int, Sequence[Figures]]) -> Goal:
    """Compare the most anonymous memory with the least, the table aside."""
    anonymous = {
        loops: one.anon_bytes - loops * TABLE_BYTES if not one.failed else float("inf")
        for loops, figures in by_loops.items()
        for one in figures
        if one.label == label
    }
    whole = len(anonymous) == len(by_loops)
    counts = "/".join(str(loops) for loops in sorted(by_loops))
    return Goal(
        name=f"{label}: anonymous MB after load at r={counts}, most less least, tables aside",
        measured=(max(anonymous.values()) - min(anonymous.values())) / MB
        if whole
        else float("inf"),
        allowed=0.02 * min(anonymous.values(), default=0.0) / MB + 1.0,
        blocks=True,
    )


def _best(precision: str, found: Sequence[Figures]) -> Goal:
    """Compare loopedge's best product of time and peak with the best of all others."""
    measured = comparable(found, precision)
    ours = min((one.time_times_peak for one in measured if one.ours), default=float("inf"))
    others = min((one.time_times_peak for one in measured if not one.ours), default=float("inf"))
    return Goal(
        name=f"{precision}: time x peak MB, loopedge's best against the best other",
        measured=ours,
        allowed=others,
        blocks=False,  # half of it is a time
    )


def ranking(found: Iterable[Figures], precision: str, places: int = 5) -> str:
    """Say who is best on the product of time and peak memory.

    Args:
        found: The figures of one model.
        precision: ``float`` or ``int8``.
        places: Of the ranking.
    """
    best = sorted(comparable(found, precision), key=lambda one: one.time_times_peak)[:places]
    ranked = ", ".join(f"{one.label} {one.time_times_peak:.1f}" for one in best)
    return f"Best on time x peak MB, {precision}: {ranked}."


def comparable(found: Iterable[Figures], precision: str) -> list[Figures]:
    """Return what competes: every position in float32 to `FLOAT32_ERROR`, or int8 in more than its name."""
    whole = [
        one
        for one in found
        if one.precision == precision and one.positions == "all" and not one.failed
    ]
    if precision == "float":
        return [one for one in whole if one.error <= FLOAT32_ERROR]
    return [one for one in whole if one.quantized]
