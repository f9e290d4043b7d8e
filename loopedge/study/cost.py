"""What an arm at a loop count costs on this machine: measured once, for all seeds cost the same."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loopedge.errors import LoopedgeError
from loopedge.profiler.figures import BUSY, slowdown
from loopedge.profiler.pipeline import Run, profile
from loopedge.study.design import Cell, Design
from loopedge.study.options import UNLOOPED

__all__ = ["Costs", "is_busy", "measure_cost", "models_of", "models_to_measure"]

Costs = dict[tuple[str, int], dict[str, Any]]
"""By arm and loop count: figures of the ``float`` and the ``int8`` model, and of the float model ``untied``."""

KEPT = (
    "file_bytes", "weight_bytes", "load_seconds", "anon_bytes", "rss_peak_bytes", "time_ratio",
)  # fmt: skip


def measure_cost(
    design: Design, cells: list[dict[str, Any]], folder: Path
) -> tuple[Costs, dict[str, Any]]:
    """Profile the first model of each arm and loop count, all of them in turns.

    Args:
        design: Arms and loop counts.
        cells: Results of all runs.
        folder: Of the pilot.

    Returns:
        The figures, and what was profiled: ``models`` by their place under the folder, ``threads``,
        ``batch`` and ``sequence``.

    Raises:
        LoopedgeError: A model could not be measured.
    """
    first = _first_models(design, cells, folder)
    places = [(key, kind, path) for key, kinds in first.items() for kind, path in kinds.items()]
    costs: Costs = {key: {} for key in first}
    if not places:
        return costs, {}
    twins = {key: first[key]["float"] for key in _with_twin(design, first)}
    profiled = profile([path for _, _, path in places], untied=list(twins.values()), details=False)
    if profiled.failures:
        raise LoopedgeError(profiled.failures[0].reason)
    runs = profiled.runs
    for (key, kind, _), run in zip(places, runs, strict=False):
        costs[key][kind] = _figures(run)
    for key, run in zip(twins, runs[len(places) :], strict=True):
        costs[key]["untied"] = _figures(run)
    return costs, {
        "models": [path.relative_to(folder).as_posix() for _, _, path in places],
        "threads": runs[0].threads,
        "batch": runs[0].batch,
        "sequence": runs[0].sequence,
    }


def models_to_measure(design: Design) -> int:
    """Return how many models are profiled where every run succeeds."""
    return sum(models_of(design, key) for key in design.compared)


def models_of(design: Design, key: tuple[str, int]) -> int:
    """Return how many models of an arm at a loop count are profiled: float, int8, and the twins of one arm."""
    arm = [arm for arm in design.arms if arm not in UNLOOPED][-1]
    return 2 + (key[0] == arm and key[1] > 1)


def is_busy(cost: Mapping[str, Any]) -> bool:
    """Tell whether the machine was busy while one of an arm's models was measured."""
    latencies = [figures["latency_ms"] for figures in cost.values()]
    return any(slowdown(latency["p50"], latency["min"]) > BUSY for latency in latencies)


def _first_models(
    design: Design, cells: list[dict[str, Any]], folder: Path
) -> dict[tuple[str, int], dict[str, Path]]:
    """Return the float and int8 files of the first seeds that have them, by arm and loop count."""
    from loopedge.study.runs.cell import cell_path  # brings torch, which no report needs

    found: dict[tuple[str, int], dict[str, Path]] = {}
    for result in cells:
        kinds = found.setdefault((result["arm"], result["loops"]), {})
        cell = Cell(
            arm=result["arm"],
            loops=result["loops"],
            seed=result["seed"],
            origin=result.get("origin"),
        )
        if result["status"] == "done":
            run = cell_path(folder, cell).parent
            kinds.setdefault("float", run / "model.onnx")
            if result["int8"] is not None:
                kinds.setdefault("int8", run / "model.int8.onnx")
    order = [(arm, loops) for arm in design.arms for loops in design.loops]
    return {key: found[key] for key in order if found.get(key)}


def _with_twin(
    design: Design, first: dict[tuple[str, int], dict[str, Path]]
) -> list[tuple[str, int]]:
    """Return whose twins are profiled: those of the last looped arm, past one loop."""
    arm = [arm for arm in design.arms if arm not in UNLOOPED][-1]
    return [key for key in first if key[0] == arm and key[1] > 1]


def _figures(run: Run) -> dict[str, Any]:
    values = {name: getattr(run, name) for name in KEPT}
    return values | {"latency_ms": asdict(run.latency_ms)}
