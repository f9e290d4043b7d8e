"""One row per arm and loop count: quality with its spread, differences with their intervals, cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loopedge.study.cost import Costs
from loopedge.study.design import Design
from loopedge.study.statistics import Interval, Spread, interval_of, spread_of

__all__ = ["Summary", "summarise"]

Values = dict[int, float]
"""The metric by seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An arm at a loop count.

    ``against_fewest`` is its difference to the same arm at the fewest loops, ``against_looped`` to the
    arm ``looped`` at the same count, ``against_best`` to the row with the best mean; all paired by
    seed, in units of the metric.
    """

    arm: str
    loops: int
    runs: int
    diverged: int
    failed: int
    parameters: int | None
    quality: Spread | None
    int8_quality: Spread | None
    int8_change: Interval | None
    against_fewest: Interval | None
    against_looped: Interval | None
    against_best: Interval | None
    gradient_norm_max: float | None
    relative_update: list[float] | None
    cost: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        intervals = ("int8_change", "against_fewest", "against_looped", "against_best")
        told = {name: getattr(self, name) for name in intervals}
        return asdict(self) | {
            name: None if interval is None else interval.to_json()
            for name, interval in told.items()
        }


def summarise(
    design: Design,
    cells: list[dict[str, Any]],
    costs: Costs,
    metric: str,
    *,
    higher_is_better: bool,
) -> list[Summary]:
    """Return a row per arm and loop count, in the order of the design."""
    values = {
        (arm, loops): _values(cells, arm, loops, "test", metric)
        for arm in design.arms
        for loops in design.loops
    }
    best = _best(values, higher_is_better=higher_is_better)
    rows = []
    for (arm, loops), mine in values.items():
        told = [cell for cell in cells if (cell["arm"], cell["loops"]) == (arm, loops)]
        done = [cell for cell in told if cell["status"] == "done"]
        lower = _values(cells, arm, loops, "int8", metric)
        fewest = values[arm, design.loops[0]] if loops != design.loops[0] else {}
        looped = values.get(("looped", loops), {}) if arm != "looped" else {}
        spikes = [cell["gradient_norm_max"] for cell in done if cell["gradient_norm_max"]]
        rows.append(
            Summary(
                arm=arm,
                loops=loops,
                runs=len(told),
                diverged=sum(cell["status"] == "diverged" for cell in told),
                failed=sum(cell["status"] == "failed" for cell in told),
                parameters=done[0]["parameters"] if done else None,
                quality=spread_of(list(mine.values())),
                int8_quality=spread_of(list(lower.values())),
                int8_change=_difference(lower, mine),
                against_fewest=_difference(mine, fewest),
                against_looped=_difference(mine, looped),
                against_best=None if mine is best else _difference(mine, best),
                gradient_norm_max=max(spikes) if spikes else None,
                relative_update=_mean_update(done),
                cost=costs.get((arm, loops), {}),
            )
        )
    return rows


def _best(values: Mapping[tuple[str, int], Values], *, higher_is_better: bool) -> Values:
    """Return the values with the best mean, of the arms whose weights are tied."""
    tied = [of for (arm, _), of in values.items() if of and arm != "untied"]
    sign = 1 if higher_is_better else -1
    return max(tied, key=lambda of: sign * sum(of.values()) / len(of), default={})


def _values(cells: list[dict[str, Any]], arm: str, loops: int, where: str, metric: str) -> Values:
    return {
        cell["seed"]: cell[where][metric]
        for cell in cells
        if (cell["arm"], cell["loops"], cell["status"]) == (arm, loops, "done")
        and cell[where] is not None
        and cell[where][metric] is not None
    }


def _difference(mine: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    return interval_of([mine[seed] - other[seed] for seed in sorted(mine) if seed in other])


def _mean_update(done: list[dict[str, Any]]) -> list[float] | None:
    """Return the mean relative update of the state by iteration."""
    lists = [cell["stability"]["relative_update"] for cell in done if cell.get("stability")]
    if not lists:
        return None
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]
