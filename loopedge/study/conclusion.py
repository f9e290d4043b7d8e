"""What the runs and the baselines of a pilot come to, whether all of them are made or some."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loopedge.baselines.scores import BaselineScores
from loopedge.profiler.machine import describe_machine
from loopedge.study.cost import Costs
from loopedge.study.design import Cell
from loopedge.study.going_on import plan_of
from loopedge.study.judging.equivalence import recurrence_equivalence
from loopedge.study.judging.judgement import Runs, judge_runs
from loopedge.study.judging.leaderboard import leaderboard
from loopedge.study.judging.next_step import block_seconds
from loopedge.study.judging.period import Windows, windows_of
from loopedge.study.judging.requirements import Limits, check_requirements
from loopedge.study.judging.statements import Equivalence, NotConverged, Statement
from loopedge.study.judging.summary import Summary
from loopedge.study.judging.verdict import judge
from loopedge.study.options import ARMS, AT_MOST_LOOPS, PilotOptions
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.runs.blocks import BlockTasks
from loopedge.study.runs.cell import cell_path
from loopedge.study.runs.samples import SAMPLES_FILE, read_samples
from loopedge.study.runs.setup import RunSetup
from loopedge.study.schedule.estimate import AFTERWARDS
from loopedge.tasks.metrics import Tally
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task

__all__ = ["Found", "conclude", "windows_by_origin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there to judge.

    Args:
        task: Of the first seed.
        setup: Of the runs.
        options: As asked for.
        command: Of the pilot.
        cells: Results of the runs.
        baselines: By block.
        windows: How the samples of each origin hang together.
        costs: What the models cost; empty while that is not measured.
        complete: Whether no run is missing.
        spent: Seconds that the pilot took up to here, and takes to measure the cost again.
        starting: Seconds in which a process starts.
    """

    task: Task
    setup: RunSetup
    options: PilotOptions
    command: str
    cells: list[dict[str, Any]]
    baselines: dict[str, list[BaselineScores]]
    windows: dict[str, Windows | None]
    costs: Costs
    complete: bool
    spent: float
    starting: float


def windows_by_origin(tasks: BlockTasks, setup: RunSetup) -> dict[str, Windows | None]:
    """Return how the test samples of each origin hang together; the key is empty where there is one."""
    design = setup.design
    samples = design.train_config(design.cells[0]).samples
    found: dict[str, Windows | None] = {}
    for cell in design.cells:
        origin = "" if cell.origin is None else f"o{cell.origin}"
        if origin not in found:
            found[origin] = windows_of(tasks.of(cell), samples)
    return found


def conclude(found: Found) -> PilotResult:
    """Judge all runs."""
    task, design, cells = found.task, found.setup.design, found.cells
    higher = task.higher_is_better
    judged = judge_runs(
        Runs(
            design=design,
            cells=cells,
            metric=task.metric,
            higher_is_better=higher,
            baselines=found.baselines,
            costs=found.costs,
            tallies=_tallies(found),
            metrics=task.metrics,
            windows=found.windows,
        ),
        margin=found.options.margin,
    )
    seconds = block_seconds(cells, jobs=found.options.jobs)
    if seconds is not None:  # export, rounding and judging come after each training
        starts = AFTERWARDS + (found.options.jobs > 1)
        seconds += starts * found.starting * len(design.cells) / design.seeds / found.options.jobs
    verdict = judge(
        judged.summary,
        metric=task.metric,
        higher_is_better=higher,
        margin=judged.margin,
        baseline=judged.baseline,
        claims=judged.claims,
        further=_further(found, judged.summary),
        plan=plan_of(
            found.command,
            can_roll=isinstance(task, SeriesTask),
            origins=design.origins,
            seed_seconds=seconds,
            seeds=design.seeds,
            spent=found.spent,
            is_unfinished=not found.complete,
        ),
    )
    return PilotResult(
        schema_version=SCHEMA_VERSION,
        path=str(found.setup.folder),
        command=found.command,
        machine=describe_machine(),
        task=task.describe(),
        notes=[],
        design=design.to_json(),
        metric=task.metric,
        higher_is_better=higher,
        margin=judged.margin.to_json(),
        leaderboard=leaderboard(judged.summary, found.baselines, task.metric, higher),
        baselines={
            block: [one.to_json() for one in scores] for block, scores in found.baselines.items()
        },
        verdict=verdict,
        summary=judged.summary,
        cells=cells,
        profile={},
        seconds=0.0,
        made=len(cells),
    )


def _tallies(found: Found) -> dict[str, dict[str, Tally]]:
    """Return what each sample adds to the score of each run that kept it."""
    places = {
        cell["name"]: cell_path(found.setup.folder, _cell_of(cell)).with_name(SAMPLES_FILE)
        for cell in found.cells
        if cell["status"] == "done"
    }
    read = {name: read_samples(path) for name, path in places.items() if path.exists()}
    return {name: tallies for name, tallies in read.items() if tallies}


def _cell_of(result: dict[str, Any]) -> Cell:
    return Cell(
        arm=result["arm"], loops=result["loops"], seed=result["seed"], origin=result.get("origin")
    )


def _further(found: Found, summary: Sequence[Summary]) -> list[Statement]:
    """Return what is said beside the choice: depth of its own, runs that had not converged, requirements."""
    options = found.options
    limits = Limits(
        memory_bytes=options.max_memory, seconds=options.max_latency, metric=options.min_metric
    )
    required = check_requirements(summary, limits, higher_is_better=found.task.higher_is_better)
    statements = [_equivalence(found, summary), _not_converged(found.cells), required]
    return [one for one in statements if one is not None]


def _equivalence(found: Found, summary: Sequence[Summary]) -> Equivalence | None:
    """Return what a loop more is worth, in the plainest arm; None where no untied arm was asked for, or not one loop."""
    design = found.setup.design
    arms = [arm for arm in ARMS if arm in design.arms and arm not in AT_MOST_LOOPS]
    if "untied" not in design.arms or not arms or design.loops[0] > 1:
        return None
    arm = arms[0]
    test = {(row.arm, row.loops): row.test for row in summary}
    many = design.loops[-1]
    return recurrence_equivalence(
        test.get((arm, 1), {}),
        test.get((arm, many), {}),
        test.get(("untied", many)),
        metric=found.task.metric,
        higher_is_better=found.task.higher_is_better,
    )


def _not_converged(cells: Sequence[dict[str, Any]]) -> NotConverged | None:
    known = [cell for cell in cells if cell.get("converged") is not None]
    still = [cell for cell in known if not cell["converged"]]
    if not still:
        return None
    return NotConverged(runs=len(still), of=len(known), steps=max(cell["steps"] for cell in known))
