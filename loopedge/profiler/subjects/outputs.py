"""How far the outputs of the measured models are from those of the first, on the same inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.agreement import NoiseRatio, at_kept
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import LOOPS_INPUT, TOLERANCE_INPUT
from loopedge.graph.offsets import OutputOffsets
from loopedge.profiler.subjects.profiled_model import ProfiledModel
from loopedge.runtime.inputs import MASK

__all__ = ["output_errors"]

MOST_BYTES = 2**28
"""Larger outputs are not compared: this process would hold two of them."""


Array = npt.NDArray[Any]


def output_errors(
    models: Sequence[ProfiledModel], outputs: Sequence[Path | None]
) -> list[float | None]:
    """Compare each model with the first one that computes as much: loops, batch, sequence.

    Args:
        models: What was measured.
        outputs: Their outputs on their inputs, ``.npz`` in the order of the model; None where there are none.

    Returns:
        ``|y - reference| / |reference|`` over all floating-point outputs, at the positions that a mask
        keeps and without what the model adds last; None of the reference itself, and where inputs, shapes or the work are not the same.
    """
    references: dict[tuple[object, ...], int] = {}
    found: list[float | None] = []
    for index, (model, file) in enumerate(zip(models, outputs, strict=True)):
        first = references.setdefault((model.loops, model.batch, model.sequence), index)
        reference = outputs[first]
        if first == index or file is None or reference is None:
            found.append(None)
            continue
        if _too_large(file) or _too_large(reference):
            found.append(None)
            continue
        inputs = _inputs(model)
        same = _same(inputs, _inputs(models[first]))
        error = None
        if same:
            error = _error(_arrays(file), _arrays(reference), inputs, models[first])
        found.append(error)
    return found


def _too_large(file: Path) -> bool:
    return file.stat().st_size > MOST_BYTES


def _arrays(file: Path) -> list[Array]:
    with np.load(file, allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]


def _inputs(model: ProfiledModel) -> dict[str, Array]:
    """Return the inputs but for those that choose how a model runs."""
    with np.load(model.setup.inputs, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    specs = [] if model.artifact is None else input_specs(model.artifact.graph)
    counts = {spec.name for spec in specs if spec.chooses_loops}
    return {
        name: array
        for name, array in arrays.items()
        if name not in counts and (name not in {LOOPS_INPUT, TOLERANCE_INPUT} or array.ndim)
    }


def _same(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(array, other[name], equal_nan=array.dtype.kind == "f")
        for name, array in one.items()
    )


def _error(
    given: list[Array], expected: list[Array], inputs: dict[str, Array], model: ProfiledModel
) -> float | None:
    ratio, mask = NoiseRatio(), inputs.get(MASK)
    if len(given) != len(expected):
        return None
    graph = None if model.artifact is None else model.artifact.graph
    names = [] if graph is None else [value.name or "" for value in graph.graph.outputs]
    offsets = None if graph is None or len(names) != len(expected) else OutputOffsets(graph)
    for place, (array, reference) in enumerate(zip(given, expected, strict=True)):
        if not np.issubdtype(reference.dtype, np.floating):
            continue
        if array.shape != reference.shape:
            return None
        offset = None
        if offsets is not None:
            offset = offsets.at_kept(names[place], reference, inputs)
        ratio.add(at_kept(reference, mask), at_kept(array, mask), offset)
    return ratio.share if ratio.signal > 0 and np.isfinite(ratio.share) else None
