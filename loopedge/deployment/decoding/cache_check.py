"""What a cache of integers costs: the same texts token by token, with it and with a cache of floats."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.deployment.decoding.plain_decoder import PlainDecoder
from loopedge.errors import VerificationError
from loopedge.graph.agreement import NoiseRatio
from loopedge.graph.decoding.cache.quantized_cache import dequantized
from loopedge.graph.metadata import CACHE_BITS, Generation
from loopedge.options import option
from loopedge.tasks.likelihood import negative_log_likelihood, perplexity

__all__ = ["CacheLoss", "measure_loss"]

Array = npt.NDArray[Any]

TEXTS, TOKENS = 16, 256
"""Of what is measured, at most: texts, and tokens of each."""

LEAST_DB = {8: 15.0, 4: 5.0}
"""Least SQNR of keys and values against those of floats, by bits. Scales or half bytes that are wrong give less than 3; what
the rounding of a right cache costs a trained model is measured and not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLoss:
    """How far a cache of integers is from one of floats, on texts that did not find its scales.

    ``sqnr_db`` is of the logits, ``cache_sqnr_db`` of keys and values; the perplexities are of the texts; ``change`` is their ratio less 1.
    """

    sqnr_db: float
    cache_sqnr_db: float
    perplexity: float
    float_perplexity: float
    change: float
    texts: int
    tokens: int
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def measure_loss(
    exact: tuple[Path, Generation],
    rounded: tuple[Path, Generation],
    texts: Sequence[Array],
    scales: Mapping[str, Array],
    *,
    source: str,
    noise: Mapping[str, float],
    threads: int | None,
) -> CacheLoss:
    """Compare two generate files that differ in their cache alone.

    Args:
        exact: The file whose cache holds floats, and what it says of itself.
        rounded: The one whose cache holds integers.
        texts: Token ids, text by text.
        scales: Of the integers, as `loopedge.graph.decoding.cache.quantized_cache.round_cache`.
        source: Where they come from.
        noise: Inputs that hold noise, with its standard deviation.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: The logits differ by more than rounding does.
    """
    ids = _of_one_length(texts)
    length = ids.shape[1]
    ratio, nats = NoiseRatio(), [0.0, 0.0]
    decoders = [
        PlainDecoder(path, generation, noise=noise, threads=threads)
        for path, generation in (exact, rounded)
    ]
    for decoder in decoders:
        decoder.start(len(ids), length)
    for place in range(length - 1):
        lengths = [place + 1] * len(ids)
        found = [decoder.run(ids[:, place : place + 1], lengths) for decoder in decoders]
        ratio.add(*found)
        for which, logits in enumerate(found):
            nats[which] += negative_log_likelihood(logits[:, None], ids[:, place + 1 : place + 2])
    cache_db = _compare_caches(decoders[0], decoders[1], scales, CACHE_BITS[rounded[1].cache_type])
    tokens = len(ids) * (length - 1)
    scores = [perplexity(each, tokens) for each in nats]
    return CacheLoss(
        sqnr_db=ratio.db,
        cache_sqnr_db=cache_db,
        perplexity=scores[1],
        float_perplexity=scores[0],
        change=scores[1] / scores[0] - 1,
        texts=len(ids),
        tokens=tokens,
        source=source,
    )


def _compare_caches(
    exact: PlainDecoder, rounded: PlainDecoder, scales: Mapping[str, Array], bits: int
) -> float:
    """Return the SQNR of all that the last call left in the cache, in dB.

    Raises:
        VerificationError: It is less than rounding leaves.
    """
    ratio = NoiseRatio()
    for part, floats in exact.written.items():
        given = dequantized(rounded.written[part], scales[exact.generation.past_of(part)], bits)
        filled = floats.any(axis=-1, keepdims=True)  # positions that no token stands at hold zeros
        ratio.add(floats, np.where(filled, given, 0))
    least = LEAST_DB[bits]
    if not ratio.db >= least:
        raise VerificationError(
            f"keys and values of {bits} bits are {ratio.db:.1f} dB from those of floats, at least {least:.0f} dB "
            "are asked",
            measured=ratio.db,
            allowed=least,
            hint=option("cache_type", "float32"),
        )
    return ratio.db


def _of_one_length(texts: Sequence[Array]) -> Array:
    """Return evenly spread texts that are long enough, cut to one length: int64 (texts, tokens + 1)."""
    longest = min(TOKENS + 1, max(map(len, texts)))
    some = [text for text in texts if 2 * len(text) >= longest]
    places = np.linspace(0, len(some) - 1, min(TEXTS, len(some))).astype(np.int64)
    length = min(longest, *(len(some[at]) for at in places))
    return np.stack([some[at][:length] for at in places])
