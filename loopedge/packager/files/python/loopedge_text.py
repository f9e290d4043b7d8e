"""Let the model of a bundle write text, each token computed once: a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from loopedge_denormals import DenormalsAreZero
from loopedge_files import BundleError

STEP = 256
"""Positions that the buffers of the cache grow by."""

Array = np.ndarray[Any, Any]


class Cache:
    """One text and its keys and values. Past and present are the same buffer: what a step adds is written where it stays.

    Args:
        session: Of onnxruntime.
        manifest: Of the bundle.
        loops: Iterations; None: as the manifest says.

    Attributes:
        length: Tokens in the cache.
    """

    def __init__(self, session: Any, manifest: Mapping[str, Any], loops: int | None) -> None:
        self.session, self.decoding = session, manifest["decoding"]
        self.noise = [port for port in manifest["inputs"] if port["role"] == "noise"]
        self.chosen = loops if manifest["loops"] and manifest["loops"]["dynamic"] else None
        self.length = self.capacity = 0
        self._arrays: dict[str, Array] = {}
        self._generator = np.random.default_rng(0)
        self._names = [output.name for output in session.get_outputs()]

    def add(self, ids: Array) -> Array:
        """Put tokens behind the text; return the logits after the last one, float32 (1, 1, vocabulary).

        Args:
            ids: int64 (tokens,).

        Raises:
            BundleError: The text would be longer than the context, or the model gives NaN.
        """
        self._make_room(self.length + len(ids))
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids[None], np.int64))
        binding.bind_cpu_input("lengths", np.array([self.length + len(ids)], np.int32))
        for port in self.noise:
            drawn = self._generator.standard_normal((1, len(ids), *port["shape"][2:]))
            binding.bind_cpu_input(port["name"], (drawn * port["deviation"]).astype(port["dtype"]))
        bound = []
        for slot in self.decoding["slots"]:
            value = ort.OrtValue.ortvalue_from_numpy(self._arrays[slot["name"]])
            binding.bind_ortvalue_input(slot["past"], value)
            for name in slot["presents"]:
                binding.bind_ortvalue_output(name, value)
                bound.append(name)
        for name in self._names:
            if name not in bound:
                binding.bind_output(name)
                bound.append(name)
        with DenormalsAreZero():
            self.session.run_with_iobinding(binding)
        self.length += len(ids)
        logits: Array = dict(zip(bound, binding.get_outputs()))["logits"].numpy()
        if not np.isfinite(logits).all():
            raise BundleError(f"the model gives NaN or infinite logits after token {self.length}")
        return logits

    def _make_room(self, needed: int) -> None:
        """Grow the buffers; what they hold is kept."""
        if needed <= self.capacity:
            return
        if needed > self.decoding["context"]:
            raise BundleError(
                f"the text has {needed} tokens, the context is {self.decoding['context']} positions"
            )
        capacity = min(-(-needed // STEP) * STEP, self.decoding["context"])
        for slot in self.decoding["slots"]:
            larger = np.zeros(self._shape(slot, capacity), np.dtype(slot["dtype"]))
            if self.length:
                larger[..., : self.length, :] = self._arrays[slot["name"]][..., : self.length, :]
            self._arrays[slot["name"]] = larger
        self.capacity = capacity

    def _shape(self, slot: Mapping[str, Any], capacity: int) -> list[int]:
        """Return the shape of a buffer: (loops, ..., batch, kv heads, positions, head size)."""
        shape = list(slot["shape"])
        if isinstance(shape[0], str) and len(shape) > 4:
            shape[0] = self.chosen or slot["loops"]
        shape[-4] = 1
        if isinstance(shape[-2], str):
            shape[-2] = capacity
        return shape


class Tokens:
    """Text to ids and back: bytes, or a tokenizer.json by the package tokenizers."""

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        self.described = described
        self._library: Any = None
        if described["kind"] == "tokenizers":
            try:
                import tokenizers  # type: ignore[import-untyped,unused-ignore]
            except ImportError:
                raise BundleError(
                    "the model's tokenizer needs the package tokenizers: pip install tokenizers"
                ) from None

            self._library = tokenizers.Tokenizer.from_file(str(folder / described["file"]))
            self._library.no_truncation()
            self._library.no_padding()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a prompt."""
        if self._library is None:
            ids = list(text.encode("utf-8"))
        else:
            ids = self._library.encode(text, add_special_tokens=self.described["around"]).ids
        separator = self.described["separator"]
        return ids if separator is None else [*ids, separator]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        if self._library is None:
            return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")
        return str(self._library.decode(ids, skip_special_tokens=False))


def greedy(cache: Cache, ids: list[int], new_tokens: int, end_ids: set[int]) -> Iterator[int]:
    """Yield the most likely tokens behind a prompt, until one ends the text or the context is full."""
    logits = cache.add(np.array(ids, np.int64))
    for place in range(new_tokens):
        token = int(logits[0, -1].argmax())
        if token in end_ids:
            return
        yield token  # the last one need not be in the cache
        if place + 1 == new_tokens or cache.length >= cache.decoding["context"]:
            return
        logits = cache.add(np.array([token], np.int64))
