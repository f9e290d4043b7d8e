"""Tell leaks and drift from noise in what processes reported over time."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from loopedge.profiler.result import Soak, SoakPoint

__all__ = ["MIN_TURNS", "judge_soak"]

MIN_TURNS = 12
"""Turns of a process without which nothing is said of it."""

WARM_UP_SHARE = 0.2
"""Turns at the start that do not count: the arena, malloc and caches settle."""

MOST_POINTS = 1000
"""Whose pairs are compared: those of all turns of a day are 900 million."""

LEAST_GROWTH_BYTES = 64 * 1024
EVEN_SHARE = 0.2
"""Of the growth that each half must have: a single step, malloc's next block, is not a leak."""

Floats = npt.NDArray[np.float64]


def judge_soak(points: Sequence[SoakPoint], seconds: float) -> Soak | None:
    """Judge memory and latency over time.

    Memory leaks where in most processes the anonymous memory grows past the warm-up: the median of the
    last third of the turns exceeds that of the first by more than memory swings about its trend (the
    slope of Theil and Sen, which no outlier moves), and the middle third lies between them.

    Args:
        points: Turns of all processes, in the order of time.
        seconds: How long the soak took.

    Returns:
        Medians over the processes that had `MIN_TURNS` turns; None without such a process.
    """
    by_process: dict[int, list[SoakPoint]] = defaultdict(list)
    for point in points:
        by_process[point.process].append(point)
    slopes, drifts, leaking = [], [], []
    for turns in by_process.values():
        if len(turns) < MIN_TURNS:
            continue
        runs = np.cumsum([turn.runs for turn in turns]).astype(np.float64)
        settled = slice(int(len(turns) * WARM_UP_SHARE), None)
        anonymous = np.array([float(turn.anon_bytes) for turn in turns])[settled]
        slope = _slope(runs[settled], anonymous)
        slopes.append(slope)
        leaking.append(_leaks(runs[settled], anonymous, slope))
        first, _, last = _thirds(np.array([turn.p50_ms for turn in turns])[settled])
        drifts.append(last / first)
    if not slopes:
        return None
    return Soak(
        seconds=seconds,
        runs=sum(point.runs for point in points),
        anon_bytes_per_1000_runs=1000 * median(slopes),
        leaks=sum(leaking) > len(leaking) / 2,
        drift=float(median(drifts)),
        points=list(points),
    )


def _slope(x: Floats, y: Floats) -> float:
    """Return the median slope of all pairs (Theil 1950, Sen 1968); of a long soak, of pairs of some points."""
    if len(x) > MOST_POINTS:
        chosen = np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int)
        x, y = x[chosen], y[chosen]
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def _thirds(values: Floats) -> list[float]:
    return [float(np.median(third)) for third in np.array_split(values, 3)]


def _leaks(runs: Floats, anonymous: Floats, slope: float) -> bool:
    first, middle, last = _thirds(anonymous)
    growth = last - first
    rest = anonymous - slope * runs
    swing = float(np.percentile(np.abs(rest - np.median(rest)), 90))
    return (
        slope > 0
        and growth > max(2 * swing, LEAST_GROWTH_BYTES)
        and min(middle - first, last - middle) > EVEN_SHARE * growth
    )
