"""Linears and tables that are worth another level than the scheme's: what the rounding of each does says which to try.

Roundings are independent, so the powers of their errors add. That foretells what lifting one wins; what a mix really
wins is measured like any other candidate.
"""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from loopedge.graph.core.names import loop_name
from loopedge.graph.weights import linears, stored_bytes
from loopedge.quantizer.budget_result import LinearSensitivity
from loopedge.quantizer.choice.rule import Limits, worth_bytes
from loopedge_calibration.budget import FLOAT, WEIGHT_INT8

__all__ = ["MOST_MIXES", "float_bytes_of", "gain_db", "plan_mixes"]

MOST_MIXES = 4
"""Mixes that are tried: the most promising."""
TOGETHER = 3
"""Linears that are lifted together at most."""
SAVED = 0.75
"""Share of a float weight that eight bits save."""


def gain_db(lifted: float, whole: float) -> float:
    """Return what an SQNR gains where a part of the power of the error goes."""
    rest = whole - lifted
    return math.inf if rest <= 0 else 10 * math.log10(whole / rest)


def plan_mixes(
    sensitivity: Sequence[LinearSensitivity],
    levels: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
    limits: Limits,
) -> list[dict[str, str]]:
    """Return which linears and tables are worth to be lifted, and how far.

    Args:
        sensitivity: The error that the rounding of each alone makes, the most sensitive first.
        levels: The levels of each that can be lifted, the lowest first.
        sizes: Bytes of their weights in float.
        limits: They hold the bytes of the float model.

    Returns:
        Of each mix the level of what is lifted in it, by name; those that lift least come first.
    """
    powers = {item.name: item.error**2 for item in sensitivity if item.name in levels}
    whole = sum(powers.values())
    if not whole > 0 or not math.isfinite(whole):
        return []
    chains = [
        _chain(powers, levels, sizes, limits, allowed)
        for allowed in ((FLOAT,), (FLOAT, WEIGHT_INT8), (WEIGHT_INT8,))
    ]
    mixes: list[dict[str, str]] = []
    for length in range(1, TOGETHER + 1):
        for chain in chains:
            mix = dict(chain[:length])
            if len(mix) == length and mix not in mixes:
                mixes.append(mix)
    mixes.sort(key=lambda mix: -gain_db(sum(powers[name] for name in mix), whole))
    return sorted(mixes[:MOST_MIXES], key=len)


def _chain(
    powers: Mapping[str, float],
    levels: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
    limits: Limits,
    allowed: Sequence[str],
) -> list[tuple[str, str]]:
    """Lift one after the other what wins most of what is left; each must be worth its bytes."""
    found: dict[str, str] = {}
    while len(found) < TOGETHER:
        left = {name: power for name, power in powers.items() if name not in found}
        rest = sum(left.values())
        steps = [
            (gain_db(power, rest), name, level)
            for name, power in left.items()
            for level in allowed
            if level in levels[name][1:]
            if worth_bytes(
                gain_db(power, rest), int(SAVED * sizes[name]) if level == FLOAT else 0, limits
            )
        ]
        if not steps:
            break
        _, name, level = min(steps, key=lambda step: (-step[0], step[2] != FLOAT, step[1]))
        found[name] = level
    return list(found.items())


def float_bytes_of(model: ir.Model, names: Sequence[str]) -> dict[str, int]:
    """Return the bytes of weights in float, by the name of the first linear that reads them, or of their table."""
    found: dict[str, int] = {}
    for item in linears(model):
        found.setdefault(loop_name(item.node), stored_bytes(item.weight))
    for name in names:
        held = model.graph.initializers.get(name)
        if name not in found and held is not None:
            found[name] = stored_bytes(held)
    return found
