"""What a profile tells beyond memory and time: iterations, sources, limits, soak; and what it leaves out."""

from dataclasses import asdict
from pathlib import Path

import pytest

import loopedge
from loopedge.profiler import options

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"


def test_a_model_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "SOAK_SECONDS", 0.0)
    result = loopedge.profile([TINY], runs=60, processes=1)
    (run,) = result.runs
    assert result.notes == []
    assert [one.iteration for one in run.iterations] == [0, 1, 2]
    assert run.memory_sources is not None
    parts = asdict(run.memory_sources)
    assert run.memory_sources.peak_bytes == run.rss_peak_bytes
    sizes = [size for name, size in parts.items() if name.endswith("_bytes")]
    assert sum(sizes) == 2 * run.rss_peak_bytes, "the parts add up to the peak"
    assert run.running_sources is not None
    assert run.running_sources.moment == "run"
    (limits,) = result.limits
    assert limits.threads == run.threads
    assert run.roofline is not None
    assert 0 < run.roofline.compute_share < 1
    assert run.roofline.gflops_per_second == pytest.approx(
        run.roofline.gflop / run.latency_ms.min * 1e3
    )
    assert run.soak is not None
    assert run.soak.runs == 60
    assert not run.soak.leaks


def test_a_soak_that_is_too_short_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "SOAK_SECONDS", 0.0)
    result = loopedge.profile([TINY], runs=9, seconds=1, processes=1, details=False)
    (run,) = result.runs
    assert run.soak is None
    assert result.notes == [
        "tiny.onnx: 3 turns of a process tell no leak, 12 are needed: seconds=4"
    ]
    assert (run.roofline, run.memory_sources, result.limits) == (None, None, [])
