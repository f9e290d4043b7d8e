"""Generate text, token by token, with a cache of keys and values: numpy and onnxruntime, nothing else."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loopedge.errors import InputError, LoopedgeError
from loopedge.options import option
from loopedge.runtime.cache_buffers import STEP, CacheBuffers
from loopedge.runtime.generate_file import GenerateFile
from loopedge.runtime.sampling import Sampler, Sampling, probability_of
from loopedge.runtime.session import failure_reason
from loopedge.runtime.token_ids import Ids, check_ids, id_rows, next_ids

__all__ = ["GeneratedToken", "Generator"]

Array = npt.NDArray[Any]

MOST_BATCH = 1024
CHUNK = 512
"""Tokens of a prompt that are computed at once: activations grow with it, and nothing stops a call in the middle."""


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A token that follows, and how likely the model finds it."""

    id: int
    probability: float


class Generator:
    """One stream, or a batch of them, of a generate file.

    It owns the buffers of the cache and the lengths of the texts in it; nobody else binds anything. It is for one
    thread at a time. A server takes one for each stream by `another`, which share the session: onnxruntime runs it
    from several threads at once.

    Args:
        path: A file that ``loopedge to-generate`` wrote.
        context: Positions at most; room for all of them is reserved at once. Default: what the file takes, and the
            buffers grow as the texts do.
        loops: Iterations; default: as the file says.
        batch: Texts side by side.
        threads: Threads inside an operator; default: onnxruntime's own choice.
        device: ``cpu`` or ``cuda``.
        memory: Memory profile, as `Session`.

    Attributes:
        file: What was opened.
        context: Positions at most; None: any number.
        ended: Why the last `stream` ended: ``end`` (an id that ends a text), ``new_tokens``, ``context``; None before.
        notes: What a person should know of it.

    Raises:
        InputError: The file has no cache, onnxruntime is too old for it, or it does not run so many loops or
            positions; or as `Session`.
        ProviderError: As `Session`.
        LoopedgeError: There is no memory for the cache.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context: int | None = None,
        loops: int | None = None,
        batch: int = 1,
        threads: int | None = None,
        device: str = "cpu",
        memory: str | None = None,
    ) -> None:
        file = GenerateFile.open(path, threads=threads, device=device, memory=memory)
        self._begin(file, device, context, loops, batch)

    def another(
        self, *, context: int | None = None, loops: int | None = None, batch: int = 1
    ) -> "Generator":
        """Return a generator of the same file for another stream; the session is shared.

        Args:
            context: As at the start, like the rest.
            loops: Iterations.
            batch: Texts side by side.
        """
        other = Generator.__new__(Generator)
        other._begin(self.file, self._device, context, loops, batch)
        return other

    def _begin(
        self, file: GenerateFile, device: str, context: int | None, loops: int | None, batch: int
    ) -> None:
        if not 1 <= batch <= MOST_BATCH:
            raise InputError(f"batch is {batch}, 1 to {MOST_BATCH} are allowed")
        self.file = file
        self.context = file.context_of(context)
        self.ended: str | None = None
        self._device = device
        self._loops = file.loops_of(loops)
        self._whole_steps = context is None or file.metadata.form == "tensorscatter"
        note = None if self._loops is None else file.metadata.loops_note(self._loops)
        self.notes = list(dict.fromkeys([*file.session.notes, *([] if note is None else [note])]))
        self._using = threading.Lock()
        self._texts: list[list[int]] = [[] for _ in range(batch)]
        self._filled = self._loops
        self._spoiled = False
        self._ids = np.zeros((batch, 1), np.int64)
        self._lengths = np.zeros(batch, np.int32)
        self._logits = np.zeros((batch, 1, file.vocabulary), np.float32)
        self._id_value, self._length_value, self._logits_value = (
            _value(array) for array in (self._ids, self._lengths, self._logits)
        )
        self._binding = file.session.session.io_binding()
        self._binding.bind_ortvalue_input("lengths", self._length_value)
        self._binding.bind_ortvalue_output("logits", self._logits_value)
        self._buffers = self._make_buffers(self._capacity(1))
        self._bind()

    def __repr__(self) -> str:
        """Return in one line what it runs and how long its texts are."""
        loops = "" if self._loops is None else f"loops={self._loops}, "
        return (
            f"<Generator {self.file.path}: {loops}batch={self.batch}, context={self.context}, "
            f"lengths={self.lengths.tolist()}>"
        )

    @property
    def batch(self) -> int:
        """Texts side by side."""
        return len(self._texts)

    @property
    def lengths(self) -> Array:
        """Tokens of each text that the cache holds, int64 (batch,); a copy."""
        return np.array([len(text) for text in self._texts], np.int64)

    @property
    def loops(self) -> int | None:
        """Iterations that run; None where the file has several cores."""
        return self._loops

    @property
    def texts(self) -> list[list[int]]:
        """The ids that the cache holds, row by row; copies."""
        return [list(text) for text in self._texts]

    @property
    def cache_bytes(self) -> int:
        """Bytes of the buffers, all room for more included."""
        return self._buffers.nbytes

    def reset(self) -> None:
        """Forget the texts; the buffers stay."""
        with self._use():
            self._forget()

    def prefill(self, ids: Ids) -> Array:
        """Put tokens behind the texts, and return what follows.

        Args:
            ids: For one text its ids (sequence,). For a batch one sequence for each, of any lengths; while the cache
                holds something they are of one length, and computed one after the other.

        Returns:
            float32 (batch, vocabulary), the logits after the last token of each text; the caller's own.

        Raises:
            InputError: There are no ids, or some outside of the vocabulary; a text would be longer than the context;
                texts of a batch go on by different lengths.
            LoopedgeError: The model gives NaN.
        """
        with self._use():
            rows = self._rows(ids)
            self._check_room([len(row) for row in rows])
            return self._fill(rows)

    def step(self, tokens: int | Sequence[int] | Array) -> Array:
        """Put one token behind each text, and return what follows.

        Args:
            tokens: An id for each text; for one text the id.

        Returns:
            As `prefill`.

        Raises:
            InputError: As `prefill`, or there is no text yet.
            LoopedgeError: The model gives NaN.
        """
        with self._use():
            found = next_ids(tokens, batch=self.batch)
            if not self._texts[0]:
                raise InputError("there is no text to go on with", hint="call prefill first")
            check_ids(found, self.file.ids, self.file.path)
            self._check_room([1] * self.batch)
            return self._step(found)

    def stream(
        self,
        ids: Ids,
        *,
        new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        end_ids: Sequence[int] | None = None,
    ) -> Iterator[GeneratedToken]:
        """Put a prompt behind the text, and yield the tokens that follow, as they are found.

        The token that was yielded last is not in the cache: a text that goes on begins with it.

        Args:
            ids: The prompt, (sequence,).
            new_tokens: Tokens at most; None: until an id ends the text, or the context is full.
            temperature: As `loopedge.runtime.sampling.Sampling`, like the others; None: the most likely token.
            top_k: Keep so many tokens.
            top_p: Keep those that add up to so much.
            min_p: Keep those that are so likely against the most likely one.
            repetition_penalty: Makes tokens that stand in the text less likely.
            seed: Of the draws.
            end_ids: Ids that end the text, they are not yielded; None: those of the file.

        Raises:
            InputError: As `prefill`; an option is out of bounds; the batch is not 1, or nothing would end the text.
            LoopedgeError: The model gives NaN.
        """
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
        ends = frozenset(self.file.generation.end_ids if end_ids is None else end_ids)
        if self.batch != 1:
            raise InputError(f"the batch is {self.batch}: a stream is of one text")
        if new_tokens is not None and new_tokens < 0:
            raise InputError(f"new_tokens is {new_tokens}, at least 0 is needed")
        if new_tokens is None and self.context is None and not ends:
            raise InputError("nothing ends the text", hint=option("new_tokens", 100))
        return self._stream(ids, new_tokens, Sampler(sampling, self.file.vocabulary), ends)

    def change_loops(self, loops: int) -> bool:
        """Run another number of iterations from the next token on.

        Fewer are exact at once, where no layer behind the core keeps a cache: what the first iterations computed is
        what it is. More would find nothing of the text in the cache of the later iterations, so the text is computed
        again, as `reset` and `prefill` do.

        Returns:
            Whether the text was computed again.

        Raises:
            InputError: The file does not run so many.
            LoopedgeError: There is no memory for the cache.
        """
        with self._use():
            chosen = self.file.loops_of(loops)
            if chosen == self._loops:
                return False
            held = [list(text) for text in self._texts]
            kept = self._filled is not None and chosen is not None and chosen <= self._filled
            self._loops = chosen
            if kept and self.file.lowering_is_exact and self._device == "cpu":
                self._filled = chosen if held[0] else self._filled
                self._bind()
                return False
            self._filled = chosen
            self._buffers = self._make_buffers(self._buffers.capacity)
            self._bind()
            self._texts = [[] for _ in held]
            if held[0]:
                self._fill([np.array(text, np.int64) for text in held])
            return bool(held[0])

    def _stream(
        self, ids: Ids, new_tokens: int | None, sampler: Sampler, ends: frozenset[int]
    ) -> Iterator[GeneratedToken]:
        self.ended = None
        logits = self.prefill(ids)[0]
        sampler.see(self._texts[0])
        count = 0
        while new_tokens is None or count < new_tokens:
            token = sampler.choose(logits)
            if token in ends:
                self.ended = "end"
                return
            yield GeneratedToken(token, probability_of(logits, token))
            sampler.see(token)
            count += 1
            if count == new_tokens:
                break
            if self.context is not None and len(self._texts[0]) >= self.context:
                self.ended = "context"
                return
            logits = self.step(token)[0]
        self.ended = "new_tokens"

    def _fill(self, rows: list[Array]) -> Array:
        longest = max(len(row) for row in rows)
        if self.batch > 1 and self._texts[0]:
            # GroupQueryAttention takes one token a row where a cache of several rows holds something.
            logits = np.zeros(0)
            for place in range(longest):
                logits = self._step(np.array([row[place] for row in rows]))
            return logits
        if self.batch > 1:
            return self._run_chunk(rows)
        pieces = [longest] if self.file.generation.cache == "last-loop" else [CHUNK]
        for start in range(0, longest, pieces[0]):
            logits = self._run_chunk([rows[0][start : start + pieces[0]]])
        return logits

    def _step(self, tokens: Array) -> Array:
        self._make_room(1)
        self._ids[:, 0] = tokens
        return self._run([[int(token)] for token in tokens])

    def _run_chunk(self, rows: list[Array]) -> Array:
        longest = max(len(row) for row in rows)
        self._make_room(longest)
        ids = np.zeros((self.batch, longest), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        self._binding.bind_ortvalue_input("input_ids", _value(ids))
        try:
            return self._run([row.tolist() for row in rows])
        finally:
            self._binding.bind_ortvalue_input("input_ids", self._id_value)

    def _run(self, added: list[list[int]]) -> Array:
        """Run what is bound; the texts grow by what was added once that has succeeded."""
        self._lengths[:] = [
            len(text) + len(new) for text, new in zip(self._texts, added, strict=True)
        ]
        try:
            self.file.session.session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises a kind of its own per failure
            raise InputError(f"{self.file.path} failed to run: {failure_reason(error)}") from error
        logits: Array = self._logits[:, 0].copy()
        self._check_finite(logits)
        for text, new in zip(self._texts, added, strict=True):
            text += new
        return logits

    def _check_finite(self, logits: Array) -> None:
        wrong = ~np.isfinite(logits.max(axis=-1))
        if not wrong.any():
            return
        row = int(wrong.argmax())
        place = int(self._lengths[row])
        self._spoiled = True
        self._forget()
        which = f"text {row + 1}, " if self.batch > 1 else ""
        raise LoopedgeError(
            f"{self.file.path} gives NaN or infinite logits: {which}after token {place}; the texts are forgotten",
            hint=f"loopedge inspect {self.file.path} --verify",
        )

    def _forget(self) -> None:
        if self._spoiled:  # NaN times a weight of 0 is NaN
            self._buffers.clear()
            self._bind()
            self._spoiled = False
        self._texts = [[] for _ in self._texts]
        self._filled = self._loops
        self._lengths[:] = 0

    def _rows(self, ids: Ids) -> list[Array]:
        """Return the ids of each text, checked."""
        found = id_rows(ids, batch=self.batch)
        for row in found:
            check_ids(row, self.file.ids, self.file.path)
        if self._texts[0] and len({len(row) for row in found}) > 1:
            raise InputError(
                "texts of a batch go on by different lengths: the cache takes one token for each at a time",
                hint="reset(), then prefill the whole texts",
            )
        return found

    def _check_room(self, added: list[int]) -> None:
        if self.context is None:
            return
        for text, new in zip(self._texts, added, strict=True):
            if len(text) + new > self.context:
                held = f"after {len(text)} in the cache " if text else ""
                raise InputError(
                    f"the text has {new} token{'s' if new > 1 else ''} {held}and the context is "
                    f"{self.context} positions",
                    hint="shorten the text"
                    if self.context == self.file.longest
                    else option("context", self.file.longest or len(text) + new),
                )

    def _make_room(self, added: int) -> None:
        used = max(len(text) for text in self._texts)
        if used + added > self._buffers.capacity:
            self._buffers.grow(self._capacity(used + added), used)
            self._bind()

    def _capacity(self, needed: int) -> int:
        fixed = next((port.longest for port in self.file.ports if port.longest is not None), None)
        if fixed is not None:
            return fixed
        if not self._whole_steps and self.context is not None:
            return self.context
        steps = -(-needed // STEP) * STEP
        return steps if self.context is None else min(steps, self.context)

    def _make_buffers(self, capacity: int) -> CacheBuffers:
        rows = self.file.rows_of(self._loops)
        return CacheBuffers(
            self.file.ports, rows=rows, batch=self.batch, capacity=capacity, device=self._device
        )

    def _bind(self) -> None:
        self._buffers.bind(self._binding, self.file.rows_of(self._loops))
        self._binding.bind_ortvalue_input("input_ids", self._id_value)

    @contextmanager
    def _use(self) -> Iterator[None]:
        if not self._using.acquire(blocking=False):
            raise LoopedgeError(
                "another thread uses this generator",
                hint="take one for each stream: generator.another()",
            )
        try:
            yield
        finally:
            self._using.release()


def _value(array: Array) -> ort.OrtValue:
    """Return a value that shares the memory of an array."""
    return ort.OrtValue.ortvalue_from_numpy(array)
