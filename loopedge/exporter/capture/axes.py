"""Find which axes of inputs, state and context follow the batch and the sequence.

The prelude and one step of the core are run in eager PyTorch on example inputs of several sizes; an axis whose size changes
with the batch or the sequence is dynamic, the others are fixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.exporter.capture.input_axes import (
    AxisNames,
    InputAxes,
    as_asked,
    names_of_sizes,
    resize,
    tell_apart,
)
from loopedge.exporter.capture.nested import InnerCall, record
from loopedge.exporter.module.user_methods import run_user_code
from loopedge.model.contract import LoopedProtocol, Tensors, as_tuple, copied, timestep_table_of

__all__ = ["LONGEST_CHECKED", "Axes", "InnerAxes", "find_axes", "resized"]

TRACED_BATCH, TRACED_SEQUENCE = 2, 7
"""Sizes of the traced example: not 0 or 1, which torch.export would specialise."""
LONGEST_PROBE = 13
REPEATS = 8
"""Times that a core is called to see whether it counts its calls: a few, so that export is flat in loops."""
HINT = "see docs/bring_your_own.md"
LONGEST_CHECKED = 29
"""The longest sequence that a written file is compared at."""
LONGER = (64, 128, 256, 512, 1024)
"""Sequences that are tried after it, to see where a model ends that does not name its `max_length`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerAxes:
    """Names of the dynamic axes of an inner loop's state and context, and of loops inside it."""

    state: tuple[AxisNames, ...]
    context: tuple[AxisNames, ...]
    children: tuple["InnerAxes", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names of the dynamic axes, per tensor: axis number to ``batch``, ``sequence``, a length of an input or ``dim_k``.

    ``traced_sequence`` is the length to trace at, ``fixed_sequence`` the only one that runs,
    ``longest`` the greatest that does, where there is one; ``fixed_place`` the input and its axis whose
    size is the fixed one. ``inner`` belong to the inner loops of the core, in the order in which it
    calls them.
    """

    inputs: InputAxes
    state: tuple[AxisNames, ...]
    context: tuple[AxisNames, ...]
    inner: tuple[InnerAxes, ...] = ()
    traced_sequence: int = TRACED_SEQUENCE
    fixed_sequence: int | None = None
    longest: int | None = None
    fixed_place: tuple[int, int] | None = None


def find_axes(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    names: Sequence[str],
    *,
    asked: object = None,
    tied: frozenset[int] = frozenset(),
    longest: int | None = None,
) -> Axes:
    """Find the dynamic axes of a model by running its prelude and core on several sizes.

    Args:
        model: A module under the contract.
        example: Example inputs; axis 0 is the batch and axis 1 the sequence, unless `tell_apart` finds otherwise.
        names: Of the inputs.
        asked: Says otherwise, as `as_asked` reads it.
        tied: As for `tell_apart`.
        longest: The greatest sequence length that the model takes, where it is known.

    Returns:
        The axes; ``fixed_sequence`` is set when the model runs at one sequence length only,
        ``longest`` when it runs up to a length that is shorter than what is checked.

    Raises:
        InputError: The model does not run on its own example, or its core changes the state's
            shape or type, or gives another result each time that it is called.
    """
    _run(model, example)
    _check_repeats(model, example)
    inputs = _input_axes(model, example, names, asked, tied)
    place = next(
        (
            (i, axis)
            for i, found in enumerate(inputs)
            for axis, name in found.items()
            if name == "sequence"
        ),
        None,
    )
    if place is None:
        return _probe(model, example, inputs, ((2, 1), (3, 1), (5, 1)))
    length = example[place[0]].shape[place[1]]
    reach = _reach(model, example, inputs, length, longest)
    if reach is None or reach > 1:
        axes = _probe(model, example, inputs, _probed_sizes(reach))
        return replace(axes, longest=reach)
    fixed = tuple(
        {axis: name for axis, name in found.items() if "sequence" not in name.split(" + ")}
        for found in inputs
    )
    axes = _probe(model, example, fixed, ((2, length), (3, length), (5, length)))
    return replace(
        axes,
        traced_sequence=length,
        fixed_sequence=length,
        longest=length,
        fixed_place=place,
    )


def _input_axes(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    names: Sequence[str],
    asked: object,
    tied: frozenset[int],
) -> InputAxes:
    """Return the names of the axes of the inputs: as they are asked for, else as they are found."""
    if isinstance(asked, tuple | list) and len(asked) == len(example):
        return as_asked(asked, example, names, ({},) * len(example))
    found = tell_apart(example, names, lambda inputs: _runs(model, inputs), tied)
    return found if asked is None else as_asked(asked, example, names, found)


def _runs(model: LoopedProtocol, inputs: tuple[Tensor, ...]) -> bool:
    try:
        _run(model, inputs)
    except Exception:  # user code: any failure means that it does not take these sizes
        return False
    return True


def _reach(
    model: LoopedProtocol,
    example: tuple[Tensor, ...],
    inputs: tuple[AxisNames, ...],
    length: int,
    longest: int | None,
) -> int | None:
    """Return the greatest length that runs, None without a limit, 1 when only ``length`` runs."""

    def runs(sequence: int) -> bool:
        batch = 2 if sequence <= LONGEST_CHECKED else 1
        return _runs(model, resized(example, inputs, batch, sequence))

    limit = LONGEST_CHECKED if longest is None else min(longest, LONGEST_CHECKED)
    other = TRACED_SEQUENCE if length != TRACED_SEQUENCE else TRACED_SEQUENCE - 1
    if not runs(min(other, limit)) or not runs(1):
        return 1
    known, failing = min(other, limit), limit
    if runs(limit):
        # The limit of a table of positions that the module does not name: longer inputs would fail in the file.
        tried = () if longest is not None else LONGER
        failing = next((size for size in tried if not runs(size)), 0)
        if not failing:
            return longest
        known = max(size for size in (limit, *LONGER) if size < failing)
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


def resized(
    example: tuple[Tensor, ...], inputs: InputAxes, batch: int, sequence: int
) -> tuple[Tensor, ...]:
    """Return example inputs for another batch and sequence; other lengths are those of `names_of_sizes`."""
    sizes = names_of_sizes(inputs, batch, sequence)
    return tuple(
        resize(tensor, sizes, names) for tensor, names in zip(example, inputs, strict=True)
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
    runs = [_run(model, resized(example, inputs, *size)) for size in sizes]
    named = [names_of_sizes(inputs, *size) for size in sizes]
    return Axes(
        inputs=inputs,
        state=_dynamic_axes([run.state for run in runs], named),
        context=_dynamic_axes([run.context for run in runs], named),
        inner=_inner_axes([run.calls for run in runs], named),
        traced_sequence=sizes[0][1],
    )


def _inner_axes(
    runs: Sequence[list[InnerCall]], sizes: Sequence[Mapping[str, int]]
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
    runs: list[tuple[Tensor, ...]], sizes: Sequence[Mapping[str, int]]
) -> tuple[AxisNames, ...]:
    named: list[AxisNames] = []
    for i in range(len(runs[0])):
        names: AxisNames = {}
        for axis in range(runs[0][i].dim()):
            lengths = [run[i].shape[axis] for run in runs]
            if len(set(lengths)) == 1:
                continue
            names[axis] = next(
                (name for name in sizes[0] if lengths == [size[name] for size in sizes]),
                f"dim_{i}_{axis}",
            )
        named.append(names)
    return tuple(named)
