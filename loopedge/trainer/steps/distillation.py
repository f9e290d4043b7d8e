"""The teacher of a distillation: any model of loopedge that answers the same question."""

from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.model.checkpoint import load_checkpoint, model_from
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.task import Task

__all__ = ["load_teacher"]

SAME = (
    "vocab_size",
    "features",
    "head_outputs",
    "horizon",
    "read",
    "padding",
    "missing",
    "classify",
    "wide",
)
"""What teacher and student must have in common: the shapes of inputs and outputs."""


MEANING = ("name", "target", "targets", "covariates", "classes", "classify", "tokenizer")
"""Entries of a task's description that say what inputs and outputs mean."""


def load_teacher(path: str | Path, student: LoopedConfig, task: Task) -> LoopedTransformer:
    """Read a teacher, in evaluation mode.

    An untied stack of L layers is a model with ``layers`` L and ``loops`` 1.

    Args:
        path: Its ``model.pt``.
        student: Configuration of the model that is trained.
        task: What it is trained on.

    Raises:
        InputError: It cannot be read, takes or gives something else than the student, or was
            trained on something else.
    """
    checkpoint = load_checkpoint(path)
    teacher = model_from(checkpoint, path)
    _check_task(checkpoint.get("task") or {}, task.describe(), path)
    for name in SAME:
        theirs, ours = getattr(teacher.config, name), getattr(student, name)
        if theirs != ours:
            raise InputError(
                f"the teacher {path} has {name} {theirs}, the student {ours}: "
                "both must take the same inputs and give the same outputs",
                hint="train the teacher on the same task",
            )
    if teacher.config.max_length < student.max_length and teacher.config.positions == "learned":
        raise InputError(
            f"the teacher {path} knows {teacher.config.max_length} positions, "
            f"the student {student.max_length}",
            hint="train the teacher on the same task",
        )
    return teacher.requires_grad_(False)


def _check_task(theirs: dict[str, Any], ours: dict[str, Any], path: str | Path) -> None:
    """Refuse a teacher whose inputs or outputs mean something else, if it says what they mean."""
    for name in MEANING if theirs else ():
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"the teacher {path} was trained with {name} {theirs.get(name)!r}, "
                f"the student learns {ours.get(name)!r}",
                hint="train the teacher on the same task",
            )
