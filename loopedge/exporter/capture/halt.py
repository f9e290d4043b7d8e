"""What says that a batch row is done, as a module: `loop_node` asks it after each iteration."""

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.exporter.assembly import HaltPart
from loopedge.exporter.capture.axes import Axes
from loopedge.exporter.capture.capture import capture_halt, traced_inputs
from loopedge.exporter.capture.input_axes import AxisNames
from loopedge.exporter.exits import Exit
from loopedge.exporter.module.exported_module import ExportedModule
from loopedge.exporter.module.user_methods import run_user_code
from loopedge.graph.metadata import TOLERANCE_INPUT
from loopedge.model.contract import Tensors, as_tuple
from loopedge.options import option

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Halt", "capture_halt_part"]


class Halt(nn.Module):
    """Which batch rows are done, from the state after and before an iteration.

    Args:
        model: Its ``halt`` is asked where there is no tolerance.
        rule: When a row is done.
        axes: Of the model; they say which axes of the state are the batch and the sequence.
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
            tolerance: float32 (), instead of the rule's; 0: no batch row is done, even where nothing moves.
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
        """Refuse a state whose batch rows cannot be distinguished, and a halt that answers otherwise.

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
                    hint=option("exit", "none"),
                )
        if not batched:
            raise InputError(
                "an early exit needs a state with batch rows", hint=option("exit", "none")
            )
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
            raise InputError(
                f"halt must give bool {rows}, one value per batch row, it gives {given}"
            )


def capture_halt_part(halt: Halt, module: ExportedModule, axes: Axes, opset: int) -> HaltPart:
    """Capture what ends the loop; a padding mask and the tolerance are inputs of the graph.

    Raises:
        InputError: The batch rows of the state cannot be distinguished, or halt cannot be captured.
    """
    example = traced_inputs(module.example, axes)
    with torch.no_grad():
        state, _ = module.looped.prelude(*example)
    halt.check(state)
    state_axes: Any = axes.state[0] if isinstance(state, Tensor) else axes.state
    inputs: dict[str, Any] = {"state": state, "previous": state}
    shapes: dict[str, Any] = {"state": state_axes, "previous": state_axes}
    others: list[str] = []
    if halt.rule.tolerance is not None:
        if module.mask is not None:
            place = module.input_names.index(module.mask)
            inputs["mask"], shapes["mask"] = example[place], axes.inputs[place]
            others.append(module.mask)
        inputs["tolerance"] = torch.tensor(halt.rule.tolerance, dtype=torch.float32)
        shapes["tolerance"] = {}
        others.append(TOLERANCE_INPUT)
    return HaltPart(
        graph=capture_halt(halt, inputs, shapes, opset=opset),
        others=tuple(others),
    )
