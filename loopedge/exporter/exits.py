"""Early exit: what tells that a row is done; `loop_node` asks it after each iteration."""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.capture.axes import Axes, AxisNames
from loopedge.exporter.user_methods import run_user_code
from loopedge.model.contract import Tensors, as_tuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Exit", "Halt", "parse_exit"]

TOLERANCE = "tolerance="
HALT, NONE = "halt", "none"
HINT = "--exit tolerance=1e-3, --exit halt or --exit none"


@dataclass(frozen=True, slots=True)
class Exit:
    """When a row is done: by the model's own halt, or once its state changes by too little.

    ``tolerance`` is the largest relative change of a row's state that ends it; None: the model
    says itself.
    """

    tolerance: float | None = None

    def __str__(self) -> str:
        return HALT if self.tolerance is None else f"{TOLERANCE}{self.tolerance!r}"


def parse_exit(text: str | None, model: nn.Module, form: str) -> Exit | None:
    """Return when a row of a model is done, None: never before the last iteration.

    Args:
        text: What the user asked for.
        model: The model.
        form: Of the graph: an unrolled one cannot stop.

    Raises:
        InputError: The text cannot be read, the model has no halt, or the form cannot stop.
    """
    rule = _parse(text, model)
    if rule is not None and form == "unrolled":
        raise InputError(
            "a Loop that stops early has no unrolled form", hint="--exit none, or --form loop"
        )
    return rule


def _parse(text: str | None, model: nn.Module) -> Exit | None:
    """Read ``tolerance=X``, ``halt`` or ``none``; None asks for the model's own halt, if it has one."""
    has_halt = callable(getattr(model, "halt", None))
    if text == NONE or (text is None and not has_halt):
        return None
    if text == HALT or text is None:
        if not has_halt:
            raise InputError(
                f"{type(model).__name__} has no method halt(state, previous)",
                hint="--exit tolerance=1e-3",
            )
        return Exit()
    if not text.startswith(TOLERANCE):
        raise InputError(f"exit {text!r} is not known", hint=HINT)
    try:
        tolerance = float(text.removeprefix(TOLERANCE))
    except ValueError:
        raise InputError(f"exit {text!r}: the tolerance is no number", hint=HINT) from None
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"exit {text!r}: the tolerance must be finite and at least 0", hint=HINT)
    return Exit(tolerance)


class Halt(nn.Module):
    """Which rows are done, from the state after and before an iteration.

    Args:
        model: Its ``halt`` is asked where there is no tolerance.
        rule: When a row is done.
        axes: Of the model; they tell which axes of the state are the batch and the sequence.
    """

    def __init__(self, model: nn.Module, rule: Exit, axes: Axes) -> None:
        super().__init__()
        self.model = model
        self.rule = rule
        self.axes = axes.state
        self.fixed_sequence = axes.fixed_sequence

    def forward(
        self,
        state: Tensors,
        previous: Tensors,
        mask: Tensor | None = None,
        tolerance: Tensor | None = None,
    ) -> Tensor:
        """Return bool (batch,).

        Args:
            state: After the iteration.
            previous: Before it.
            mask: int64 (batch, sequence), 1 = keep: padded positions do not count as change.
            tolerance: float32 (), instead of the rule's; 0: no row is done, even where nothing moves.
        """
        if self.rule.tolerance is None:
            done: Tensor = self.model.halt(state, previous)  # type: ignore[operator]
            return done
        moved, size = self.norms(state, previous, mask)
        bound = torch.tensor(self.rule.tolerance) if tolerance is None else tolerance
        return (moved <= bound * size) & (bound > 0)

    def norms(
        self, state: Tensors, previous: Tensors, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the norm of the change and of the state before it, each float32 (batch,)."""
        moved, size = [], []
        for new, old, names in zip(as_tuple(state), as_tuple(previous), self.axes, strict=True):
            if not new.is_floating_point() or names.get(0) != "batch":
                continue
            change, before = new - old, old
            if mask is not None and self._follows_sequence(new, names):
                kept = mask.to(new.dtype).reshape(*mask.shape, *[1] * (new.dim() - 2))
                change, before = change * kept, before * kept
            rest = tuple(range(1, new.dim()))
            moved.append((change * change).sum(rest) if rest else change * change)
            size.append((before * before).sum(rest) if rest else before * before)
        return reduce(add, moved).sqrt(), reduce(add, size).sqrt()

    def _follows_sequence(self, state: Tensor, names: AxisNames) -> bool:
        if names.get(1) == "sequence":
            return True
        return self.fixed_sequence is not None and state.shape[1:2] == (self.fixed_sequence,)

    def check(self, state: Tensors) -> None:
        """Refuse a state whose rows cannot be told apart, and a halt that answers otherwise.

        Args:
            state: An example of it.

        Raises:
            InputError: No state has the batch as its first axis, or halt does not give bool (batch,).
        """
        batched = []
        for i, (tensor, names) in enumerate(zip(as_tuple(state), self.axes, strict=True)):
            if names.get(0) == "batch":
                batched.append(tensor)
            elif tensor.dim():
                raise InputError(
                    f"an early exit needs the batch as the first axis of every state, state {i} "
                    f"has shape {tuple(tensor.shape)}",
                    hint="--exit none",
                )
        if not batched:
            raise InputError("an early exit needs a state with rows", hint="--exit none")
        if self.rule.tolerance is not None:
            if not any(tensor.is_floating_point() for tensor in batched):
                raise InputError("no state with the batch as its first axis is floating point")
            return
        done: object = run_user_code(
            "halt", cast("Callable[..., object]", self.model.halt), state, state
        )
        rows = (batched[0].shape[0],)
        if not isinstance(done, Tensor) or done.shape != rows or done.dtype != torch.bool:
            given = f"{done.dtype} {tuple(done.shape)}" if isinstance(done, Tensor) else repr(done)
            raise InputError(f"halt must give bool {rows}, one value per row, it gives {given}")
