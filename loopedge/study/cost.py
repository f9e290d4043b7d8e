"""What an arm at a loop count costs on this machine: measured once, for all seeds cost the same."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from loopedge.profiler.pipeline import Run, profile
from loopedge.study.cell import cell_path
from loopedge.study.design import Cell, Design

__all__ = ["Costs", "measure_cost"]

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
    """
    first = _first_models(design, cells, folder)
    places = [(key, kind, path) for key, kinds in first.items() for kind, path in kinds.items()]
    costs: Costs = {key: {} for key in first}
    if not places:
        return costs, {}
    runs = profile([path for _, _, path in places]).runs
    for (key, kind, _), run in zip(places, runs, strict=True):
        costs[key][kind] = _figures(run)
    for key, run in _untied_twins(design, first).items():
        costs[key]["untied"] = _figures(run)
    return costs, {
        "models": [path.relative_to(folder).as_posix() for _, _, path in places],
        "threads": runs[0].threads,
        "batch": runs[0].batch,
        "sequence": runs[0].sequence,
    }


def _first_models(
    design: Design, cells: list[dict[str, Any]], folder: Path
) -> dict[tuple[str, int], dict[str, Path]]:
    """Return the float and int8 files of the first seed that was done, by arm and loop count."""
    found: dict[tuple[str, int], dict[str, Path]] = {}
    for told in cells:
        key = (told["arm"], told["loops"])
        if told["status"] != "done" or key in found:
            continue
        run = cell_path(folder, Cell(arm=key[0], loops=key[1], seed=told["seed"])).parent
        found[key] = {"float": run / "model.onnx"}
        if told["int8"] is not None:
            found[key]["int8"] = run / "model.int8.onnx"
    return {(a, r): found[a, r] for a in design.arms for r in design.loops if (a, r) in found}


def _untied_twins(
    design: Design, first: dict[tuple[str, int], dict[str, Path]]
) -> dict[tuple[str, int], Run]:
    """Profile the twins whose iterations have weights of their own, of the last looped arm."""
    arms = [arm for arm in design.arms if arm != "untied"]
    keys = [key for key in first if arms and key[0] == arms[-1] and key[1] > 1]
    if not keys:
        return {}
    runs = profile([first[key]["float"] for key in keys], untied=True).runs
    return dict(zip(keys, runs[len(keys) :], strict=True))


def _figures(run: Run) -> dict[str, Any]:
    values = {name: getattr(run, name) for name in KEPT}
    return values | {"latency_ms": asdict(run.latency_ms)}
