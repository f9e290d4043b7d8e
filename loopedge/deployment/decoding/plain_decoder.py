"""Run a generate file without buffers of its own: pasts go in, presents come out, and both can be looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loopedge.deployment.decoding.exit_rule import STATES
from loopedge.graph.decoding.cache.slots import PAST, PRESENT
from loopedge.graph.decoding.chunk import LENGTHS_INPUT
from loopedge.graph.metadata import ITERATIONS_OUTPUT, Generation
from loopedge.runtime.session_options import session_options

__all__ = ["DTYPES", "PlainDecoder"]

Array = npt.NDArray[Any]
DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": np.uint8}
"""In which a cache is stored, by its type; of int4 there are two to a byte."""


class PlainDecoder:
    """A generate file that is measured: on the CPU, and slower than in place, for it copies its cache.

    Args:
        path: The file.
        generation: What it says of itself.
        noise: Inputs that hold noise, with its standard deviation; it is drawn anew for each start, the same each time.
        threads: Threads of ONNX Runtime.

    Attributes:
        iterations: How many ran in the last call, int64 (batch,); empty where the file does not say.
        feeds: What the last call read of its tokens.
        states: Before and after each iteration of the last call, where the file gives them (`give_states`).
        written: By output without ``present.``, what the last call left: ([loops, inner loops,] batch, kv heads, capacity, head size).
    """

    def __init__(
        self,
        path: Path,
        generation: Generation,
        *,
        noise: Mapping[str, float],
        threads: int | None,
    ) -> None:
        self._session = ort.InferenceSession(
            str(path), session_options(threads, model=path), providers=["CPUExecutionProvider"]
        )
        self.generation = generation
        inputs = {node.name: node for node in self._session.get_inputs()}
        (self._ids,) = [
            name
            for name in inputs
            if name != LENGTHS_INPUT and name not in noise and not name.startswith(f"{PAST}.")
        ]
        self._narrow = inputs[self._ids].type == "tensor(int32)"
        self._noise = {
            name: (deviation, [size if isinstance(size, int) else 1 for size in inputs[name].shape])
            for name, deviation in noise.items()
            if name in inputs
        }
        self._drawn: dict[str, Array] = {}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._cache: dict[str, Array] = {}
        self.written: dict[str, Array] = {}
        self.iterations: Array = np.zeros(0, np.int64)
        self.states: dict[str, Array] = {}
        self.feeds: dict[str, Array] = {}

    def start(self, batch: int, capacity: int) -> None:
        """Begin texts of at most ``capacity`` tokens."""
        bits4 = self.generation.cache_type == "int4"
        self._cache = {}
        for slot in self.generation.slots:
            rows = [] if slot.loops is None else [slot.loops]
            sizes = (
                *rows,
                *slot.inner,
                batch,
                slot.kv_heads,
                capacity,
                slot.head_size // (2 if bits4 else 1),
            )
            for part in ("key", "value"):
                zeros = np.zeros(sizes, DTYPES[self.generation.cache_type])
                self._cache[f"{slot.name}.{part}"] = zeros
        generator = np.random.default_rng(0)
        self._drawn = {
            name: (generator.standard_normal((batch, capacity, *sizes[2:])) * deviation).astype(
                np.float32
            )
            for name, (deviation, sizes) in self._noise.items()
        }

    def run(self, ids: Array, lengths: Sequence[int], *, loops: int | None = None) -> Array:
        """Compute the next tokens.

        Args:
            ids: int (batch, sequence).
            lengths: Tokens of each row after the call.
            loops: Iterations that run, the first ones; None: all.

        Returns:
            float32 (batch, vocabulary), of the last token of each row.
        """
        feeds = {f"{PAST}.{name}": self._first(name, loops) for name in self._cache}
        feeds[self._ids] = np.ascontiguousarray(ids, np.int32 if self._narrow else np.int64)
        feeds[LENGTHS_INPUT] = np.array(lengths, np.int32)
        done = max(max(lengths) - ids.shape[1], 0)
        for name, drawn in self._drawn.items():
            feeds[name] = drawn[:, done : done + ids.shape[1]]
        self.feeds = {self._ids: feeds[self._ids], **{name: feeds[name] for name in self._drawn}}
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))
        self.states = {name: outputs[name] for name in outputs if name.startswith(STATES)}
        self.iterations = outputs.get(ITERATIONS_OUTPUT, np.zeros(0, np.int64))
        self.written = {
            name.removeprefix(f"{PRESENT}."): array
            for name, array in outputs.items()
            if name.startswith(f"{PRESENT}.")
        }
        for name, array in self.written.items():
            past = self.generation.past_of(
                name
            )  # of iterations that share a slot, the last one's stays
            rest = self._cache[past][loops:] if loops and self._repeated(past) else array[:0]
            self._cache[past] = np.concatenate([array, rest])
        found: Array = outputs[self._outputs[0]][:, 0]
        return found

    def copy_rows(self, count: int, position: int) -> None:
        """Let all iterations from ``count`` on keep what the one before them keeps at a position."""
        for name, array in self._cache.items():
            if self._repeated(name):
                array[count:, ..., position, :] = array[count - 1, ..., position, :]

    def _repeated(self, name: str) -> bool:
        return any(
            slot.loops and name.startswith(f"{slot.name}.") for slot in self.generation.slots
        )

    def _first(self, name: str, loops: int | None) -> Array:
        array = self._cache[name]
        return array[:loops] if loops and self._repeated(name) else array
