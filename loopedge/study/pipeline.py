"""Compare loop counts and timestep encoding on one task: quality, cost, stability, over seeds."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

from loopedge.errors import InputError
from loopedge.files.paths import check_paths
from loopedge.invocation import command_text
from loopedge.options import option_name, with_keywords
from loopedge.study.course import Course
from loopedge.study.design import Design, make_design
from loopedge.study.folder import emptied_folders, known_seeds, open_folder, pilot_files
from loopedge.study.options import PilotKeywords, PilotOptions
from loopedge.study.result import SCHEMA_VERSION, PilotResult
from loopedge.study.runs.blocks import BlockTasks
from loopedge.study.runs.ray_workers import check_ray
from loopedge.study.runs.setup import RunSetup
from loopedge.study.schedule.estimate import starting_seconds
from loopedge.study.state import open_state
from loopedge.tasks.task import Task

__all__ = ["PilotOptions", "PilotResult", "pilot"]


def pilot(
    make_task: Callable[[int], Task],
    output: str | Path,
    *,
    options: PilotOptions | None = None,
    note: Callable[[str], None] | None = None,
    command: str | None = None,
    write_report: Callable[[PilotResult], None] | None = None,
    **keywords: Unpack[PilotKeywords],
) -> PilotResult:
    """Train every arm at every loop count with every seed; export, quantize, judge and profile.

    Args:
        make_task: Returns the task with a seed.
        output: Folder: ``results.json``, and the models of each run under ``runs/``.
        options: What is compared; default: as `loopedge.PilotOptions` says.
        note: Takes a line per run.
        command: The command line for the report; default: that of this process, without folders.
        write_report: Takes the result whenever ``results.json`` is written: what is known so far (``complete`` is
            false then), and at the end all of it.
        keywords: Fields of `loopedge.PilotOptions`, such as ``loops=[1, 4]``, ``seeds=5`` or
            ``model={"d_model": 64}``; they win over those of ``options``.

    Returns:
        The comparison, its verdict, and all figures.

    Raises:
        InputError: An option or the folder cannot be used, or the resumed pilot was another one.
        InterruptedRunError: The finished runs are kept, and ``results.json`` says what they come to.
        MissingExtraError: scikit-learn is not installed.
    """
    starting = starting_seconds()
    chosen = with_keywords("pilot", PilotOptions, options, keywords)
    folder = Path(output)
    if chosen.ray is not None:
        check_ray(chosen.ray)
    tasks = BlockTasks(make_task, chosen.origins)
    task = tasks.whole(chosen.first_seed)
    design = make_design(task, chosen)
    seeds = known_seeds(folder) if chosen.resume and chosen.seeds == "auto" else 0
    if seeds > design.seeds:
        design = replace(design, seeds=seeds)
    is_new = not folder.exists()
    described = _begin(task, design, folder, chosen)
    add_note = note or (lambda text: None)
    for text in task.notes:
        add_note(f"note: {text}")
    course = Course(
        tasks=tasks,
        task=task,
        setup=RunSetup(design=design, folder=folder, threads=chosen.threads),
        options=chosen,
        described=described,
        state=open_state(folder, resume=chosen.resume, clock=perf_counter),
        command=command_text() if command is None else command,
        starting=starting,
        add_note=add_note,
        write_report=write_report or (lambda result: None),
    )
    try:
        return course.run(seeds)
    except InputError:
        if is_new and not any((folder / "runs").rglob("*.json")):  # refused before the first run
            shutil.rmtree(folder)
        raise


def _begin(task: Task, design: Design, folder: Path, options: PilotOptions) -> dict[str, Any]:
    """Return what a resumed pilot is compared with; the folder of the pilot is there, and holds no other one."""
    check_paths(
        inputs={"DATA": task.input_files},
        outputs={option_name("output"): pilot_files(folder)},
        emptied={option_name("output"): emptied_folders(folder)},
    )
    described = {
        "format": {"schema_version": SCHEMA_VERSION},
        "design": design.to_json(),
        "task": task.describe(),
        "data": {"sha256": task.fingerprint()},
    }
    open_folder(folder, described, resume=options.resume, force=options.force)
    return described
