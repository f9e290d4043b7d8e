"""How hypothesis draws, which files come first, and what every worker does once: no test fails because a machine is slow or busy."""

import gc
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.captured_once import share_captures

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

OBJECTS = 20_000
"""New objects before the garbage collector looks at the youngest; Python's own 700 make it look at all of PyTorch's
half a million, again and again: a tenth of the suite's time."""

COSTS = {"long": 60, "slow": 10}
"""What a test is taken to cost where its mark says that it takes longer than others, which cost 1."""


MARK_OF_FILE = re.compile(r"^pytestmark = pytest\.mark\.(slow|long)$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a test that is asked for: to import all of them takes each worker ten seconds and more."""
    wanted = str(config.getoption("markexpr"))
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    mark = MARK_OF_FILE.search(text)
    if mark is not None and f"not {mark[1]}" in wanted:
        return True
    return True if wanted == "long" and "mark.long" not in text else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: else a worker that gets one at the end works on while others wait."""
    costs: Counter[str] = Counter()
    for item in items:
        costs[str(item.path)] += max(
            (cost for mark, cost in COSTS.items() if item.get_closest_marker(mark)), default=1
        )
    items.sort(key=lambda item: (-costs[str(item.path)], str(item.path)))


def pytest_collection_finish() -> None:
    """Take what the imports made out of the garbage collector's sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 10, 10)


@pytest.fixture(autouse=True)
def captured_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let workers share captures; the module that captures may have been imported since the last test."""
    folder = tmp_path_factory.getbasetemp()
    share_captures(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(scope="session", autouse=True)
def limits_measured_once() -> Iterator[None]:
    """Measure what this machine reaches once per number of threads, not in every profile: five seconds each.

    `tests/parity/test_memory_sources.py` holds the measurement itself, and that a profile has it.
    """
    from loopedge.profiler import pipeline
    from loopedge.profiler.dissection.limits import measure_limits

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "measure_limits", cache(measure_limits))
        yield


@pytest.fixture(scope="session", autouse=True)
def quickly_timed() -> Iterator[None]:
    """Time models for a part of the time that users see: no outcome hangs on how fast they are.

    What is timed with seconds of its own, as in `tests/unit/test_time_ratio.py`, is as it was.
    """
    from loopedge.profiler import options
    from loopedge.quantizer import timing

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "SECONDS", 0.01)
        patched.setattr(options, "SECONDS_PER_MODEL", 0.2)
        yield
