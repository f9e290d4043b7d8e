"""Two profiles: which runs belong together, and what speaks against comparing them."""

from collections.abc import Sequence
from typing import Any

from loopedge.profiler.client_report import AnyRun, ClientReport
from loopedge.profiler.figures import BUSY, busy_ratio
from loopedge.profiler.result import ProfileResult

__all__ = [
    "SETTINGS",
    "Profile",
    "Runs",
    "cautions_of",
    "client_name",
    "differences_of",
    "pairs_of",
    "same_client",
    "same_machine",
    "same_reference",
    "was_busy",
]

SETTINGS = (
    "twin", "batch", "sequence", "threads", "loops", "provider", "runtime", "memory", "compute",
    "cuda_graph",
)  # fmt: skip
WORK = ("batch", "sequence", "loops")
"""What two clients must have in common; one that does not say is taken to agree."""
HOW = ("runtime", "provider", "threads", "memory")
"""How two clients may differ."""
MACHINE = ("cpu", "cpu_features", "cores", "system")
UNTOLD = "memory_bytes"
"""Changes by what the kernel keeps for itself, with every version of it."""
SUFFIXES = (".onnx", ".ort")

Profile = ProfileResult | ClientReport
Runs = Sequence[AnyRun]
Pairs = Sequence[tuple[AnyRun, AnyRun]]


def pairs_of(before: Profile, after: Profile) -> list[tuple[AnyRun, AnyRun]]:
    """Return the runs that belong together, in the order of the second profile."""
    if not same_client(before, after):
        return _pairs_by_work(before.runs, after.runs)
    left: list[AnyRun] = list(before.runs)
    runs: Runs = after.runs
    found: dict[int, AnyRun] = {}
    for shared in ("path", "name"):
        for index, run in enumerate(runs):
            keys = (shared, *SETTINGS)
            match = next((one for one in left if _values(one, keys) == _values(run, keys)), None)
            if index not in found and match is not None:
                left = [one for one in left if one is not match]
                found[index] = match
    return [(found[index], runs[index]) for index in sorted(found)]


def _pairs_by_work(before: Runs, after: Runs) -> list[tuple[AnyRun, AnyRun]]:
    """Pair runs of the same file and work, those of as many threads first; a twin is no file of a bundle."""
    left = [run for run in before if run.twin is None]
    found = []
    for run in after:
        fitting = [one for one in left if run.twin is None and _same_work(one, run)]
        if fitting:
            match = next((one for one in fitting if one.threads == run.threads), fitting[0])
            left = [one for one in left if one is not match]
            found.append((match, run))
    return found


def _same_work(one: AnyRun, other: AnyRun) -> bool:
    if _model_name(one) != _model_name(other):
        return False
    values = ((getattr(one, key), getattr(other, key)) for key in WORK)
    return all(a is None or b is None or a == b for a, b in values)


def _model_name(run: AnyRun) -> str:
    """Return the name of the file without what tells ORT format from ONNX."""
    name = run.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _values(run: AnyRun, keys: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(run, key) for key in keys)


def same_client(before: Profile, after: Profile) -> bool:
    """Tell whether both were measured by ``loopedge profile``, or by the same client of a bundle."""
    return before.client == after.client


def client_name(profile: Profile) -> str:
    """Return who measured a profile, in words."""
    return (
        "loopedge profile" if profile.client is None else f"the client {profile.client} of a bundle"
    )


def same_machine(before: Profile, after: Profile) -> bool:
    """Tell whether both were measured on one machine, or on two of a kind."""
    return not _differing(before, after, MACHINE)


def same_reference(before: Profile, after: Profile, pairs: Pairs) -> bool:
    """Tell whether the first runs, which time ratios refer to, belong together."""
    return bool(pairs) and pairs[0][0] is before.runs[0] and pairs[0][1] is after.runs[0]


def was_busy(before: Profile, after: Profile) -> bool:
    """Tell whether something else was running during one of them."""
    return any(busy_ratio(run) > BUSY for run in (*before.runs, *after.runs))


def differences_of(before: AnyRun, after: AnyRun) -> dict[str, tuple[Any, Any]]:
    """Return how two runs of the same work differ that two clients measured: of what both say."""
    values = {key: (getattr(before, key), getattr(after, key)) for key in HOW}
    return {
        key: (a, b) for key, (a, b) in values.items() if a != b and a is not None and b is not None
    }


def _differing(before: Profile, after: Profile, keys: Sequence[str]) -> list[str]:
    """Return the facts of the machines that differ; what a client cannot know is not one of them."""
    values = {key: (before.machine.get(key), after.machine.get(key)) for key in keys}
    lenient = not same_client(before, after)
    return [
        key
        for key, (a, b) in values.items()
        if a != b and not (lenient and (a is None or b is None))
    ]


def cautions_of(before: Profile, after: Profile, pairs: Pairs) -> list[str]:
    """Return what speaks against the comparison."""
    cautions = []
    alike = same_client(before, after)
    if not alike:
        cautions.append(
            f"{client_name(before).capitalize()} measured the first, {client_name(after)} the second: nothing is judged."
        )
    machine = _differing(before, after, MACHINE)
    if machine:
        what = "times are not compared, bytes are" if alike else "times are those of either machine"
        cautions.append(f"The machines differ in {_differences(before, after, machine)}: {what}.")
    keys = {*before.machine, *after.machine} - {*MACHINE, UNTOLD}
    versions = _differing(before, after, sorted(keys))
    if versions:
        cautions.append(f"The versions differ: {_differences(before, after, versions)}.")
    if alike and not machine and not same_reference(before, after, pairs):
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


def _differences(before: Profile, after: Profile, keys: Sequence[str]) -> str:
    def value(result: Profile, key: str) -> str:
        fact = result.machine.get(key)
        return " ".join(map(str, fact)) if isinstance(fact, list) else str(fact)

    return ", ".join(
        f"{key.replace('_', ' ')} ({value(before, key)}, then {value(after, key)})" for key in keys
    )
