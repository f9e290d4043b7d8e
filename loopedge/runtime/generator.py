"""Generate text, token by token, with a cache of keys and values: numpy and onnxruntime, nothing else."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError, LoopedgeError
from loopedge.options import check_whole, option
from loopedge.runtime.decoding.cached_texts import CachedTexts
from loopedge.runtime.decoding.generate_file import GenerateFile
from loopedge.runtime.decoding.sampling import Sampler, Sampling, probability_of
from loopedge.runtime.decoding.token_ids import Ids, check_ids, id_rows, next_ids

__all__ = ["GeneratedToken", "Generator"]

Array = npt.NDArray[Any]

MOST_BATCH = 1024


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
        provider: ``cpu``; decoding on another one was never tried, and is refused.
        memory: Memory profile, as `Session`.
        seed: Of the noise that some models take beside each token: as `Session.run` draws it.

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
        provider: str = "cpu",
        memory: str | None = None,
        seed: int = 0,
    ) -> None:
        file = GenerateFile.open(path, threads=threads, provider=provider, memory=memory)
        self._begin(file, context, loops, batch, seed)

    def another(
        self,
        *,
        context: int | None = None,
        loops: int | None = None,
        batch: int = 1,
        seed: int = 0,
    ) -> "Generator":
        """Return a generator of the same file for another stream; the session is shared.

        Args:
            context: As at the start, like the rest.
            loops: Iterations.
            batch: Texts side by side.
            seed: Of the noise.
        """
        other = Generator.__new__(Generator)
        other._begin(self.file, context, loops, batch, seed)
        return other

    def _begin(
        self,
        file: GenerateFile,
        context: int | None,
        loops: int | None,
        batch: int,
        seed: int,
    ) -> None:
        check_whole(context=context, loops=loops, batch=batch, seed=seed)
        if not 1 <= batch <= MOST_BATCH:
            raise InputError(f"batch is {batch}, 1 to {MOST_BATCH} are allowed")
        fixed = next((port.batch for port in file.ports if port.batch is not None), batch)
        if batch != fixed:
            raise InputError(
                f"{file.path} takes {fixed} text{'s' if fixed > 1 else ''} at a time, "
                f"a batch of {batch} was asked for",
                hint=option("batch", fixed),
            )
        if seed < 0:
            raise InputError(f"seed is {seed}, at least 0 is needed")
        self.file = file
        self.context = file.context_of(context)
        self.ended: str | None = None
        chosen = file.loops_of(loops)
        stored = file.metadata.loops
        default = None if stored is None else file.metadata.loops_note(stored)
        self.notes = [note for note in file.session.notes if note != default]
        self._note_loops(chosen)
        self._using = threading.Lock()
        self._changes = 0
        self._cached = CachedTexts(
            file,
            batch=batch,
            context=self.context,
            reserved=context is not None and file.metadata.form != "tensorscatter",
            loops=chosen,
            seed=seed,
        )

    def __repr__(self) -> str:
        """Return in one line what it runs and how long its texts are."""
        loops = "" if self.loops is None else f"loops={self.loops}, "
        return (
            f"<Generator {self.file.path}: {loops}batch={self.batch}, context={self.context}, "
            f"lengths={self.lengths.tolist()}>"
        )

    @property
    def batch(self) -> int:
        """Texts side by side."""
        return self._cached.batch

    @property
    def lengths(self) -> Array:
        """Tokens of each text that the cache holds, int64 (batch,); a copy."""
        return np.array([len(text) for text in self._cached.texts], np.int64)

    @property
    def loops(self) -> int | None:
        """Iterations that run; None where the file has several cores."""
        return self._cached.loops

    @property
    def texts(self) -> list[list[int]]:
        """The ids that the cache holds, row by row; copies."""
        return [list(text) for text in self._cached.texts]

    @property
    def iterations(self) -> Array | None:
        """How many iterations the last call ran of each text, int64 (batch,), where the file exits early; a copy."""
        return None if self.file.generation.exit is None else self._cached.iterations.copy()

    @property
    def cache_bytes(self) -> int:
        """Bytes of the buffers, all room for more included."""
        return self._cached.nbytes

    def reset(self) -> None:
        """Forget the texts; the buffers stay."""
        with self._use():
            self._changes += 1
            self._cached.forget()

    def prefill(self, ids: Ids) -> Array:
        """Put tokens behind the texts, and return what follows.

        Args:
            ids: For one text its ids (sequence,). For a batch one sequence for each, of any lengths; while the cache
                holds something they are of one length, and computed one after the other.

        Returns:
            float32 (batch, vocabulary), the logits after the last token of each text; the caller's own.

        Raises:
            InputError: There are no ids, or some outside of the vocabulary; a text would be longer than the context;
                texts of a batch go on by different lengths; the model gives NaN.
        """
        with self._use():
            rows = self._rows(ids)
            self._check_room([len(row) for row in rows])
            self._changes += 1
            return self._cached.go_on(rows)

    def step(self, tokens: int | Sequence[int] | Array) -> Array:
        """Put one token behind each text, and return what follows.

        Args:
            tokens: An id for each text; for one text the id.

        Returns:
            As `prefill`.

        Raises:
            InputError: As `prefill`, or there is no text yet.
        """
        with self._use():
            found = next_ids(tokens, batch=self.batch)
            if self._cached.empty:
                raise InputError("there is no text to go on with", hint="call prefill first")
            check_ids(found, self.file.ids, self.file.path)
            self._check_room([1] * self.batch)
            self._changes += 1
            return self._cached.step(found)

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
            temperature: As `loopedge.runtime.decoding.sampling.Sampling`, like the others; None: the most likely token.
            top_k: Keep so many tokens.
            top_p: Keep those that add up to so much.
            min_p: Keep those that are so likely against the most likely one.
            repetition_penalty: Makes tokens that stand in the text less likely.
            seed: Of the draws.
            end_ids: Ids that end the text, they are not yielded; None: those of the file.

        Raises:
            InputError: As `prefill`; an option is out of bounds; the batch is not 1, or nothing would end the text.
            LoopedgeError: The text was changed meanwhile.
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
        check_whole(new_tokens=new_tokens)
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
            self._note_loops(chosen)
            return chosen != self._cached.loops and self._cached.change_loops(chosen)

    def _note_loops(self, loops: int | None) -> None:
        note = None if loops is None else self.file.metadata.loops_note(loops)
        if note is not None and note not in self.notes:
            self.notes.append(note)

    def _stream(
        self, ids: Ids, new_tokens: int | None, sampler: Sampler, ends: frozenset[int]
    ) -> Iterator[GeneratedToken]:
        self.ended = None
        logits = self.prefill(ids)[0]
        sampler.see(self._cached.texts[0])
        count = 0
        while new_tokens is None or count < new_tokens:
            token = sampler.choose(logits)
            if token in ends:
                self.ended = "end"
                return
            changes = self._changes
            yield GeneratedToken(token, probability_of(logits, token))
            if self._changes != changes:
                raise LoopedgeError(
                    "the text was changed while it was streamed", hint="end the stream first"
                )
            sampler.see(token)
            count += 1
            if count == new_tokens:
                break
            if self.context is not None and len(self._cached.texts[0]) >= self.context:
                self.ended = "context"
                return
            logits = self.step(token)[0]
        self.ended = "new_tokens"

    def _rows(self, ids: Ids) -> list[Array]:
        """Return the ids of each text, checked."""
        found = id_rows(ids, batch=self.batch)
        for row in found:
            check_ids(row, self.file.ids, self.file.path)
        if not self._cached.empty and len({len(row) for row in found}) > 1:
            raise InputError(
                "texts of a batch go on by different lengths: the cache takes one token for each at a time",
                hint="reset(), then prefill the whole texts",
            )
        return found

    def _check_room(self, added: list[int]) -> None:
        if self.context is None:
            return
        for text, new in zip(self._cached.texts, added, strict=True):
            if len(text) + new > self.context:
                held = f"after {len(text)} in the cache " if text else ""
                raise InputError(
                    f"the text has {new} token{'s' if new > 1 else ''} {held}and the context is "
                    f"{self.context} positions",
                    hint="shorten the text"
                    if self.context == self.file.longest
                    else option("context", self.file.longest or len(text) + new),
                )

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
