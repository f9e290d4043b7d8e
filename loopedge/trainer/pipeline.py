"""Train a looped transformer on a task: the same seed gives the same weights, bit for bit."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from loopedge.data.metrics import Metrics
from loopedge.data.task import Task
from loopedge.errors import InputError
from loopedge.files import check_target
from loopedge.model.checkpoint import save
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.evaluation import evaluate
from loopedge.trainer.loop import TrainingLoop
from loopedge.trainer.progress import Lines, Progress, bar_on_terminal
from loopedge.trainer.state import load_state, state_path

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run reached; the written model is the best one on the validation split."""

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
    resumed_from: int | None
    train_loss: float
    seconds: float
    tokens_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/training.md."""
        return asdict(self)


def train(
    task: Task,
    model_config: LoopedConfig,
    config: TrainConfig,
    output: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    bar: bool = False,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a model; write the best one, and a file of metrics beside it.

    ``model.pt`` is the target, ``model.metrics.jsonl`` gets a line per evaluation, and
    ``model.last.pt`` holds the state of the run until it is done. PyTorch's own random state is
    left as it was.

    Args:
        task: Gives the batches and the metric.
        model_config: Sizes and choices; see `loopedge.trainer.config.make_model_config`.
        config: Optimizer and schedule.
        output: Target, usually ``model.pt``.
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
        DivergedError: Loss or gradient is not finite; the last checkpoint is kept.
    """
    target = Path(output)
    _check_files(target, resume=resume, force=force)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LoopedTransformer(model_config)
        _store_scaling(model, task)
        loop = TrainingLoop(task, model, config, target)
        if resume:
            loop.resume(load_state(loop.checkpoint_path, loop.settings))
            _tell(note, f"resumed {loop.checkpoint_path} at step {loop.step} of {config.steps}")
        resumed_from = loop.step if resume else None
        with _progress(config.steps, loop.step, bar=bar, note=note) as progress:
            loop.run(progress)
    model.load_state_dict(loop.best or model.state_dict())
    result = TrainResult(
        path=str(target),
        metrics_path=str(loop.metrics_path),
        task=task.name,
        metric=task.metric,
        validation=evaluate(model, task, "validation", config.samples),
        test=evaluate(model, task, "test", config.samples),
        baselines=task.baselines("test", config.samples),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        loops=model_config.loops,
        steps=config.steps,
        best_step=loop.best_step,
        resumed_from=resumed_from,
        train_loss=loop.loss,
        seconds=loop.seconds,
        tokens_per_second=loop.tokens / max(loop.seconds, 1e-9),
    )
    save(model.eval(), target, task=task.describe(), companions=task.companions(), force=force)
    loop.checkpoint_path.unlink(missing_ok=True)
    return result


def _check_files(target: Path, *, resume: bool, force: bool) -> None:
    check_target(target, force=force)
    unfinished = state_path(target)
    if target == unfinished or target.name.endswith(".last.pt"):
        raise InputError(f"{target} is the name of a run's state", hint="name another with -o")
    if unfinished.exists() and not resume and not force:
        raise InputError(
            f"{unfinished} holds an unfinished run",
            hint="add --resume to continue it, or --force to start anew",
        )
    if unfinished.exists() and not resume:
        unfinished.unlink()


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
    steps: int, done: int, *, bar: bool, note: Callable[[str], None] | None
) -> Iterator[Progress | None]:
    with contextlib.ExitStack() as stack:
        drawn = stack.enter_context(bar_on_terminal(steps, done=done)) if bar else None
        yield drawn or (Lines(steps, note) if note is not None else None)


def _tell(note: Callable[[str], None] | None, text: str) -> None:
    if note is not None:
        note(text)
