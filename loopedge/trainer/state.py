"""What a run writes: its state, ``model.last.pt``, and models; plain tensors and values."""

import os
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from loopedge.artifact.companions import companion_contents
from loopedge.errors import InputError
from loopedge.files.paths import Files, check_paths
from loopedge.files.staging import staged_folder
from loopedge.files.targets import file_sha256
from loopedge.model.checkpoint import save, write_tensors
from loopedge.model.config import LoopedConfig
from loopedge.model.tensor_file import read_saved
from loopedge.model.transformer import LoopedTransformer
from loopedge.options import option, option_name
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.metrics import Metrics
from loopedge.tasks.task import Task
from loopedge.trainer.config import TrainConfig
from loopedge.trainer.logs import metrics_path
from loopedge.trainer.trend import Trend

__all__ = [
    "CHANGEABLE",
    "RunState",
    "best_path",
    "check_run",
    "check_settings",
    "drop_run",
    "go_back",
    "load_state",
    "load_weights",
    "optimizer_state",
    "restore_optimizer",
    "run_settings",
    "save_state",
    "set_aside",
    "state_path",
    "steady_path",
    "weights_of",
    "write_model",
]

FORMAT = 3
CHANGEABLE = {"train.lr", "train.clip", "train.checkpoint_every", "train.patience"}
"""Settings that may differ when a run is resumed: a run that diverged goes on with a lower rate."""


@dataclass(slots=True, kw_only=True)
class RunState:
    """Everything that the next step depends on; batches and dropout depend on the step alone.

    It is the same whatever the number of processes, and whether they share the weights.

    Args:
        step: Steps made.
        settings: Of model, training and task, as plain values.
        model: State dict.
        optimizer: State dict.
        average: State dict of the averaged weights.
        best: State dict of the best evaluation so far.
        best_metrics: Its validation metrics.
        best_step: Its step.
        stale: Evaluations since then.
        seconds: Spent so far.
        tokens: Seen so far.
        norms: Of the gradients since the last evaluation.
        records: Lines of the metrics file.
        trend: Its losses, as `loopedge.trainer.trend.Trend` keeps them.
        steady_step: Step of the last state that still trained: this one, or one that was set aside; None:
            there is none.
    """

    step: int
    settings: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    best: dict[str, Any] | None
    best_metrics: Metrics | None
    best_step: int
    stale: int
    seconds: float
    tokens: int
    norms: list[float]
    records: list[dict[str, Any]]
    trend: dict[str, float]
    steady_step: int | None


KINDS: dict[str, Any] = {
    **dict.fromkeys(("step", "best_step", "stale", "tokens"), int),
    **dict.fromkeys(("settings", "model", "optimizer", "trend"), dict),
    **dict.fromkeys(("average", "best", "best_metrics"), dict | None),
    **dict.fromkeys(("norms", "records"), list),
    "seconds": float,
    "steady_step": int | None,
}
"""Fields of a stored `RunState` and what they hold."""

TREND = {field.name: float for field in fields(Trend)}


def state_path(target: Path) -> Path:
    """Return where the state of the run that writes ``target`` stands."""
    return target.with_name(f"{target.stem}.last.pt")


def best_path(target: Path) -> Path:
    """Return where the best model stands while the run that writes ``target`` goes on."""
    return target.with_name(f"{target.stem}.best.pt")


def steady_path(target: Path) -> Path:
    """Return where a state that still trained is set aside while a later one has a loss that rises."""
    return target.with_name(f"{target.stem}.steady.pt")


def check_run(
    task: Task, target: Path, teacher: str | Path | None, *, emptied: Files = None
) -> None:
    """Refuse a run that would write over what it reads, and files beside a model that it cannot name.

    Args:
        task: What is trained on.
        target: The model; metrics, state and best model stand beside it.
        teacher: As in `train`.
        emptied: Folders that the run removes.

    Raises:
        InputError: As said.
    """
    companion_contents(task.companions(), target)
    beside = (metrics_path, state_path, steady_path, best_path) if target.name else ()
    check_paths(
        inputs={"DATA": task.input_files, option_name("teacher"): teacher},
        outputs={option_name("output"): [target, *(path_of(target) for path_of in beside)]},
        emptied={option_name("output"): emptied},
    )


def drop_run(target: Path) -> None:
    """Remove the states and the best model of the run that writes ``target``."""
    for path in (state_path(target), steady_path(target), best_path(target)):
        path.unlink(missing_ok=True)


def write_model(
    config: LoopedConfig,
    weights: dict[str, Tensor],
    task: Task,
    path: Path,
    *,
    intervals: Intervals | None = None,
    aware: str | None = None,
    force: bool,
) -> None:
    """Write weights as a model that `loopedge.load` reads; the task's description holds the intervals.

    Raises:
        InputError: The target exists, or cannot be written.
    """
    model = LoopedTransformer(config)
    model.load_state_dict(weights)
    save(
        model,
        path,
        task=task.describe() | ({} if intervals is None else {"intervals": intervals.to_json()}),
        companions=task.companions(),
        quantization_aware=aware,
        force=force,
    )


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's tensors, whole and on the CPU.

    Sharded ones are gathered: every process has to call it.
    """
    return {name: _whole(value).cpu().clone() for name, value in model.state_dict().items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put whole tensors into a model, sharded or not."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(_like(weights[name], value))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state dict with whole tensors on the CPU."""
    found = optimizer.state_dict()
    state = {
        key: {name: _whole(value).cpu().clone() for name, value in values.items()}
        for key, values in found["state"].items()
    }
    return {"state": state, "param_groups": found["param_groups"]}


def restore_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Put a state dict of whole tensors into an optimizer, whose parameters may be sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        key: {
            name: _like(value, parameters[key]) if value.dim() else value
            for name, value in values.items()
        }
        for key, values in stored["state"].items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": stored["param_groups"]})


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.detach()


def _like(whole: Tensor, value: Tensor) -> Tensor:
    """Return a whole tensor in the parts and on the device of another."""
    if isinstance(value, DTensor):
        return distribute_tensor(
            whole.to(value.device), value.device_mesh, value.placements, src_data_rank=None
        )
    return whole.to(value.device)


def save_state(path: Path, state: RunState) -> None:
    """Write the state, whole or not at all.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    values = {name: getattr(state, name) for name in RunState.__slots__}
    write_tensors({"loopedge_run": FORMAT, **values}, path)


def set_aside(path: Path, aside: Path) -> None:
    """Let ``aside`` hold the state at ``path`` too, which a later one is about to replace.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    with staged_folder(aside) as folder:
        try:
            os.link(path, folder / aside.name)
        except OSError:  # a file system without links
            shutil.copyfile(path, folder / aside.name)


def go_back(path: Path, aside: Path, newer: RunState) -> None:
    """Let ``path`` hold the state that was set aside, with the best model of the run that went on.

    Args:
        path: Holds a state that is lost.
        aside: Where a state was set aside.
        newer: The run as it ended.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    stored = read_saved(aside, needed="the state of a run", hint=None, code_hint="")
    for name in ("best", "best_metrics", "best_step"):
        stored[name] = getattr(newer, name)
    write_tensors(stored, path)
    aside.unlink()


def load_state(path: Path, settings: dict[str, Any]) -> RunState:
    """Read the state of a run with the same settings, with ``weights_only=True``.

    Raises:
        InputError: There is none, it is damaged, or it belongs to a run with other settings.
    """
    hint = f"train without {option('resume')}"
    if not path.exists():
        raise InputError(f"no run to resume: {path} does not exist", hint=hint)
    anew = f"{hint}, {option('force')}"
    stored = read_saved(path, needed="the state of a run", hint=hint, code_hint=anew)
    damaged = InputError(f"{path} is damaged: the run cannot be resumed", hint=anew)
    if not isinstance(stored, dict) or "loopedge_run" not in stored:
        raise damaged
    version = stored.pop("loopedge_run")
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}", hint=anew)
    if set(stored) != set(KINDS) or not all(
        isinstance(stored[name], kind) for name, kind in KINDS.items()
    ):
        raise damaged
    if not all(isinstance(group, dict) for group in stored["settings"].values()):
        raise damaged
    if {name: type(value) for name, value in stored["trend"].items()} != TREND:
        raise damaged
    check_settings(path, stored["settings"], settings)
    return RunState(**stored)


def run_settings(
    task: Task, model_config: LoopedConfig, config: TrainConfig, teacher: str | Path | None
) -> dict[str, Any]:
    """Return what a run must have in common with the one that it resumes, as plain values."""
    return {
        "model": model_config.model_dump(),
        "train": config.model_dump(),
        "task": task.describe(),
        "data": {"sha256": task.fingerprint()},
        "teacher": {} if teacher is None else {"sha256": file_sha256(Path(teacher))},
    }


def check_settings(path: Path, known: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings than it was started with.

    Args:
        path: Where they are stored.
        known: The settings of the run.
        settings: Those it is to go on with.

    Raises:
        InputError: Any but those that may change differ.
    """
    different = [
        f"{group}.{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for group, new in settings.items()
        for old in [known.get(group, {})]
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) and f"{group}.{name}" not in CHANGEABLE
    ]
    if different:
        raise InputError(
            f"{path} belongs to another run: {'; '.join(different[:3])}",
            hint=f"resume with the options of that run, or start anew with {option('force')}",
        )
