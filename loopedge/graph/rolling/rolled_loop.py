"""A Loop that was given back, in figures."""

from dataclasses import dataclass, field

__all__ = ["RolledLoop"]


@dataclass(slots=True, kw_only=True)
class RolledLoop:
    """A Loop that stands where its iterations were written out.

    Args:
        name: Of the Loop.
        iterations: How often it runs.
        nodes: Of its body.
        states: Values that one iteration hands to the next.
        tables: Timestep tables, and stacks of values that are computed before the Loop.
        context: Values of the graph around that every iteration reads, without stored ones.
        stacked: Outputs that hold a value of every iteration.
        peeled_first: Why a first iteration stands in front of it; None: it does not.
        peeled_last: Why a last iteration stands behind it.
        inner: Loops inside its body.
    """

    name: str
    iterations: int
    nodes: int
    states: int
    tables: int
    context: int
    stacked: int
    peeled_first: str | None = None
    peeled_last: str | None = None
    inner: list["RolledLoop"] = field(default_factory=list)
