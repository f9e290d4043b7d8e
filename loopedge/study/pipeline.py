"""Compare loop counts and timestep encoding on one task: quality, cost, stability, over seeds."""

import json
import multiprocessing
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files import write_text_atomic
from loopedge.plain_json import dump_json
from loopedge.profiler.machine import describe_machine
from loopedge.study.cell import Quantize, read_cell, run_cell
from loopedge.study.cost import measure_cost
from loopedge.study.design import Cell, Design, make_design
from loopedge.study.summary import Summary, summarise
from loopedge.study.verdict import Verdict, judge
from loopedge.tasks.metrics import Metrics
from loopedge.tasks.task import Task
from loopedge.trainer.progress import duration_text

__all__ = ["SCHEMA_VERSION", "PilotResult", "pilot"]

SCHEMA_VERSION = 1
DESIGN_FILE, RESULT_FILE = "design.json", "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotResult:
    """What a pilot found; docs/pilot.md says how to read it."""

    schema_version: int
    path: str
    command: str
    machine: dict[str, Any]
    task: dict[str, Any]
    design: dict[str, Any]
    metric: str
    higher_is_better: bool
    baselines: dict[str, Metrics]
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
    jobs: int = 1,
    resume: bool = False,
    force: bool = False,
    note: Callable[[str], None] | None = None,
    command: Sequence[str] | None = None,
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
        jobs: Runs at the same time, each in a process of one thread; 1: one after the other.
        resume: Keep the runs that are finished, go on with the others.
        force: Drop what an earlier pilot wrote to the folder.
        note: Takes a line per run.
        command: The command line to tell; default: that of this process.

    Returns:
        The comparison, its verdict, and all figures.

    Raises:
        InputError: An option or the folder cannot be used, or the resumed pilot was another one.
        InterruptedRunError: The finished runs are kept.
    """
    folder, started = Path(output), time.perf_counter()
    task = make_task(first_seed)
    design = make_design(
        task,
        arms=arms,
        loops=loops,
        seeds=seeds,
        first_seed=first_seed,
        model=model or {},
        train=train or {},
    )
    _open_folder(folder, {"design": design.to_json(), "task": task.describe()}, resume, force)
    cells = _run_cells(make_task, design, folder, quantize, jobs, note or (lambda text: None))
    costs, told = measure_cost(design, cells, folder)
    higher = task.higher_is_better
    summary = summarise(design, cells, costs, task.metric, higher_is_better=higher)
    baselines: dict[str, Metrics] = next(
        (cell["baselines"] for cell in cells if cell.get("baselines")), {}
    )
    verdict = judge(summary, baselines, task.metric, higher_is_better=higher)
    result = PilotResult(
        schema_version=SCHEMA_VERSION,
        path=str(folder),
        command=_command_text(sys.argv if command is None else command),
        machine=describe_machine(),
        task=task.describe(),
        design=design.to_json(),
        metric=task.metric,
        higher_is_better=higher,
        baselines=baselines,
        verdict=verdict,
        summary=summary,
        cells=cells,
        profile=told,
        seconds=round(time.perf_counter() - started, 1),
    )
    write_text_atomic(folder / RESULT_FILE, dump_json(result.to_json()) + "\n")
    return result


def _open_folder(folder: Path, wanted: dict[str, Any], resume: bool, force: bool) -> None:
    """Make the folder of a new pilot, or check that it holds the one that is resumed."""
    stored = folder / DESIGN_FILE
    if folder.is_file():
        raise InputError(f"{folder} is a file, a folder is needed", hint="name another with -o")
    if not folder.parent.is_dir():
        raise InputError(f"folder {folder.parent} does not exist", hint=f"mkdir -p {folder.parent}")
    if resume:
        if not stored.exists():
            raise InputError(f"no pilot to resume in {folder}", hint="start without --resume")
        _check_same(json.loads(stored.read_text(encoding="utf-8")), wanted, folder)
        return
    if folder.exists() and any(folder.iterdir()):
        if not force:
            raise InputError(
                f"{folder} is not empty", hint="add --resume to go on, or --force to start anew"
            )
        if not stored.exists():
            raise InputError(
                f"{folder} holds something else than a pilot, which --force does not remove",
                hint="name another folder with -o",
            )
        shutil.rmtree(folder / "runs", ignore_errors=True)
        (folder / RESULT_FILE).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    write_text_atomic(stored, dump_json(wanted) + "\n")


def _check_same(known: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    wanted = json.loads(dump_json(wanted))
    different = [
        f"{group}.{name} was {known[group].get(name)!r} and is {values.get(name)!r}"
        for group, values in wanted.items()
        for name in sorted({*known[group], *values})
        if known[group].get(name) != values.get(name)
    ]
    if different:
        raise InputError(
            f"{folder} holds another pilot: {'; '.join(different[:3])}",
            hint="resume with the options of that pilot, or start anew with --force",
        )


def _run_cells(
    make_task: Callable[[int], Task],
    design: Design,
    folder: Path,
    quantize: Quantize,
    jobs: int,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Make the runs that are missing; return the results of all, in the order of the design."""
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, at least 1 is needed", hint="--jobs 1")
    found = {cell: read_cell(folder, cell) for cell in design.cells}
    missing = [cell for cell, told in found.items() if told is None]
    done, started = len(found) - len(missing), time.perf_counter()
    if done:
        note(f"{done} of {len(found)} runs are kept")
    runs = (
        _one_by_one(make_task, design, missing, folder, quantize)
        if jobs == 1
        else _at_once(make_task, design, missing, folder, quantize, jobs)
    )
    for made, (cell, told) in enumerate(runs, 1):
        found[cell] = told
        left = (time.perf_counter() - started) / made * (len(missing) - made)
        time_left = f", {duration_text(left)} left" if made < len(missing) else ""
        note(f"run {done + made} of {len(found)}: {cell.name}: {_outcome(told)}{time_left}")
    return [told for told in found.values() if told is not None]


Ran = tuple[Cell, dict[str, Any]]


def _one_by_one(
    make_task: Callable[[int], Task],
    design: Design,
    cells: list[Cell],
    folder: Path,
    quantize: Quantize,
) -> Iterator[Ran]:
    task: Task | None = None
    for cell in cells:
        if task is None or task.seed != cell.seed:
            task = make_task(cell.seed)
        yield cell, run_cell(task, design, cell, folder, quantize, None)


def _at_once(
    make_task: Callable[[int], Task],
    design: Design,
    cells: list[Cell],
    folder: Path,
    quantize: Quantize,
    jobs: int,
) -> Iterator[Ran]:
    tasks = {seed: make_task(seed) for seed in {cell.seed for cell in cells}}
    context = multiprocessing.get_context("spawn")  # threads of PyTorch do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {
            pool.submit(run_cell, tasks[cell.seed], design, cell, folder, quantize, 1): cell
            for cell in cells
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _outcome(told: dict[str, Any]) -> str:
    if told["status"] != "done":
        return f"{told['status']}, {told['reason']}"
    return ", ".join(f"{name} {value:.4g}" for name, value in told["test"].items())


def _command_text(command: Sequence[str]) -> str:
    """Return a command line without the folders of this machine."""
    program, *rest = command or ["loopedge"]
    parts = [Path(part).name if Path(part).is_absolute() else part for part in rest]
    return shlex.join([Path(program).name, *parts])
