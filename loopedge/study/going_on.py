"""The command with which a pilot goes on: its own, with another option."""

import math
import shlex
from collections.abc import Mapping

from loopedge.options import by_face
from loopedge.study.judging.next_step import Plan
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task

__all__ = ["changed_command", "plan_of"]

OUTPUT = ("-o", "--output")
BUDGET = "--budget"
SLACK = 1.25
"""A budget has so many times the time that the further runs took so far."""


def plan_of(
    command: str,
    task: Task,
    *,
    origins: int | None,
    seed_seconds: float | None,
    is_unfinished: bool,
    seeds: int,
    spent: float,
) -> Plan:
    """Return how a pilot can go on.

    Args:
        command: Its own.
        task: Of the first seed.
        origins: That it has; None: one.
        seed_seconds: What a further seed takes.
        is_unfinished: Runs are still missing.
        seeds: That it has.
        spent: Seconds that it took, its cost measured too: a budget counts them again where it goes on.
    """
    if not by_face("on the command line", ""):
        return Plan(seconds=seed_seconds, is_unfinished=is_unfinished)
    folder = f"{_value(command, OUTPUT) or 'pilot'}_origins"
    can_roll = isinstance(task, SeriesTask) and origins is None

    def more_seeds(count: int) -> str:
        changes = {"--seeds": str(count)}
        if _value(command, (BUDGET,)) is not None:
            needed = spent + SLACK * (count - seeds) * (seed_seconds or 0.0)
            changes[BUDGET] = f"{math.ceil(needed / 60)}m"
        return changed_command(command, changes)

    return Plan(
        seconds=seed_seconds,
        more_seeds=more_seeds,
        more_origins=(
            lambda count: changed_command(
                command, {"--origins": str(count), "-o": folder}, resume=False
            )
        )
        if can_roll
        else None,
        wider_margin=lambda margin: changed_command(command, {"--margin": format(margin, "g")}),
        is_unfinished=is_unfinished,
        go_on=changed_command(command, {}),
    )


def changed_command(command: str, changes: Mapping[str, str], *, resume: bool = True) -> str:
    """Return a command with other values of some options, and with ``--resume``.

    Args:
        command: As `loopedge.invocation.command_text` gives it.
        changes: Option and value.
        resume: Whether it goes on in the same folder; else it begins anew in another.
    """
    dropped = {*changes, *(OUTPUT if "-o" in changes else ())}
    words, kept = iter(shlex.split(command)), []
    for word in words:
        name, sign, _ = word.partition("=")
        if name in ("--resume", "--force"):
            continue
        if name in dropped:
            if not sign:
                next(words, None)
            continue
        kept.append(word)
    added = [part for pair in changes.items() for part in pair]
    return shlex.join([*kept, *added, *(["--resume"] if resume else [])])


def _value(command: str, names: tuple[str, ...]) -> str | None:
    words = shlex.split(command)
    for number, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name in names:
            return value if sign else next(iter(words[number + 1 :]), None)
    return None
