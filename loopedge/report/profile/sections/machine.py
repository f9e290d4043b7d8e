"""The machine, the runtime, the inputs and the command."""

from collections.abc import Sequence
from typing import Any

from loopedge.profiler.result import ProfileResult, Run
from loopedge.report.page import facts
from loopedge.report.profile.sections.roofline import limits_text
from loopedge.units import size_text

__all__ = ["machine_section"]

OWN_LINES = frozenset(
    {"cpu", "cpu_features", "cores", "memory_bytes", "system", "python", "onnxruntime", "loopedge"}
)
"""Facts of the machine that have lines of their own; others are listed as they are."""


def machine_section(result: ProfileResult, command: str) -> list[str]:
    """Return how it was measured."""
    machine, runs = result.machine, result.runs
    features = ", ".join(machine.get("cpu_features") or [])
    providers = ", ".join(dict.fromkeys(run.provider for run in runs))
    runtime = f"ONNX Runtime {machine.get('onnxruntime', '?')}"
    pairs = [
        (
            "processor",
            f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores"
            + (f" ({features})" if features else ""),
        ),
        ("memory", size_text(machine.get("memory_bytes", 0))),
        ("system", str(machine.get("system", "?"))),
        (
            "runtime",
            ", ".join(
                [
                    runtime,
                    *([providers] if providers else []),
                    f"Python {machine.get('python', '?')}",
                    f"loopedge {machine.get('loopedge', '?')}",
                ]
            ),
        ),
        *(
            (key.replace("_", " "), _plain(value))
            for key, value in machine.items()
            if key not in OWN_LINES
        ),
        *(("limits", limits_text(limits)) for limits in result.limits),
        *_inputs(runs),
        ("created", result.created),
    ]
    return ["<h2>How it was measured</h2>", *facts(pairs, command)]


def _inputs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    if not runs:
        return []
    parts = [
        f"{name} {_values([getattr(run, key) for run in runs])}"
        for name, key in (("batch", "batch"), ("sequence", "sequence"), ("threads", "threads"))
        if any(getattr(run, key) is not None for run in runs)
    ]
    timed = _values([run.latency_ms.runs for run in runs])
    processes = _values([run.processes for run in runs])
    parts += [f"{timed} timed runs", f"{processes} processes"]
    return [("inputs", ", ".join(parts))]


def _values(values: Sequence[int | None]) -> str:
    """Say the different values: ``1``, ``1 and 4``, ``20 to 75``."""
    known = sorted({value for value in values if value is not None})
    if len(known) > 3:
        return f"{known[0]} to {known[-1]}"
    return " and ".join(map(str, known))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
