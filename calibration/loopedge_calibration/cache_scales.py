"""Texts in, scales of a rounded cache out: how large keys and values are, by iteration, head and channel."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.deployment.decoding.plain_decoder import PlainDecoder
from loopedge.errors import InputError
from loopedge.graph.decoding.cache.quantized_cache import LARGEST
from loopedge.graph.metadata import Generation
from loopedge.options import option, option_name
from loopedge.quantizer.held_out.samples import Kind
from loopedge.quantizer.options import Data
from loopedge.runtime.inputs import MASK
from loopedge_calibration.samples import Samples

__all__ = ["CacheTexts", "find_scales", "read_texts"]

Array = npt.NDArray[Any]

TOGETHER = 8
"""Texts that are computed at once."""
LONGEST = 512
"""Tokens of a text that calibrate, at most: the cache of all iterations is copied."""
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Of the largest value of a channel, what the largest integer may stand for: a few that are clipped may cost less than
coarser steps for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTexts:
    """Token ids, text by text, int64 (tokens,) each: those that calibrate, and others that judge.

    ``kind`` says where those that judge come from, ``notes`` what a person should know of the data.
    """

    calibrating: list[Array]
    judging: list[Array]
    kind: Kind
    notes: tuple[str, ...] = ()


def read_texts(
    source: Artifact, data: Data | None, *, samples: int, context: int | None
) -> CacheTexts:
    """Return texts of a language model: a part of the data calibrates, another judges.

    Args:
        source: The model without a cache; its task says how a text becomes ids.
        data: As `loopedge.quantize` takes it.
        samples: Texts at most that calibrate.
        context: Tokens at most of a text.

    Raises:
        InputError: There is no data, or it cannot be used.
    """
    try:
        found = Samples(data, source.graph, samples=samples, artifact=source.path)
    except InputError as error:
        if data is not None:
            raise
        raise InputError(
            f"a cache of integers needs text to find its scales on: {error.message}",
            hint=option("data", "text.txt"),
        ) from error
    held_out = found.held_out(calibrates=True)
    longest = min(LONGEST, context or LONGEST)
    calibrating = [
        text[:longest] for batch in found.calibrating for text in _rows(batch.feeds, source)
    ]
    judging = [text[:longest] for feeds in held_out.batches for text in _rows(feeds, source)]
    if not calibrating or not judging:
        raise InputError(
            f"{option_name('data')} holds no text of two tokens", hint="more text is needed"
        )
    return CacheTexts(
        calibrating=calibrating, judging=judging, kind=held_out.kind, notes=held_out.notes
    )


def _rows(feeds: Any, source: Artifact) -> Iterator[Array]:
    """Yield the ids of each sample, without what is padding."""
    names = [name for name, array in feeds.items() if name != MASK and array.ndim == 2]
    ids = [name for name in names if np.issubdtype(feeds[name].dtype, np.integer)]
    if len(ids) != 1:
        raise InputError(f"{source.path} takes {', '.join(feeds)}: it is no language model")
    kept = feeds.get(MASK)
    for row, text in enumerate(feeds[ids[0]]):
        found = text if kept is None else text[kept[row].astype(bool)]
        if len(found) > 1:
            yield found.astype(np.int64)


def find_scales(
    written: Path,
    generation: Generation,
    texts: Sequence[Array],
    bits: int,
    *,
    noise: Mapping[str, float],
    threads: int | None,
) -> dict[str, Array]:
    """Return the scales of a cache, by ``slot.part``: float32 ([loops,] kv heads, head size).

    The texts are computed twice: for the largest value of each channel, and for the share of it that gives the least
    squared error.

    Args:
        written: The generate file, whose cache holds floats.
        generation: What it says of itself.
        texts: Token ids, text by text.
        bits: Of the integers.
        noise: Inputs that hold noise, with its standard deviation.
        threads: Threads of ONNX Runtime.
    """
    decoder = PlainDecoder(written, generation, noise=noise, threads=threads)
    largest: dict[str, Array] = {}
    for part, values in _written(decoder, texts):
        most = np.abs(values).max(axis=-2)
        largest[part] = np.maximum(largest[part], most) if part in largest else most
    errors = {part: np.zeros((len(SHARES), *most.shape)) for part, most in largest.items()}
    for part, values in _written(decoder, texts):
        for place, share in enumerate(SHARES):
            errors[part][place] += _squared_error(values, _scale(largest[part], share, bits), bits)
    return {
        part: _scale(most, np.array(SHARES)[errors[part].argmin(axis=0)], bits)
        for part, most in largest.items()
    }


def _written(decoder: PlainDecoder, texts: Sequence[Array]) -> Iterator[tuple[str, Array]]:
    """Yield what each text leaves in each slot: float32 ([loops,] kv heads, tokens, head size)."""
    ordered = sorted(texts, key=len)  # little padding
    for first in range(0, len(ordered), TOGETHER):
        some = ordered[first : first + TOGETHER]
        lengths = [len(text) for text in some]
        ids = np.zeros((len(some), max(lengths)), np.int64)
        for row, text in enumerate(some):
            ids[row, : len(text)] = text
        decoder.start(len(some), max(lengths))
        decoder.run(ids, lengths)
        for name, array in decoder.written.items():
            for row, length in enumerate(lengths):
                yield (
                    decoder.generation.past_of(name),
                    np.take(array, row, axis=-4)[..., :length, :],
                )


def _scale(largest: Array, share: float | Array, bits: int) -> Array:
    """Return what one step stands for; a channel that holds zeros alone has any."""
    scale: Array = np.where(largest > 0, largest * share / LARGEST[bits], 1.0).astype(np.float32)
    return scale


def _squared_error(values: Array, scale: Array, bits: int) -> Array:
    """Return the summed squared error of each channel, ([loops,] kv heads, head size)."""
    steps = np.expand_dims(scale, -2)
    rounded = np.clip(np.rint(values / steps), -LARGEST[bits] - 1, LARGEST[bits]) * steps
    error: Array = np.square(rounded - values).sum(axis=-2, dtype=np.float64)
    return error
