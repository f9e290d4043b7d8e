"""Test vectors of a model without a cache: inputs as a program hands them to a loader, and the outputs that must come out."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.errors import UntrainedWarning
from loopedge.graph.inputs import default_sequence, generate_inputs
from loopedge.graph.metadata import LOOPS_INPUT, TOLERANCE_INPUT
from loopedge.packager.source import Source
from loopedge.packager.vectors.made import MANY, MANY_ROWS, MadeVector, float_check
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session, untrained_inputs
from loopedge.runtime.tables.described_table import DescribedTable

__all__ = ["plain_vectors"]

Array = npt.NDArray[Any]

LONGEST = 32
"""Positions of a vector of a model that takes any number."""
MOST_VALUES = 1 << 16
"""Of an output of a vector, where its length is free."""


def plain_vectors(
    source: Source,
    reference: Artifact | None,
    *,
    threads: int | None,
    shown: str | Path | None = None,
) -> list[MadeVector]:
    """Return the vectors of a model without a cache.

    Args:
        source: The model.
        reference: The float model, which says what should come out of a quantized one.
        threads: Threads of ONNX Runtime.
        shown: A file as ``loopedge run`` takes it, for the first vector.

    Raises:
        InputError: The file does not fit the model.
    """
    judged, limit = float_check(source, reference)
    path = source.artifact.path if reference is None else reference.path
    session = Session(path, threads=threads)
    made = [] if shown is None else [_shown(session, shown, judged, limit)]
    with untrained_inputs(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)
        for name, feeds in _inputs(source.artifact, many=judged == "sqnr"):
            outputs = session.run(feeds)
            made.append(
                MadeVector(name=name, inputs=feeds, outputs=outputs, judged=judged, limit=limit)
            )
    return made


def _shown(session: Session, file: str | Path, judged: str, limit: float) -> MadeVector:
    """Return the vector of a file: of a table the last window of its first series, without padding."""
    read = session.expected.read(file)
    windows = read.windows
    feeds, last = _fed(read.arrays), list[str]()
    if windows is not None:
        [name] = session.expected.needed
        feeds = {name: windows.inputs[:1, -windows.rows[0] :]}
        last = list(windows.last_times[:1])
    return MadeVector(
        name="input" if windows is None else "last window",
        inputs=feeds,
        outputs=session.run(feeds),
        judged=judged,
        limit=limit,
        last_time=last[0] if last else None,
    )


def _inputs(artifact: Artifact, *, many: bool) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield named inputs: of one and several batch rows, short and padded, with other loop counts."""
    graph, metadata = artifact.graph, artifact.metadata
    table = DescribedTable.of(metadata.task)
    length = table.context if table is not None else _length(artifact)
    whole = generate_inputs(graph, batch=1, sequence=length, seed=1)
    yield "whole", _fed(whole)
    several = generate_inputs(graph, batch=3, sequence=length, seed=2)
    if any(several[name].shape != whole[name].shape for name in whole):
        yield "batch of 3", _fed(several)
        if many:
            rows = generate_inputs(graph, batch=MANY_ROWS, sequence=length, seed=7)
            yield MANY, _fed(rows)
    if table is not None and table.min_context < table.context and MASK in whole:
        yield from _short(artifact, table)
    elif table is None:
        one = generate_inputs(graph, batch=1, sequence=1, seed=3)
        if any(one[name].shape != whole[name].shape for name in whole):
            yield "one position", _fed(one)
            if MASK in whole:
                yield "padded", _masked(_fed(several), max(1, length // 3))
    if metadata.dynamic_loops:
        for loops in _counts(metadata.loop_range, metadata.loops, metadata.max_loops):
            yield f"loops {loops}", _fed(whole) | {LOOPS_INPUT: np.array(loops, np.int64)}
    if metadata.tolerance is not None and TOLERANCE_INPUT in whole:
        yield "tolerance 0", _fed(whole) | {TOLERANCE_INPUT: np.array(0, np.float32)}


def _fed(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what a program hands over: the mask that keeps everything is the loader's."""
    return {name: array for name, array in feeds.items() if not (name == MASK and array.all())}


def _short(artifact: Artifact, table: DescribedTable) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield windows of fewer table rows than the context: alone, and padded beside a whole one."""
    for name, sequence, seed in (
        ("short", table.min_context, 4),
        ("half", (table.min_context + table.context) // 2, 5),
    ):
        yield name, _fed(generate_inputs(artifact.graph, batch=1, sequence=sequence, seed=seed))
    several = generate_inputs(artifact.graph, batch=2, sequence=table.context, seed=6)
    yield "padded", _masked(_fed(several), table.context - table.min_context)


def _masked(feeds: dict[str, Array], hidden: int) -> dict[str, Array]:
    """Hide the first positions of the first batch row."""
    shape = next(array.shape[:2] for array in feeds.values() if array.ndim >= 2)
    mask = np.ones(shape, np.int64)
    mask[0, : min(hidden, shape[1] - 1)] = 0
    return {**feeds, MASK: mask}


def _counts(trained: tuple[int, int] | None, default: int | None, most: int | None) -> list[int]:
    wanted = {1, *(trained or ()), *([default] if default else [])}
    return sorted(count for count in wanted if most is None or count <= most)


def _length(artifact: Artifact) -> int:
    """Return how many positions a vector has: few where each gives many values."""
    wide = max(
        (
            int(shape[-1])
            for value in artifact.graph.graph.outputs
            if (shape := list(value.shape or ())) and isinstance(shape[-1], int)
        ),
        default=1,
    )
    longest = min(LONGEST, max(2, MOST_VALUES // (MANY_ROWS * wide)))
    return min(default_sequence(artifact.graph), longest)
