"""Run a language model on text: what ``loopedge run --text`` does."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError
from loopedge.inference.framing import Framing, check_length, empty_text, read_framing
from loopedge.inference.run import InferenceResult, run_arrays, summarize
from loopedge.options import by_face, option_name
from loopedge.runtime.generator import Generator
from loopedge.runtime.providers import find_provider
from loopedge.runtime.session import Session

__all__ = ["CompletionResult", "NextToken", "complete"]

Array = npt.NDArray[Any]

LISTED = 5
"""Most likely next tokens that a result lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextToken:
    """A token that may follow, and how likely the model finds it."""

    id: int
    token: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionResult(InferenceResult):
    """What a run on a text gave; ``outputs`` and ``run_ms`` are of the text as it was given."""

    text: str
    tokens: int
    next_tokens: list[NextToken]
    completion: str | None
    new_tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def complete(
    model: str | Path,
    text: str,
    *,
    new_tokens: int = 0,
    loops: int | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    memory: str | None = None,
) -> CompletionResult:
    """Run a language model on a text, and go on greedily for some tokens.

    Each new token is found by running the whole sequence again, and the time grows with the square of the length; a file
    that has a cache (``loopedge to-generate``) computes each token once.

    Args:
        model: An artifact of the task ``text`` or ``pairs``; its tokenizer stands beside it.
        text: What the model continues; for pairs, the source.
        new_tokens: How many tokens to add at most; pairs end before, at ``<end>``.
        loops: As `Session.run`.
        tolerance: As `Session.run`.
        threads: As `Session`, like the rest.
        provider: Execution provider, as `loopedge.runtime.session.Session`.
        provider_options: Of the provider, by its own names.
        memory: Memory profile.

    Returns:
        The most likely next tokens, and the text that was added.

    Raises:
        InputError: The model was not trained on text, its tokenizer is missing or another one, or
            the text is empty or too long.
        MissingExtraError: The model has a tokenizer and the library is not installed.
        ProviderError: The execution provider is not available, or runs none of the products.
    """
    if new_tokens < 0:
        raise InputError(f"{option_name('new_tokens')} is {new_tokens}, at least 0 is needed")
    artifact = Artifact.open(model)  # as in `run_file`
    if artifact.metadata.generate is not None:
        if tolerance is not None:
            raise InputError(f"{model} takes no tolerance", hint="leave it out")
        find_provider(provider, provider_options)
        runner: _Runner = _Cached(
            Path(model), loops=loops, threads=threads, provider=provider, memory=memory
        )
    else:
        session = Session(
            model,
            threads=threads,
            provider=provider,
            memory=memory,
            provider_options=provider_options,
        )
        runner = _Whole(session, loops=loops, tolerance=tolerance)
    framing = read_framing(Path(model), artifact.metadata)
    ids = framing.frame(text)
    if not text or not ids:
        raise empty_text(by_face('--text "..."', 'text="..."'))
    check_length(ids, runner.longest, model)
    logits, result = runner.begin(ids)
    ends = framing.end_ids | runner.end_ids
    added, notes = _continue(runner, len(ids), logits, new_tokens, ends)
    plain = {field.name: getattr(result, field.name) for field in fields(result)}
    return CompletionResult(
        **plain | {"notes": [*result.notes, *notes]},
        text=text,
        tokens=len(ids),
        next_tokens=_likely(logits, framing),
        completion=framing.tokenizer.decode(added) if new_tokens else None,
        new_tokens=len(added),
    )


class _Runner(Protocol):
    """Runs a text, and then one token after the other."""

    longest: int | None
    end_ids: frozenset[int]

    def begin(self, ids: list[int]) -> tuple[Array, InferenceResult]:
        """Return the logits after a text, float64 (vocabulary,), and a summary of the run."""
        ...

    def go_on(self, token: int) -> Array:
        """Return the logits after one more token."""
        ...


class _Whole:
    """Runs the whole text for each token."""

    def __init__(self, session: Session, *, loops: int | None, tolerance: float | None) -> None:
        self.longest = session.metadata.max_length
        self.end_ids: frozenset[int] = frozenset()
        self._session, self._loops, self._tolerance = session, loops, tolerance
        self._ids: list[int] = []

    def begin(self, ids: list[int]) -> tuple[Array, InferenceResult]:
        self._ids = list(ids)
        return self._run()

    def go_on(self, token: int) -> Array:
        self._ids.append(token)
        return self._run()[0]

    def _run(self) -> tuple[Array, InferenceResult]:
        feeds = self._session.expected.name_array(np.array([self._ids], np.int64))
        outputs, result = run_arrays(
            self._session, feeds, loops=self._loops, tolerance=self._tolerance
        )
        return _last_logits(self._session, outputs), result


class _Cached:
    """Runs each token once, with a cache. More loops than the file runs are clamped, as `Session.run` does."""

    def __init__(
        self,
        path: Path,
        *,
        loops: int | None,
        threads: int | None,
        provider: str,
        memory: str | None,
    ) -> None:
        self._generator = Generator(path, threads=threads, provider=provider, memory=memory)
        file = self._generator.file
        self._note = None if loops is None else file.metadata.loops_note(loops)
        if loops is not None:
            most = file.metadata.max_loops
            clamped = min(loops, most) if most is not None and file.takes_loops else loops
            self._generator.change_loops(clamped)
        self.longest = self._generator.context
        self.end_ids = frozenset(file.generation.end_ids)

    def begin(self, ids: list[int]) -> tuple[Array, InferenceResult]:
        generator, session = self._generator, self._generator.file.session
        started = time.perf_counter()
        logits = generator.prefill(ids)
        run_ms = (time.perf_counter() - started) * 1e3
        notes = [*generator.notes, *([] if self._note is None else [self._note])]
        return logits[0].astype(np.float64), InferenceResult(
            model=str(session.path),
            path=None,
            loops=generator.loops,
            provider=session.provider,
            memory=session.memory,
            run_ms=run_ms,
            labels=None,
            notes=list(dict.fromkeys(notes)),
            outputs=[summarize("logits", logits[:, None])],
        )

    def go_on(self, token: int) -> Array:
        logits: Array = self._generator.step(token)[0].astype(np.float64)
        return logits


def _last_logits(session: Session, outputs: dict[str, Array]) -> Array:
    logits = outputs[session.output_names[0]]
    if logits.ndim != 3:
        raise InputError(
            f"{session.path} gives {session.output_names[0]} of shape {logits.shape}, "
            "(batch, sequence, vocabulary) is needed"
        )
    last: Array = logits[0, -1].astype(np.float64)
    return last


def _continue(
    runner: _Runner, tokens: int, logits: Array, new_tokens: int, ends: frozenset[int]
) -> tuple[list[int], list[str]]:
    """Return the most likely tokens, one after the other, and why there are no more."""
    added: list[int] = []
    while len(added) < new_tokens:
        token = int(logits.argmax())
        if token in ends:
            break
        added.append(token)
        if len(added) == new_tokens:
            break
        if runner.longest is not None and tokens + len(added) > runner.longest:
            note = f"ended after {len(added)} of {new_tokens} new tokens: the model takes at most "
            return added, [f"{note}{runner.longest} positions"]
        logits = runner.go_on(token)
    return added, []


def _likely(logits: Array, framing: Framing) -> list[NextToken]:
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    order = np.argsort(-shares, kind="stable")[:LISTED]
    return [
        NextToken(id=int(i), token=framing.show(int(i)), probability=float(shares[i]))
        for i in order
    ]
