"""The works of a pilot: those that are missing are made, one by one or several at once."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loopedge.study.runs.blocks import BlockTasks
from loopedge.study.runs.ray_workers import run_on_ray
from loopedge.study.runs.setup import RunSetup
from loopedge.study.runs.work import Work
from loopedge.study.runs.workers import run_at_once
from loopedge.study.schedule.estimate import TimeLeft
from loopedge.trainer.progress import duration_text, scores_text
from loopedge.units import score_text

__all__ = ["Runner"]

Made = tuple[Work, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Makes works where the options say, and tells after each how long the others take.

    Args:
        tasks: Of the blocks.
        metric: That of the task.
        jobs: Processes at the same time; 1: this one makes them.
        ray: Address of a Ray cluster that makes them; None: this machine does.
        time_left: Learns from each how long they take.
        add_note: Takes a line per work.
        ended: Takes each that was made, and its result.
    """

    tasks: BlockTasks
    metric: str
    jobs: int
    ray: str | None
    time_left: TimeLeft
    add_note: Callable[[str], None]
    ended: Callable[[Work, dict[str, Any]], None]

    def make(
        self,
        works: Sequence[Work],
        setup: RunSetup,
        *,
        what: str,
        may_start: Callable[[Work], bool] = lambda work: True,
    ) -> dict[Work, dict[str, Any]]:
        """Make what is missing.

        Args:
            works: Those that are there already are read.
            setup: What all share.
            what: One of them, in words: ``run``.
            may_start: Whether there is time for the next; where not, it and those after it are left.

        Returns:
            Their results in their order.

        Raises:
            InterruptedRunError: Those that are finished are kept.
        """
        found = {work: work.read(setup.folder) for work in works}
        missing = [work for work, result in found.items() if result is None]
        done = len(works) - len(missing)
        if done and missing:
            self.add_note(f"{done} of {len(works)} {what}s are kept")
        self.time_left.begin(missing)
        # Closed at once where what is done after a run is interrupted: its processes are ended before anything else.
        with contextlib.closing(self._made(missing, setup, may_start)) as runs:
            for made, (work, result) in enumerate(runs, done + 1):
                found[work] = result
                self.time_left.end(work)
                left = self.time_left.seconds()
                time_left = f", {duration_text(left)} left" if left else ""
                outcome = _outcome(result, self.metric)
                self.add_note(f"{what} {made} of {len(works)}: {work.name}: {outcome}{time_left}")
                self.ended(work, result)
        return {work: result for work, result in found.items() if result is not None}

    def _made(
        self, missing: Sequence[Work], setup: RunSetup, may_start: Callable[[Work], bool]
    ) -> Generator[Made]:
        started = self._started(missing, may_start)
        if self.ray is not None:
            return run_on_ray(self.tasks.of, started, setup, self.ray, self.jobs)
        if self.jobs > 1:
            return run_at_once(self.tasks.of, started, setup, self.jobs)
        return ((work, work.make(self.tasks.of(work.cell), setup)) for work in started)

    def _started(
        self, missing: Sequence[Work], may_start: Callable[[Work], bool]
    ) -> Iterator[Work]:
        for number, work in enumerate(missing):
            if not may_start(work):
                self.time_left.drop(missing[number:])
                return
            self.time_left.start(work)
            yield work


def _outcome(result: dict[str, Any], metric: str) -> str:
    """Say how a work ended: its scores, or of several trials what each rate reached."""
    if "trials" in result:
        reached = (
            f"{score_text(one['validation'][metric]) if one['status'] == 'done' else one['status']} at {rate}"
            for rate, one in result["trials"].items()
        )
        return f"{metric} {', '.join(reached)}"
    if result["status"] != "done":
        return f"{result['status']}, {result['reason']}"
    return scores_text(result.get("test") or result["validation"])
