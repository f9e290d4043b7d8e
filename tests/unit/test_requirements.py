"""What a device allows: the best model that fits, or the nearest miss and by how much."""

from typing import Any

import pytest

from loopedge.study.judging.requirements import Limits, check_requirements
from loopedge.study.judging.statements import Candidate, Requirements
from loopedge.study.judging.statistics import Interval, OverSeeds
from loopedge.study.judging.summary import Summary
from loopedge.units import read_seconds

MIB = 2**20


def row(arm: str, loops: int, error: float, *, peak: float, p50: float, **fields: Any) -> Summary:
    """Return a row whose int8 model takes half the memory, 1.5 times the time, and errs by 0.1 more."""
    plain: dict[str, Any] = {
        "arm": arm,
        "loops": loops,
        "runs": 3,
        "diverged": 0,
        "failed": 0,
        "int8_failed": 0,
        "parameters": 100,
        "test": {"s0": error},
        "validation": {"s0": error - 0.5},
        "quality": OverSeeds(mean=error, sd=None, values=[error]),
        "int8_quality": OverSeeds(mean=error + 0.1, sd=None, values=[error + 0.1]),
        "int8_change": Interval(mean=0.1, low=0.05, high=0.15),
        "scores": {},
        "gradient_norm_max": None,
        "relative_update": None,
        "cost": {
            "float": {"rss_peak_bytes": int(peak * MIB), "latency_ms": {"p50": p50}},
            "int8": {"rss_peak_bytes": int(peak * MIB / 2), "latency_ms": {"p50": 1.5 * p50}},
        },
    }
    others = ("against_fewest", "against_looped", "against_constant", "against_baseline")
    known = Summary.__dataclass_fields__
    plain |= {name: None for name in others if name in known}
    return Summary(**plain | fields)


ROWS = [
    row("looped", 1, 4.0, peak=20, p50=10),
    row("looped", 4, 3.5, peak=24, p50=40),
    row("timestep", 8, 3.2, peak=40, p50=80),
    row("untied", 8, 3.0, peak=1, p50=1),
    row("timestep", 4, 2.0, peak=1, p50=1, diverged=1),
]


def found(rows: list[Summary] = ROWS, *, higher: bool = False, **limits: Any) -> Requirements:
    result = check_requirements(rows, Limits(**limits), higher_is_better=higher)
    assert result is not None
    return result


def test_nothing_is_said_where_nothing_is_required() -> None:
    assert check_requirements(ROWS, Limits(), higher_is_better=False) is None


@pytest.mark.parametrize(
    ("limits", "candidate", "model"),
    [
        ({"memory_bytes": 50 * MIB}, ("timestep", 8), "float"),
        ({"memory_bytes": 32 * MIB}, ("timestep", 8), "int8"),  # 20 MiB
        ({"memory_bytes": 32 * MIB, "seconds": 0.1}, ("looped", 4), "float"),  # int8 of 8: 120 ms
        ({"memory_bytes": 15 * MIB, "seconds": 0.06}, ("looped", 4), "int8"),
        ({"seconds": 0.012}, ("looped", 1), "float"),
        ({"metric": 3.3}, ("timestep", 8), "float"),
    ],
)
def test_the_best_that_meets_them_is_named(
    limits: dict[str, Any], candidate: tuple[str, int], model: str
) -> None:
    result = found(**limits)
    assert result.meets == Candidate(arm=candidate[0], loops=candidate[1])
    assert (result.model, result.nearest, result.missed) == (model, None, {})


def test_the_nearest_miss_says_by_how_much() -> None:
    result = found(seconds=0.008)
    assert result.meets is None
    assert result.nearest == Candidate(arm="looped", loops=1)
    assert result.model == "float"
    assert result.missed == {"latency": (0.01, 0.008)}
    both = found(seconds=0.02, metric=3.0)
    # looped 1: 33 % too bad; int8 of it 37 %; looped 4 takes twice the time
    assert (both.nearest, both.model) == (Candidate(arm="looped", loops=1), "float")
    assert both.missed == {"metric": (4.0, 3.0)}


def test_where_more_is_better_the_metric_is_a_floor() -> None:
    assert found(higher=True, metric=3.9).meets == Candidate(arm="looped", loops=1)
    high = found(higher=True, metric=5.0)
    assert high.nearest == Candidate(arm="looped", loops=1)
    assert high.model == "int8"  # 4.1: rounding happens to help
    assert high.missed["metric"] == pytest.approx((4.1, 5.0))


def test_without_a_measured_model_neither_is_named() -> None:
    result = found([row("looped", 1, 4.0, peak=1, p50=1, cost={})], seconds=1.0)
    assert (result.meets, result.nearest, result.model, result.missed) == (None, None, None, {})


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("0.5 s", 0.5), ("20m", 1200.0)])
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert read_seconds(text) == pytest.approx(seconds)
