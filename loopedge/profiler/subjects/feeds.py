"""The inputs that a model is measured on: those of a file, or generated ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.files.arrays import read_array_file
from loopedge.graph.inputs import chooses_loops, generate_inputs, generated_bytes
from loopedge.graph.metadata import (
    LOOPS_INPUT,
    Metadata,
    read_metadata,
)
from loopedge.profiler.machine import free_bytes
from loopedge.runtime.inputs import MASK, named_columns
from loopedge.units import size_text

__all__ = ["profile_feeds"]

Array = npt.NDArray[Any]


def profile_feeds(
    graph: ir.Model,
    path: str | Path,
    input: str | Path | None,
    *,
    batch: int,
    sequence: int | None,
    loops: int | None,
    seed: int,
) -> dict[str, Array]:
    """Return one array per input of a graph.

    Args:
        graph: The model.
        path: Its file, for messages.
        input: File with the arrays, as `loopedge.files.arrays.read_array_file`, the columns of a CSV by name as
            `loopedge run` takes them; None generates them.
        batch: Size of the batch axis of generated inputs.
        sequence: Size of the sequence axis; None: as trained.
        loops: Iterations, for a model with a selectable count.
        seed: Of the generated inputs.

    Raises:
        InputError: The file does not fit the model, inputs cannot be guessed or are larger than the
            free memory, or the model does not run so many loops.
    """
    values = {
        value.name or "": value
        for value in graph.graph.inputs
        if value.name not in graph.graph.initializers
    }
    counts = any(chooses_loops(value) for value in values.values())
    _check_loops(graph, path, loops, selectable=counts)
    if input is None:
        _check_size(graph, path, batch=batch, sequence=sequence)
        return generate_inputs(
            graph, batch=batch, sequence=sequence, loops=loops, seed=seed, most_bytes=None
        )
    metadata = read_metadata(graph.metadata_props)
    asked = {name: value for name, value in values.items() if not chooses_loops(value)}
    given = _read(input, asked, metadata)
    feeds = {name: _fitting(name, given, value, path, input) for name, value in asked.items()}
    _check_axes(feeds, metadata, path, input, batch=batch, sequence=sequence)
    if counts:
        count = loops or metadata.loops or 1
        feeds[LOOPS_INPUT] = np.array(count, np.int64)
    return feeds


def _check_loops(graph: ir.Model, path: str | Path, loops: int | None, *, selectable: bool) -> None:
    if loops is None:
        return
    metadata = read_metadata(graph.metadata_props)
    if selectable:
        # Past it the graph ends earlier, and its figures would stand under a count that never ran.
        most = metadata.max_loops or int(np.iinfo(np.int64).max)
        if loops > most:
            raise InputError(
                f"{path} runs at most {most} loops, {loops} were asked for", hint=f"--loops {most}"
            )
        return
    fixed = metadata.loops
    if loops != fixed:
        raise InputError(
            f"{path} runs {fixed or 'a fixed number of'} loops, {loops} were asked for",
            hint="loopedge export model.pt --dynamic-loops",
        )


def _check_size(graph: ir.Model, path: str | Path, *, batch: int, sequence: int | None) -> None:
    """Refuse inputs that would take this process's memory, before the system ends it.

    Raises:
        InputError: The largest does not fit into the free memory.
    """
    needed, free = generated_bytes(graph, batch=batch, sequence=sequence), free_bytes()
    if needed > free:
        raise InputError(
            f"an input of {path} takes {size_text(needed)} at batch {batch}, {size_text(free)} are free",
            hint="--batch 1",
        )


def _check_axes(
    feeds: Mapping[str, Array],
    metadata: Metadata,
    path: str | Path,
    input: str | Path,
    *,
    batch: int,
    sequence: int | None,
) -> None:
    """Refuse sizes that a file of inputs does not have, and more positions than the model takes.

    Raises:
        InputError: It is so.
    """
    first = next(iter(feeds.values()), np.zeros(()))
    rows, positions = (*first.shape, None, None)[:2]
    told = batch if batch > 1 else None  # one is the default
    for name, asked, held in (("batch", told, rows), ("sequence", sequence, positions)):
        if asked not in {None, held}:
            raise InputError(
                f"{input} has {name} {held}, {asked} were asked for", hint=f"leave --{name} out"
            )
    limit = metadata.max_length
    if limit is not None and positions is not None and positions > limit:
        raise InputError(f"{input} has {positions} positions, {path} takes at most {limit}")


def _read(input: str | Path, asked: Mapping[str, ir.Value], metadata: Metadata) -> dict[str, Array]:
    """Return the arrays of a file; a mask that it lacks keeps every position."""
    filled = set() if metadata.foreign else {MASK} & asked.keys()
    given = read_array_file(
        input,
        {name: _rank(value) for name, value in asked.items() if name not in filled},
        missing=metadata.missing_values,
        columns=named_columns(metadata),
    ).arrays
    first = next(iter(given.values()), None)
    if first is not None:
        for name in filled - given.keys():
            given[name] = np.ones(first.shape[:2], np.int64)
    return given


def _rank(value: ir.Value) -> int:
    return 2 if value.shape is None else len(value.shape)


def _fitting(
    name: str,
    given: Mapping[str, Array],
    value: ir.Value,
    path: str | Path,
    input: str | Path,
) -> Array:
    """Return the array of an input in the type that the model takes.

    Raises:
        InputError: It is missing, or has another rank, shape or kind.
    """
    if name not in given:
        held = ", ".join(given) or "nothing"
        raise InputError(f"{input} holds no array {name}, which {path} takes; it holds {held}")
    array = given[name]
    if value.shape is not None:
        wanted = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
        fixed = [(have, want) for have, want in zip(array.shape, wanted, strict=False)]
        if len(array.shape) != len(wanted) or any(
            isinstance(want, int) and have != want for have, want in fixed
        ):
            text = ", ".join(map(str, wanted))
            raise InputError(f"{input}: {name} has shape {array.shape}, {path} takes ({text})")
    if 0 in array.shape:
        raise InputError(f"{input}: {name} is empty: shape {array.shape}")
    dtype = None if value.dtype is None else value.dtype.numpy()
    if dtype is None or (value.dtype == ir.DataType.STRING and array.dtype.kind == "U"):
        return array
    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise InputError(f"{input}: {name} has type {array.dtype}, {path} takes {dtype}")
    return array.astype(dtype)
