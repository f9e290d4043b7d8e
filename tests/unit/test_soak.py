"""A leak is distinguished from noise, from a single step and from warm-up; latency's drift by thirds."""

import json
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from loopedge.profiler.processes.soak import MIN_TURNS, judge_soak
from loopedge.profiler.result import Soak, SoakPoint

KIB = 1024
TURNS = 40

Floats = npt.NDArray[np.float64]


def judge(taken: list[SoakPoint], seconds: float = 1.0) -> Soak:
    found = judge_soak(taken, seconds)
    assert found is not None
    return found


def points(anonymous: Floats, process: int = 0, p50_ms: Floats | None = None) -> list[SoakPoint]:
    latencies = np.ones(len(anonymous)) if p50_ms is None else p50_ms
    return [
        SoakPoint(
            process=process,
            second=float(i),
            runs=10,
            rss_bytes=int(size) + 1000,
            anon_bytes=int(size),
            p50_ms=float(ms),
        )
        for i, (size, ms) in enumerate(zip(anonymous, latencies, strict=True))
    ]


def noise(seed: int, scale: float = 100 * KIB) -> Floats:
    values: Floats = 30e6 + scale * np.random.default_rng(seed).random(TURNS)
    return values


def test_a_steady_leak_shows_through_noise_with_its_rate() -> None:
    found = judge(points(noise(0) + 50 * KIB * np.arange(TURNS)), 40.0)
    assert found.leaks
    # 50 KiB in a turn of 10 runs
    assert found.anon_bytes_per_1000_runs == pytest.approx(5000 * KIB, rel=0.05)
    assert (found.runs, found.seconds) == (400, 40.0)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_leak(seed: int) -> None:
    assert not judge(points(noise(seed, scale=4e6)), 1.0).leaks


def test_a_leak_that_malloc_takes_in_blocks_is_one() -> None:
    stairs = 30e6 + 132 * KIB * np.floor(np.arange(TURNS) / 4)
    assert judge(points(stairs), 1.0).leaks


@pytest.mark.parametrize("step", [10, 16, 19, 24, 30, 36])
def test_a_single_step_is_no_leak(step: int) -> None:
    series = noise(1, scale=8 * KIB) + 2e6 * (np.arange(TURNS) >= step)
    assert not judge(points(series), 1.0).leaks


def test_growth_while_warming_up_and_shrinking_are_no_leaks() -> None:
    warm = noise(2, scale=8 * KIB) + 5e6 * np.minimum(np.arange(TURNS) / 7, 1)
    assert not judge(points(warm), 1.0).leaks
    assert not judge(points(noise(2) - 50 * KIB * np.arange(TURNS)), 1.0).leaks


def test_most_processes_must_leak() -> None:
    leaking = noise(3) + 50 * KIB * np.arange(TURNS)
    one = points(leaking, 0) + points(noise(4), 1) + points(noise(5), 2)
    two = points(leaking, 0) + points(leaking, 1) + points(noise(5), 2)
    assert not judge(one, 1.0).leaks
    assert judge(two, 1.0).leaks


def test_drift_compares_the_last_third_with_the_first() -> None:
    latencies = np.linspace(10, 14, TURNS)
    latencies[::7] = 90  # interrupted
    found = judge(points(noise(6), p50_ms=latencies), 1.0)
    assert 1.1 < found.drift < 1.35


def test_too_few_turns_say_nothing() -> None:
    growing = noise(7)[: MIN_TURNS - 1] * np.arange(1, MIN_TURNS)
    assert judge_soak(points(growing), 1.0) is None
    assert judge_soak([], 1.0) is None
    long_enough = judge_soak(points(growing, 0) + points(noise(8), 1), 1.0)
    assert long_enough is not None
    assert not long_enough.leaks, "only the process with enough turns is judged"
    assert len(long_enough.points) == MIN_TURNS - 1 + TURNS


CHILD = """
import json, sys
from loopedge.profiler.child.process_memory import read_memory
kept, size = [], int(sys.argv[1])
for turn in range(30):
    for _ in range(10):
        work = bytearray(b"x" * 300_000)
        if size:
            kept.append(bytearray(b"x" * size))
    print(json.dumps(read_memory().anon_bytes))
"""


@pytest.mark.parametrize(("kept_bytes", "leaks"), [(0, False), (5000, True)])
def test_a_process_that_keeps_memory_is_found(kept_bytes: int, leaks: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", CHILD, str(kept_bytes)], capture_output=True, text=True, check=True
    ).stdout.split()
    found = judge(points(np.array([json.loads(line) for line in said])), 1.0)
    assert found.leaks is leaks
    if leaks:
        assert found.anon_bytes_per_1000_runs == pytest.approx(1000 * kept_bytes, rel=0.2)
