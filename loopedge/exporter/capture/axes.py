"""Find which axes of inputs, state and context follow the batch and the sequence.

The prelude and one step of the core are run in eager PyTorch on example inputs of several sizes; an axis whose size changes
with the batch or the sequence is dynamic, the others are fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.exporter.capture.nested import InnerCall, record
from loopedge.exporter.module.user_methods import run_user_code
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple, copied, timestep_table_of

__all__ = ["LONGEST_CHECKED", "Axes", "InnerAxes", "find_axes", "resize"]

TRACED_BATCH, TRACED_SEQUENCE = 2, 7
"""Sizes of the traced example: not 0 or 1, which torch.export would specialise."""
LONGEST_PROBE = 13
REPEATS = 8
"""Times that a core is called to see whether it counts its calls: a few, so that export is flat in loops."""
HINT = "see docs/bring_your_own.md"
LONGEST_CHECKED = 29
"""The longest sequence that a written file is compared at."""

AxisNames = dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerAxes:
    """Names of the dynamic axes of an inner loop's state and context, and of loops inside it."""

    state: tuple[AxisNames, ...]
    context: tuple[AxisNames, ...]
    children: tuple["InnerAxes", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names of the dynamic axes, per tensor: axis number to ``batch``, ``sequence`` or ``dim_k``.

    ``traced_sequence`` is the length to trace at, ``fixed_sequence`` the only one that runs,
    ``longest`` the greatest that does, where there is one; ``fixed_place`` the input and its axis whose
    size is the fixed one. ``inner`` belong to the inner loops of the core, in the order in which it
    calls them.
    """

    inputs: tuple[AxisNames, ...]
    state: tuple[AxisNames, ...]
    context: tuple[AxisNames, ...]
    inner: tuple[InnerAxes, ...] = ()
    traced_sequence: int = TRACED_SEQUENCE
    fixed_sequence: int | None = None
    longest: int | None = None
    fixed_place: tuple[int, int] | None = None


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
        longest: The greatest sequence length that the model takes, where it is known.

    Returns:
        The axes; ``fixed_sequence`` is set when the model runs at one sequence length only,
        ``longest`` when it runs up to a length that is shorter than what is checked.

    Raises:
        InputError: The model does not run on its own example, or its core changes the state's
            shape or type, or gives another result each time that it is called.
    """
    if input_axes is not None:
        _check_input_axes(input_axes, example)
    inputs = input_axes or tuple(
        {axis: name for axis, name in ((0, "batch"), (1, "sequence")) if axis < tensor.dim()}
        for tensor in example
    )
    place = next(
        (
            (i, axis)
            for i, names in enumerate(inputs)
            for axis, name in names.items()
            if name == "sequence"
        ),
        None,
    )
    _run(model, example)
    _check_repeats(model, example)
    if place is None:
        return _probe(model, example, inputs, ((2, 1), (3, 1), (5, 1)))
    length = example[place[0]].shape[place[1]]
    reach = _reach(model, example, inputs, length, longest)
    if reach is None or reach > 1:
        axes = _probe(model, example, inputs, _probed_sizes(reach))
        return replace(axes, longest=reach)
    fixed = tuple(
        {axis: name for axis, name in names.items() if name != "sequence"} for names in inputs
    )
    axes = _probe(model, example, fixed, ((2, length), (3, length), (5, length)))
    return replace(
        axes,
        traced_sequence=length,
        fixed_sequence=length,
        longest=length,
        fixed_place=place,
    )


def _check_input_axes(input_axes: object, example: tuple[Tensor, ...]) -> None:
    """Refuse ``dynamic_shapes`` that do not say, per input, which axis is the batch or the sequence."""
    fine = (
        isinstance(input_axes, tuple | list)
        and len(input_axes) == len(example)
        and all(
            isinstance(names, dict)
            and all(isinstance(axis, int) and 0 <= axis < tensor.dim() for axis in names)
            and set(names.values()) <= {"batch", "sequence"}
            for names, tensor in zip(input_axes, example, strict=True)
        )
    )
    if not fine:
        raise InputError(
            f"dynamic_shapes is {input_axes!r}; per input a dict from axis to 'batch' or 'sequence' is "
            "needed",
            hint='dynamic_shapes=({0: "batch", 1: "sequence"},)',
        )


def _reach(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    inputs: tuple[AxisNames, ...],
    length: int,
    longest: int | None,
) -> int | None:
    """Return the greatest length that runs, None without a limit, 1 when only ``length`` runs."""

    def runs(sequence: int) -> bool:
        try:
            _run(model, _resized(example, inputs, 2, sequence))
        except Exception:  # user code: any failure means that it does not take this length
            return False
        return True

    limit = LONGEST_CHECKED if longest is None else min(longest, LONGEST_CHECKED)
    other = TRACED_SEQUENCE if length != TRACED_SEQUENCE else TRACED_SEQUENCE - 1
    if not runs(min(other, limit)) or not runs(1):
        return 1
    if runs(limit):
        return longest
    known, failing = min(other, limit), limit
    while failing - known > 1:
        middle = (known + failing) // 2
        known, failing = (middle, failing) if runs(middle) else (known, middle)
    return known


def _probed_sizes(longest: int | None) -> tuple[tuple[int, int], ...]:
    """Return sizes to run at; a short model is traced below its end, where lengths still vary."""
    longest = LONGEST_PROBE if longest is None else min(longest, LONGEST_PROBE)
    traced = max(1, min(TRACED_SEQUENCE, longest - 1))
    middle = 11 if longest > 11 else max(1, traced - 1)
    return ((TRACED_BATCH, traced), (3, traced), (2, middle), (5, longest))


def _resized(
    example: tuple[Tensor, ...], inputs: tuple[AxisNames, ...], batch: int, sequence: int
) -> tuple[Tensor, ...]:
    return tuple(
        resize(tensor, batch, sequence, names)
        for tensor, names in zip(example, inputs, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Ran:
    """What a prelude and one step of the core gave."""

    state: tuple[Tensor, ...]
    context: tuple[Tensor, ...]
    calls: list[InnerCall]


def _run(model: LoopedProtocol, inputs: tuple[Tensor, ...]) -> _Ran:
    row = _first_row(model)
    state, context = _start(model, inputs)
    with record() as calls:
        after = run_user_code("core", model.core, state, context, row)
    _check_tensors("core", "a state", after)
    if isinstance(after, Tensor) is not isinstance(state, Tensor):
        raise InputError(
            "the prelude gives one state as a tensor and the core as a tuple, or the other way round",
            hint="return the state in the same form from both",
        )
    _check_state(as_tuple(state), as_tuple(after))
    _check_tensors("coda", "outputs", run_user_code("coda", model.coda, after, context))
    return _Ran(as_tuple(state), as_tuple(context), calls)


def _first_row(model: LoopedProtocol) -> dict[str, Tensor]:
    table = run_user_code("timestep_table", timestep_table_of, model, 1)
    if not isinstance(table, dict) or not all(isinstance(v, Tensor) for v in table.values()):
        raise InputError("timestep_table must give a dict of tensors", hint=HINT)
    for name, values in table.items():
        if values.dim() < 1 or values.shape[0] != 1:
            raise InputError(
                f"timestep_table(1) gives {name} with shape {tuple(values.shape)}, axis 0 must be 1",
                hint=HINT,
            )
    return {name: values[0] for name, values in table.items()}


def _start(model: LoopedProtocol, inputs: tuple[Tensor, ...]) -> tuple[Tensors, Tensors]:
    """Run the prelude on copies: it may change its inputs in place."""
    given = run_user_code("prelude", model.prelude, *(tensor.clone() for tensor in inputs))
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError("the prelude must give (state, context)", hint=HINT)
    state, context = given
    _check_tensors("prelude", "a state", state)
    _check_tensors("prelude", "a context", context, empty=True)
    return state, context


def _check_tensors(method: str, what: str, given: object, *, empty: bool = False) -> None:
    fine = isinstance(given, Tensor) or (
        isinstance(given, tuple | list)
        and (empty or bool(given))
        and all(isinstance(item, Tensor) for item in given)
    )
    if not fine:
        kinds = ", ".join(type(item).__name__ for item in given) if isinstance(given, tuple) else ""
        raise InputError(
            f"the {method} must give {what} of tensors, a tensor or a tuple of them, it gives "
            f"{type(given).__name__}{f' of {kinds}' if kinds else ''}",
            hint=HINT,
        )


def _check_repeats(model: LoopedProtocol, example: tuple[Tensor, ...]) -> None:
    """Refuse methods that count their calls or draw random numbers."""
    row = _first_row(model)
    state, context = _start(model, example)
    for method, run, times in (
        ("prelude", lambda: _start(model, example), 1),
        ("core", lambda: model.core(copied(state), context, row), min(model.loops, REPEATS)),
        ("coda", lambda: model.coda(copied(state), context), 1),
    ):
        first = _flat(run_user_code(method, run))
        for _ in range(times):
            last = _flat(run_user_code(method, run))
        for old, new in zip(first, last, strict=True):
            if not torch.equal(torch.nan_to_num(old), torch.nan_to_num(new)):
                raise InputError(
                    f"the {method} gives another result each time it is called with the same "
                    "arguments: it counts its calls or draws random numbers",
                    hint="what differs by iteration goes through timestep_table, noise is an input; "
                    "see docs/bring_your_own.md",
                )


def _flat(given: object) -> tuple[Tensor, ...]:
    """Return copies of the tensors of a state, outputs, or a state and a context."""
    if isinstance(given, Tensor):
        return (given.clone(),)
    return tuple(tensor for item in given for tensor in _flat(item))  # type: ignore[attr-defined]


def _probe(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    inputs: tuple[AxisNames, ...],
    sizes: tuple[tuple[int, int], ...],
) -> Axes:
    runs = [_run(model, _resized(example, inputs, *size)) for size in sizes]
    return Axes(
        inputs=inputs,
        state=_dynamic_axes([run.state for run in runs], sizes),
        context=_dynamic_axes([run.context for run in runs], sizes),
        inner=_inner_axes([run.calls for run in runs], sizes),
        traced_sequence=sizes[0][1],
    )


def _inner_axes(
    runs: Sequence[list[InnerCall]], sizes: tuple[tuple[int, int], ...]
) -> tuple[InnerAxes, ...]:
    if len({len(calls) for calls in runs}) > 1:
        raise InputError(
            "the number of inner loops changes with the sizes of the inputs",
            hint="the core must call inner_loop equally often whatever its inputs",
        )
    return tuple(
        InnerAxes(
            state=_dynamic_axes([as_tuple(call.state) for call in calls], sizes),
            context=_dynamic_axes([as_tuple(call.context) for call in calls], sizes),
            children=_inner_axes([call.children for call in calls], sizes),
        )
        for calls in zip(*runs, strict=True)
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
