"""The teacher of a distillation: any model of loopedge that answers the same question."""

from pathlib import Path

from loopedge.errors import InputError
from loopedge.model.checkpoint import load
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer

__all__ = ["load_teacher"]

SAME = ("vocab_size", "features", "head_outputs", "horizon", "read", "padding")
"""What teacher and student must have in common: the shapes of inputs and outputs."""


def load_teacher(path: str | Path, student: LoopedConfig) -> LoopedTransformer:
    """Read a teacher, in evaluation mode.

    An untied stack of L layers is a model with ``layers`` L and ``loops`` 1.

    Args:
        path: Its ``model.pt``.
        student: Configuration of the model that is trained.

    Raises:
        InputError: It cannot be read, or takes or gives something else than the student.
    """
    teacher = load(path)
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
