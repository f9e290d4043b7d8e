"""What a file costs before and after `loopedge reroll`: bytes, load time, anonymous memory, time of an inference.

Two models as ``torch.onnx.export`` writes them: ALBERT of albert-base's size (12 layers, d=768, random weights, embeddings of
8,000 tokens) and 48 iterations of one transformer layer (d=256). Memory and load time are medians over fresh processes, times of
both files are taken in turns. Bytes block (exit code 4), times advise. Needs the extra ``adapters``; five minutes, 1 GB of disk.

    python -m benchmarks.reroll.cost [--output benchmarks/results/reroll]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import loopedge
from benchmarks.reroll import structures
from benchmarks.reroll.exporters import export
from benchmarks.reroll.subjects import ALBERT, Subject, feeds_of
from loopedge.profiler.machine import describe_machine
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.runtime.latency import time_in_turns, time_ratios

MIB = 2**20
SEQUENCE, PROCESSES, RUNS = 128, 3, 45
SLOWER = 1.1
"""Of the source's time that the re-rolled file may take."""


def albert_base() -> nn.Module:
    """Build an ALBERT of the size of albert-base-v2 with random weights."""
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=8000,
        embedding_size=128,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        num_hidden_layers=12,
    )
    model: nn.Module = AlbertModel(config)
    return model


SUBJECTS = [
    Subject(
        name="ALBERT-base, 12 layers",
        make=albert_base,
        loops=(12,),
        known="",
        **{**ALBERT, "tokens": {**ALBERT["tokens"], "input_ids": 8000}},
    ),
    Subject(
        name="48 loops of d=256",
        make=lambda: structures.Stacked("A" * 48, width=256),
        inputs={"x": ("batch", "sequence", 256)},
        loops=(48,),
        known="",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One file; ``anon`` is anonymous memory over a process with its runtime imported."""

    model: str
    file: str
    nodes: int
    file_bytes: int
    load_seconds: float
    anon_load_bytes: int
    anon_run_bytes: int
    time_ratio: float
    latency_ms: float


def measure(subject: Subject, folder: Path) -> list[Cost]:
    """Export and re-roll a subject; return the cost of both files."""
    source = export("dynamo", subject, folder / "source.onnx")
    result = loopedge.reroll(source, folder / "rolled.onnx", threads=1)
    paths = {"as exported": source, "re-rolled": Path(result.path)}
    nodes = {"as exported": result.source_nodes, "re-rolled": result.nodes}
    feeds = folder / "feeds.npz"
    sizes = {"batch": 1, "sequence": SEQUENCE}
    values = {name: value.numpy() for name, value in feeds_of(subject, **sizes).items()}
    np.savez(feeds, **values)  # type: ignore[arg-type]
    loaded: dict[str, list[tuple[float, int, int]]] = {name: [] for name in paths}
    for _ in range(PROCESSES):
        for name, path in paths.items():
            loaded[name].append(_fresh(path, feeds))
    ratios, latencies = _in_turns(list(paths.values()), feeds)
    costs = []
    for i, (name, path) in enumerate(paths.items()):
        seconds, after_load, after_run = (median(one) for one in zip(*loaded[name], strict=True))
        costs.append(
            Cost(
                model=subject.name,
                file=name,
                nodes=nodes[name],
                file_bytes=sum(file.stat().st_size for file in folder.glob(f"{path.name}*")),
                load_seconds=seconds,
                anon_load_bytes=int(after_load),
                anon_run_bytes=int(after_run),
                time_ratio=ratios[i],
                latency_ms=latencies[i],
            )
        )
    return costs


def _setup(path: Path, feeds: Path) -> ProcessSetup:
    return ProcessSetup(model=path, inputs=feeds, file_bytes=path.stat().st_size)


def _fresh(path: Path, feeds: Path) -> tuple[float, int, int]:
    """Return load seconds, and anonymous memory after load and after one inference, of a fresh process."""
    with MeasuredProcess(_setup(path, feeds)) as process:
        loaded = process.loaded
        process.run(1)
        after = process.memory()
        return loaded["load_seconds"], loaded["memory"]["anon_bytes"], after["anon_bytes"]


def _in_turns(paths: list[Path], feeds: Path) -> tuple[list[float], list[float]]:
    """Return the time of each file against the first, and the median of its latencies in ms."""
    processes = [MeasuredProcess(_setup(path, feeds)) for path in paths]
    try:
        runs = [process.run for process in processes]
        for run in runs:
            run(2)
        rounds = time_in_turns(runs, [RUNS] * len(runs))
    finally:
        for process in processes:
            process.kill()
    return time_ratios(rounds), [median(chain.from_iterable(one)) for one in rounds]


def judge(costs: list[Cost]) -> list[tuple[str, bool, bool]]:
    """Hold the re-rolled files against their sources: text, passed, and whether it blocks."""
    bounds = []
    for before, after in zip(costs[::2], costs[1::2], strict=True):
        for figure, blocks in (
            ("nodes", True),
            ("file_bytes", True),
            ("anon_load_bytes", True),
            ("anon_run_bytes", True),
            ("load_seconds", False),
        ):
            ratio = getattr(after, figure) / getattr(before, figure)
            bounds.append((f"{after.model}: {figure}, ratio {ratio:.2f} <= 1", ratio <= 1, blocks))
        text = f"{after.model}: time, ratio {after.time_ratio:.2f} <= {SLOWER}"
        bounds.append((text, after.time_ratio <= SLOWER, False))
    return bounds


def page(costs: list[Cost], bounds: list[tuple[str, bool, bool]], machine: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, one thread, {SEQUENCE} positions, batch 1.",
        "",
        "| model | file | nodes | bytes, MiB | load, s | anonymous after load, MiB | after one inference | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {cost.model} | {cost.file} | {cost.nodes} | {cost.file_bytes / MIB:.1f} | {cost.load_seconds:.2f} | "
        f"{cost.anon_load_bytes / MIB:.1f} | {cost.anon_run_bytes / MIB:.1f} | {cost.time_ratio:.2f} |"
        for cost in costs
    ]
    lines += ["", "| bound | |", "|---|---|"]
    lines += [
        f"| {text} | {'pass' if passed else 'FAIL' if blocks else 'missed'} |"
        for text, passed, blocks in bounds
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for cost.json and cost.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    costs: list[Cost] = []
    for subject in SUBJECTS:
        with tempfile.TemporaryDirectory() as name:
            costs += measure(subject, Path(name))
        print(f"{subject.name}: {costs[-2:]}", file=sys.stderr, flush=True)
    bounds, machine = judge(costs), describe_machine()
    text = page(costs, bounds, machine)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "cost.md").write_text(text, encoding="utf-8")
        report = {"machine": machine, "costs": [asdict(cost) for cost in costs]}
        text = json.dumps(report, indent=1) + "\n"
        (arguments.output / "cost.json").write_text(text, encoding="utf-8")
    return 4 if any(blocks and not passed for _, passed, blocks in bounds) else 0


if __name__ == "__main__":
    sys.exit(main())
