"""The rule of static int8: how a linear is treated for the place where it stands.

| place | treatment |
|---|---|
| core | static, a range per iteration by the method that was asked for |
| reads raw inputs | float where it is small, else its weight alone in eight bits |
| reads what other linears of the prelude made of raw inputs, without a norm | as the last one |
| gives the outputs | its weight alone in eight bits; where blocks have no form, a range found at run time; in pairs as the next |
| others of prelude and coda | static, the smallest and largest value that were seen, and a margin |

Norms hold what the core reads, so ranges that were found on data hold there, and a margin would only coarsen
them. Nothing holds raw inputs: those of a series that rises leave every range. The error of the last linear is
that of the outputs (benchmarks/int8/held_out.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from loopedge.graph.core.names import loop_name
from loopedge.graph.weights import linears, stored_bytes
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.schemes.places import Place, places_of

__all__ = ["ByPlace", "Large", "Observing", "Treated", "observed_by", "treated", "treated_by_place"]

EDGE_METHOD, EDGE_MARGIN = "minmax", 1.25

SMALL_SHARE = 1 / 32
"""Of the bytes of all linears: a linear of raw inputs that takes no more stays float."""

Large = Literal["weight-int8", "dynamic", "pairs"]
"""How large linears outside of the core are treated; `treated_by_place`."""

READS_INPUTS = "it reads raw inputs, which may leave any range"
FOLLOWS_INPUTS = "it reads what other linears made of raw inputs, which may leave any range"
GIVES_OUTPUTS = "its error is that of the outputs"
OUTSIDE = "no iteration runs it: one range, with a margin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPlace:
    """A treatment that differs from the scheme's own, and why."""

    treatment: Literal["float", "weight-int8", "dynamic"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing:
    """How the range of what a linear reads is found: by a method, then widened by a margin."""

    method: str
    margin: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Treated:
    """A linear, by its name in the loop form, that is not treated as the scheme treats the core's.

    ``treatment``: ``float``, ``weight-int8``, ``dynamic``, or ``static``; then ``method`` and ``margin`` say how its range was found.
    """

    name: str
    treatment: Literal["float", "weight-int8", "dynamic", "static"]
    reason: str
    method: str | None = None
    margin: float | None = None


def treated_by_place(
    model: ir.Model, *, large: Large = "weight-int8", as_core: Collection[str] = ()
) -> dict[str, ByPlace]:
    """Return the linears that static int8 neither rounds nor leaves by one rule for all, by node name.

    Args:
        model: The float graph.
        large: What becomes of a large linear that may read anything, or gives the outputs: its weight alone is stored in
            integers; or the range of what it reads is found while it runs, over all that is in the batch; or, in pairs,
            its weight alone where it may read anything, and a range with a margin where it gives the outputs.
        as_core: Nodes that are treated as the core's, wherever they stand.
    """
    items = linears(model)
    whole = sum(stored_bytes(weight) for weight in {item.weight for item in items})
    places, found = places_of(model), dict[str, ByPlace]()
    otherwise: Literal["weight-int8", "dynamic"] = (
        "dynamic" if large == "dynamic" else "weight-int8"
    )
    for item in items:
        name = item.node.name or ""
        place: Place = "core" if name in as_core else places[name]
        small = stored_bytes(item.weight) <= SMALL_SHARE * whole
        if place == "inputs":
            found[name] = ByPlace(treatment="float" if small else otherwise, reason=READS_INPUTS)
        elif place == "unbounded":
            found[name] = ByPlace(treatment=otherwise, reason=FOLLOWS_INPUTS)
        elif place == "outputs" and large != "pairs":
            found[name] = ByPlace(treatment=otherwise, reason=GIVES_OUTPUTS)
    return found


def treated(
    coverage: Coverage,
    packed: Mapping[str, str],
    dynamic: Mapping[str, str],
    table: RangeTable | None,
    names: Mapping[str, str],
) -> list[Treated]:
    """Return what became of the linears that are not treated as the core's.

    Args:
        coverage: What was replaced and what was not.
        packed: Nodes whose weights alone were to be stored, with the reason.
        dynamic: Nodes whose ranges are found while they run, with the reason.
        table: The ranges of static int8.
        names: Of all nodes, their names in the loop form.
    """
    found: dict[str, Treated] = {}
    for name in coverage.quantized:
        general = names.get(name, name)
        known = None if table is None else table.tensors.get(general)
        if name in packed:
            found[general] = Treated(name=general, treatment="weight-int8", reason=packed[name])
        elif name in dynamic:
            found[general] = Treated(name=general, treatment="dynamic", reason=dynamic[name])
        elif known is not None and known.margin != 1:
            found[general] = Treated(
                name=general,
                treatment="static",
                reason=OUTSIDE,
                method=known.method,
                margin=known.margin,
            )
    for item in coverage.skipped:
        general = names.get(item.name, item.name)
        found[general] = Treated(name=general, treatment="float", reason=item.reason)
    return list(found.values())


def observed_by(
    model: ir.Model, method: str, *, as_core: Collection[str] = ()
) -> Mapping[str, Observing]:
    """Return how the range of each linear is found, by its name in the loop form.

    Args:
        model: The float graph.
        method: Of the core.
        as_core: Nodes that are treated as the core's, wherever they stand.
    """
    places, found = places_of(model), dict[str, Observing]()
    for item in linears(model):
        name = item.node.name or ""
        inside = places[name] == "core" or name in as_core
        own = Observing(method=method)
        edge = Observing(method=EDGE_METHOD, margin=EDGE_MARGIN)
        found.setdefault(loop_name(item.node), own if inside else edge)
    return found
