"""Time and memory of products that take turns: fresh processes, one round of each after the other."""

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.decode.model import SHAPES
from benchmarks.decode.processes.process import DecodingProcess, ProcessError, Taken
from benchmarks.decode.products import Product

__all__ = ["CONTEXTS", "PREFILL", "Effort", "Figures", "measure"]

CONTEXTS = (64, 512, 1024)
PREFILL = 512
ROOM = 160
"""Positions behind the longest context, for the tokens that are decoded there."""

GROWTH_TOKENS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: rounds, tokens of a round, prefills."""

    rounds: int = 5
    tokens: int = 10
    prefills: int = 3
    contexts: tuple[int, ...] = CONTEXTS


@dataclass(slots=True, kw_only=True)
class Figures:
    """What a product takes.

    ``cpu_ms``, ``wall_ms``: of one token by context, the median round; ``prefill_cpu_s``, ``prefill_wall_s``: of `PREFILL`
    positions at once; ``memory``: growth over the imported runtime at the end, ``growth_bytes``: of resident memory over 100
    tokens; ``failed``: why there are no figures.
    """

    label: str
    width: str
    cache: str
    threads: int
    failed: str | None = None
    file_bytes: int = 0
    load_seconds: float = 0.0
    cpu_ms: dict[int, float] = field(default_factory=dict)
    wall_ms: dict[int, float] = field(default_factory=dict)
    prefill_cpu_s: float = 0.0
    prefill_wall_s: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    growth_bytes: int | None = None

    def tokens_per_second(self, context: int) -> float:
        """Tokens per second: of processor time on one thread, where a busy machine disturbs least; else of wall time."""
        taken = self.cpu_ms if self.threads == 1 else self.wall_ms
        return 1e3 / taken[context] if context in taken else 0.0

    def prefill_per_second(self) -> float:
        """Positions of a prefill per second, as `tokens_per_second`."""
        taken = self.prefill_cpu_s if self.threads == 1 else self.prefill_wall_s
        return PREFILL / taken if taken else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(slots=True)
class _Turn:
    product: Product
    figures: Figures
    process: DecodingProcess


def measure(
    products: Sequence[Product], shape: str, folder: Path, threads: int, effort: Effort
) -> list[Figures]:
    """Measure products in turns; one that fails has its reason.

    Args:
        products: Of one width: their processes are there together.
        shape: A key of `SHAPES`.
        folder: That holds the files.
        threads: How many.
        effort: How much.
    """
    found = []
    with ExitStack() as stack:
        turns: list[_Turn] = []
        for product in products:
            figures = Figures(
                label=product.label, width=product.width, cache=product.cache, threads=threads
            )
            found.append(figures)
            try:
                process = stack.enter_context(_open(product, shape, folder, threads, effort))
            except ProcessError as error:
                figures.failed = str(error)
                continue
            figures.load_seconds = process.load_seconds
            figures.file_bytes = _size(folder / product.file) if product.file else 0
            turns.append(_Turn(product, figures, process))
        _take_turns(turns, effort)
    return found


def _open(
    product: Product, shape: str, folder: Path, threads: int, effort: Effort
) -> DecodingProcess:
    request = {
        "engine": product.engine,
        "shape": shape,
        "file": str(folder / product.file),
        "context": max(effort.contexts) + ROOM,
        "threads": threads,
        "vocab_size": SHAPES[shape].vocab_size,
        **product.options,
    }
    return DecodingProcess(request)


def _take_turns(turns: list[_Turn], effort: Effort) -> None:
    at = 0
    for context in effort.contexts:
        if context == PREFILL:
            _prefills(turns, effort.prefills)
        else:
            for turn in turns:
                _guarded(turn, lambda process: process.prefill(context - at))  # noqa: B023
        rounds: dict[str, list[Taken]] = {turn.product.label: [] for turn in turns}
        tokens = min(effort.tokens, ROOM // (2 * effort.rounds))
        for number in range(effort.rounds):
            for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
                whole = turn.product.whole
                if whole and number:
                    continue
                count = 1 if whole else tokens
                taken = _guarded(turn, lambda process: process.decode(count))  # noqa: B023
                if taken is not None:
                    rounds[turn.product.label].append((taken[0] / count, taken[1] / count))
        for turn in turns:
            taken_rounds = rounds[turn.product.label]
            if taken_rounds:
                cpu, wall = zip(*taken_rounds, strict=True)
                turn.figures.cpu_ms[context] = statistics.median(cpu) * 1e3
                turn.figures.wall_ms[context] = statistics.median(wall) * 1e3
        at = context + effort.rounds * tokens
        line = ", ".join(f"{t.product.label} {t.figures.cpu_ms.get(context, 0):.1f}" for t in turns)
        print(f"  context {context}: ms {line}", file=sys.stderr, flush=True)
    for turn in turns:
        positions = min(PREFILL, max(effort.contexts))
        _guarded(turn, _read_memory(turn.figures, positions, whole=turn.product.whole))


def _prefills(turns: list[_Turn], times: int) -> None:
    rounds: dict[str, list[Taken]] = {turn.product.label: [] for turn in turns}
    for number in range(times):
        for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
            _guarded(turn, lambda process: process.reset())
            taken = _guarded(turn, lambda process: process.prefill(PREFILL))
            if taken is not None:
                rounds[turn.product.label].append(taken)
    for turn in turns:
        if rounds[turn.product.label]:
            cpu, wall = zip(*rounds[turn.product.label], strict=True)
            turn.figures.prefill_cpu_s = statistics.median(cpu)
            turn.figures.prefill_wall_s = statistics.median(wall)


def _read_memory(figures: Figures, positions: int, *, whole: bool) -> Any:
    def read(process: DecodingProcess) -> None:
        figures.memory = process.memory()
        if not whole:
            process.reset()
            process.prefill(positions)
            process.decode(1)
            before = process.memory()["rss_bytes"]
            process.decode(GROWTH_TOKENS)
            figures.growth_bytes = process.memory()["rss_bytes"] - before

    return read


def _guarded(turn: _Turn, call: Any) -> Any:
    """Let a process do something; one that dies fails alone."""
    if turn.figures.failed:
        return None
    try:
        return call(turn.process)
    except ProcessError as error:
        turn.figures.failed = str(error)
        return None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
