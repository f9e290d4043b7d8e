"""The figures as Markdown, and what they are held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.decode.measurement import PREFILL, Figures
from benchmarks.decode.products import RIVALS

__all__ = ["Goal", "goals", "table"]

MIB = 2**20
SESSION_BYTES, GROWTH_BYTES = MIB, 2 * MIB
"""Most that the memory of a session may differ by between loop counts, and grow by over 100 tokens beside the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure, what it may be, and whether missing it fails the benchmark: bytes do, times do not."""

    name: str
    measured: float
    allowed: float
    at_least: bool = False
    blocks: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether the figure keeps its bound."""
        if self.at_least:
            return self.measured >= self.allowed
        return self.measured <= self.allowed

    def row(self) -> str:
        """Return a row of the Markdown table."""
        sign = ">=" if self.at_least else "<="
        verdict = "reached" if self.is_reached else "FAIL" if self.blocks else "missed"
        return f"| {self.name} | {self.measured:.2f} | {sign} {self.allowed:.2f} | {verdict} |"


def table(found: Sequence[Figures], agreement: dict[str, float | str]) -> list[str]:
    """Return the lines of a table: tokens per second, time against the first product, memory."""
    contexts = sorted({context for one in found for context in one.cpu_ms})
    header = ["", "cache"]
    header += [f"tokens/s at {context}" for context in contexts]
    header += [f"time at {context}" for context in contexts]
    header += [f"prefill {PREFILL}, tokens/s", "time", "peak MiB", "file MiB", "dB to PyTorch"]
    lines = [_row(header), _row(["---"] * len(header))]
    first = found[0]
    for one in found:
        label = f"**{one.label}**" if one is first else one.label
        if one.failed:
            lines.append(_row([label, one.cache, one.failed.replace("|", "/")[:120]]))
            continue
        cells = [label, one.cache]
        cells += [f"{one.tokens_per_second(context):.1f}" for context in contexts]
        cells += [
            f"{_ratio(first.tokens_per_second(context), one.tokens_per_second(context)):.2f}"
            for context in contexts
        ]
        cells += [
            f"{one.prefill_per_second():.0f}",
            f"{_ratio(first.prefill_per_second(), one.prefill_per_second()):.2f}",
            f"{one.memory.get('peak_bytes', 0) / MIB:.0f}",
            f"{one.file_bytes / MIB:.0f}",
        ]
        close = agreement.get(one.label)
        cells.append(f"{close:.0f}" if isinstance(close, float) else close or "")
        lines.append(_row(cells))
    return lines


def goals(found: Sequence[Figures], bytes_per_token: int) -> Iterator[Goal]:
    """Yield what the figures of one number of threads are held against.

    Args:
        found: Of all widths.
        bytes_per_token: What the cache of floats takes for one token.
    """
    by_label = {one.label: one for one in found if not one.failed}
    threads = f"{found[0].threads} thread{'s' if found[0].threads > 1 else ''}"
    yield from _against(by_label, "loopedge float32", "unrolled float32", threads, 1.05, 1.15)
    yield from _against(by_label, "loopedge float32", "PyTorch eager, cached", threads, 0.6, 0.6)
    for label, least in (("loopedge weight-int8", 2.5), ("loopedge weight-int4", 3.0)):
        yield from _faster(by_label, label, least, threads)
    yield from _prefill(by_label, threads)
    for width, rival in RIVALS.items():
        yield from _against_rival(by_label, width, rival, threads)
    for one in by_label.values():
        if one.growth_bytes is not None and one.label.startswith("loopedge"):
            cache = 100 * bytes_per_token
            yield Goal(
                name=f"{one.label}, {threads}: MiB that 100 tokens add beside the cache",
                measured=max(one.growth_bytes - cache, 0) / MIB,
                allowed=GROWTH_BYTES / MIB,
                blocks=True,
            )


def _against(
    by_label: dict[str, Figures], ours: str, other: str, threads: str, short: float, long: float
) -> Iterator[Goal]:
    if ours not in by_label or other not in by_label:
        return
    for context in by_label[ours].cpu_ms:
        time = by_label[ours].cpu_ms[context] / by_label[other].cpu_ms[context]
        name = f"{ours} against {other}, {threads}, context {context}: processor time"
        yield Goal(name=name, measured=time, allowed=short if context <= PREFILL else long)


def _faster(by_label: dict[str, Figures], label: str, least: float, threads: str) -> Iterator[Goal]:
    if label not in by_label or "loopedge float32" not in by_label:
        return
    one, base = by_label[label], by_label["loopedge float32"]
    context = min(one.cpu_ms)
    ratio = one.tokens_per_second(context) / base.tokens_per_second(context)
    name = f"{label}, {threads}, context {context}: tokens per second against float32"
    yield Goal(name=name, measured=ratio, allowed=least, at_least=True)


def _prefill(by_label: dict[str, Figures], threads: str) -> Iterator[Goal]:
    ours, other = by_label.get("loopedge float32"), by_label.get("unrolled float32")
    if ours is not None and other is not None and other.prefill_cpu_s:
        name = f"{ours.label} against {other.label}, {threads}: time of a prefill of {PREFILL}"
        yield Goal(name=name, measured=ours.prefill_cpu_s / other.prefill_cpu_s, allowed=1.0)


def _against_rival(
    by_label: dict[str, Figures], width: str, rival: str, threads: str
) -> Iterator[Goal]:
    """Hold the best of ours at a width against the best of llama.cpp's, and memory at the same cache."""
    own = [o for o in by_label.values() if o.width == width and o.label.startswith("loopedge")]
    others = [one for one in by_label.values() if one.label.startswith(rival)]
    if not own or not others:
        return
    for context in own[0].cpu_ms:
        best = max(own, key=lambda one: one.tokens_per_second(context))
        most = max(one.tokens_per_second(context) for one in others)
        name = f"{best.label} against {rival}, {threads}, context {context}: tokens per second"
        ratio = _ratio(best.tokens_per_second(context), most)
        yield Goal(name=name, measured=ratio, allowed=1.0, at_least=True)
    best = max(own, key=Figures.prefill_per_second)
    ratio = _ratio(best.prefill_per_second(), max(one.prefill_per_second() for one in others))
    name = f"{best.label} against {rival}, {threads}: prefill, tokens per second"
    yield Goal(name=name, measured=ratio, allowed=1.0, at_least=True)
    for cache in dict.fromkeys(one.cache for one in own):
        least = min((one for one in own if one.cache == cache), key=_peak)
        same = [_peak(other) for other in others if other.cache == cache]
        if same:
            name = f"{least.label} against {rival}, {threads}, the same cache: peak MiB"
            allowed = min(same) / MIB
            yield Goal(name=name, measured=_peak(least) / MIB, allowed=allowed, blocks=True)


def _peak(one: Figures) -> int:
    return one.memory["peak_bytes"]


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
