"""Run a language model on text: what ``loopedge run --text`` does."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import open_artifact
from loopedge.artifact.companions import read_companions
from loopedge.data.tokenizer import Tokenizer, described_tokenizer
from loopedge.errors import InputError
from loopedge.inference.run import InferenceResult, run_arrays
from loopedge.options import by_face, option_name
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a task turns a text into the ids that its model was trained on.

    Args:
        tokenizer: Of the text.
        separator: Follows a source; None where the text stands alone.
        end: Ends a target; None where nothing does.
    """

    tokenizer: Tokenizer
    separator: int | None = None
    end: int | None = None

    def frame(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids if self.separator is None else [*ids, self.separator]

    def show(self, token: int) -> str:
        """Return what a token looks like."""
        named = {self.separator: "<sep>", self.end: "<end>"}
        return named[token] if token in named else self.tokenizer.show(token)


def complete(
    model: str | Path,
    text: str,
    *,
    new_tokens: int = 0,
    loops: int | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
    memory: str | None = None,
) -> CompletionResult:
    """Run a language model on a text, and go on greedily for some tokens.

    Each new token is found by running the whole sequence again: there is no cache of keys and
    values, and the time grows with the square of the length.

    Args:
        model: An artifact of the task ``text`` or ``pairs``; its tokenizer stands beside it.
        text: What the model continues; for pairs, the source.
        new_tokens: How many tokens to add at most; pairs end before, at ``<end>``.
        loops: As `Session.run`.
        tolerance: As `Session.run`.
        threads: As `Session`, like the rest.
        device: ``cpu`` or ``cuda``.
        memory: Memory profile.

    Returns:
        The most likely next tokens, and the text that was added.

    Raises:
        InputError: The model was not trained on text, its tokenizer is missing or another one, or
            the text is empty or too long.
        MissingExtraError: The model has a tokenizer and the library is not installed.
        ProviderError: The device's execution provider is not available.
    """
    if new_tokens < 0:
        raise InputError(f"{option_name('new_tokens')} is {new_tokens}, at least 0 is needed")
    open_artifact(model)  # as in `run_file`
    session = Session(model, threads=threads, device=device, memory=memory)
    framing = _framing(session)
    try:
        ids = framing.frame(text)
    except UnicodeEncodeError as error:  # a terminal's bytes that were not UTF-8
        raise InputError(f"the text is not UTF-8: character {error.start}") from error
    if not text or not ids:
        raise InputError(
            "the text is empty: there is nothing to run on",
            hint=by_face('--text "..."', 'text="..."'),
        )
    longest = session.metadata.max_length
    if longest is not None and len(ids) > longest:
        raise InputError(
            f"the text has {len(ids)} tokens, {model} takes at most {longest}",
            hint="shorten the text",
        )

    def run(sequence: Sequence[int]) -> tuple[Array, InferenceResult]:
        feeds = session.expected.name_array(np.array([sequence], np.int64))
        outputs, result = run_arrays(session, feeds, loops=loops, tolerance=tolerance)
        return _last_logits(session, outputs), result

    logits, result = run(ids)
    added, notes = _continue(run, ids, logits, new_tokens, longest, framing.end)
    plain = {field.name: getattr(result, field.name) for field in fields(result)}
    return CompletionResult(
        **plain | {"notes": [*result.notes, *notes]},
        text=text,
        tokens=len(ids),
        next_tokens=_likely(logits, framing),
        completion=framing.tokenizer.decode(added) if new_tokens else None,
        new_tokens=len(added),
    )


def _framing(session: Session) -> Framing:
    metadata = session.metadata
    task = metadata.task
    if task.get("name") not in {"text", "pairs"} or "tokenizer" not in task:
        trained = (
            f"on the task {task['name']!r}" if "name" in task else "on something it does not say"
        )
        raise InputError(
            f"{session.path} was trained {trained}: it takes no text",
            hint=f"loopedge run {session.path} --input X.npz",
        )
    companions = read_companions(session.path, metadata)
    return Framing(
        tokenizer=described_tokenizer(task | {"companions": companions}),
        separator=task.get("separator"),
        end=task.get("end"),
    )


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
    run: Callable[[Sequence[int]], tuple[Array, InferenceResult]],
    ids: list[int],
    logits: Array,
    new_tokens: int,
    longest: int | None,
    end: int | None,
) -> tuple[list[int], list[str]]:
    """Return the most likely tokens, one after the other, and why there are no more."""
    added: list[int] = []
    while len(added) < new_tokens:
        token = int(logits.argmax())
        if token == end:
            break
        added.append(token)
        if len(added) == new_tokens:
            break
        if longest is not None and len(ids) + len(added) > longest:
            note = f"ended after {len(added)} of {new_tokens} new tokens: the model takes at most "
            return added, [f"{note}{longest} positions"]
        logits, _ = run([*ids, *added])
    return added, []


def _likely(logits: Array, framing: Framing) -> list[NextToken]:
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    order = np.argsort(-shares, kind="stable")[:LISTED]
    return [
        NextToken(id=int(i), token=framing.show(int(i)), probability=float(shares[i]))
        for i in order
    ]
