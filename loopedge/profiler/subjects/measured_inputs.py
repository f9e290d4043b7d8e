"""The inputs that a model is measured on: those of a file, or generated ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.inputs import generate_inputs, generated_bytes, input_specs
from loopedge.graph.metadata import read_metadata
from loopedge.options import by_face, option, option_name
from loopedge.profiler.machine import free_bytes
from loopedge.runtime.inputs import AcceptedInputs, ModelInputs
from loopedge.units import size_text

__all__ = ["fewest_positions", "profile_feeds"]

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
) -> AcceptedInputs:
    """Return one array per input of a graph, and what a person should know of them.

    Args:
        graph: The model.
        path: Its file, for messages.
        input: File with the arrays or a table, as `loopedge run` takes it; None generates them.
        batch: Size of the batch axis of generated inputs.
        sequence: Size of the sequence axis; None: as trained.
        loops: Iterations, for a model with a selectable count; default: the file's, else as exported.
        seed: Of the generated inputs, and of noise that a file lacks.

    Raises:
        InputError: The file does not fit the model, inputs cannot be guessed or are larger than the
            free memory, or the model does not run so many loops.
    """
    metadata = read_metadata(graph.metadata_props)
    specs = input_specs(graph)
    count = next((spec for spec in specs if spec.chooses_loops), None)
    if loops is not None:
        _check_loops(path, loops, graph, selectable=count is not None)
    if input is None:
        try:
            _check_size(graph, path, batch=batch, sequence=sequence)
            generated = generate_inputs(
                graph, batch=batch, sequence=sequence, loops=loops, seed=seed, most_bytes=None
            )
            return AcceptedInputs(arrays=generated)
        except InputError as error:
            raise InputError(
                error.message, hint=error.hint or _mend(sequence, metadata.max_length)
            ) from error
    read = ModelInputs.of(path, specs, metadata).read(input, seed=seed)
    feeds = read.arrays
    _check_axes(feeds, input, batch=batch, sequence=sequence)
    if count is not None:
        if loops is None and count.name in feeds:
            loops = int(feeds[count.name].item())
            _check_loops(path, loops, graph, selectable=True)
        feeds[count.name] = count.loop_count(loops or metadata.loops or 1)
    return read


def _mend(sequence: int | None, most: int | None) -> str:
    """Return the option that helps where inputs cannot be generated."""
    too_long = sequence is not None and most is not None and sequence > most
    return option("sequence", most) if too_long else option("input", "data.npz")


def fewest_positions(graph: ir.Model, feeds: Mapping[str, Array]) -> int | None:
    """Return how many positions the sample with the fewest of them has; None where no input has positions."""
    specs = input_specs(graph)
    expected = ModelInputs.of("the model", specs, read_metadata(graph.metadata_props))
    return expected.fewest_positions(feeds)


def _check_loops(path: str | Path, loops: int, graph: ir.Model, *, selectable: bool) -> None:
    """Refuse a count that the graph would not run: its figures would stand under one that never ran.

    Args:
        path: The file, for messages.
        loops: The count.
        graph: What it holds.
        selectable: Whether an input of the graph takes the count.
    """
    cores = Cores(graph)
    most = cores.metadata.max_loops
    if selectable and most is not None and loops > most:
        raise InputError(
            f"{path} runs at most {most} loops, {loops} were asked for", hint=option("loops", most)
        )
    if not selectable and loops != cores.count:
        dynamic = by_face("--dynamic-loops", "dynamic_loops=True")
        alone = f", or export the model with {dynamic}"
        raise InputError(
            f"{path} {cores.count_text}, {loops} were asked for",
            hint=f"leave out {option_name('loops')}" + (alone if len(cores) < 2 else ""),
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
            hint=option("batch", 1),
        )


def _check_axes(
    feeds: Mapping[str, Array],
    input: str | Path,
    *,
    batch: int,
    sequence: int | None,
) -> None:
    """Refuse sizes that a file of inputs does not have.

    Raises:
        InputError: It is so.
    """
    first = next(iter(feeds.values()), np.zeros(()))
    samples, positions = (*first.shape, None, None)[:2]
    asked_batch = batch if batch > 1 else None  # one is the default
    for name, asked, held in (
        ("batch", asked_batch, samples),
        ("sequence", sequence, positions),
    ):
        if asked not in {None, held}:
            raise InputError(
                f"{input} has {name} {held}, {asked} were asked for",
                hint=f"leave {option_name(name)} out",
            )
