"""Train a looped transformer on a task: the same seed gives the same weights, bit for bit."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from loopedge.errors import InputError
from loopedge.files.targets import check_target
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import by_face, option, option_name
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.metrics import Metrics
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Split, Task
from loopedge.tasks.unbeaten import unbeaten_note
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.evaluation import Answers, evaluate
from loopedge.trainer.logs import RunLog, metrics_path
from loopedge.trainer.loop import TrainingLoop
from loopedge.trainer.progress import Progress, ProgressLines, bar_on_terminal
from loopedge.trainer.stability import Stability
from loopedge.trainer.state import (
    check_run,
    drop_run,
    load_state,
    run_settings,
    state_path,
    write_model,
)
from loopedge.trainer.steps.distillation import load_teacher
from loopedge.trainer.steps.objective import Objective
from loopedge.trainer.threads import torch_threads
from loopedge.trainer.world import Sharding, World, open_world

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run reached; the written model is the best one on the validation split.

    ``mase_season`` and ``mase_scale`` (per target, of several series their median) are the unit of ``mase``, and
    ``intervals`` the prediction intervals with their coverage of the test split, all of a forecast alone.
    ``notes`` says where the model is worth no more than a baseline, and what is wrong with its intervals.
    """

    path: str
    metrics_path: str
    task: str
    metric: str
    validation: Metrics
    test: Metrics
    baselines: dict[str, Metrics]
    parameters: int
    loops: int
    steps: int
    best_step: int
    stopped_early: bool
    resumed_from: int | None
    train_loss: float
    stability: Stability | None
    processes: int
    seconds: float
    tokens_per_second: float
    mase_season: int | None
    mase_scale: list[float | None] | None
    intervals: dict[str, Any] | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/training.md."""
        return asdict(self)


def train(
    task: Task,
    model_config: LoopedConfig,
    config: TrainConfig,
    output: str | Path,
    *,
    teacher: str | Path | None = None,
    tensorboard: str | Path | None = None,
    device: str = "cpu",
    sharding: Sharding = "replicated",
    threads: int | None = None,
    resume: bool = False,
    force: bool = False,
    bar: bool = False,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a model; write the best one, and a file of metrics beside it.

    ``model.pt`` is the target, ``model.metrics.jsonl`` gets a line per evaluation; until the run is
    done ``model.last.pt`` holds its state and ``model.best.pt`` the best model so far. PyTorch's own
    random state is left as it was. Under torchrun all processes train one model, and the first writes.

    Args:
        task: Gives the batches and the metric.
        model_config: Sizes and choices; see `loopedge.trainer.config.make_model_config`.
        config: Optimizer and schedule.
        output: Target, usually ``model.pt``.
        teacher: A ``model.pt`` on the same task whose outputs are learned too.
        tensorboard: Folder for TensorBoard's event files.
        device: ``cpu`` or ``cuda``.
        sharding: Over several processes: ``replicated`` or ``sharded`` weights.
        threads: Of PyTorch on the CPU while the run goes on; default: as it is set.
        resume: Continue the run whose state stands beside the target: the result is the one of a
            run that was never interrupted.
        force: Replace an existing model, and drop the state of an unfinished run.
        bar: Draw a progress bar on stderr if that is a terminal.
        note: Takes a line per evaluation where no bar is drawn.

    Returns:
        Metrics, baselines on the test split, sizes and speed.

    Raises:
        InputError: The target exists, another unfinished run stands beside it, there is none to
            resume, or it had other settings.
        DivergedError: Loss or gradient is not finite; the last state that still trained is kept.
        InterruptedRunError: The run was asked to end; its state is kept.
        LostWorkerError: Another process of the run is gone.
        MissingExtraError: TensorBoard is not installed.
        ProviderError: There is no such device.
    """
    target = Path(output)
    with (
        torch_threads(threads),
        open_world(device, sharding) as world,
        torch.random.fork_rng(devices=[]),
    ):
        world.on_first(lambda: check_run(task, target, teacher))
        world.on_first(lambda: _check_files(target, resume=resume, force=force))
        shown = note if world.is_first else None
        loop = _make_loop(task, model_config, config, target, world, teacher, tensorboard)
        resumed_from = _begin(loop, target, resume=resume, note=shown)
        drawn = bar and world.is_first
        with _progress(config.steps, task.metric, loop.step, bar=drawn, note=shown) as progress:
            loop.run(progress)
        loop.log.close()
        return _finish(loop, target, resumed_from=resumed_from, force=force)


def _begin(
    loop: TrainingLoop, target: Path, *, resume: bool, note: Callable[[str], None] | None
) -> int | None:
    """Take over the state of a run that is resumed, or drop an old one; return the step that it goes on from."""
    world = loop.world
    if resume:
        loop.resume(world.on_first(lambda: load_state(loop.checkpoint_path, loop.settings)))
        if note is not None:
            note(f"resumed {loop.checkpoint_path} at step {loop.step} of {loop.config.steps}")
    world.on_first(loop.log.open)
    if resume:
        return loop.step
    world.on_first(
        lambda: _drop_old(target)
    )  # only now, when nothing is left that could be refused
    return None


def _refuse_distillation(config: TrainConfig) -> None:
    """Refuse options of a teacher where there is none: they would change nothing."""
    for name in ("distill_weight", "distill_temperature"):
        if getattr(config, name) != TrainConfig.model_fields[name].default:
            raise InputError(
                f"{option_name(name)} needs a teacher", hint=option("teacher", "teacher.pt")
            )


def _make_loop(
    task: Task,
    model_config: LoopedConfig,
    config: TrainConfig,
    target: Path,
    world: World,
    teacher: str | Path | None,
    tensorboard: str | Path | None,
) -> TrainingLoop:
    if config.quantization_aware is not None and world.is_sharded:
        raise InputError(
            f"{option('quantization_aware', config.quantization_aware)} needs whole weights in each process",
            hint=option("sharding", "replicated"),
        )
    torch.manual_seed(config.seed)
    model = LoopedTransformer(model_config)
    _store_scaling(model, task)
    taught_by = None
    if teacher is None:
        _refuse_distillation(config)
    else:
        taught_by = load_teacher(teacher, model_config, task).to(world.device)
    objective = Objective(
        kind=task.kind,
        teacher=taught_by,
        weight=config.distill_weight,
        temperature=config.distill_temperature,
    )
    return TrainingLoop(
        task,
        model.to(world.device),
        config,
        objective,
        target,
        log=RunLog(metrics_path(target), None if tensorboard is None else Path(tensorboard)),
        world=world,
        settings=run_settings(task, model_config, config, teacher),
    )


def _finish(
    loop: TrainingLoop, target: Path, *, resumed_from: int | None, force: bool
) -> TrainResult:
    """Judge the best model, write it, and drop what only an unfinished run needs."""
    task, world, samples = loop.task, loop.world, loop.config.samples
    aware = loop.config.quantization_aware
    best = loop.use_best()
    parts: tuple[Split, Split] = ("validation", "test")
    kept = [Answers() if isinstance(task, SeriesTask) else None for _ in parts]
    validation, test = (
        evaluate(loop.model, task, split, samples, world, aware=aware, answers=answers)
        for split, answers in zip(parts, kept, strict=True)
    )
    baselines = task.baselines("test", samples)  # in every process: none waits for another
    unbeaten = unbeaten_note(task, test, baselines)
    intervals, doubts = _fit_intervals(task, kept, samples, world)
    described = task.describe()
    result = TrainResult(
        path=str(target),
        metrics_path=str(loop.log.path),
        task=task.name,
        metric=task.metric,
        validation=validation,
        test=test,
        baselines=baselines,
        parameters=sum(parameter.numel() for parameter in loop.model.parameters()),
        loops=loop.model.config.loops,
        steps=loop.step,
        best_step=loop.best_step,
        stopped_early=loop.stopped_early,
        resumed_from=resumed_from,
        train_loss=loop.loss,
        stability=loop.stability,
        processes=world.size,
        seconds=loop.seconds,
        tokens_per_second=loop.tokens / max(loop.seconds, 1e-9),
        mase_season=described.get("mase_season"),
        mase_scale=described.get("mase_scale"),
        intervals=None if intervals is None else intervals.to_json(),
        notes=[*([] if unbeaten is None else [unbeaten]), *doubts],
    )
    world.on_first(lambda: _write(loop, best, target, intervals, force=force))
    return result


def _fit_intervals(
    task: Task, kept: Sequence[Answers | None], samples: int, world: World
) -> tuple[Intervals | None, list[str]]:
    """Return the prediction intervals of a forecast, and a line for each level that fails or is left out."""
    validation, test = kept
    if not isinstance(task, SeriesTask) or validation is None or test is None:
        return None, []
    intervals, findings = task.fit_intervals(
        task.forecasts("validation", samples, validation.whole(world)),
        task.forecasts("test", samples, test.whole(world)),
    )
    return intervals, [finding.line for finding in findings]


def _write(
    loop: TrainingLoop,
    best: dict[str, torch.Tensor],
    target: Path,
    intervals: Intervals | None,
    *,
    force: bool,
) -> None:
    aware = loop.config.quantization_aware
    write_model(
        loop.model.config, best, loop.task, target, intervals=intervals, aware=aware, force=force
    )
    drop_run(target)


def _check_files(target: Path, *, resume: bool, force: bool) -> None:
    check_target(target, force=force)
    unfinished = state_path(target)
    if target.name.endswith((".last.pt", ".steady.pt", ".best.pt")):
        raise InputError(
            f"{target} is the name of a run's state", hint=f"name another{by_face(' with -o', '')}"
        )
    if unfinished.exists() and not resume and not force:
        raise InputError(
            f"{unfinished} holds an unfinished run",
            hint=f"add {option('resume')} to continue it, or {option('force')} to start anew",
        )


def _drop_old(target: Path) -> None:
    """Remove what an earlier run left beside the target, which itself stays until it is replaced."""
    drop_run(target)
    metrics_path(target).unlink(missing_ok=True)


def _store_scaling(model: LoopedTransformer, task: Task) -> None:
    scaling = task.scaling()
    if scaling is not None:
        model.set_scaling(
            torch.from_numpy(scaling.input_mean),
            torch.from_numpy(scaling.input_scale),
            torch.from_numpy(scaling.output_mean),
            torch.from_numpy(scaling.output_scale),
        )


@contextlib.contextmanager
def _progress(
    steps: int, metric: str, done: int, *, bar: bool, note: Callable[[str], None] | None
) -> Iterator[Progress | None]:
    with contextlib.ExitStack() as stack:
        drawn = stack.enter_context(bar_on_terminal(steps, metric, done=done)) if bar else None
        yield drawn or (ProgressLines(steps, note) if note is not None else None)
