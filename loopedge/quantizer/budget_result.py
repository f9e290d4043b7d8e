"""What an accuracy budget took: the linears that were lifted, and what their rounding does."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BudgetResult", "LiftedLinear", "LinearSensitivity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSensitivity:
    """Relative error of the outputs when this linear alone is rounded.

    ``error`` with all its iterations rounded; ``per_iteration`` with one of them, empty for a linear
    outside the core and for those that matter least.
    """

    name: str
    error: float
    per_iteration: list[float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftedLinear:
    """A linear or table that stands above its scheme, what that wins and what it costs.

    ``level``: ``weight-int8`` or ``float``. ``won``: loss without it, the others lifted, less the loss
    with it, in units of the metric. ``bytes`` and ``ms``: what the model with this one alone takes
    more than the model with none.
    """

    name: str
    level: str
    won: float
    bytes: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetResult:
    """How a budget was met.

    ``float_score`` and ``score`` are the task's metric of the float and of the final model; None for
    the relative error. ``loss_int8`` is the loss with every linear as the scheme has it, ``loss``
    that of the final model, at most ``max_drop``. ``sensitivity`` is empty where nothing was lifted.
    """

    metric: str
    max_drop: float
    samples: int
    float_score: float | None
    score: float | None
    loss_int8: float
    loss: float
    lifted: list[LiftedLinear]
    sensitivity: list[LinearSensitivity]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)
