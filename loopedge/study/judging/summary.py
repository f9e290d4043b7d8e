"""One table row per arm and loop count: quality with its spread, differences with their intervals, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loopedge.study.cost import Costs
from loopedge.study.design import Design, block_name
from loopedge.study.judging.statistics import Interval, OverSeeds, over_seeds, paired

__all__ = ["Summary", "Values", "baseline_values", "summarise"]

Values = dict[str, float]
"""The metric by block: by seed, and by origin where there are several (`block_name`)."""

INTERVALS = (
    "int8_change", "against_fewest", "against_looped", "against_constant", "against_baseline",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An arm at a loop count.

    ``test`` and ``validation`` are the metric by seed. The differences are of the test split, paired
    by seed, in units of the metric: to the same arm at the fewest loops, to the arms ``looped`` and
    ``constant`` at the same count, to the best baseline. ``int8_failed`` counts models without int8.
    ``scores`` are the task's other metrics over the seeds on the test split, those of all that is asked: None where
    one is undefined.
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
    quality: OverSeeds | None
    int8_quality: OverSeeds | None
    scores: dict[str, OverSeeds | None]
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
        intervals = {name: getattr(self, name) for name in INTERVALS}
        return asdict(self) | {
            name: None if interval is None else interval.to_json()
            for name, interval in intervals.items()
        }


def summarise(
    design: Design,
    cells: Sequence[dict[str, Any]],
    costs: Costs,
    metric: str,
    baseline: Values,
) -> list[Summary]:
    """Return a table row per arm and loop count, in the order of the design.

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
        fewest = None if loops == design.loops[0] else tested.get((arm, design.loops[0]), {})
        others = {
            f"against_{name}": None if values is None else paired(tested[arm, loops], values)
            for name, values in (
                ("fewest", fewest),
                ("looped", None if arm == "looped" else tested.get(("looped", loops), {})),
                ("constant", None if arm == "constant" else tested.get(("constant", loops), {})),
                ("baseline", baseline),
            )
        }
        of_key = [cell for cell in cells if (cell["arm"], cell["loops"]) == (arm, loops)]
        cost = costs.get((arm, loops), {})
        rows.append(_row(arm, loops, of_key, metric, others=others, cost=cost))
    return rows


def _row(
    arm: str,
    loops: int,
    cells: Sequence[dict[str, Any]],
    metric: str,
    *,
    others: Mapping[str, Interval | None],
    cost: dict[str, Any],
) -> Summary:
    """Return the table row of an arm at a loop count from its runs and its differences to others."""
    test, lower = (_values(cells, (arm, loops), where, metric) for where in ("test", "int8"))
    done = [cell for cell in cells if cell["status"] == "done"]
    spikes = [cell["gradient_norm_max"] for cell in cells if cell["gradient_norm_max"]]
    return Summary(
        arm=arm,
        loops=loops,
        runs=len(cells),
        diverged=sum(cell["status"] == "diverged" for cell in cells),
        failed=sum(cell["status"] == "failed" for cell in cells),
        int8_failed=sum(cell["int8"] is None for cell in done),
        parameters=done[0]["parameters"] if done else None,
        test=test,
        validation=_values(cells, (arm, loops), "validation", metric),
        quality=over_seeds(list(test.values())),
        int8_quality=over_seeds(list(lower.values())),
        scores=_other_scores(cells, (arm, loops), metric),
        int8_change=paired(lower, test),
        **others,
        gradient_norm_max=max(spikes) if spikes else None,
        relative_update=_mean_update(done),
        cost=cost,
    )


def baseline_values(
    cells: Sequence[dict[str, Any]], metric: str, *, higher_is_better: bool
) -> tuple[str, Values] | None:
    """Return name and metric by seed of the best baseline; None where there is none.

    The seed decides what a generated task is tested on, and so what a baseline reaches.
    """
    by_name: dict[str, Values] = {}
    for cell in cells:
        known: dict[str, dict[str, float | None]] = cell.get("baselines") or {}
        for name, scores in known.items():
            value = scores.get(metric)
            if value is not None:
                by_name.setdefault(name, {})[block_name(cell["seed"], cell.get("origin"))] = value
    if not by_name:
        return None
    sign = 1 if higher_is_better else -1
    name = max(by_name, key=lambda name: sign * sum(by_name[name].values()) / len(by_name[name]))
    return name, by_name[name]


def _values(
    cells: Sequence[dict[str, Any]], key: tuple[str, int], where: str, metric: str
) -> Values:
    return {
        block_name(cell["seed"], cell.get("origin")): cell[where][metric]
        for cell in cells
        if (cell["arm"], cell["loops"]) == key
        and cell["status"] == "done"
        and cell[where] is not None
        and cell[where].get(metric) is not None
    }


def _other_scores(
    cells: Sequence[dict[str, Any]], key: tuple[str, int], metric: str
) -> dict[str, OverSeeds | None]:
    """Return the other metrics over the seeds, but for those of each of several targets: ``mase.units``."""
    names = dict.fromkeys(name for cell in cells for name in cell.get("test") or ())
    return {
        name: over_seeds(list(_values(cells, key, "test", name).values()))
        for name in names
        if name != metric and "." not in name
    }


def _mean_update(done: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Return the mean relative update of the state by iteration."""
    lists = [cell["stability"]["relative_update"] for cell in done if cell.get("stability")]
    if not lists:
        return None
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]
