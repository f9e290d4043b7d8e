"""The state of a run that can be continued: ``model.last.pt``, plain tensors and values."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from loopedge.errors import InputError
from loopedge.model.checkpoint import write_tensors

__all__ = ["RunState", "load_state", "save_state", "state_path"]

FORMAT = 1
CHANGEABLE = {"train.lr", "train.clip", "train.checkpoint_every"}
"""Settings that may differ when a run is resumed: a run that diverged goes on with a lower rate."""


@dataclass(slots=True, kw_only=True)
class RunState:
    """Everything that the next step depends on; batches depend on the step alone.

    Args:
        step: Steps made.
        settings: Of model, training and task, as plain values.
        model: State dict.
        optimizer: State dict.
        random: State of PyTorch's generator, uint8.
        best: State dict of the best evaluation so far.
        best_metrics: Its validation metrics.
        best_step: Its step.
        seconds: Spent so far.
        tokens: Seen so far.
        records: Lines of the metrics file.
    """

    step: int
    settings: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random: torch.Tensor
    best: dict[str, Any] | None
    best_metrics: dict[str, float] | None
    best_step: int
    seconds: float
    tokens: int
    records: list[dict[str, Any]] = field(default_factory=list)


def state_path(target: Path) -> Path:
    """Return where the state of the run that writes ``target`` stands."""
    return target.with_name(f"{target.stem}.last.pt")


def save_state(path: Path, state: RunState) -> None:
    """Write the state, whole or not at all.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    fields = {name: getattr(state, name) for name in RunState.__slots__}
    write_tensors({"loopedge_run": FORMAT, **fields}, path)


def load_state(path: Path, settings: dict[str, Any]) -> RunState:
    """Read the state of a run with the same settings, with ``weights_only=True``.

    Raises:
        InputError: There is none, it is damaged, or it belongs to a run with other settings.
    """
    if not path.exists():
        raise InputError(f"no run to resume: {path} does not exist", hint="train without --resume")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        version = stored.pop("loopedge_run")
        state = RunState(**stored)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"{path} is damaged: the run cannot be resumed", hint="train without --resume, --force"
        ) from error
    if version != FORMAT:
        raise InputError(f"{path} has format {version!r}, this version reads {FORMAT}")
    different = [
        f"{group}.{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for group, new in settings.items()
        for old in [state.settings.get(group, {})]
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) and f"{group}.{name}" not in CHANGEABLE
    ]
    if different:
        raise InputError(
            f"{path} belongs to another run: {'; '.join(different[:3])}",
            hint="resume with the options of that run, or start anew with --force",
        )
    return state
