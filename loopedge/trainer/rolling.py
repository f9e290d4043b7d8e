"""Train and test at several origins that follow each other: how much a score owes to its test block."""

import contextlib
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from loopedge.errors import InputError, LoopedgeError
from loopedge.files.json_text import read_json
from loopedge.files.targets import check_target, write_text_atomic
from loopedge.model.config import LoopedConfig
from loopedge.options import by_face, option
from loopedge.tasks.metrics import Metrics
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.unbeaten import unbeaten_note
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.state import (
    check_run,
    check_settings,
    drop_run,
    run_settings,
    state_path,
)

__all__ = ["OriginScores", "RollingResult", "train_rolling"]

DONE = "done.json"
"""The file of a run's folder that holds the scores of the origins that are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginScores:
    """What the run of one origin reached.

    Args:
        rows: First table row of each split, and one past its last; None where there are several series.
        windows: Windows of each split.
        validation: Metrics on the validation split.
        test: Metrics on the test split.
        baselines: Metrics of what needs no training, on the test split.
        intervals: Prediction intervals and their coverage of the test split; None: there are none.
        best_step: Step of the model that was scored.
        seconds: Spent on training.
    """

    rows: dict[str, list[int]] | None
    windows: dict[str, int]
    validation: Metrics
    test: Metrics
    baselines: dict[str, Metrics]
    intervals: dict[str, Any] | None
    best_step: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/training.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingResult:
    """What the last origin's run reached, and the scores of all.

    Args:
        last: The run whose model was written.
        origins: The scores of each origin, the earliest first.
        mean: Of each test metric over the origins.
        deviation: Standard deviation of each test metric over the origins.
        baselines_mean: The same mean of each baseline.
        notes: What a person should know of the means; `last` has notes of its own.
    """

    last: TrainResult
    origins: list[OriginScores]
    mean: Metrics
    deviation: Metrics
    baselines_mean: dict[str, Metrics]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/training.md, those of the last run first."""
        values = asdict(self)
        last = values.pop("last")
        return {**last, **values, "notes": self.notes or last["notes"]}


def train_rolling(
    tasks: Sequence[SeriesTask],
    model_config: LoopedConfig,
    config: TrainConfig,
    output: str | Path,
    *,
    teacher: str | Path | None = None,
    tensorboard: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    bar: bool = False,
    note: Callable[[str], None] | None = None,
    **place: Any,
) -> RollingResult:
    """Train a fresh model at each origin and test it there; write the last one.

    While the run lasts the folder ``model.origins`` stands beside the target: ``done.json`` with the
    scores of the origins that are done, and the state of the one under way.

    Args:
        tasks: The task at each origin, as `SeriesTask.at_origins` gives them.
        model_config: Sizes and choices.
        config: Optimizer and schedule.
        output: Target of the last origin's model, usually ``model.pt``.
        teacher: A ``model.pt`` on the same task whose outputs are learned too.
        tensorboard: Folder for TensorBoard's event files, a folder in it per origin.
        resume: Continue the run whose folder stands beside the target: origins that are done are
            not trained again.
        force: Replace an existing model, and drop an unfinished run.
        bar: Draw a progress bar on stderr if that is a terminal.
        note: Takes a line per origin, and per evaluation where no bar is drawn.
        place: Further arguments of `train`: ``device``, ``threads``.

    Returns:
        The scores of every origin, their mean and standard deviation.

    Raises:
        InputError: As `train`, there are fewer than two origins, or several processes.
        DivergedError: Loss or gradient is not finite; the run can be resumed.
    """
    _check_origins(tasks)
    target = Path(output)
    folder = target.parent / f"{target.stem}.origins"
    check_run(tasks[0], target, teacher, emptied=[folder, _aside(folder)])
    settings = run_settings(tasks[-1], model_config, config, teacher)
    done = _open_run(target, folder, settings, resume=resume, force=force)

    def train_origin(number: int) -> TrainResult:
        if note is not None:
            note(f"origin {number + 1} of {len(tasks)}")
        path = _model_path(target, folder, number, len(tasks))
        return train(
            tasks[number],
            model_config,
            config,
            path,
            teacher=teacher,
            tensorboard=_subfolder(tensorboard, number),
            resume=resume and state_path(path).exists(),
            force=force or path != target,
            bar=bar,
            note=note,
            **place,
        )

    with _kept_for_resuming(folder, done):
        for number in range(len(done), len(tasks)):
            result = train_origin(number)
            done.append(_scores(tasks[number], result))
            if number < len(tasks) - 1:
                _model_path(target, folder, number, len(tasks)).unlink()
                drop_run(target)  # the last origin has not begun: that is another run's
                shutil.rmtree(_aside(folder), ignore_errors=True)
                _write_done(folder, settings, done)
    shutil.rmtree(folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)
    return _summary(tasks[-1], result, done)


def _check_origins(tasks: Sequence[SeriesTask]) -> None:
    if len(tasks) < 2:
        raise InputError(f"{len(tasks)} origin was given, at least 2 are needed")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("several origins are trained in one process", hint="leave out torchrun")


def _model_path(target: Path, folder: Path, number: int, count: int) -> Path:
    """Return where the model of an origin is written: the last one's is the target."""
    return target if number == count - 1 else folder / f"{number + 1}.pt"


@contextlib.contextmanager
def _kept_for_resuming(folder: Path, done: Sequence[OriginScores]) -> Iterator[None]:
    """Remove the folder of a run that fails before there is anything to resume; the one before comes back."""
    try:
        yield
    except LoopedgeError:
        if not done and not any(folder.glob("*.last.pt")):
            shutil.rmtree(folder)
            if _aside(folder).exists():
                _aside(folder).rename(folder)
        raise


def _subfolder(tensorboard: str | Path | None, number: int) -> Path | None:
    return None if tensorboard is None else Path(tensorboard) / f"origin-{number + 1}"


def _open_run(
    target: Path, folder: Path, settings: dict[str, Any], *, resume: bool, force: bool
) -> list[OriginScores]:
    """Return the scores of the origins that are done; make the folder of the run."""
    check_target(target, force=force)
    if resume:
        return _read_done(folder, settings)
    for left in (folder, state_path(target)):
        if left.exists() and not force:
            raise InputError(
                f"{left} holds an unfinished run",
                hint=f"add {option('resume')} to continue it, or {option('force')} to start anew",
            )
    if folder.exists() and not (folder / DONE).exists():
        raise InputError(
            f"{folder} holds something else than a run, which {option('force')} does not remove",
            hint=f"name another target{by_face(' with -o', '')}",
        )
    shutil.rmtree(_aside(folder), ignore_errors=True)
    if folder.exists():  # until the new run has begun: its options may yet be refused
        folder.rename(_aside(folder))
    folder.mkdir()
    _write_done(folder, settings, [])
    return []


def _aside(folder: Path) -> Path:
    """Return where the folder of an earlier run waits until the new one has begun."""
    return folder.with_name(f".{folder.name}.old")


def _read_done(folder: Path, settings: dict[str, Any]) -> list[OriginScores]:
    path = folder / DONE
    if not path.exists():
        raise InputError(
            f"no run to resume: {path} does not exist", hint=f"train without {option('resume')}"
        )
    hint = f"train without {option('resume')}, {option('force')}"
    stored = read_json(path, needed="the state of a run over several origins", hint=hint)
    known = stored.get("settings") if isinstance(stored, dict) else None
    done = stored.get("origins") if isinstance(stored, dict) else None
    groups = known.values() if isinstance(known, dict) else [None]
    if (
        known is None
        or not all(isinstance(one, dict) for one in groups)
        or not isinstance(done, list)
    ):
        raise InputError(f"{path} is damaged: the run cannot be resumed", hint=hint)
    check_settings(path, known, json.loads(json.dumps(settings)))
    names = {field.name for field in fields(OriginScores)}
    if not all(isinstance(scores, dict) and set(scores) == names for scores in done):
        raise InputError(f"{path} is damaged: the run cannot be resumed", hint=hint)
    return [OriginScores(**scores) for scores in done]


def _write_done(folder: Path, settings: dict[str, Any], done: Sequence[OriginScores]) -> None:
    text = json.dumps({"settings": settings, "origins": [scores.to_json() for scores in done]})
    write_text_atomic(folder / DONE, text)


def _scores(task: SeriesTask, result: TrainResult) -> OriginScores:
    described = task.describe()
    return OriginScores(
        rows=described["rows"],
        windows=described["windows"],
        validation=result.validation,
        test=result.test,
        baselines=result.baselines,
        intervals=result.intervals,
        best_step=result.best_step,
        seconds=result.seconds,
    )


def _summary(task: SeriesTask, last: TrainResult, done: list[OriginScores]) -> RollingResult:
    tests = [scores.test for scores in done]
    mean = _mean(tests)
    everywhere = [name for name in last.baselines if all(name in s.baselines for s in done)]
    baselines = {name: _mean([scores.baselines[name] for scores in done]) for name in everywhere}
    where = f"the test splits of {len(done)} origins, on average"
    unbeaten = unbeaten_note(task, mean, baselines, where=where)
    of_last = unbeaten_note(task, last.test, last.baselines)
    return RollingResult(
        last=last,
        origins=done,
        mean=mean,
        deviation=_over(tests, statistics.stdev),
        baselines_mean=baselines,
        notes=[] if unbeaten is None else [unbeaten, *(n for n in last.notes if n != of_last)],
    )


def _mean(scores: Sequence[Metrics]) -> Metrics:
    return _over(scores, statistics.fmean)


def _over(scores: Sequence[Metrics], figure: Callable[[list[float]], float]) -> Metrics:
    """Return a figure of each metric over the origins; None where it is undefined at one of them."""
    values = {name: [score[name] for score in scores] for name in scores[0]}
    return {
        name: None if None in each else figure([value for value in each if value is not None])
        for name, each in values.items()
    }
