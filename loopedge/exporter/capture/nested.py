"""Inner loops of a core: find them while PyTorch runs, mark them while it is traced.

A core that calls `loopedge.inner_loop` is run once to see which inner loops it holds (`record`).
Where they shall become Loops of their own, the core is traced with a marker in the place of each
(`mark`), the body is captured like the core, and assembly puts a Loop where the marker stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.contract import Tensors, as_tuple
from loopedge.model.inner import InnerBody, run_inner, running_inner_loops

__all__ = ["MARKER", "MARKER_DOMAIN", "InnerCall", "mark", "record"]

MARKER_DOMAIN, MARKER = "loopedge", "InnerLoop"
"""Domain and type of the node that holds an inner loop's place in a captured graph."""

CALL, STATES = "call", "states"
"""Attributes of the marker: which inner loop it stands for, and how many inputs are its state."""


@dataclass(slots=True)
class InnerCall:
    """An inner loop as it was called: its body with the tensors of its first iteration."""

    body: InnerBody
    loops: int
    state: Tensors
    context: Tensors
    table: dict[str, Tensor]
    children: list["InnerCall"] = field(default_factory=list)


@contextmanager
def record() -> Iterator[list[InnerCall]]:
    """Run inner loops in PyTorch and yield the list that their calls are added to."""
    calls: list[InnerCall] = []
    with _recording(calls):
        yield calls


@contextmanager
def _recording(calls: list[InnerCall]) -> Iterator[None]:
    def run(
        body: InnerBody, loops: int, state: Tensors, context: Tensors, table: Mapping[str, Tensor]
    ) -> Tensors:
        call = InnerCall(body, loops, state, context, dict(table))
        calls.append(call)
        first = {name: values[:1] for name, values in table.items()}
        with _recording(call.children):
            after = run_inner(body, 1, state, context, first)
        _check_kept(as_tuple(state), as_tuple(after))
        with running_inner_loops(run_inner):  # the others are alike
            rest = {name: values[1:] for name, values in table.items()}
            return run_inner(body, loops - 1, after, context, rest)

    with running_inner_loops(run):
        yield


def _check_kept(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    if len(before) != len(after):
        raise InputError(
            f"an inner loop takes {len(before)} state tensors and its body returns {len(after)}"
        )
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.shape != new.shape or old.dtype != new.dtype:
            raise InputError(
                f"an inner loop changes its state {i} from {old.dtype} {tuple(old.shape)} to "
                f"{new.dtype} {tuple(new.shape)}; the state must keep its shape and dtype"
            )


@contextmanager
def mark(prefix: str) -> Iterator[None]:
    """Put a marker in the place of each inner loop; the k-th is called ``<prefix><k>``."""
    count = 0

    def run(
        body: InnerBody, loops: int, state: Tensors, context: Tensors, table: Mapping[str, Tensor]
    ) -> Tensors:
        nonlocal count
        states = as_tuple(state)
        outputs = torch.onnx.ops.symbolic_multi_out(
            f"{MARKER_DOMAIN}::{MARKER}",
            (*states, *as_tuple(context), *table.values()),
            attrs={CALL: f"{prefix}{count}", STATES: len(states)},
            dtypes=[tensor.dtype for tensor in states],
            shapes=[tensor.shape for tensor in states],
            version=1,
        )
        count += 1
        return outputs[0] if isinstance(state, Tensor) else tuple(outputs)

    with running_inner_loops(run):
        yield
