"""The rule by which a quantization is chosen: no loss, then the fastest, then the smallest of the best.

1. A candidate must lose no more than `Limits.max_drop`, without it nothing beyond the metric's noise, and stay above the
   floor of its SQNR; it must hold what the user limits.
2. Of these the fastest tier counts: times are equal that are within `EQUAL_TIMES` of the fastest or whose quartiles overlap with
   its. Times that are not steady are equal unless they are `UNSTEADY_FACTOR` apart.
3. Of that tier the smallest counts whose SQNR is within `SAME_DB` of the tier's best.

A candidate with lifted linears is worth its bytes only where they win enough (`DB_FOR_ALL`). Nothing hangs on the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loopedge.errors import BudgetError
from loopedge.options import option
from loopedge.quantizer.choice.result import Candidate
from loopedge.units import ratio_text, size_text

__all__ = ["DB_FOR_ALL", "EQUAL_TIMES", "SAME_DB", "Choice", "Limits", "choose", "worth_bytes"]

EQUAL_TIMES = 0.10
"""Share by which times may differ and are called equal: two files of the same operators are measured so far apart."""
UNSTEADY_FACTOR = 2.0
"""Of times that are not steady: between the quartiles of a slower and a faster candidate."""
SAME_DB = 0.3
"""SQNRs that are no further apart are equal."""
DB_FOR_ALL = 50.0
"""What a lifted linear or table must win for its bytes, in dB for as many bytes as the float model has: half a dB for a
hundredth of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate must hold; None: no limit.

    Args:
        metric: What ``max_drop`` and losses are measured in.
        max_drop: Most that may be lost; without it nothing beyond the noise.
        max_bytes: Most bytes of the files.
        min_speed_up: Least speed against the float model.
        float_bytes: Of the float model's files.
    """

    metric: str
    max_drop: float | None = None
    max_bytes: int | None = None
    min_speed_up: float | None = None
    float_bytes: int = 0

    @property
    def named(self) -> bool:
        """Whether the user named one."""
        return any(each is not None for each in (self.max_drop, self.max_bytes, self.min_speed_up))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the rule says.

    Args:
        chosen: The candidate.
        verdicts: A few words on each candidate, by name.
        reason: Why, in one sentence.
        met: Whether it holds what it must; else it is the best of those that do not.
    """

    chosen: Candidate
    verdicts: dict[str, str]
    reason: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Miss:
    """By how much a limit is missed, as a share of it, in words, and what would allow it."""

    share: float
    text: str
    hint: str
    measured: float
    allowed: float


def choose(candidates: Sequence[Candidate], limits: Limits) -> Choice:
    """Return the candidate that the rule takes.

    Args:
        candidates: One or more, each name once, all timed or none.
        limits: What they must hold.

    Raises:
        BudgetError: The user named limits, and none holds them: it names the nearest.
    """
    missed = {item.name: _misses(item, limits) for item in candidates}
    allowed = [item for item in candidates if not missed[item.name]]
    verdicts = {name: "; ".join(miss.text for miss in found) for name, found in missed.items()}
    if not allowed:
        if limits.named:
            raise _nearest(candidates, missed)
        best = max(candidates, key=lambda item: (item.sqnr_db, -item.bytes, item.name))
        lost = f"every candidate loses {limits.metric} beyond its noise, or has an SQNR below its floor"
        reason = f"{best.name}: {lost}; it has the best SQNR, {_db(best)}"
        return Choice(
            chosen=best, verdicts=verdicts | {best.name: "chosen"}, reason=reason, met=False
        )
    worthless = _worthless(allowed, limits)
    verdicts |= worthless
    worth = [item for item in allowed if item.name not in worthless]
    tier = _fastest(worth)
    fastest = min((item.time_ratio or 1.0 for item in tier), default=1.0)
    for item in worth:
        if item not in tier:
            times = (item.time_ratio or 1.0) / fastest
            verdicts[item.name] = f"slower, {times:.2f} times the fastest"
    best_db = max(item.sqnr_db for item in tier)
    close = [item for item in tier if item.sqnr_db >= best_db - SAME_DB]
    verdicts |= {i.name: f"{best_db - i.sqnr_db:.1f} dB less" for i in tier if i not in close}
    chosen = min(close, key=lambda item: (item.bytes, -item.sqnr_db, item.name))
    verdicts |= {item.name: _beside(item, chosen) for item in close}
    return Choice(
        chosen=chosen,
        verdicts=verdicts | {chosen.name: "chosen"},
        reason=_reason(chosen, tier, close, worth, limits),
        met=True,
    )


def worth_bytes(gain_db: float, more_bytes: int, limits: Limits) -> bool:
    """Tell whether what a lifted linear wins is worth its bytes.

    Args:
        gain_db: What the SQNR gains by it.
        more_bytes: What the file gains.
        limits: They hold the bytes of the float model.
    """
    rate = DB_FOR_ALL / max(1, limits.float_bytes)
    return gain_db > SAME_DB and gain_db >= rate * more_bytes


def _worthless(allowed: Sequence[Candidate], limits: Limits) -> dict[str, str]:
    """Return the mixes that win too little, where what they were made from may be taken itself, and why."""
    by_name = {item.name: item for item in allowed}
    found = {}
    for item in allowed:
        base = by_name.get(item.mix_of or "")
        if base is None:
            continue
        gain, more = item.sqnr_db - base.sqnr_db, item.bytes - base.bytes
        if not worth_bytes(gain, more, limits):
            cost = f" for {size_text(more)}" if gain > SAME_DB else ""
            found[item.name] = f"lifting wins {gain:.1f} dB{cost}: too little"
    return found


def _fastest(allowed: Sequence[Candidate]) -> list[Candidate]:
    """Return those that are not clearly slower than the fastest."""
    timed = [item for item in allowed if item.time_ratio is not None]
    if not timed:
        return list(allowed)
    fastest = min(timed, key=lambda item: (not item.steady, item.time_ratio, item.name))
    return [item for item in allowed if item not in timed or not _clearly_slower(item, fastest)]


def _clearly_slower(item: Candidate, fastest: Candidate) -> bool:
    """Tell whether times differ beyond their spread; where one is not steady, by a factor at least."""
    low, high = item.time_low or 0.0, fastest.time_high or 0.0
    if not (item.steady and fastest.steady):
        return low > UNSTEADY_FACTOR * high
    most = (fastest.time_ratio or 0.0) * (1 + EQUAL_TIMES)
    return low > high and (item.time_ratio or 0.0) > most


def _misses(item: Candidate, limits: Limits) -> list[_Miss]:
    """Return the limits that a candidate does not hold."""
    found = []
    if not item.sqnr_db >= item.min_sqnr_db:
        found.append(
            _Miss(
                share=(item.min_sqnr_db - item.sqnr_db) / max(1.0, abs(item.min_sqnr_db)),
                text=f"{_db(item)}, at least {item.min_sqnr_db:.4g} is asked",
                hint=option("min_sqnr_db", _lower(item.sqnr_db)),
                measured=item.sqnr_db,
                allowed=item.min_sqnr_db,
            )
        )
    if limits.max_drop is not None and not item.loss <= limits.max_drop:
        found.append(
            _Miss(
                share=item.loss / max(limits.max_drop, 1e-12) - 1,
                text=f"loses {item.loss:.3g} of {limits.metric}, allowed is {limits.max_drop:.3g}",
                hint=option("max_drop", float(f"{1.1 * item.loss:.2g}")),
                measured=item.loss,
                allowed=limits.max_drop,
            )
        )
    if limits.max_drop is None and item.moved:
        found.append(
            _Miss(
                share=1.0,
                text=f"loses {item.loss:.3g} of {limits.metric}, more than its noise",
                hint=option("max_drop", float(f"{1.1 * item.loss:.2g}")),
                measured=item.loss,
                allowed=0.0,
            )
        )
    if limits.max_bytes is not None and item.bytes > limits.max_bytes:
        found.append(
            _Miss(
                share=item.bytes / limits.max_bytes - 1,
                text=f"takes {size_text(item.bytes)}, allowed are {size_text(limits.max_bytes)}",
                hint=option("max_bytes", _kib(item.bytes)),
                measured=item.bytes,
                allowed=limits.max_bytes,
            )
        )
    if limits.min_speed_up is not None and not _speed_up(item) >= limits.min_speed_up:
        found.append(
            _Miss(
                share=limits.min_speed_up / max(_speed_up(item), 1e-12) - 1,
                text=f"is {_speed_up(item):.2f} times as fast as the float model, {limits.min_speed_up:.4g} is asked",
                hint=option("min_speed_up", _lower(_speed_up(item))),
                measured=_speed_up(item),
                allowed=limits.min_speed_up,
            )
        )
    return found


def _nearest(candidates: Sequence[Candidate], missed: dict[str, list[_Miss]]) -> BudgetError:
    """Name the candidate that misses the fewest limits, by the least."""
    near = min(
        candidates,
        key=lambda item: (
            len(missed[item.name]),
            max(miss.share for miss in missed[item.name]),
            item.name,
        ),
    )
    found = missed[near.name]
    return BudgetError(
        f"none of the {len(candidates)} candidates holds the limits; the nearest, {near.name}, "
        + " and ".join(miss.text for miss in found),
        measured=found[0].measured,
        allowed=found[0].allowed,
        hint=" ".join(miss.hint for miss in found),
    )


def _reason(
    chosen: Candidate,
    tier: Sequence[Candidate],
    close: Sequence[Candidate],
    allowed: Sequence[Candidate],
    limits: Limits,
) -> str:
    """Say in one sentence why: what it loses, how fast it is, and what decided among equals."""
    if limits.max_drop is not None:
        lost = f"it loses {max(chosen.loss, 0.0):.3g} of {limits.metric}, {limits.max_drop:.3g} may be lost"
    elif chosen.score is not None:
        lost = f"it loses no {limits.metric} beyond the noise"
    else:
        lost = f"its SQNR is above the floor of {chosen.min_sqnr_db:.4g} dB"
    fast = _speed_text(chosen, tier, allowed)
    if len(tier) == 1:
        return f"{chosen.name}: {lost}, and {fast}"
    if len(close) == 1:
        return f"{chosen.name}: {lost}, {fast}, and of those it has the best SQNR, {_db(chosen)}"
    smallest = f"of the {len(close)} within {SAME_DB:g} dB of the best SQNR it is the smallest, {size_text(chosen.bytes)}"
    if len({item.bytes for item in close}) == 1:
        smallest = f"of the {len(close)} within {SAME_DB:g} dB of the best SQNR it has the best, {_db(chosen)}"
    return f"{chosen.name}: {lost}, {fast}, and {smallest}"


def _speed_text(chosen: Candidate, tier: Sequence[Candidate], allowed: Sequence[Candidate]) -> str:
    if chosen.time_ratio is None:
        return "none was timed"
    own = f"takes {chosen.time_ratio:.2f} of the float model's time"
    if len(allowed) == 1:
        return f"it {own}"
    if not all(item.steady for item in tier):
        return f"the times of {len(tier)} were unsteady and count as equal"
    if len(tier) == 1:
        return f"it {own}, clearly less than any other that may be taken"
    return f"it {own}, as {'another does' if len(tier) == 2 else f'{len(tier) - 1} others do'}"


def _beside(item: Candidate, chosen: Candidate) -> str:
    if item.bytes > chosen.bytes:
        return f"larger, {ratio_text(item.bytes / chosen.bytes)} the bytes"
    return f"{chosen.sqnr_db - item.sqnr_db:.2g} dB less"


def _speed_up(item: Candidate) -> float:
    return 1 / item.time_ratio if item.time_ratio else 0.0


def _db(item: Candidate) -> str:
    return f"{item.sqnr_db:.1f} dB"


def _lower(value: float) -> float:
    return float(f"{0.95 * value:.2g}")


def _kib(size: int) -> str:
    return f"{-(-size // 1024)}KiB"
