"""The same models through every toolchain, side by side: file, memory, time, loop count, int8, accuracy.

Makes an environment for each toolchain, converts (each product once, within eight minutes; the artifacts
stay in build/peers), and measures in fresh processes of each runtime that take turns on one core. Bytes
block (exit code 4), times advise. The first run takes an hour and 15 GB of disk, a later one
15 minutes.

    make bench-peers [PEERS="--refresh loopedge --output benchmarks/results/peers"]
    make bench-peers PEERS="--model tmlt-12 --peer openvino --peer loopedge"
"""

import argparse
import datetime
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.conversion import SUBJECTS, convert_all
from benchmarks.peers.environments import OWN, direct_versions
from benchmarks.peers.goals import Goal, ranking, reach_goals
from benchmarks.peers.measurement import Figures, measure
from benchmarks.peers.products import LOOP_COUNTS, SORTING, TMLT, Product, products
from benchmarks.peers.subjects import LOOPS, write_sorting, write_tmlt
from benchmarks.peers.table import flat_table, main_table
from loopedge.profiler.machine import describe_machine

MODELS = (TMLT, SORTING, "tmlt-1", "tmlt-48")
"""The last one's conversions take longest."""

ROUNDS = {TMLT: (3, 6, 3), "tmlt-1": (2, 4, 3), "tmlt-48": (1, 3, 3), SORTING: (1, 10, 20)}
"""Passes, rounds of a pass, runs of a round."""


def main() -> int:
    """Convert, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for peers.md and peers.json")
    parser.add_argument(
        "--refresh",
        action="append",
        default=[],
        metavar="PEER",
        help=f"convert again: {', '.join(_peers())}, or failed",
    )
    parser.add_argument(
        "--model", action="append", choices=MODELS, help="this one alone; default: all of them"
    )
    parser.add_argument(
        "--peer", action="append", choices=_peers(), help="beside the first row; default: all"
    )
    parser.add_argument("--passes", type=int, default=3, help="fresh processes of each at most")
    parser.add_argument("--convert-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.refresh) - {*_peers(), "failed"}
    if unknown:
        parser.error(
            f"--refresh: {', '.join(sorted(unknown))} is none of {', '.join(_peers())}, failed"
        )
    if arguments.passes < 1:
        parser.error(f"--passes is {arguments.passes}, allowed is 1 or more")
    models = [model for model in MODELS if model in (arguments.model or MODELS)]
    for loops in LOOPS:
        if f"tmlt-{loops}" in models:
            write_tmlt(SUBJECTS, loops)
    if SORTING in models:
        write_sorting(SUBJECTS)
    compared = {model: products(model, arguments.peer or ()) for model in models}
    convert_all([product for model in models for product in compared[model]], arguments.refresh)
    if arguments.convert_only:
        return 0
    found = _measure_all(compared, arguments.passes)
    goals = reach_goals(_by_loops(found)) if TMLT in found else []
    text = "\n".join(_report(found, goals))
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "peers.md").write_text(text, encoding="utf-8")
        content = json.dumps(_to_json(found, goals), indent=2) + "\n"
        (arguments.output / "peers.json").write_text(content, encoding="utf-8")
    return 4 if any(goal.blocks and not goal.is_reached for goal in goals) else 0


def _measure_all(compared: dict[str, list[Product]], most_passes: int) -> dict[str, list[Figures]]:
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for model in compared:
            passes, rounds, runs = ROUNDS[model]
            passes = min(passes, most_passes)
            found[model] = measure(
                compared[model], Path(name), passes=passes, rounds=rounds, runs=runs
            )
    return found


def _peers() -> list[str]:
    return sorted({product.peer for product in products(TMLT)})


def _by_loops(found: dict[str, list[Figures]]) -> dict[int, list[Figures]]:
    return {LOOP_COUNTS[model]: figures for model, figures in found.items() if model != SORTING}


def _versions() -> dict[str, dict[str, str]]:
    return {peer: direct_versions(peer) for peer in _peers() if peer != OWN}


def _report(found: dict[str, list[Figures]], goals: list[Goal]) -> list[str]:
    """Return the lines of the report."""
    machine = describe_machine()
    loops_taken = {one.label: one.loops_at_run_time for one in found.get(SORTING, [])}
    features = ", ".join(machine["cpu_features"])
    versions = "; ".join(
        f"{peer}: {', '.join(f'{name} {version}' for name, version in packages.items())}"
        for peer, packages in _versions().items()
    )
    return [
        "# The peers, side by side",
        "",
        f"{datetime.date.today().isoformat()}, {machine['cpu']} ({features}), one thread. `{_command()}`",
        f"loopedge {machine['loopedge']} on ONNX Runtime {machine['onnxruntime']}; {versions}.",
        "",
        "Memory is growth over the process with its runtime imported and nothing loaded, in MB (10^6 bytes);",
        "time is a ratio to the first row, taken in turns; error is max |y - ref| / max |ref| against PyTorch.",
        "Rows of the last position answer for it alone, as generation and classification do, and rank by themselves.",
        "",
        *_of_tmlt(found, goals, loops_taken),
        *_of_sorting(found, loops_taken),
    ]


def _of_tmlt(
    found: dict[str, list[Figures]], goals: list[Goal], loops_taken: dict[str, bool | None]
) -> list[str]:
    if TMLT not in found:
        return []
    by_loops = _by_loops(found)
    return [
        "## TMLT, d=768, 128 positions, vocabulary 4096, r=12",
        "",
        *main_table(found[TMLT], loops_taken),
        "| goal | measured | allowed | |",
        "|---|---|---|---|",
        *(goal.row() for goal in goals),
        "",
        ranking(found[TMLT], "float"),
        ranking(found[TMLT], "int8"),
        "",
        *(
            ["## The same at other loop counts", "", *flat_table(by_loops)]
            if len(by_loops) > 1
            else []
        ),
    ]


def _of_sorting(found: dict[str, list[Figures]], loops_taken: dict[str, bool | None]) -> list[str]:
    if SORTING not in found:
        return []
    return [
        "## Sorting, trained: d=64, 25 positions, r=8",
        "",
        *main_table(found[SORTING], loops_taken),
    ]


def _to_json(found: dict[str, list[Figures]], goals: list[Goal]) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "command": _command(),
        "machine": describe_machine(),
        "versions": _versions(),
        "figures": [one.to_json() for figures in found.values() for one in figures],
        "goals": [
            {
                "name": goal.name,
                "measured": goal.measured if math.isfinite(goal.measured) else None,
                "allowed": goal.allowed,
                "reached": goal.is_reached,
            }
            for goal in goals
        ],
    }


def _command() -> str:
    return " ".join(["python -m benchmarks.peers.bench", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
