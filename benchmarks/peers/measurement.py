"""Measure the products of a model: several passes of fresh processes, which take turns."""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.conversion import ARTIFACTS, SUBJECTS, conversion_of
from benchmarks.peers.environments import environment_of, python_path
from benchmarks.peers.process import PeerError, PeerProcess
from benchmarks.peers.products import SORTING, Product
from benchmarks.peers.subject import Subject, score_sorting
from loopedge.graph.agreement import largest_error, noise_ratio
from loopedge.runtime.latency import time_in_turns, time_ratios

__all__ = ["Figures", "measure"]

WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a product takes; memory is growth over the process with its runtime imported.

    ``error``: max |y - ref| / max |ref| against PyTorch; ``time_ratio`` against the baseline;
    ``loops_at_run_time``: whether another loop count was asked for and computed, None where it was
    not tried; ``failed`` says in one line why there are no figures.
    """

    label: str
    subject: str
    precision: str
    how: str
    positions: str
    ours: bool
    failed: str | None = None
    convert_seconds: float = 0.0
    quantized: int | None = None
    products: int | None = None
    file_bytes: int = 0
    load_seconds: float = 0.0
    rss_bytes: int = 0
    anon_bytes: int = 0
    peak_bytes: int = 0
    peak_range: tuple[int, int] = (0, 0)
    latency_ms: float = 0.0
    time_ratio: float = 0.0
    error: float = 0.0
    sqnr_db: float | None = None
    accuracy: float | None = None
    loops_at_run_time: bool | None = None

    @property
    def time_times_peak(self) -> float:
        """Return the product of time ratio and peak, in MB."""
        return self.time_ratio * self.peak_bytes / 1e6

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(slots=True)
class _Taken:
    """What was taken of one product over the passes."""

    failed: str | None = None
    loads: list[dict[str, Any]] = field(default_factory=list)
    ends: list[dict[str, int]] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)


def measure(
    products: Sequence[Product],
    folder: Path,
    *,
    passes: int,
    rounds: int,
    runs: int,
    busy: bool = False,
) -> list[Figures]:
    """Measure the products of one model.

    Args:
        products: The baseline first.
        folder: For outputs.
        passes: Fresh processes of each.
        rounds: Turns of each process.
        runs: Of the model in a turn.
        busy: Others use the machine: times are the process's own of the processor.

    Raises:
        PeerError: The baseline could not be measured.
    """
    taken = [_Taken(failed=conversion_of(product).get("failed")) for product in products]
    for i in range(passes):
        progress = f"measuring {products[0].subject}, pass {i + 1} of {passes}"
        print(progress, file=sys.stderr, flush=True)
        _take_pass(products, taken, folder if i == 0 else None, rounds, runs, busy=busy)
    if taken[0].failed:
        raise PeerError(f"{products[0].label}: {taken[0].failed}")
    whole = [(product, one) for product, one in zip(products, taken, strict=True) if not one.failed]
    ratios = dict(
        zip(
            (product.label for product, _ in whole),
            time_ratios([one.rounds for _, one in whole]),
            strict=True,
        )
    )
    return [
        _figures(product, one, ratios.get(product.label, 0.0))
        for product, one in zip(products, taken, strict=True)
    ]


def _take_pass(
    products: Sequence[Product],
    taken: Sequence[_Taken],
    folder: Path | None,
    rounds: int,
    runs: int,
    *,
    busy: bool,
) -> None:
    """Open a process for each, let them take turns, read their memory, judge their outputs."""
    with ExitStack() as stack:
        opened: list[tuple[Product, _Taken, PeerProcess]] = []
        for product, one in zip(products, taken, strict=True):
            if not one.failed:
                try:
                    process = stack.enter_context(_open(product, busy=busy))
                    process.run(WARM_UP)
                except PeerError as error:
                    one.failed = str(error)
                else:
                    one.loads.append(process.loaded)
                    opened.append((product, one, process))
        turns = [_guarded(process, one) for _, one, process in opened]
        latencies = time_in_turns(turns, [rounds * runs] * len(turns))
        for (product, one, process), timed in zip(opened, latencies, strict=True):
            if one.failed:
                continue
            one.rounds += timed
            try:
                one.ends.append(process.memory())
                if folder is not None:
                    one.judged = _judge(product, process, folder)
            except PeerError as error:
                one.failed = str(error)


def _open(product: Product, *, busy: bool) -> PeerProcess:
    python = environment_of(product.environment)
    assert isinstance(python, Path)  # it converted
    made = conversion_of(product)
    request = {
        "runtime": product.runtime,
        "busy": busy,
        "model": str(ARTIFACTS / product.artifact / made["path"]),
        "inputs": str(SUBJECTS / product.subject / "judged.npy"),
        "options": {**product.options, **made.get("options", {})},
    }
    variables = {"PYTHONPATH": python_path(product.environment), "OMP_NUM_THREADS": "1"}
    return PeerProcess(python, request, variables)


def _guarded(process: PeerProcess, one: _Taken) -> Callable[[int], list[float]]:
    """Return the turn of a process; one that dies fails alone."""

    def turn(runs: int) -> list[float]:
        if not one.failed:
            try:
                return process.run(runs)
            except PeerError as error:
                one.failed = str(error)
        return [float("nan")] * runs

    return turn


def _judge(product: Product, process: PeerProcess, folder: Path) -> dict[str, Any]:
    """Compare the outputs with PyTorch's; ask the sorting model for another loop count too."""
    subject = Subject(SUBJECTS / product.subject)
    outputs = np.load(process.save_outputs(folder / "outputs.npy"))
    reference = np.load(subject.reference)
    if product.positions == "last":
        reference = reference[..., -1:, :]
    ratio = noise_ratio([{"": reference}], [{"": outputs}])
    judged: dict[str, Any] = {
        "error": largest_error(outputs, reference).relative,
        "sqnr_db": ratio.db if ratio.noise else None,
    }
    if product.subject == SORTING:
        judged["accuracy"] = score_sorting(subject, outputs)
        judged["loops_at_run_time"] = _takes_loops(subject, process, folder)
    return judged


def _takes_loops(subject: Subject, process: PeerProcess, folder: Path) -> bool:
    """Ask for half of the loops and see whether the outputs are nearer to those of half than of all."""
    shape = json.loads((subject.folder / "shape.json").read_text(encoding="utf-8"))
    try:
        outputs = np.load(process.save_outputs(folder / "half.npy", shape["half"]))
    except PeerError:
        return False
    halved, whole = np.load(subject.half), np.load(subject.reference)
    return bool(np.square(outputs - halved).sum() < np.square(outputs - whole).sum())


def _figures(product: Product, one: _Taken, time_ratio: float) -> Figures:
    made = conversion_of(product)
    fields: dict[str, Any] = {
        "label": product.label,
        "subject": product.subject,
        "precision": product.precision,
        "how": product.how,
        "positions": product.positions,
        "ours": product.is_ours,
        "convert_seconds": made["seconds"],
        "quantized": made.get("quantized"),
        "products": made.get("products"),
        "file_bytes": made.get("file_bytes", 0),
    }
    if one.failed:
        return Figures(**fields, failed=one.failed)
    peaks = [end["peak_bytes"] for end in one.ends]
    return Figures(
        **fields,
        load_seconds=statistics.median(load["load_seconds"] for load in one.loads),
        rss_bytes=int(statistics.median(load["memory"]["rss_bytes"] for load in one.loads)),
        anon_bytes=int(statistics.median(load["memory"]["anon_bytes"] for load in one.loads)),
        peak_bytes=int(statistics.median(peaks)),
        peak_range=(min(peaks), max(peaks)),
        latency_ms=float(np.median(np.concatenate([np.asarray(turn) for turn in one.rounds]))),
        time_ratio=time_ratio,
        **one.judged,
    )
