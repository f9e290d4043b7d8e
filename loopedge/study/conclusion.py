"""What the runs and the baselines of a pilot come to, whether all of them are made or some."""

from dataclasses import dataclass
from typing import Any

from loopedge.baselines.scores import BaselineScores
from loopedge.profiler.machine import describe_machine
from loopedge.study.cost import Costs
from loopedge.study.judging.summary import baseline_values, summarise
from loopedge.study.judging.verdict import judge
from loopedge.study.options import PilotOptions
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.task import Task

__all__ = ["Found", "conclude", "decided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there to judge.

    Args:
        task: Of the first seed.
        setup: Of the runs.
        options: As asked for.
        cells: Results of the runs.
        baselines: By block.
    """

    task: Task
    setup: RunSetup
    options: PilotOptions
    cells: list[dict[str, Any]]
    baselines: dict[str, list[BaselineScores]]


def decided(found: Found) -> dict[str, Any]:
    """Return what a look at the runs sees."""
    return {"outcome": "accept"}


def conclude(found: Found, costs: Costs) -> PilotResult:
    """Judge all runs.

    Args:
        found: What is there.
        costs: What the models cost; empty while that is not measured.
    """
    task, design = found.task, found.setup.design
    higher, cells = task.higher_is_better, found.cells
    baseline = baseline_values(cells, task.metric, higher_is_better=higher)
    values = {} if baseline is None else baseline[1]
    summary = summarise(design, cells, costs, task.metric, values)
    return PilotResult(
        schema_version=SCHEMA_VERSION,
        path=str(found.setup.folder),
        command="",
        machine=describe_machine(),
        task=task.describe(),
        notes=[],
        design=design.to_json(),
        metric=task.metric,
        higher_is_better=higher,
        margin={},
        leaderboard=[],
        baselines={
            block: [one.to_json() for one in scores] for block, scores in found.baselines.items()
        },
        verdict=judge(summary, baseline, task.metric, higher_is_better=higher),
        summary=summary,
        cells=cells,
        profile={},
        seconds=0.0,
        made=len(cells),
    )
