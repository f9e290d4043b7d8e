"""The tasks on the command line: what each of them asks for, and the sizes that suit it.

A task is a function that takes the task's own options, annotated for typer, and ``seed``, and
returns a `loopedge.tasks.task.Task`. `task` registers it under its name; `loopedge train NAME` and every other
command that works on tasks then has it, with the options that the command shares among all tasks.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopedge.tasks.task import Task

__all__ = ["TaskCommand", "command_of", "options_of", "task", "tasks"]

Build = Callable[..., "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCommand:
    """A task as commands offer it.

    Args:
        name: On the command line.
        build: Makes the task from its own options and ``seed``.
        defaults: Of the options that all tasks share, where the task needs others.
    """

    name: str
    build: Build
    defaults: dict[str, Any]

    def task(self, values: dict[str, Any]) -> "Task":
        """Make the task from the values of a whole command line."""
        return self.build(
            **{
                name: values[name]
                for name in inspect.signature(self.build).parameters
                if name in values
            }
        )


_registered: dict[str, TaskCommand] = {}


def task(name: str, **defaults: Any) -> Callable[[Build], Build]:
    """Register a function as the task ``name``; ``defaults`` are of the shared options."""

    def register(build: Build) -> Build:
        _registered[name] = TaskCommand(name=name, build=build, defaults=defaults)
        return build

    return register


def tasks() -> list[TaskCommand]:
    """Return every task, in the order of the files and of the functions in them."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(_registered.values())


def options_of(group: type) -> list[inspect.Parameter]:
    """Return the annotated attributes of a class as the parameters of a command."""
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=getattr(group, name), annotation=kind
        )
        for name, kind in inspect.get_annotations(group).items()
    ]


def command_of(
    task: TaskCommand,
    run: Callable[[TaskCommand, dict[str, Any]], None],
    *groups: type,
    without: tuple[str, ...] = (),
) -> Callable[..., None]:
    """Return a command with the options of a task and those of ``groups``.

    Args:
        task: Its options come first, its defaults are taken.
        run: Gets the task and all values by name.
        groups: Classes whose annotated attributes are options; of one name the first counts.
        without: Names of options to leave out, of the task too, unless the first group has them.
    """
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(task.build).parameters.values()
        if parameter.name not in {"seed", *without}
    ]
    first, *others = groups
    shared = {option.name: option for option in options_of(first)}
    for option in (option for group in others for option in options_of(group)):
        if option.name not in {*shared, *without}:
            shared[option.name] = option
    parameters = [
        *own,
        *(
            parameter
            if parameter.name in without
            else parameter.replace(default=task.defaults.get(parameter.name, parameter.default))
            for parameter in shared.values()
        ),
    ]

    def command(**values: Any) -> None:
        run(task, values)

    command.__doc__ = task.build.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
