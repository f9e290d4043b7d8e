"""The contract every looped model fulfils: prelude, core and coda, and where iterations differ a timestep table."""

from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = [
    "LoopedModule",
    "LoopedProtocol",
    "StateSink",
    "Tensors",
    "as_tuple",
    "copied",
    "keep_halted",
    "run_loops",
    "timestep_table_of",
]

Tensors = Tensor | tuple[Tensor, ...]


class StateSink(Protocol):
    """What takes the states of a run, one after the other: a list, or what computes with them."""

    def append(self, state: Tensors, /) -> None:
        """Take the next state."""
        ...


@runtime_checkable
class LoopedProtocol(Protocol):
    """What the exporter, the trainer and the profiler see of any looped model.

    ``timestep_table`` is optional and so stands not here: `timestep_table_of` asks for it.
    """

    loops: int

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Map the inputs to ``(state, context)``: tensors or tuples of tensors."""
        ...

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Apply the looped block once; ``row`` is this iteration's timestep row: its constants by name."""
        ...

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Map the last state to the outputs."""
        ...


class LoopedModule(nn.Module):
    """Base class for modules under the contract; it supplies ``forward``.

    Subclasses set ``loops`` (the trained loop count) and define ``prelude``, ``core``, ``coda``
    and, where iterations differ, ``timestep_table``. The network that computes the table runs at
    export time only and never enters the graph.

    What else a subclass may have, each of it optional:

    - ``halt(state, previous) -> bool tensor (batch,)``: batch rows that are done. They keep their state
      from then on, and the loop ends when all are done. Axis 0 of every state is the batch.
    - ``example_inputs() -> tuple of tensors``: what is traced; axis 0 batch, axis 1 sequence.
    - ``input_names``, ``output_names``: tuples of str, names in the exported graph.
    - ``max_length``: int, positions that it takes at most.
    - ``min_length``: int, fewest positions that it was trained on.
    - ``dynamic_shapes``: per input a dict, axis to ``"batch"``, ``"sequence"`` or another name.
    - ``loop_range``: (least, most) loop counts it was trained with, where there are several.
    - ``notes``: tuple of str, what export says besides.
    - ``random_inputs``: dict, name of an input that holds noise to its standard deviation.
    """

    loops: int
    notes: tuple[str, ...] = ()

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Map the inputs to ``(state, context)``: tensors or tuples of tensors."""
        raise NotImplementedError(f"{type(self).__name__}.prelude")

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Apply the looped block once; ``row`` is this iteration's timestep row, empty without a table."""
        raise NotImplementedError(f"{type(self).__name__}.core")

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Map the last state to the outputs."""
        raise NotImplementedError(f"{type(self).__name__}.coda")

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        """Return per-iteration constants, each of shape (loops, ...); may be empty."""
        return {}

    def forward(self, *inputs: Tensor, **options: Any) -> Tensors:
        """Run prelude, the iterations of the core and coda; the options are those of `run_loops`."""
        return run_loops(self, *inputs, **options)


def run_loops(
    model: nn.Module,
    *inputs: Tensor,
    loops: int | None = None,
    backprop_loops: int | None = None,
    states: StateSink | None = None,
) -> Tensors:
    """Run any module that has the contract's methods, in eager PyTorch.

    Args:
        model: A module with prelude, core, coda and loops; timestep_table where iterations differ.
        inputs: What the prelude takes.
        loops: How often the core is applied; default: the trained count.
        backprop_loops: Iterations, the last ones, that gradients flow through. The gradient of the
            earlier ones is taken to be the identity, what a residual stream hands through unchanged,
            so that the prelude still learns. Default: all.
        states: A list, or what else has its ``append``: takes the first state, and that after each iteration.

    Returns:
        What the coda returns.
    """
    looped = cast("LoopedProtocol", model)
    loops = looped.loops if loops is None else loops
    cut = 0 if backprop_loops is None else max(0, loops - backprop_loops)
    halt = getattr(model, "halt", None)
    state, context = looped.prelude(*inputs)
    first = state
    table = timestep_table_of(model, loops)
    rows = {name: values.unbind(0) for name, values in table.items()}
    done: Tensor | None = None
    if states is not None:
        states.append(state)
    for t in range(loops):
        previous = state
        row = {name: values[t] for name, values in rows.items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() and t >= cut):
            state = looped.core(state, context, row)
        if t + 1 == cut:
            state = _with_gradient_of(first, state)
        if states is not None:
            states.append(state)
        if halt is None:
            continue
        state = keep_halted(done, previous, state)
        halted = halt(state, previous)
        done = halted if done is None else done | halted
        if bool(done.all()):
            break
    return looped.coda(state, context)


def timestep_table_of(model: object, loops: int) -> dict[str, Tensor]:
    """Return the timestep table of a module under the contract; empty where it has no ``timestep_table``.

    Args:
        model: A module with the contract's methods.
        loops: How many timestep rows are asked for.

    Returns:
        Per-iteration constants by name, each of shape (loops, ...).

    Unchecked: that the module's own method gives tensors of such shapes.
    """
    method = getattr(model, "timestep_table", None)
    return {} if method is None else cast("dict[str, Tensor]", method(loops))


def _with_gradient_of(first: Tensors, state: Tensors) -> Tensors:
    """Return ``state`` with the gradient that ``first`` has."""
    joined = tuple(
        old + (new - old).detach() if old.is_floating_point() else new
        for old, new in zip(as_tuple(first), as_tuple(state), strict=True)
    )
    return joined[0] if isinstance(state, torch.Tensor) else joined


def keep_halted(done: Tensor | None, previous: Tensors, state: Tensors) -> Tensors:
    """Return ``state``, but ``previous`` in the batch rows that are done.

    Args:
        done: bool (batch,); None: none is.
        previous: State before the iteration.
        state: State after it; axis 0 of every tensor is the batch, a scalar has none to keep.
    """
    if done is None:
        return state
    kept = tuple(
        torch.where(done.reshape(-1, *[1] * (new.dim() - 1)), old, new) if new.dim() else new
        for old, new in zip(as_tuple(previous), as_tuple(state), strict=True)
    )
    return kept[0] if isinstance(state, torch.Tensor) else kept


def copied(tensors: Tensors) -> Tensors:
    """Return copies, in the same form: code may change its arguments in place, or alias them."""
    if isinstance(tensors, torch.Tensor):
        return tensors.clone()
    return tuple(tensor.clone() for tensor in tensors)


def as_tuple(tensors: Tensors) -> tuple[Tensor, ...]:
    """Return a tensor or a tuple of tensors as a tuple."""
    return (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
