"""One row per arm and loop count: quality with its spread, differences with their intervals, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loopedge.study.cost import Costs
from loopedge.study.design import Design
from loopedge.study.statistics import Interval, Spread, paired, spread_of

__all__ = ["Summary", "Values", "baseline_values", "summarise"]

Values = dict[int, float]
"""The metric by seed."""

INTERVALS = (
    "int8_change", "against_fewest", "against_looped", "against_constant", "against_baseline",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An arm at a loop count.

    ``test`` and ``validation`` are the metric by seed. The differences are of the test split, paired
    by seed, in units of the metric: to the same arm at the fewest loops, to the arms ``looped`` and
    ``constant`` at the same count, to the best baseline. ``int8_failed`` counts models without int8.
    """

    arm: str
    loops: int
    runs: int
    diverged: int
    failed: int
    int8_failed: int
    parameters: int | None
    test: Values
    validation: Values
    quality: Spread | None
    int8_quality: Spread | None
    int8_change: Interval | None
    against_fewest: Interval | None
    against_looped: Interval | None
    against_constant: Interval | None
    against_baseline: Interval | None
    gradient_norm_max: float | None
    relative_update: list[float] | None
    cost: dict[str, Any]

    @property
    def is_whole(self) -> bool:
        """Whether all of its runs were finished."""
        return bool(self.runs) and not self.diverged and not self.failed

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        told = {name: getattr(self, name) for name in INTERVALS}
        return asdict(self) | {
            name: None if interval is None else interval.to_json()
            for name, interval in told.items()
        }


def summarise(
    design: Design,
    cells: Sequence[dict[str, Any]],
    costs: Costs,
    metric: str,
    baseline: Values,
) -> list[Summary]:
    """Return a row per arm and loop count, in the order of the design.

    Args:
        design: Arms and loop counts.
        cells: Results of the runs.
        costs: Figures by arm and loop count.
        metric: The task's own.
        baseline: The best baseline's metric by seed.
    """
    keys = list(dict.fromkeys((cell.arm, cell.loops) for cell in design.cells))
    keys.sort(key=lambda key: (design.arms.index(key[0]), key[1]))
    tested = {key: _values(cells, key, "test", metric) for key in keys}
    rows = []
    for arm, loops in keys:
        mine = tested[arm, loops]
        lower = _values(cells, (arm, loops), "int8", metric)
        others = {other: tested.get((other, loops), {}) for other in ("looped", "constant")}
        fewest = tested.get((arm, design.loops[0]), {})
        told = [cell for cell in cells if (cell["arm"], cell["loops"]) == (arm, loops)]
        done = [cell for cell in told if cell["status"] == "done"]
        spikes = [cell["gradient_norm_max"] for cell in told if cell["gradient_norm_max"]]
        rows.append(
            Summary(
                arm=arm,
                loops=loops,
                runs=len(told),
                diverged=sum(cell["status"] == "diverged" for cell in told),
                failed=sum(cell["status"] == "failed" for cell in told),
                int8_failed=sum(cell["int8"] is None for cell in done),
                parameters=done[0]["parameters"] if done else None,
                test=mine,
                validation=_values(cells, (arm, loops), "validation", metric),
                quality=spread_of(list(mine.values())),
                int8_quality=spread_of(list(lower.values())),
                int8_change=paired(lower, mine),
                against_fewest=None if loops == design.loops[0] else paired(mine, fewest),
                against_looped=None if arm == "looped" else paired(mine, others["looped"]),
                against_constant=None if arm == "constant" else paired(mine, others["constant"]),
                against_baseline=paired(mine, baseline),
                gradient_norm_max=max(spikes) if spikes else None,
                relative_update=_mean_update(done),
                cost=costs.get((arm, loops), {}),
            )
        )
    return rows


def baseline_values(
    cells: Sequence[dict[str, Any]], metric: str, *, higher_is_better: bool
) -> tuple[str, Values] | None:
    """Return name and metric by seed of the best baseline; None where there is none.

    The seed decides what a generated task is tested on, and so what a baseline reaches.
    """
    by_name: dict[str, Values] = {}
    for cell in cells:
        known: dict[str, dict[str, float | None]] = cell.get("baselines") or {}
        for name, told in known.items():
            value = told.get(metric)
            if value is not None:
                by_name.setdefault(name, {})[cell["seed"]] = value
    if not by_name:
        return None
    sign = 1 if higher_is_better else -1
    name = max(by_name, key=lambda name: sign * sum(by_name[name].values()) / len(by_name[name]))
    return name, by_name[name]


def _values(
    cells: Sequence[dict[str, Any]], key: tuple[str, int], where: str, metric: str
) -> Values:
    return {
        cell["seed"]: cell[where][metric]
        for cell in cells
        if (cell["arm"], cell["loops"]) == key
        and cell["status"] == "done"
        and cell[where] is not None
        and cell[where][metric] is not None
    }


def _mean_update(done: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Return the mean relative update of the state by iteration."""
    lists = [cell["stability"]["relative_update"] for cell in done if cell.get("stability")]
    if not lists:
        return None
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]
