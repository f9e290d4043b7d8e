"""Latencies are taken in turns, and their ratios survive a busy machine."""

from collections.abc import Callable

import numpy as np
import pytest

from loopedge.runtime.latency import summarize_latency, time_in_turns, time_ratios


def test_every_model_has_its_turn_in_every_round() -> None:
    order: list[tuple[str, int]] = []

    def model(name: str) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            order.append((name, count))
            return [1.0] * count

        return run

    latencies = time_in_turns([model("a"), model("b")], [10, 20])
    assert [name for name, _ in order] == ["a", "b"] * 3
    assert [sum(map(len, rounds)) for rounds in latencies] == [10, 20]
    assert summarize_latency(latencies[1]).runs == 20


@pytest.mark.parametrize("runs", [1, 2, 3, 100])
def test_as_many_runs_as_asked_for(runs: int) -> None:
    [rounds] = time_in_turns([lambda count: [1.0] * count], [runs])
    assert sum(map(len, rounds)) == runs
    assert min(map(len, rounds)) >= 1


@pytest.mark.parametrize("seed", range(5))
def test_ratios_survive_a_machine_that_interrupts_every_second_run(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def model(ms: float) -> Callable[[int], list[float]]:
        def run(count: int) -> list[float]:
            slow = generator.choice([1.0, 1.3])  # of this stretch of time
            interrupted = generator.random(count) < 0.5
            noise = 1 + 0.01 * generator.random(count)
            return list(ms * slow * noise + 4 * interrupted)

        return run

    latencies = time_in_turns([model(2.0), model(1.0)], [500, 1000])
    assert time_ratios(latencies)[1] == pytest.approx(0.5, rel=0.05)
    assert time_ratios(latencies)[0] == 1.0
