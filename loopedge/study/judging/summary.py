"""One table row per arm and loop count: quality with its spread, differences with their intervals, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from loopedge.study.cost import Costs
from loopedge.study.design import Design, block_name
from loopedge.study.judging.claims import Claims, claim
from loopedge.study.judging.statements import Candidate
from loopedge.study.judging.statistics import Interval, OverSeeds, over_seeds, paired

__all__ = [
    "Summary",
    "Values",
    "claims_alone",
    "in_common",
    "summarise",
    "values_of",
    "whole_values",
]

Key = TypeVar("Key")
Values = dict[str, float]
"""The metric by block: by seed, and by origin where there are several (`block_name`)."""

INTERVALS = (
    "int8_change", "against_fewest", "against_looped", "against_constant", "against_baseline",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An arm at a loop count.

    ``test`` and ``validation`` are the metric by block. The differences are of the test split in units of the metric,
    with simultaneous intervals (`Claims`): to the same arm at the fewest loops, to the arms ``looped`` and ``constant``
    at the same count, to the strongest baseline; None where a run of either is missing. ``int8_change`` is paired by
    block. ``int8_failed`` counts models without int8. ``scores`` are the task's other metrics over the blocks on the test
    split, those of all that is asked: None where one is undefined.
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
    def candidate(self) -> Candidate:
        """Return which one it is."""
        return Candidate(arm=self.arm, loops=self.loops)

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
    claims: Claims | None = None,
) -> list[Summary]:
    """Return a table row per arm and loop count, in the order of the design.

    Args:
        design: Arms and loop counts.
        cells: Results of the runs.
        costs: Figures by arm and loop count.
        metric: The task's own.
        claims: Of all arms against the strongest baseline; None where there is no baseline.
    """
    keys = list(dict.fromkeys((cell.arm, cell.loops) for cell in design.cells))
    keys.sort(key=lambda key: (design.arms.index(key[0]), key[1]))
    known = claims or claims_alone(cells, metric)
    return [
        _row(
            Candidate(arm=arm, loops=loops),
            [cell for cell in cells if (cell["arm"], cell["loops"]) == (arm, loops)],
            metric,
            others=_others(Candidate(arm=arm, loops=loops), design, known)
            | {
                "against_baseline": None
                if claims is None
                else claims.differences.get(f"{arm}-r{loops}")
            },
            cost=costs.get((arm, loops), {}),
        )
        for arm, loops in keys
    ]


def claims_alone(cells: Sequence[dict[str, Any]], metric: str) -> Claims | None:
    """Return what the runs say of each other where there is no baseline: over the seeds alone."""
    values = whole_values(cells, "test", metric)
    blocks = {block for of in values.values() for block in of}
    return claim(values, dict.fromkeys(blocks, 0.0))


def values_of(
    cells: Sequence[dict[str, Any]], where: str, metric: str
) -> dict[tuple[str, int], Values]:
    """Return a metric of the finished runs by arm and loop count, and by block.

    Args:
        cells: Results of the runs.
        where: ``validation``, ``test`` or ``int8``.
        metric: Which one.
    """
    found: dict[tuple[str, int], Values] = {}
    for cell in cells:
        if cell["status"] != "done" or cell[where] is None or cell[where].get(metric) is None:
            continue
        block = block_name(cell["seed"], cell.get("origin"))
        found.setdefault((cell["arm"], cell["loops"]), {})[block] = cell[where][metric]
    return found


def whole_values(
    cells: Sequence[dict[str, Any]], where: str, metric: str
) -> dict[tuple[str, int], Values]:
    """Return `values_of` the arms and loop counts none of whose runs was lost, in the blocks that all of them have.

    A pilot that is stopped within a seed has it of some alone: that seed counts for none of them.
    """
    lost = {
        (cell["arm"], cell["loops"])
        for cell in cells
        if cell["status"] != "done" or (cell[where] or {}).get(metric) is None
    }
    found = values_of(cells, where, metric)
    return in_common({key: of for key, of in found.items() if key not in lost})


def in_common(values: Mapping[Key, Values]) -> dict[Key, Values]:
    """Return values in the blocks that all have."""
    blocks = set.intersection(*map(set, values.values())) if values else set()
    return {
        key: {block: value for block, value in of.items() if block in blocks}
        for key, of in values.items()
    }


def _others(mine: Candidate, design: Design, claims: Claims | None) -> dict[str, Interval | None]:
    """Return the differences to the same arm at the fewest loops, and to the plainer arms at the same count."""
    fewest = design.loops[0]
    others = {
        "fewest": None if mine.loops == fewest else Candidate(arm=mine.arm, loops=fewest),
        "looped": None if mine.arm == "looped" else Candidate(arm="looped", loops=mine.loops),
        "constant": None if mine.arm == "constant" else Candidate(arm="constant", loops=mine.loops),
    }
    return {
        f"against_{name}": None if other is None or claims is None else claims.between(mine, other)
        for name, other in others.items()
    }


def _row(
    candidate: Candidate,
    cells: Sequence[dict[str, Any]],
    metric: str,
    *,
    others: Mapping[str, Interval | None],
    cost: dict[str, Any],
) -> Summary:
    """Return the table row of an arm at a loop count from its runs and its differences to others."""
    key = (candidate.arm, candidate.loops)
    validation, test, lower = (
        values_of(cells, where, metric).get(key, {}) for where in ("validation", "test", "int8")
    )
    done = [cell for cell in cells if cell["status"] == "done"]
    spikes = [cell["gradient_norm_max"] for cell in cells if cell["gradient_norm_max"]]
    return Summary(
        arm=candidate.arm,
        loops=candidate.loops,
        runs=len(cells),
        diverged=sum(cell["status"] == "diverged" for cell in cells),
        failed=sum(cell["status"] == "failed" for cell in cells),
        int8_failed=sum(cell["int8"] is None for cell in done),
        parameters=done[0]["parameters"] if done else None,
        test=test,
        validation=validation,
        quality=over_seeds(list(test.values())),
        int8_quality=over_seeds(list(lower.values())),
        scores=_other_scores(cells, metric),
        int8_change=paired(lower, test),
        **others,
        gradient_norm_max=max(spikes) if spikes else None,
        relative_update=_mean_update(done),
        cost=cost,
    )


def _other_scores(cells: Sequence[dict[str, Any]], metric: str) -> dict[str, OverSeeds | None]:
    """Return the other metrics over the seeds, but for those of each of several targets: ``mase.units``."""
    names = dict.fromkeys(name for cell in cells for name in cell.get("test") or ())
    return {
        name: over_seeds(
            [value for of in values_of(cells, "test", name).values() for value in of.values()]
        )
        for name in names
        if name != metric and "." not in name
    }


def _mean_update(done: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Return the mean relative update of the state by iteration."""
    lists = [cell["stability"]["relative_update"] for cell in done if cell.get("stability")]
    if not lists:
        return None
    return [sum(values) / len(values) for values in zip(*lists, strict=True)]
