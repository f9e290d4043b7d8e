"""Compare loop counts and timestep encoding on one task: quality, cost, stability, over seeds."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from loopedge.baselines.scores import BaselineScores
from loopedge.files.paths import check_paths
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.invocation import command_text
from loopedge.options import option_name, with_keywords
from loopedge.profiler.machine import describe_machine
from loopedge.study.cost import measure_cost
from loopedge.study.design import Design, block_name, make_design
from loopedge.study.folder import RESULT_FILE, open_folder, pilot_files
from loopedge.study.judging.judgement import Runs, judge_runs
from loopedge.study.options import PilotKeywords, PilotOptions
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.runs.cell import RunSetup
from loopedge.study.runs.running import run_cells
from loopedge.tasks.task import Task

__all__ = ["PilotOptions", "PilotResult", "pilot"]


def pilot(
    make_task: Callable[[int], Task],
    output: str | Path,
    *,
    options: PilotOptions | None = None,
    note: Callable[[str], None] | None = None,
    command: str | None = None,
    **keywords: Unpack[PilotKeywords],
) -> PilotResult:
    """Train every arm at every loop count with every seed; export, quantize, judge and profile.

    Args:
        make_task: Returns the task with a seed.
        output: Folder: ``results.json``, and the models of each run under ``runs/``.
        options: What is compared; default: as `loopedge.PilotOptions` says.
        note: Takes a line per run.
        command: The command line for the report; default: that of this process, without folders.
        keywords: Fields of `loopedge.PilotOptions`, such as ``loops=[1, 4]``, ``seeds=5`` or
            ``model={"d_model": 64}``; they win over those of ``options``.

    Returns:
        The comparison, its verdict, and all figures.

    Raises:
        InputError: An option or the folder cannot be used, or the resumed pilot was another one.
        InterruptedRunError: The finished runs are kept.
    """
    chosen = with_keywords("pilot", PilotOptions, options, keywords)
    folder, started = Path(output), time.perf_counter()
    task, add_note = make_task(chosen.first_seed), note or (lambda text: None)
    design = _begin(task, folder, chosen)
    for text in task.notes:
        add_note(f"note: {text}")
    setup = RunSetup(design=design, folder=folder, threads=chosen.threads)
    cells = run_cells(make_task, setup, jobs=chosen.jobs, add_note=add_note)
    result = replace(
        _judged(task, setup, cells, chosen.margin),
        command=command_text() if command is None else command,
        seconds=round(time.perf_counter() - started, 1),
    )
    write_text_atomic(folder / RESULT_FILE, dump_json(result.to_json()) + "\n")
    return result


def _begin(task: Task, folder: Path, options: PilotOptions) -> Design:
    """Return the design of the pilot; its folder is there, and holds no other one."""
    check_paths(
        inputs={"DATA": task.input_files},
        outputs={option_name("output"): pilot_files(folder)},
        emptied={option_name("output"): folder / "runs"},
    )
    design = make_design(task, options)
    described = {
        "design": design.to_json(),
        "task": task.describe(),
        "data": {"sha256": task.fingerprint()},
    }
    open_folder(folder, described, resume=options.resume, force=options.force)
    return design


def _judged(
    task: Task, setup: RunSetup, cells: list[dict[str, Any]], margin: str | float
) -> PilotResult:
    """Measure what the models cost, and judge all runs."""
    design, higher = setup.design, task.higher_is_better
    costs, profiled = measure_cost(design, cells, setup.folder)
    baselines = _baselines(cells)
    judged = judge_runs(
        Runs(
            design=design,
            cells=cells,
            metric=task.metric,
            higher_is_better=higher,
            baselines=baselines,
            costs=costs,
        ),
        margin=margin,
    )
    return PilotResult(
        schema_version=SCHEMA_VERSION,
        path=str(setup.folder),
        command="",
        machine=describe_machine(),
        task=task.describe(),
        notes=list(task.notes),
        design=design.to_json(),
        metric=task.metric,
        higher_is_better=higher,
        margin=judged.margin.to_json(),
        leaderboard=[],
        baselines={block: [one.to_json() for one in scored] for block, scored in baselines.items()},
        verdict=judged.verdict,
        summary=judged.summary,
        cells=cells,
        profile=profiled,
        seconds=0.0,
    )


def _baselines(cells: list[dict[str, Any]]) -> dict[str, list[BaselineScores]]:
    """Return what needs no training, by block, as the runs scored it."""
    return {
        block_name(cell["seed"], cell.get("origin")): [
            BaselineScores(name=name.replace("_", " "), test=scores)
            for name, scores in cell["baselines"].items()
        ]
        for cell in cells
        if cell.get("baselines")
    }
