"""What a model that decodes is measured on: one token behind a text of so many positions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.graph.metadata import CACHE_BITS, Metadata
from loopedge.options import option, option_name
from loopedge.profiler.options import ProfileOptions
from loopedge.profiler.processes.setup import CacheSize
from loopedge.profiler.sweep import Configuration
from loopedge.runtime.providers import CPU_PROVIDER

__all__ = ["cache_size", "decoding_feeds", "decoding_shape"]

Array = npt.NDArray[Any]

LENGTH = 128
"""Positions of the text where the model does not say how long those were that it was trained on."""

IDS, LENGTHS = "input_ids", "lengths"


def decoding_feeds(
    artifact: Artifact, point: Configuration, options: ProfileOptions
) -> dict[str, Array]:
    """Return a token for each row, and how long the texts are with it: ``sequence`` positions.

    Raises:
        InputError: The file takes fewer positions or loops, a file of inputs is named, or the provider is not the CPU.
    """
    metadata, path = artifact.metadata, artifact.path
    if options.input is not None:
        raise InputError(
            f"{path} decodes: it is measured on one token behind a text",
            hint=option("sequence", LENGTH),
        )
    if options.provider_name != CPU_PROVIDER:
        raise InputError(
            f"{path} decodes, which is measured on the CPU alone", hint=option("provider", "cpu")
        )
    assert metadata.generate is not None
    known = (metadata.generate.context, metadata.max_length)
    longest = min((length for length in known if length is not None), default=None)
    length = point.sequence or min(metadata.trained_length or LENGTH, longest or LENGTH)
    if longest is not None and length > longest:
        raise InputError(
            f"{path} takes at most {longest} positions, {length} were asked for",
            hint=option("sequence", longest),
        )
    _check_loops(artifact, point.loops)
    tokens = np.random.default_rng(options.seed).integers(
        0, metadata.generate.vocab_size or 1, (point.batch, 1), dtype=np.int64
    )
    return {IDS: tokens, LENGTHS: np.full(point.batch, length, np.int32)}


def decoding_shape(feeds: Mapping[str, Array]) -> dict[str, int]:
    """Return the batch, and as ``sequence`` the positions of the texts."""
    return {"batch": len(feeds[LENGTHS]), "sequence": int(feeds[LENGTHS].max())}


def cache_size(
    metadata: Metadata, feeds: Mapping[str, Array], loops: int | None
) -> CacheSize | None:
    """Return how large the cache is; None where a model has none.

    Args:
        metadata: Of the model.
        feeds: What it runs on.
        loops: Iterations that were asked for.
    """
    generation = metadata.generate
    if generation is None:
        return None
    batch, length = len(feeds[LENGTHS]), int(feeds[LENGTHS].max())
    rows, entries = [], 0
    for slot in generation.slots:
        count = 1
        if slot.loops is not None:
            count = loops or slot.loops
            rows += [(f"{slot.name}.{part}", count) for part in ("key", "value")]
        entries += count * int(np.prod(slot.inner, dtype=np.int64)) * slot.kv_heads * slot.head_size
    nbytes = 2 * entries * batch * length * CACHE_BITS[generation.cache_type] // 8
    return CacheSize(rows=tuple(rows), batch=batch, capacity=length, nbytes=nbytes)


def _check_loops(artifact: Artifact, loops: int | None) -> None:
    """Refuse a count that the file does not run.

    Raises:
        InputError: As said.
    """
    metadata = artifact.metadata
    most = metadata.max_loops or metadata.loops
    fixed = metadata.form == "unrolled" or metadata.cores is not None
    if loops is not None and (fixed and loops != metadata.loops):
        raise InputError(
            f"{artifact.path} runs {metadata.loops} loops, {loops} were asked for",
            hint=f"leave out {option_name('loops')}",
        )
    if loops is not None and most is not None and loops > most:
        raise InputError(
            f"{artifact.path} runs at most {most} loops, {loops} were asked for",
            hint=option("loops", most),
        )
