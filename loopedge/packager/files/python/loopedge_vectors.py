"""Test vectors: arrays as they stand in the bundle, and how far outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def read_array(folder: Path, described: Mapping[str, Any]) -> Array:
    """Return an array of a test vector: raw little-endian bytes, row by row."""
    dtype = np.dtype(described["dtype"]).newbyteorder("<")
    flat = np.frombuffer((folder / described["file"]).read_bytes(), dtype)
    return flat.reshape(described["shape"]).astype(np.dtype(described["dtype"]))


def measure(kind: str, expected: list[Array], found: list[Array]) -> float:
    """Return how far outputs are apart: the relative error, the signal-to-noise ratio in dB, or 1 where they are equal."""
    if any(one.shape != other.shape for one, other in zip(expected, found)):
        return {"relative": float("inf"), "sqnr": float("-inf"), "equal": 0.0}[kind]
    pairs = [
        (one.astype(np.float64), other.astype(np.float64)) for one, other in zip(expected, found)
    ]
    if kind == "equal":
        return float(all(np.array_equal(one, other) for one, other in pairs))
    if kind == "relative":
        errors = [
            float(np.abs(other - one).max(initial=0.0))
            / (float(np.abs(one).max(initial=0.0)) or 1.0)
            for one, other in pairs
        ]
        return float(np.max(errors, initial=0.0))  # NaN stays NaN, and passes nowhere
    signal = sum(float(np.square(one).sum()) for one, _ in pairs)
    noise = sum(float(np.square(other - one).sum()) for one, other in pairs)
    if not np.isfinite(noise) or signal == 0:
        return 200.0 if noise == 0 else float("-inf")
    return 200.0 if noise == 0 else min(200.0, 10 * float(np.log10(signal / noise)))


def passes(kind: str, measured: float, limit: float) -> bool:
    """Tell whether a measured value is within its limit."""
    return measured <= limit if kind == "relative" else measured >= limit
