"""Names for the runs of one profile: short, distinct, and saying in what they differ."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loopedge.profiler.client_report import AnyRun
from loopedge.profiler.result import Run

__all__ = [
    "SETTINGS",
    "groups_of",
    "run_labels",
    "setting_columns",
    "settings_text",
    "swept",
]

SETTINGS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "loops": ("loops", lambda value: f"{value} loop{'' if value == 1 else 's'}"),
    "batch": ("batch", lambda value: f"batch {value}"),
    "sequence": ("sequence", lambda value: f"sequence {value}"),
    "threads": ("threads", lambda value: f"{value} thread{'' if value == 1 else 's'}"),
    "form": ("form", lambda value: f"form {value}"),
    "quantization": ("quantization", str),
    "memory": ("memory", lambda value: f"memory {value}"),
    "runtime": ("runtime", str),
    "compute": ("computed in", str),
    "cuda_graph": ("run as", lambda value: "CUDA graph" if value else "nodes"),
}
"""What may differ between runs of one model: name of its column, and how it is said behind a name."""

SWEPT = ("loops", "batch", "sequence")
"""Settings that change what is computed."""


def run_labels(runs: Sequence[AnyRun], *, without: Sequence[str] = ()) -> list[str]:
    """Return a distinct name for each run: its own, and what sets it apart from its namesakes.

    Args:
        runs: Of one profile.
        without: Settings that stand elsewhere, as in a column.
    """
    namesakes: dict[str, list[AnyRun]] = defaultdict(list)
    for run in runs:
        namesakes[run.name].append(run)
    labels = []
    for run in runs:
        differing = [
            setting
            for setting in SETTINGS
            if setting not in without
            and len({getattr(other, setting) for other in namesakes[run.name]}) > 1
        ]
        labels.append(", ".join([run.name, *settings_text(run, differing)]))
    paths: dict[str, set[str]] = defaultdict(set)
    for label, run in zip(labels, runs, strict=True):
        paths[label].add(run.path)
    return [
        f"{label} in {Path(run.path).parent.name or '.'}" if len(paths[label]) > 1 else label
        for label, run in zip(labels, runs, strict=True)
    ]


def settings_text(run: AnyRun, settings: Sequence[str]) -> list[str]:
    """Return some settings of a run in words, such as ``12 loops``; those that are None are left out."""
    values = ((setting, getattr(run, setting)) for setting in settings)
    return [SETTINGS[setting][1](value) for setting, value in values if value is not None]


def setting_columns(runs: Sequence[Run], *, always: Sequence[str] = ("loops",)) -> list[str]:
    """Return the settings that a table of these runs must show, for they differ."""
    return [
        setting
        for setting in SETTINGS
        if len({getattr(run, setting) for run in runs}) > 1
        or (setting in always and any(getattr(run, setting) for run in runs))
    ]


def swept(runs: Sequence[Run]) -> list[str]:
    """Return which of loops, batch and sequence one and the same model was run with several of."""
    found = []
    for setting in SWEPT:
        values: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
        for run in runs:
            others = (getattr(run, name) for name in SETTINGS if name != setting)
            values[run.path, run.twin, *others].add(getattr(run, setting))
        if any(len(seen) > 1 for seen in values.values()):
            found.append(setting)
    return found


def groups_of(runs: Sequence[Run], settings: Sequence[str]) -> dict[str, list[Run]]:
    """Return the runs by what they have in common in some settings, in words."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[", ".join(settings_text(run, settings))].append(run)
    return dict(groups)
