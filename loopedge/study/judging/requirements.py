"""What a device allows, held against what was measured: the best model that fits, or the nearest miss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loopedge.study.judging.statements import Candidate, Requirements
from loopedge.study.options import UNLOOPED

if TYPE_CHECKING:
    from loopedge.study.judging.summary import Summary

__all__ = ["Limits", "check_requirements"]

MS_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is required; None where it is not.

    Args:
        memory_bytes: Most bytes at the peak, as the profile measures them.
        seconds: Most seconds of a sample, by the median.
        metric: The least good value of the metric on the test split that will do.
    """

    memory_bytes: int | None = None
    seconds: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A float or int8 model: what it reaches and takes."""

    candidate: Candidate
    kind: Literal["float", "int8"]
    rank: float
    measured: dict[str, float]


def check_requirements(
    summary: Sequence["Summary"], limits: Limits, *, higher_is_better: bool
) -> Requirements | None:
    """Return the best model that meets what is required, or the one that misses it by least.

    The best is chosen on the validation split; an int8 model's score there is that of its float model and the
    change that rounding makes on the test split. What is required of the metric is held against the test split.
    The miss of a model is its worst: by what part it passes a limit.

    Args:
        summary: Rows by arm and loop count; arms without a loop, those with lost runs and those without a
            measured cost are left out.
        limits: What is required.
        higher_is_better: The direction of the metric.

    Returns:
        None where nothing is required. ``missed`` has ``memory``, ``latency`` and ``metric``, measured and
        allowed, in bytes, seconds and the metric's unit.
    """
    allowed = {
        name: limit
        for name, limit in (
            ("memory", limits.memory_bytes),
            ("latency", limits.seconds),
            ("metric", limits.metric),
        )
        if limit is not None
    }
    if not allowed:
        return None
    models = [model for row in summary for model in _models(row)]
    if not models:
        return Requirements(meets=None, nearest=None, model=None, missed={})
    misses = [_misses(model, allowed, higher_is_better=higher_is_better) for model in models]
    sign = 1.0 if higher_is_better else -1.0
    fitting = [model for model, miss in zip(models, misses, strict=True) if not miss]
    if fitting:
        best = max(fitting, key=lambda model: sign * model.rank)
        return Requirements(meets=best.candidate, nearest=None, model=best.kind, missed={})
    nearest, miss = min(
        zip(models, misses, strict=True),
        key=lambda pair: (max(pair[1].values()), -sign * pair[0].rank),
    )
    missed = {name: (nearest.measured[name], allowed[name]) for name in miss}
    return Requirements(meets=None, nearest=nearest.candidate, model=nearest.kind, missed=missed)


def _models(row: "Summary") -> Iterator[_Model]:
    """Yield the models of an arm at a loop count that were scored and measured."""
    if row.arm in UNLOOPED or not row.is_whole or row.quality is None:
        return
    validation = list(row.validation.values()) or row.quality.values
    rank = sum(validation) / len(validation)
    change = 0.0 if row.int8_change is None else row.int8_change.mean
    kinds: tuple[tuple[Literal["float", "int8"], float, float | None], ...] = (
        ("float", rank, row.quality.mean),
        ("int8", rank + change, None if row.int8_quality is None else row.int8_quality.mean),
    )
    for kind, ranked, metric in kinds:
        if kind in row.cost and metric is not None:
            figures = row.cost[kind]
            yield _Model(
                candidate=Candidate(arm=row.arm, loops=row.loops),
                kind=kind,
                rank=ranked,
                measured={
                    "memory": figures["rss_peak_bytes"],
                    "latency": figures["latency_ms"]["p50"] / MS_PER_SECOND,
                    "metric": metric,
                },
            )


def _misses(
    model: _Model, allowed: dict[str, float], *, higher_is_better: bool
) -> dict[str, float]:
    """Return by what part a model passes each limit that it does not meet."""
    found = {}
    for name, limit in allowed.items():
        beyond = model.measured[name] - limit
        if name == "metric" and higher_is_better:
            beyond = -beyond
        if beyond > 0:
            found[name] = beyond / (abs(limit) or 1.0)
    return found
