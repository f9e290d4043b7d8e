"""What a cache of integers costs: the same texts token by token, with it and with a cache of floats."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.deployment.plain_decoder import PlainDecoder
from loopedge.errors import VerificationError
from loopedge.graph.agreement import NoiseRatio
from loopedge.graph.metadata import Generation
from loopedge.options import option
from loopedge.tasks.likelihood import negative_log_likelihood, perplexity

__all__ = ["CacheLoss", "measure_loss"]

Array = npt.NDArray[Any]

TEXTS, TOKENS = 16, 256
"""Of what is measured, at most: texts, and tokens of each."""

LEAST_DB = {"int8": 20.0, "int4": 8.0}
"""Least SQNR of the logits against those of a cache of floats: a scale or a half byte that is wrong gives less than 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLoss:
    """How far a cache of integers is from one of floats, on texts that did not find its scales.

    ``sqnr_db`` is of the logits; the perplexities are of the texts; ``change`` is their ratio less 1.
    """

    sqnr_db: float
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
    *,
    source: str,
    threads: int | None,
) -> CacheLoss:
    """Compare two generate files that differ in their cache alone.

    Args:
        exact: The file whose cache holds floats, and what it says of itself.
        rounded: The one whose cache holds integers.
        texts: Token ids, text by text.
        source: Where they come from.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: The logits differ by more than rounding does.
    """
    ids = _of_one_length(texts)
    length = ids.shape[1]
    noise, nats = NoiseRatio(), [0.0, 0.0]
    decoders = [
        PlainDecoder(path, generation, loops=None, threads=threads)
        for path, generation in (exact, rounded)
    ]
    for decoder in decoders:
        decoder.start(len(ids), length)
    for place in range(length - 1):
        lengths = [place + 1] * len(ids)
        found = [decoder.run(ids[:, place : place + 1], lengths) for decoder in decoders]
        noise.add(*found)
        for which, logits in enumerate(found):
            nats[which] += negative_log_likelihood(logits[:, None], ids[:, place + 1 : place + 2])
    least = LEAST_DB[rounded[1].cache_type]
    if not noise.db >= least:
        raise VerificationError(
            f"with a cache of {rounded[1].cache_type} the logits are {noise.db:.1f} dB from those with one of floats, "
            f"at least {least:.0f} dB are asked",
            measured=noise.db,
            allowed=least,
            hint=option("cache_type", "float32"),
        )
    tokens = len(ids) * (length - 1)
    scores = [perplexity(each, tokens) for each in nats]
    return CacheLoss(
        sqnr_db=noise.db,
        perplexity=scores[1],
        float_perplexity=scores[0],
        change=scores[1] / scores[0] - 1,
        texts=len(ids),
        tokens=tokens,
        source=source,
    )


def _of_one_length(texts: Sequence[Array]) -> Array:
    """Return evenly spread texts that are long enough, cut to one length: int64 (texts, tokens + 1)."""
    longest = min(TOKENS + 1, max(map(len, texts)))
    some = [text for text in texts if 2 * len(text) >= longest]
    places = np.linspace(0, len(some) - 1, min(TEXTS, len(some))).astype(np.int64)
    length = min(longest, *(len(some[at]) for at in places))
    return np.stack([some[at][:length] for at in places])
