"""Find which axes of inputs, state and context follow the batch and the sequence.

The prelude is run in eager PyTorch on example inputs of several sizes; an axis whose size changes
with the batch or the sequence is dynamic, the others are fixed.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.contract import LoopedProtocol, as_tuple

__all__ = ["Axes", "find_axes", "resize"]

TRACED_BATCH, TRACED_SEQUENCE = 2, 7
"""Sizes of the traced example: not 0 or 1, which torch.export would specialise."""
LONGEST_PROBE = 13

AxisNames = dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names of the dynamic axes, per tensor: axis number to ``batch``, ``sequence`` or ``dim_k``.

    ``traced_sequence`` is the length to trace at, ``fixed_sequence`` the only one that runs, if any.
    """

    inputs: tuple[AxisNames, ...]
    state: tuple[AxisNames, ...]
    context: tuple[AxisNames, ...]
    traced_sequence: int = TRACED_SEQUENCE
    fixed_sequence: int | None = None


def resize(tensor: Tensor, batch: int, sequence: int, names: AxisNames) -> Tensor:
    """Repeat or cut the axes of ``tensor`` named ``batch`` and ``sequence`` to the given sizes."""
    for axis, name in names.items():
        size = {"batch": batch, "sequence": sequence}.get(name)
        if size is not None:
            index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
            tensor = tensor.index_select(axis, index)
    return tensor


def find_axes(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    input_axes: tuple[AxisNames, ...] | None = None,
    *,
    longest: int | None = None,
) -> Axes:
    """Find the dynamic axes of a model by running its prelude and core on several sizes.

    Args:
        model: A module under the contract.
        example: Example inputs; axis 0 is the batch and axis 1 the sequence.
        input_axes: Says otherwise, per input.
        longest: The greatest sequence length that the model takes, where there is one.

    Returns:
        The axes; ``fixed_sequence`` is set when the model runs at one sequence length only.

    Raises:
        InputError: The model does not run on its own example.
    """
    inputs = input_axes or tuple(
        {axis: name for axis, name in ((0, "batch"), (1, "sequence")) if axis < tensor.dim()}
        for tensor in example
    )
    length = next(
        (
            tensor.shape[axis]
            for tensor, names in zip(example, inputs, strict=True)
            for axis, name in names.items()
            if name == "sequence"
        ),
        None,
    )
    try:
        return _probe(model, example, inputs, _probed_sizes(longest))
    except Exception as error:  # user code: any failure at another length means "fixed"
        if length is None:
            raise _broken(error) from error
        fixed = tuple(
            {axis: name for axis, name in names.items() if name != "sequence"} for names in inputs
        )
        try:
            axes = _probe(model, example, fixed, ((2, length), (3, length), (5, length)))
        except Exception:
            raise _broken(error) from error
        return replace(axes, traced_sequence=length, fixed_sequence=length)


def _probed_sizes(longest: int | None) -> tuple[tuple[int, int], ...]:
    """Return sizes to run at; a short model is traced below its end, where lengths still vary."""
    longest = LONGEST_PROBE if longest is None else min(longest, LONGEST_PROBE)
    traced = max(1, min(TRACED_SEQUENCE, longest - 1))
    middle = 11 if longest > 11 else max(1, traced - 1)
    return ((TRACED_BATCH, traced), (3, traced), (2, middle), (5, longest))


def _broken(error: Exception) -> InputError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(
        f"the model does not run on its example inputs: {reason[0]}",
        hint="pass example=(tensor, ...) with axis 0 the batch and axis 1 the sequence",
    )


def _probe(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    inputs: tuple[AxisNames, ...],
    sizes: tuple[tuple[int, int], ...],
) -> Axes:
    states: list[tuple[Tensor, ...]] = []
    contexts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        table = model.timestep_table(1)
        row = {name: values[0] for name, values in table.items()}
        for batch, sequence in sizes:
            resized = [
                resize(tensor, batch, sequence, names)
                for tensor, names in zip(example, inputs, strict=True)
            ]
            state, context = model.prelude(*resized)
            _check_state(as_tuple(state), as_tuple(model.core(state, context, row)))
            states.append(as_tuple(state))
            contexts.append(as_tuple(context))
    return Axes(
        inputs=inputs,
        state=_dynamic_axes(states, sizes),
        context=_dynamic_axes(contexts, sizes),
        traced_sequence=sizes[0][1],
    )


def _check_state(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> None:
    if len(before) != len(after):
        raise InputError(f"the core takes {len(before)} state tensors and returns {len(after)}")
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.shape != new.shape or old.dtype != new.dtype:
            raise InputError(
                f"the core changes state {i} from {old.dtype} {tuple(old.shape)} "
                f"to {new.dtype} {tuple(new.shape)}; the state must keep its shape and dtype",
                hint="move the change into the prelude or the coda",
            )


def _dynamic_axes(
    runs: list[tuple[Tensor, ...]], sizes: tuple[tuple[int, int], ...]
) -> tuple[AxisNames, ...]:
    named: list[AxisNames] = []
    for i in range(len(runs[0])):
        names: AxisNames = {}
        for axis in range(runs[0][i].dim()):
            lengths = [run[i].shape[axis] for run in runs]
            if len(set(lengths)) == 1:
                continue
            names[axis] = next(
                (
                    name
                    for place, name in enumerate(("batch", "sequence"))
                    if lengths == [size[place] for size in sizes]
                ),
                f"dim_{i}_{axis}",
            )
        named.append(names)
    return tuple(named)
