"""How hypothesis draws, and what every worker does once: no test fails because a machine is slow or busy."""

import gc
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

OBJECTS = 20_000
"""New objects before the garbage collector looks at the youngest; Python's own 700 make it look at all of PyTorch's
half a million, again and again: a tenth of the suite's time."""


def pytest_collection_finish() -> None:
    """Take what the imports made out of the garbage collector's sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def limits_measured_once() -> Iterator[None]:
    """Measure what this machine reaches once per number of threads, not in every profile: five seconds each.

    `tests/parity/test_memory_sources.py` holds the measurement itself, and that a profile has it.
    """
    from loopedge.profiler import pipeline

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "measure_limits", cache(pipeline.measure_limits))
        yield
