"""Generate inputs to a graph's shapes: what checks and measurements run on when no data is given."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.metadata import TOLERANCE_INPUT, read_metadata
from loopedge.graph.signature import NUMPY_KINDS, TEXT, InputSpec

__all__ = [
    "DEFAULT_SEQUENCE",
    "GeneratedInputs",
    "axes_of",
    "chooses_loops",
    "chooses_tolerance",
    "default_sequence",
    "first_samples",
    "generate_inputs",
    "generated_bytes",
    "input_specs",
    "inputs_to_check",
    "sample_count",
    "scaling_of",
    "takes_missing",
]

Array = npt.NDArray[Any]

DEFAULT_SEQUENCE = 128
"""Positions where neither the caller nor the artifact names a length."""
MOST_GENERATED = 1 << 30
"""Bytes that inputs take while they are drawn, where no figure of the machine says else."""

DRAWN_BYTES = 16
"""Of an element while it is drawn: as 64 bits, and as the input takes it."""
BATCH_AXES = ("batch", "batch_size")
"""What loopedge, and exporters of others, call the axis of samples."""
MISSING_SHARE = 0.125
"""Share of NaN in generated inputs that may miss values."""


def takes_missing(value: ir.Value) -> bool:
    """Tell whether a graph asks its input which values are NaN: there it stands for a missing one."""
    return any(node.op_type == "IsNaN" for node in value.consumers())


def chooses_loops(value: ir.Value) -> bool:
    """Tell whether an input is the loop count, as `InputSpec.chooses_loops`."""
    return _spec(value).chooses_loops


def chooses_tolerance(value: ir.Value) -> bool:
    """Tell whether an input of an artifact that a tolerance ends is that tolerance: float32 () of that name."""
    return value.name == TOLERANCE_INPUT and _is_scalar(value, ir.DataType.FLOAT)


def _is_scalar(value: ir.Value, dtype: ir.DataType) -> bool:
    return value.dtype == dtype and value.shape is not None and len(value.shape) == 0


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """Return what the array of each input of a graph must be, in the order of the inputs."""
    return tuple(_spec(value) for value in model.graph.inputs)


def _spec(value: ir.Value) -> InputSpec:
    dtype = None
    if value.dtype == ir.DataType.STRING:
        dtype = TEXT
    elif value.dtype is not None and value.dtype.numpy().kind in NUMPY_KINDS:
        dtype = value.dtype.numpy()
    rows = _table_rows(value)
    return InputSpec(
        name=value.name or "",
        dtype=dtype,
        shape=None if value.shape is None else tuple(_axes(value)),
        has_default=value.graph is not None and value.name in value.graph.initializers,
        ids=rows if dtype is not None and dtype.kind in "iu" else None,
        is_trip_count=dtype is not None and dtype.kind in "iu" and _is_trip_count(value),
    )


COUNTING = {"Cast", "Clip", "Identity", "Max", "Min", "Reshape", "Squeeze"}
"""What a loop count may pass through on its way to the Loop, and stay one."""


def _is_trip_count(value: ir.Value) -> bool:
    """Tell whether an input of one element, () or (1,), is the trip count of a Loop."""
    if value.shape is None or list(value.shape) not in ([], [1]):
        return False
    waiting = [value]
    for current in waiting:
        for node, place in current.uses():
            if node.op_type == "Loop" and place == 0 and not node.domain:
                return True
            if node.op_type in COUNTING and not node.domain:
                waiting.append(node.outputs[0])
    return False


def _axes(value: ir.Value) -> list[int | str | None]:
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]


def axes_of(model: ir.Model) -> dict[str, list[int | str | None]]:
    """Return the sizes and names of the axes of each input."""
    return {value.name or "": _axes(value) for value in model.graph.inputs}


def first_samples(
    feeds: Mapping[str, Array], shapes: Mapping[str, Sequence[Any]], count: int
) -> dict[str, Array]:
    """Return the first samples of a batch, along the axis that each input calls its batch.

    Inputs that call no axis so, as those of other tools' graphs may, are returned as they are: their first axis may be
    anything, and so are all where a size is computed from the batch.

    Args:
        feeds: Arrays by input.
        shapes: By input, the sizes and names of its axes.
        count: Samples at most.
    """
    names = {str(axis) for shape in shapes.values() for axis in shape if not isinstance(axis, int)}
    if any(name not in BATCH_AXES and any(part in name for part in BATCH_AXES) for name in names):
        return dict(feeds)
    return {name: array[_slices(shapes.get(name, ()), count)] for name, array in feeds.items()}


def sample_count(feeds: Mapping[str, Array], shapes: Mapping[str, Sequence[Any]]) -> int:
    """Return the size of the axis that an input calls its batch, else of the first axis there is."""
    for name, array in feeds.items():
        for size, axis in zip(array.shape, shapes.get(name, ()), strict=False):
            if str(axis) in BATCH_AXES:
                return int(size)
    return next((len(array) for array in feeds.values() if np.ndim(array)), 1)


def _slices(shape: Sequence[Any], count: int) -> tuple[slice, ...]:
    return tuple(slice(count if str(axis) in BATCH_AXES else None) for axis in shape)


def default_sequence(model: ir.Model) -> int:
    """Return the sequence length a model was trained for, or `DEFAULT_SEQUENCE`; no more than it takes."""
    metadata = read_metadata(model.metadata_props)
    length = metadata.trained_length or DEFAULT_SEQUENCE
    return length if metadata.max_length is None else min(length, metadata.max_length)


def generated_bytes(model: ir.Model, *, batch: int = 1, sequence: int | None = None) -> int:
    """Return the memory that `generate_inputs` takes at most at once for its largest input, in bytes."""
    sequence = sequence or default_sequence(model)
    foreign = read_metadata(model.metadata_props).foreign_inputs
    named: dict[str, int] = {}
    return max(
        (
            DRAWN_BYTES * math.prod(_sizes(value, batch, sequence, named, foreign=foreign))
            for value in model.graph.inputs
            if value.name not in model.graph.initializers
        ),
        default=0,
    )


def generate_inputs(
    model: ir.Model,
    *,
    batch: int = 1,
    sequence: int | None = None,
    loops: int | None = None,
    seed: int = 0,
    most_bytes: int | None = MOST_GENERATED,
) -> dict[str, Array]:
    """Make seeded inputs of the kinds that a graph takes.

    Token ids are drawn from the rows of the embedding that they select, continuous inputs from a
    normal distribution in the raw units of the scaling that the graph holds, some of them NaN where
    that stands for a missing value; masks keep all.

    Args:
        model: The graph.
        batch: Size of the first dynamic axis.
        sequence: Size of the second; default: the trained length.
        loops: Value of the input that chooses the loop count; default: the exported one.
        seed: Of the generator.
        most_bytes: Memory that drawing them may take; None where the caller has checked that.

    Returns:
        One array per input of the graph.

    Raises:
        InputError: The model takes fewer positions, or an input has an unknown shape or type.
    """
    metadata = read_metadata(model.metadata_props)
    sequence = sequence or default_sequence(model)
    limit = metadata.max_length
    if limit is not None and sequence > limit:
        raise InputError(f"sequence is {sequence}, the model takes at most {limit}")
    needed = generated_bytes(model, batch=batch, sequence=sequence)
    if most_bytes is not None and needed > most_bytes:
        raise InputError(
            f"the model's inputs take {needed:,} bytes to draw at batch {batch}, at most {most_bytes:,} are "
            "drawn"
        )
    generator = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    named: dict[str, int] = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if name in model.graph.initializers:
            continue
        if chooses_loops(value):
            made[name] = _spec(value).loop_count(loops or metadata.loops or UNKNOWN_LOOPS)
            continue
        if metadata.tolerance is not None and chooses_tolerance(value):
            made[name] = np.array(metadata.tolerance, np.float32)
            continue
        shape = _sizes(value, batch, sequence, named, foreign=metadata.foreign_inputs)
        made[name] = _input(value, shape, generator)
        if name in metadata.random_inputs:
            made[name] *= made[name].dtype.type(metadata.random_inputs[name])
    return made


@dataclass(frozen=True, slots=True)
class GeneratedInputs:
    """Generated inputs that a rewritten file is compared with its source on; ``name`` says which."""

    name: str
    feeds: dict[str, Array]


def inputs_to_check(
    model: ir.Model, longest: int, *, fixed: Mapping[str, int] | None = None
) -> list[GeneratedInputs]:
    """Generate inputs of several sizes, and where they can be chosen, of several loop counts and exits.

    Args:
        model: The graph.
        longest: Positions of the longest.
        fixed: Loop counts that are not chosen, by input.

    Raises:
        InputError: As `generate_inputs`.
    """
    checks = []
    fixed = fixed or {}
    specs = [spec for spec in input_specs(model) if spec.chooses_loops]
    counts = [spec for spec in specs if spec.name not in fixed]
    held = {spec.name: spec.loop_count(fixed[spec.name]) for spec in specs if spec.name in fixed}
    stops = read_metadata(model.metadata_props).tolerance is not None
    for seed, (batch, sequence) in enumerate(((1, 1), (1, longest), (3, 1), (3, longest))):
        feeds = generate_inputs(model, batch=batch, sequence=sequence, seed=seed) | held
        name = f"batch {batch}, sequence {sequence}"
        checks.append(GeneratedInputs(name, feeds))
        if counts:
            once = {**feeds, **{spec.name: spec.loop_count(1) for spec in counts}}
            checks.append(GeneratedInputs(f"{name}, loops 1", once))
        if stops:
            never = {**feeds, TOLERANCE_INPUT: np.array(0, np.float32)}
            checks.append(GeneratedInputs(f"{name}, tolerance 0", never))
    return checks


def _sizes(
    value: ir.Value, batch: int, sequence: int, named: dict[str, int], *, foreign: bool = True
) -> tuple[int, ...]:
    """Return the shape of a generated input; the lengths that an artifact names otherwise are like the sequence's.

    Axes of one name have one size in all inputs: ``named`` holds those that have one, and takes more.
    """
    if value.shape is None:
        raise InputError(f"input {value.name} has an unknown rank")
    free = iter((batch, sequence))
    sizes = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            sizes.append(dim)
            if axis == 0:
                next(free)  # a fixed batch: the next free axis is still the sequence
        else:
            known = {"batch": batch, "sequence": sequence}
            own = None if foreign else sequence
            parts = [known.get(part, own) for part in str(dim.value).split(" + ")]
            whole = [part for part in parts if part is not None]
            if len(whole) == len(parts):
                sizes.append(sum(whole))
                continue
            size = next(free, 1)
            sizes.append(size if dim.value is None else named.setdefault(str(dim.value), size))
    return tuple(sizes)


def _input(value: ir.Value, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    dtype = value.dtype
    if dtype is None:
        raise InputError(f"input {value.name} has an unknown type")
    kind = value.type.elem_type if isinstance(value.type, ir.OptionalType) else value.type
    if not isinstance(kind, ir.TensorType | ir.DataType):
        raise InputError(f"input {value.name} is not a tensor: {value.type}")
    if dtype == ir.DataType.STRING:
        raise InputError(f"input {value.name} holds text, which cannot be guessed")
    if dtype.numpy().kind not in NUMPY_KINDS:
        raise InputError(f"input {value.name} has type {dtype.name}, which numpy does not have")
    ids = _table_rows(value) or FLAGS
    if "mask" in (value.name or "") and (not dtype.is_integer() or ids <= FLAGS):
        return np.ones(shape, dtype.numpy())
    if dtype.is_integer():
        return generator.integers(0, ids, shape).astype(dtype.numpy())
    if dtype == ir.DataType.BOOL:
        return np.ones(shape, np.bool_)
    mean, scale = (scaling_of(value, name) for name in ("input_mean", "input_scale"))
    drawn = generator.standard_normal(shape)
    if scale is not None and mean is not None:
        drawn = drawn * scale + mean
    if takes_missing(value):
        drawn[generator.random(shape) < MISSING_SHARE] = np.nan
    return drawn.astype(dtype.numpy())


UNKNOWN_LOOPS = 3
"""Iterations of a model whose loop count is an input, and stands nowhere."""
FLAGS = 2
"""Values of an integer input that gathers nothing: 0 and 1."""
SAME_VALUES = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose output holds the values of their first input."""
GATHERS = {"Gather": "axis", "GatherBlockQuantized": "gather_axis"}
"""Operators that read rows of a table, and their attribute for the axis."""


def _table_rows(value: ir.Value) -> int | None:
    """Return how many ids an input may name: the rows, or columns, of the table that it gathers, if it does."""
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop()
        for node in current.consumers():
            table = node.inputs[0] if node.op_type in GATHERS else None
            if table is not None and table.const_value is not None and table is not current:
                shape = table.const_value.shape.numpy()
                axis = node.attributes.get_int(GATHERS[node.op_type], 0)
                return int(shape[axis]) if -len(shape) <= axis < len(shape) else None
            reads = bool(node.inputs) and node.inputs[0] is current
            if reads and node.op_type in SAME_VALUES and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return None


def scaling_of(value: ir.Value, name: str) -> Array | None:
    """Return ``input_mean`` or ``input_scale`` of the training data, float (features,); None where it is not known."""
    stored = None if value.graph is None else value.graph.initializers.get(name)
    if stored is None or stored.const_value is None:
        return None
    array = stored.const_value.numpy()
    sizes = _axes(value)
    return array if sizes and array.shape[-1:] == (sizes[-1],) else None
