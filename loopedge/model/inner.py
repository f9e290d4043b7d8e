"""A loop inside the core: models that refine a second state several times per iteration."""

from collections.abc import Callable, Mapping

from torch import Tensor

from loopedge.model.contract import Tensors

__all__ = ["inner_loop"]

InnerBody = Callable[[Tensors, Tensors, dict[str, Tensor]], Tensors]


def inner_loop(
    body: InnerBody,
    loops: int,
    state: Tensors,
    context: Tensors = (),
    table: Mapping[str, Tensor] | None = None,
) -> Tensors:
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
        The last state, in the form that ``body`` returns it.
    """
    rows = {name: values.unbind(0) for name, values in (table or {}).items()}
    for t in range(loops):
        state = body(state, context, {name: values[t] for name, values in rows.items()})
    return state
