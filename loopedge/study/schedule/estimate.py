"""How long the runs of a pilot still take: first from a few steps, then from those that ended."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import psutil

from loopedge.study.runs.work import FullRun, Work

__all__ = ["AFTERWARDS", "STARTING", "TimeLeft", "starting_seconds"]

STARTING, LONGEST_START = 4.0, 60.0
"""Seconds in which a process loads PyTorch where this one does not show it, and the most that it is taken to show."""
AFTERWARDS = 1.5
"""What export, rounding and judging of a small model take after its training, in units of a start, until a run has shown it."""


def starting_seconds() -> float:
    """Return what a process takes to start on this machine as it is: what this one took until now, where it is young."""
    passed = time.time() - psutil.Process().create_time()
    return passed if 0 < passed <= LONGEST_START else STARTING


class TimeLeft:
    """Counts what is to be made against the time that the others took.

    What a run is expected to take is its training, as a few steps say, and what comes after it. Runs that ended correct
    it for all others: a machine that is shared makes each slower.

    Args:
        training: Seconds of a whole training by arm and loop count.
        jobs: Works at the same time.
        starting: Seconds in which a process starts.
        clock: Seconds that pass.

    Attributes:
        later: Works that come after those that are waited for.
        at_the_end: Seconds of what comes after all works.
    """

    def __init__(
        self,
        training: Mapping[tuple[str, int], float],
        jobs: int,
        starting: float = STARTING,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._training, self._jobs, self._clock = training, jobs, clock
        self._starting = starting
        self._waiting: set[Work] = set()
        self._running: dict[Work, float] = {}
        self._took = self._was_expected = 0.0
        self.later: Sequence[Work] = ()
        self.at_the_end = 0.0

    def expected(self, work: Work) -> float:
        """Return the seconds that a work takes, as far as is known."""
        return self._raw(work) * self._correction

    def together(self, works: Iterable[Work]) -> float:
        """Return the seconds that works take, several at the same time."""
        each = [self.expected(work) for work in works]
        return max([sum(each) / self._jobs, *each]) if each else 0.0

    def begin(self, works: Iterable[Work]) -> None:
        """Wait for these works, and for no others any more."""
        self._waiting, self._running = set(works), {}

    def start(self, work: Work) -> None:
        """Note that a work begins."""
        self._waiting.discard(work)
        self._running[work] = self._clock()

    def end(self, work: Work) -> None:
        """Learn how long a work took."""
        self._took += self._clock() - self._running.pop(work)
        self._was_expected += self._raw(work)

    def drop(self, works: Iterable[Work]) -> None:
        """Wait for these works no longer: they are not made."""
        self._waiting -= set(works)

    def seconds(self) -> float:
        """Return the seconds until everything is made."""
        now = self._clock()
        rest = [
            max(0.0, self.expected(work) - (now - began)) for work, began in self._running.items()
        ]
        each = [*rest, *map(self.expected, self._waiting)]
        waited = max([sum(each) / self._jobs, *each]) if each else 0.0
        return waited + self.together(self.later) + self.at_the_end

    @property
    def _correction(self) -> float:
        return self._took / self._was_expected if self._was_expected else 1.0

    def _raw(self, work: Work) -> float:
        training = self._training.get((work.cell.arm, work.cell.loops), 0.0)
        starts = (AFTERWARDS if isinstance(work, FullRun) else 0.0) + (self._jobs > 1)
        return training * work.steps_share + starts * self._starting
