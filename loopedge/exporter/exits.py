"""When a batch row of a model is done: read from an option, chosen for a model."""

import math
from dataclasses import dataclass

from loopedge.errors import InputError
from loopedge.graph.metadata import TOLERANCE_EXIT
from loopedge.options import option

__all__ = ["Exit", "choose_exit", "read_exit"]

HALT, NONE = "halt", "none"
EXAMPLE = f"{TOLERANCE_EXIT}1e-3"


@dataclass(frozen=True, slots=True)
class Exit:
    """When a batch row is done: by the model's own halt, or once its state changes by too little.

    ``tolerance`` is the largest relative change of its state that ends it; None: the model
    says itself.
    """

    tolerance: float | None = None

    def __str__(self) -> str:
        return HALT if self.tolerance is None else f"{TOLERANCE_EXIT}{self.tolerance!r}"


def read_exit(text: str | None) -> Exit | None:
    """Read ``tolerance=X`` or ``halt``; None for ``none``, and where nothing is asked for.

    Raises:
        InputError: The text is none of these.
    """
    if text is None or text == NONE:
        return None
    if text == HALT:
        return Exit()
    hint = f"{option('exit', EXAMPLE)}, {option('exit', HALT)} or {option('exit', NONE)}"
    if not str(text).startswith(TOLERANCE_EXIT):
        raise InputError(f"exit {text!r} is not known", hint=hint)
    try:
        tolerance = float(text.removeprefix(TOLERANCE_EXIT))
    except ValueError:
        raise InputError(f"exit {text!r}: the tolerance is not a number", hint=hint) from None
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"exit {text!r}: the tolerance must be finite and at least 0", hint=hint)
    return Exit(tolerance)


def choose_exit(text: str | None, model: object, form: str) -> Exit | None:
    """Return when a batch row of a model is done, None: never before the last iteration.

    Args:
        text: What `read_exit` reads; None asks for the model's own halt, if it has one.
        model: The model.
        form: Of the graph: an unrolled one cannot stop.

    Raises:
        InputError: The text cannot be read, the model has no halt, or the form cannot stop.
    """
    has_halt = callable(getattr(model, "halt", None))
    if text == HALT and not has_halt:
        raise InputError(
            f"{type(model).__name__} has no method halt(state, previous)",
            hint=option("exit", EXAMPLE),
        )
    rule = Exit() if text is None and has_halt else read_exit(text)
    if rule is not None and form == "unrolled":
        raise InputError(
            "a Loop that stops early has no unrolled form",
            hint=f"{option('exit', NONE)}, or {option('form', 'loop')}",
        )
    return rule
