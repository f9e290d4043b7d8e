"""Compare loop counts and timestep encoding on one task: quality, cost, stability, over seeds."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files.json_text import read_json
from loopedge.files.paths import check_paths
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.invocation import command_text
from loopedge.options import option, option_name
from loopedge.profiler.machine import describe_machine
from loopedge.study.cell import Quantize, read_cell, run_cell
from loopedge.study.cost import measure_cost
from loopedge.study.design import Cell, Design, make_design
from loopedge.study.summary import Summary, baseline_values, summarise
from loopedge.study.verdict import Verdict, judge
from loopedge.study.workers import run_at_once
from loopedge.tasks.task import Task
from loopedge.trainer.progress import duration_text

__all__ = ["REPORT_FILE", "SCHEMA_VERSION", "PilotResult", "pilot", "pilot_files"]

SCHEMA_VERSION = 1
DESIGN_FILE, RESULT_FILE, REPORT_FILE = "design.json", "results.json", "report.html"
GROWING = {"design.arms", "design.loops", "design.seeds"}
"""What may differ when a pilot is resumed: runs are kept by arm, loop count and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotResult:
    """What a pilot found; docs/pilot.md says how to read it."""

    schema_version: int
    path: str
    command: str
    machine: dict[str, Any]
    task: dict[str, Any]
    notes: list[str]
    design: dict[str, Any]
    metric: str
    higher_is_better: bool
    verdict: Verdict
    summary: list[Summary]
    cells: list[dict[str, Any]]
    profile: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/pilot.md."""
        return asdict(self) | {
            "verdict": self.verdict.to_json(),
            "summary": [row.to_json() for row in self.summary],
        }


def pilot(
    make_task: Callable[[int], Task],
    output: str | Path,
    *,
    loops: Sequence[int],
    quantize: Quantize,
    arms: Sequence[str] = ("looped", "constant", "timestep"),
    seeds: int = 3,
    first_seed: int = 0,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    jobs: int = 1,
    resume: bool = False,
    force: bool = False,
    note: Callable[[str], None] | None = None,
    command: str | None = None,
) -> PilotResult:
    """Train every arm at every loop count with every seed; export, quantize, judge and profile.

    Args:
        make_task: Returns the task with a seed.
        output: Folder: ``results.json``, and the models of each run under ``runs/``.
        loops: Loop counts.
        quantize: Writes an int8 model; `loopedge_calibration` stands above this library, so the
            caller hands it in.
        arms: Of `loopedge.study.design.ARMS`.
        seeds: Number of seeds.
        first_seed: The first one.
        model: Fields of `LoopedConfig` that all runs share.
        train: Options of `TrainConfig` that all runs share.
        device: Where the models are trained.
        threads: Of a training; default: PyTorch's choice.
        jobs: Runs at the same time, each in a process of one thread; 1: one after the other.
        resume: Keep the runs that are finished, go on with the others; arms, loop counts and seeds may
            be added.
        force: Drop what an earlier pilot wrote to the folder.
        note: Takes a line per run.
        command: The command line to tell; default: that of this process, without folders.

    Returns:
        The comparison, its verdict, and all figures.

    Raises:
        InputError: An option or the folder cannot be used, or the resumed pilot was another one.
        InterruptedRunError: The finished runs are kept.
    """
    folder, started = Path(output), time.perf_counter()
    task, told = make_task(first_seed), note or (lambda text: None)
    check_paths(
        inputs={"DATA": task.input_files},
        outputs={option_name("output"): pilot_files(folder)},
        emptied={option_name("output"): folder / "runs"},
    )
    design = make_design(
        task,
        arms=arms,
        loops=loops,
        seeds=seeds,
        first_seed=first_seed,
        model=model or {},
        train=train or {},
        device=device,
    )
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, at least 1 is needed", hint=option("jobs", 1))
    wanted = {"design": design.to_json(), "task": task.describe(), "data": _data_of(task)}
    _open_folder(folder, wanted, resume=resume, force=force)
    for text in task.notes:
        told(f"note: {text}")
    cells = _run_cells(make_task, design, folder, quantize, jobs, threads, told)
    costs, profiled = measure_cost(design, cells, folder)
    higher = task.higher_is_better
    baseline = baseline_values(cells, task.metric, higher_is_better=higher)
    values = {} if baseline is None else baseline[1]
    summary = summarise(design, cells, costs, task.metric, values)
    result = PilotResult(
        schema_version=SCHEMA_VERSION,
        path=str(folder),
        command=command_text() if command is None else command,
        machine=describe_machine(),
        task=task.describe(),
        notes=list(task.notes),
        design=design.to_json(),
        metric=task.metric,
        higher_is_better=higher,
        verdict=judge(summary, baseline, task.metric, higher_is_better=higher),
        summary=summary,
        cells=cells,
        profile=profiled,
        seconds=round(time.perf_counter() - started, 1),
    )
    write_text_atomic(folder / RESULT_FILE, dump_json(result.to_json()) + "\n")
    return result


def pilot_files(folder: Path) -> list[Path]:
    """Return the files that a pilot writes into its folder, beside those of its runs."""
    return [folder / name for name in (DESIGN_FILE, RESULT_FILE, REPORT_FILE)]


def _data_of(task: Task) -> dict[str, str]:
    return {"sha256": task.fingerprint()}


def _open_folder(folder: Path, wanted: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Make the folder of a new pilot, or check that it holds the one that is resumed."""
    stored = folder / DESIGN_FILE
    if folder.is_file():
        raise InputError(f"{folder} is a file, a folder is needed", hint="name another with -o")
    if not folder.parent.is_dir():
        raise InputError(f"folder {folder.parent} does not exist", hint=f"mkdir -p {folder.parent}")
    if resume:
        if not stored.exists():
            raise InputError(
                f"no pilot to resume in {folder}", hint=f"start without {option('resume')}"
            )
        hint = f"start anew with {option('force')}"
        known = read_json(stored, needed="the design of a pilot", hint=hint)
        if not isinstance(known, dict) or not all(
            isinstance(group, dict) for group in known.values()
        ):
            raise InputError(f"{stored} is not the design of a pilot", hint=hint)
        _check_same(known, wanted, folder)
        write_text_atomic(stored, dump_json(wanted) + "\n")
        return
    if folder.exists() and any(folder.iterdir()):
        if not force:
            raise InputError(
                f"{folder} is not empty",
                hint=f"add {option('resume')} to go on, or {option('force')} to start anew",
            )
        if not stored.exists():
            raise InputError(
                f"{folder} holds something else than a pilot, which {option('force')} does not remove",
                hint="name another folder with -o",
            )
        shutil.rmtree(folder / "runs", ignore_errors=True)
        for name in (RESULT_FILE, REPORT_FILE):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    write_text_atomic(stored, dump_json(wanted) + "\n")


def _check_same(known: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    wanted = json.loads(dump_json(wanted))
    different = [
        f"{group}.{name} was {known.get(group, {}).get(name)!r} and is {values.get(name)!r}"
        for group, values in wanted.items()
        for name in sorted({*known.get(group, {}), *values})
        if known.get(group, {}).get(name) != values.get(name) and f"{group}.{name}" not in GROWING
    ]
    if different:
        raise InputError(
            f"{folder} holds another pilot: {'; '.join(different[:3])}",
            hint=f"resume with the options of that pilot, or start anew with {option('force')}",
        )


def _run_cells(
    make_task: Callable[[int], Task],
    design: Design,
    folder: Path,
    quantize: Quantize,
    jobs: int,
    threads: int | None,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Make the runs that are missing; return the results of all, in the order of the design."""
    found = {cell: read_cell(folder, cell) for cell in design.cells}
    missing = [cell for cell, told in found.items() if told is None]
    done, started = len(found) - len(missing), time.perf_counter()
    if done:
        note(f"{done} of {len(found)} runs are kept")
    if jobs == 1:
        runs = _one_by_one(make_task, design, missing, folder, quantize, threads)
    else:
        tasks = {seed: make_task(seed) for seed in {cell.seed for cell in missing}}
        runs = run_at_once(tasks, design, missing, folder, quantize, jobs)
    for made, (cell, told) in enumerate(runs, 1):
        found[cell] = told
        left = (time.perf_counter() - started) / made * (len(missing) - made)
        time_left = f", {duration_text(left)} left" if made < len(missing) else ""
        note(f"run {done + made} of {len(found)}: {cell.name}: {_outcome(told)}{time_left}")
    return [told for told in found.values() if told is not None]


def _one_by_one(
    make_task: Callable[[int], Task],
    design: Design,
    cells: list[Cell],
    folder: Path,
    quantize: Quantize,
    threads: int | None,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    task: Task | None = None
    for cell in cells:
        if task is None or task.seed != cell.seed:
            task = make_task(cell.seed)
        yield cell, run_cell(task, design, cell, folder, quantize, threads)


def _outcome(told: dict[str, Any]) -> str:
    if told["status"] != "done":
        return f"{told['status']}, {told['reason']}"
    return ", ".join(
        f"{name} {'-' if value is None else format(value, '.4g')}"
        for name, value in told["test"].items()
    )
