"""Two profiles: which runs belong together, and what speaks against comparing them."""

from collections.abc import Sequence

from loopedge.profiler.figures import BUSY, busy_ratio
from loopedge.profiler.result import ProfileResult, Run

__all__ = ["SETTINGS", "cautions_of", "pairs_of", "same_machine", "same_reference", "was_busy"]

SETTINGS = (
    "twin", "batch", "sequence", "threads", "loops", "provider", "runtime", "memory", "compute",
    "cuda_graph",
)  # fmt: skip
MACHINE = ("cpu", "cpu_features", "cores", "system")
UNTOLD = "memory_bytes"
"""Changes by what the kernel keeps for itself, with every version of it."""


def pairs_of(before: Sequence[Run], after: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Return the runs that belong together, in the order of the second profile."""
    left = list(before)
    found: dict[int, Run] = {}
    for shared in ("path", "name"):
        for index, run in enumerate(after):
            keys = (shared, *SETTINGS)
            match = next((one for one in left if _values(one, keys) == _values(run, keys)), None)
            if index not in found and match is not None:
                left = [one for one in left if one is not match]
                found[index] = match
    return [(found[index], after[index]) for index in sorted(found)]


def _values(run: Run, keys: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(run, key) for key in keys)


def same_machine(before: ProfileResult, after: ProfileResult) -> bool:
    """Tell whether both were measured on one machine, or on two of a kind."""
    return not _differing(before, after, MACHINE)


def same_reference(
    before: ProfileResult, after: ProfileResult, pairs: Sequence[tuple[Run, Run]]
) -> bool:
    """Tell whether the first runs, which time ratios refer to, belong together."""
    return bool(pairs) and pairs[0][0] is before.runs[0] and pairs[0][1] is after.runs[0]


def was_busy(before: ProfileResult, after: ProfileResult) -> bool:
    """Tell whether something else was running during one of them."""
    return any(busy_ratio(run) > BUSY for run in (*before.runs, *after.runs))


def _differing(before: ProfileResult, after: ProfileResult, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if before.machine.get(key) != after.machine.get(key)]


def cautions_of(
    before: ProfileResult, after: ProfileResult, pairs: Sequence[tuple[Run, Run]]
) -> list[str]:
    """Return what speaks against the comparison."""
    cautions = []
    machine = _differing(before, after, MACHINE)
    if machine:
        cautions.append(
            f"The machines differ in {_differences(before, after, machine)}: times are not compared, "
            "bytes are."
        )
    keys = {*before.machine, *after.machine} - {*MACHINE, UNTOLD}
    versions = _differing(before, after, sorted(keys))
    if versions:
        cautions.append(f"The versions differ: {_differences(before, after, versions)}.")
    if not machine and not same_reference(before, after, pairs):
        cautions.append(
            "The first runs are not the same model and settings: times against them are left out."
        )
    if not machine and was_busy(before, after):
        cautions.append("The machine was busy in one of them: latencies are shown, not judged.")
    if any(run.processes < 2 for run in (*before.runs, *after.runs)):
        cautions.append(
            "One process measured some runs: the noise is not known, their times not judged."
        )
    return cautions


def _differences(before: ProfileResult, after: ProfileResult, keys: Sequence[str]) -> str:
    def value(result: ProfileResult, key: str) -> str:
        fact = result.machine.get(key)
        return " ".join(map(str, fact)) if isinstance(fact, list) else str(fact)

    return ", ".join(
        f"{key.replace('_', ' ')} ({value(before, key)}, then {value(after, key)})" for key in keys
    )
