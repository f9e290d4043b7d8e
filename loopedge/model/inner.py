"""A loop inside the core: models that refine a second state several times per iteration."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.contract import Tensors

__all__ = ["InnerBody", "InnerRunner", "inner_loop", "run_inner", "running_inner_loops"]

State = TypeVar("State", bound=Tensors)
InnerBody = Callable[[Tensors, Tensors, dict[str, Tensor]], Tensors]
InnerRunner = Callable[[InnerBody, int, Tensors, Tensors, Mapping[str, Tensor]], Tensors]

_RUNNER: ContextVar[InnerRunner | None] = ContextVar("loopedge_inner_runner", default=None)


def inner_loop(
    body: Callable[[State, Any, dict[str, Tensor]], State],
    loops: int,
    state: State,
    context: Tensors = (),
    table: Mapping[str, Tensor] | None = None,
) -> State:
    """Apply ``body`` several times inside a core.

    In PyTorch this is a ``for`` loop. The exporter writes it out inside the body of the outer Loop,
    or as a Loop of its own (``inner="loop"``); a ``for`` loop of the user's own is always written
    out.

    Args:
        body: ``(state, context, row) -> state``; a method of the module or a function. It reads
            parameters and buffers of the module, and no tensor of the core but through its arguments.
        loops: How often it is applied, at least 1.
        state: Tensors that it carries; they keep their shapes and types.
        context: Tensors that it reads and that do not change.
        table: Constants per inner iteration, each of shape (loops, ...); may come from the row of
            the outer iteration.

    Returns:
        The last state.

    Raises:
        InputError: The count is below 1, or a table has another number of rows.
    """
    rows = dict(table or {})
    if loops < 1:
        raise InputError(f"an inner loop runs {loops} times, at least 1 is needed")
    for name, values in rows.items():
        if values.dim() < 1 or values.shape[0] != loops:
            raise InputError(
                f"the inner table {name} has shape {tuple(values.shape)}, axis 0 must be {loops}"
            )
    runner = _RUNNER.get() or run_inner
    return cast("State", runner(cast("InnerBody", body), loops, state, context, rows))


def run_inner(
    body: InnerBody, loops: int, state: Tensors, context: Tensors, table: Mapping[str, Tensor]
) -> Tensors:
    """Run an inner loop as PyTorch does: one iteration after the other."""
    rows = {name: values.unbind(0) for name, values in table.items()}
    for t in range(loops):
        state = body(state, context, {name: values[t] for name, values in rows.items()})
    return state


@contextlib.contextmanager
def running_inner_loops(runner: InnerRunner | None) -> Iterator[None]:
    """Let ``runner`` run the inner loops that the block meets: how the exporter sees them."""
    token = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(token)
