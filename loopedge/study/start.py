"""The start that a pilot's models train from, where the user names none."""

import math
from collections.abc import Mapping
from typing import Any

from loopedge.model.config import LoopedConfig
from loopedge.tasks.task import Task

__all__ = ["START_NAMES", "with_start", "with_training"]

EMBEDDING_STD, GATE_INIT, WEIGHT_DECAY = 0.5, 1.0, 0.1
PATIENCE = 8
"""Evaluations without a better one that end a run, of the twenty that a run has.

Fewer than five lose the best model in nearly every run that they end: the learning rate falls by the steps that were asked
for, and the low rates bring the best weights (`benchmarks/pilot/start.py`).
"""
START_NAMES = (
    "init_std", "embedding_std", "gate_init", "positions", "weight_decay", "patience", "lr",
)  # fmt: skip
"""Options of `loopedge train` that a pilot chooses where they are not named."""


def with_start(task: Task, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model: those that are named, and a start that learns within few steps.

    Weights start at 1 / sqrt(d_model), those that read the inputs at 0.5, gates open; positions are rotary unless
    the task's are places of their own, or the heads are too narrow. `benchmarks/pilot/start.py` measures it against
    the published start, which is that of `LoopedConfig`.

    Args:
        task: May ask for learned positions.
        named: Fields of `LoopedConfig`; they win.
    """
    sizes = LoopedConfig.model_fields
    width = named.get("d_model", sizes["d_model"].default)
    heads = named.get("heads", sizes["heads"].default)
    start = {
        "init_std": min(1.0, 1 / math.sqrt(max(1, width))),
        "embedding_std": EMBEDDING_STD,
        "gate_init": GATE_INIT,
        "positions": "learned" if (width // max(1, heads)) % 2 else task.positions,
    }
    return start | dict(named)


def with_training(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a training: those that are named, and what suits the start; ``lr`` is chosen by trials."""
    return {"weight_decay": WEIGHT_DECAY, "patience": PATIENCE} | dict(named)
