"""Texts and their cache, as one session runs them: what is bound, how far it is filled, and what is run next."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loopedge.errors import InputError
from loopedge.graph.metadata import ITERATIONS_OUTPUT
from loopedge.runtime.decoding.cache_buffers import STEP, CacheBuffers
from loopedge.runtime.decoding.generate_file import GenerateFile
from loopedge.runtime.decoding.interruptible_run import run_interruptibly
from loopedge.runtime.decoding.token_noise import TokenNoise
from loopedge.runtime.session import failure_reason

__all__ = ["CachedTexts"]

Array = npt.NDArray[Any]

CHUNK = 256
"""Tokens of a prompt that are computed at once: activations grow with it."""


class CachedTexts:
    """The texts of a batch, whose tokens are computed once.

    Args:
        file: That computes them.
        batch: Texts side by side.
        context: Positions at most; None: any number.
        reserved: Whether there is room for all of them at once; else the buffers grow.
        loops: Iterations.
        seed: Of the noise.

    Attributes:
        texts: The ids that the cache holds.
        loops: Iterations that run.
        iterations: How many ran in the last call, int64 (batch,), where the file exits early.

    Raises:
        InputError: The file fixes the batch at another size.
        LoopedgeError: There is no memory for the cache.

    Unchecked: ids are within the vocabulary, and no text becomes longer than the context.
    """

    def __init__(
        self,
        file: GenerateFile,
        *,
        batch: int,
        context: int | None,
        reserved: bool,
        loops: int | None,
        seed: int,
    ) -> None:
        self.file, self.batch, self.loops = file, batch, loops
        self.texts: list[list[int]] = [[] for _ in range(batch)]
        self._context, self._reserved = context, reserved
        self._filled = loops
        self._spoiled = False
        self._noise = TokenNoise(file.noise, batch=batch, seed=seed)
        self._lengths = np.zeros(batch, np.int32)
        self._logits = np.zeros((batch, 1, file.vocabulary), np.float32)
        self._one = {"input_ids": np.zeros((batch, 1), file.id_type)}
        for each in file.noise:
            self._one[each.name] = np.zeros((batch, 1, *each.features), each.dtype)
        # What a value points to must live as long: the arrays are attributes.
        self._one_values = {name: _value(array) for name, array in self._one.items()}
        self._binding = file.session.session.io_binding()
        self._binding.bind_ortvalue_input("lengths", _value(self._lengths))
        self._binding.bind_ortvalue_output("logits", _value(self._logits))
        self.iterations = np.zeros(batch, np.int64)
        if ITERATIONS_OUTPUT in file.session.output_names:
            self._binding.bind_ortvalue_output(ITERATIONS_OUTPUT, _value(self.iterations))
        self._buffers = self._make_buffers(self._capacity(1), file.rows_of(loops))
        self._bind()

    @property
    def empty(self) -> bool:
        """Whether the cache holds nothing."""
        return not self.texts[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, all room for more included."""
        return self._buffers.nbytes

    def change_loops(self, loops: int | None) -> bool:
        """Run another number of iterations; return whether the texts were computed again."""
        kept = self._filled is not None and loops is not None and loops <= self._filled
        if kept and self.file.lowering_is_exact:
            self.loops = self._filled = loops  # what follows is computed with so many
            self._bind()
            return False
        held = [np.array(text, np.int64) for text in self.texts]
        again = not self.empty
        rows = self.file.rows_of(loops)
        if not self._buffers.hold(rows):
            self._buffers = self._make_buffers(self._buffers.capacity, rows)
        self.loops = loops
        self._bind()
        self.forget()
        if again:
            self.go_on(held)
        return again

    def go_on(self, rows: list[Array]) -> Array:
        """Put tokens behind the texts; return float32 (batch, vocabulary) of what follows.

        All of them or none: where one chunk of them fails, or is interrupted, the texts are as long as before.

        Args:
            rows: int64 (tokens,) for each text; of one length where the cache of several texts holds something.

        Raises:
            InputError: The model gives NaN; the texts are forgotten.
        """
        held = [len(text) for text in self.texts]
        try:
            return self._go_on(rows)
        except BaseException:
            for text, length in zip(self.texts, held, strict=True):
                del text[length:]  # what the cache holds behind a text is never read
            raise

    def _go_on(self, rows: list[Array]) -> Array:
        longest = max(len(row) for row in rows)
        if self.batch > 1 and self.texts[0]:
            # GroupQueryAttention takes one token a row where a cache of several rows holds something.
            logits = np.zeros(0)
            for place in range(longest):
                logits = self.step(np.array([row[place] for row in rows]))
            return logits
        if self.batch > 1:
            return self._run_chunk(rows)
        # Where what is computed depends on chunks, a prompt is one.
        known = self.file.generation
        whole = known.cache == "last-loop" or known.exit is not None
        size = longest if whole else CHUNK
        for start in range(0, longest, size):
            logits = self._run_chunk([rows[0][start : start + size]])
        return logits

    def step(self, tokens: Array) -> Array:
        """Put one token behind each text, int64 (batch,); return as `go_on`.

        Raises:
            InputError: As `go_on`.
        """
        self._make_room(1)
        self._one["input_ids"][:, 0] = tokens
        for name, values in self._noise_of([1] * self.batch).items():
            self._one[name][:] = values
        return self._run([[int(token)] for token in tokens])

    def _run_chunk(self, rows: list[Array]) -> Array:
        longest = max(len(row) for row in rows)
        self._make_room(longest)
        ids = np.zeros((self.batch, longest), self.file.id_type)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        chunk = {"input_ids": ids, **self._noise_of([len(row) for row in rows])}
        for name, array in chunk.items():
            self._binding.bind_ortvalue_input(name, _value(array))
        try:
            return self._run([row.tolist() for row in rows])
        finally:
            self._bind_one()

    def _noise_of(self, new: list[int]) -> Mapping[str, Array]:
        return self._noise.draw([len(text) for text in self.texts], new)

    def _run(self, added: list[list[int]]) -> Array:
        """Run what is bound; the texts grow by what was added once that has succeeded."""
        self._lengths[:] = [
            len(text) + len(new) for text, new in zip(self.texts, added, strict=True)
        ]
        session = self.file.session.session
        try:
            if max(map(len, added)) > 1:
                run_interruptibly(session, self._binding)
            else:  # a thread would take as long as a small token
                session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            raise InputError(f"{self.file.path} failed to run: {failure_reason(error)}") from error
        logits: Array = self._logits[:, 0].copy()
        self._check_finite(logits)
        for text, new in zip(self.texts, added, strict=True):
            text += new
        return logits

    def _check_finite(self, logits: Array) -> None:
        wrong = ~np.isfinite(logits.max(axis=-1))
        if not wrong.any():
            return
        row = int(wrong.argmax())
        place = int(self._lengths[row])
        self._spoiled = True
        self.forget()
        which = f"text {row + 1}, " if self.batch > 1 else ""
        raise InputError(
            f"{self.file.path} gives NaN or infinite logits: {which}after token {place}; the texts are forgotten",
            hint=f"loopedge inspect {self.file.path} --verify",
        )

    def forget(self) -> None:
        """Forget the texts; the buffers stay."""
        if self._spoiled:  # NaN times a weight of 0 is NaN
            self._buffers.clear(int(self._lengths.max()))
            self._spoiled = False
        self.texts = [[] for _ in self.texts]
        self._filled = self.loops
        self._lengths[:] = 0

    def _make_room(self, added: int) -> None:
        used = max(len(text) for text in self.texts)
        if used + added > self._buffers.capacity:
            try:
                self._buffers.grow(self._capacity(used + added), used)
            finally:  # what is bound must not be a buffer that was replaced
                self._bind()

    def _capacity(self, needed: int) -> int:
        fixed = next((port.longest for port in self.file.ports if port.longest is not None), None)
        if fixed is not None:
            return fixed
        if self._reserved and self._context is not None:
            return self._context
        steps = -(-needed // STEP) * STEP
        return steps if self._context is None else min(steps, self._context)

    def _make_buffers(self, capacity: int, rows: Mapping[str, int]) -> CacheBuffers:
        return CacheBuffers(self.file.ports, rows=rows, batch=self.batch, capacity=capacity)

    def _bind(self) -> None:
        self._buffers.bind(self._binding, self.file.rows_of(self.loops))
        self._bind_one()

    def _bind_one(self) -> None:
        for name, value in self._one_values.items():
            self._binding.bind_ortvalue_input(name, value)


def _value(array: Array) -> ort.OrtValue:
    """Return a value that shares the memory of an array."""
    return ort.OrtValue.ortvalue_from_numpy(array)
