"""The command with which a pilot goes on: its own, with another option."""

import math
import shlex
from collections.abc import Mapping

from loopedge.options import by_face
from loopedge.study.judging.next_step import Plan, block_seconds
from loopedge.study.result import PilotResult

__all__ = ["changed_command", "plan_again", "plan_of"]

PILOT = "loopedge pilot "

OUTPUT = ("-o", "--output")
BUDGET = "--budget"
SLACK = 1.25
"""A budget has so many times the time that the further runs took so far."""


def plan_of(
    command: str,
    *,
    can_roll: bool,
    origins: int | None,
    seed_seconds: float | None,
    is_unfinished: bool,
    seeds: int,
    spent: float,
) -> Plan:
    """Return how a pilot can go on.

    Args:
        command: Its own.
        can_roll: Whether the task can be made at several origins.
        origins: That it has; None: one.
        seed_seconds: What a further seed takes.
        is_unfinished: Runs are still missing.
        seeds: That it has.
        spent: Seconds that it took, its cost measured too: a budget counts them again where it goes on.
    """
    if not by_face("on the command line", "") or not command.startswith(PILOT):
        return Plan(seconds=seed_seconds, is_unfinished=is_unfinished)
    folder = f"{_value(command, OUTPUT) or 'pilot'}_origins"

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
        if can_roll and origins is None
        else None,
        wider_margin=lambda margin: changed_command(command, {"--margin": format(margin, "g")}),
        is_unfinished=is_unfinished,
        go_on=changed_command(command, {}),
    )


def plan_again(result: PilotResult, margin: str | float) -> Plan:
    """Return how a pilot of a file can go on where its runs are judged with another margin."""
    command, design = result.command, result.design
    jobs = _value(command, ("--jobs",)) or "1"
    return plan_of(
        changed_command(command, {"--margin": str(margin)}, resume=False),
        can_roll=result.task["name"] == "series",
        origins=design["origins"],
        seed_seconds=block_seconds(result.cells, jobs=int(jobs) if jobs.isdecimal() else 1),
        is_unfinished=not result.complete,
        seeds=design["seeds"],
        spent=result.seconds,
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
