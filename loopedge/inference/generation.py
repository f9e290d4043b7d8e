"""Generate text with a cache: what ``loopedge generate`` does."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loopedge.data.token_stream import TokenStream
from loopedge.errors import InputError
from loopedge.inference.framing import Framing, empty_text, read_framing
from loopedge.inference.stop_strings import StopStrings
from loopedge.options import by_face, option, option_name
from loopedge.runtime.decoding.sampling import Sampling
from loopedge.runtime.generator import GeneratedToken, Generator

__all__ = ["DEFAULT_NEW_TOKENS", "GeneratedText", "Rate", "TextPiece", "generate_text"]

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A token, the text that it adds (what may still become a stop string is held back), and how likely it was."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast tokens were computed; None where there was none."""

    tokens: int
    seconds: float
    tokens_per_second: float | None

    @classmethod
    def of(cls, tokens: int, seconds: float) -> "Rate":
        """Return the rate of some tokens."""
        rate = tokens / seconds if tokens and seconds > 0 else None
        return cls(tokens=tokens, seconds=seconds, tokens_per_second=rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedText:
    """What was generated.

    ``ended`` says why: ``end`` (a token that ends a text), ``stop`` (a stop string, which ``stop`` is), ``new_tokens``,
    ``context``. ``rest`` is what was held back until the end: the texts of the pieces and ``rest`` are ``text``.
    """

    model: str
    loops: int | None
    provider: str
    memory: str
    context: int | None
    cache_bytes: int
    prompt_tokens: int
    new_tokens: int
    text: str
    rest: str
    ended: str
    stop: str | None
    prefill: Rate
    decode: Rate
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


def generate_text(
    model: str | Path,
    prompt: str,
    *,
    new_tokens: int = DEFAULT_NEW_TOKENS,
    stop: Sequence[str] = (),
    sampling: Sampling | None = None,
    chat: bool = False,
    system: str | None = None,
    loops: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    memory: str | None = None,
    seed: int | None = None,
    report_piece: Callable[[TextPiece], None] = lambda piece: None,
) -> GeneratedText:
    """Let a model go on with a text.

    Args:
        model: A file that ``loopedge to-generate`` wrote; its tokenizer stands beside it.
        prompt: What the model goes on with; with ``chat`` a message to it.
        new_tokens: Tokens to add at most.
        stop: Texts that end it, not shown.
        sampling: How tokens are chosen; None: the most likely one each time.
        chat: Write the prompt as a conversation, by the chat template beside the model.
        system: The system's message before it.
        loops: As `Generator`, like the rest.
        context: Positions at most.
        threads: Threads inside an operator.
        memory: Memory profile.
        seed: Of the draws, and of the noise that some models take beside each token; default: draws differ each time, and
            the noise has 0.
        report_piece: Gets each token as it is found.

    Raises:
        InputError: The file has no cache, was not trained on text, or its tokenizer is missing or another one; the prompt
            is empty or longer than the context; an option is out of bounds; the model gives NaN.
        MissingExtraError: The model has a tokenizer, or a chat template, and its library is not installed.
    """
    if new_tokens < 0:
        raise InputError(f"{option_name('new_tokens')} is {new_tokens}, at least 0 is needed")
    if system is not None and not chat:
        raise InputError(f"{option_name('system')} goes with a conversation", hint=option("chat"))
    chosen = sampling or Sampling()
    stops = StopStrings(stop)
    generator = Generator(
        model,
        context=context,
        loops=loops,
        threads=threads,
        memory=memory,
        seed=seed or 0,
    )
    if seed is not None and not (chosen.temperature is None and generator.file.noise):
        chosen = replace(chosen, seed=seed)
    framing = read_framing(generator.file.path, generator.file.metadata)
    ids = _prompt_ids(framing, prompt, chat=chat, system=system)
    ends = framing.end_ids | set(generator.file.generation.end_ids)
    stream = generator.stream(ids, new_tokens=new_tokens, end_ids=tuple(ends), **asdict(chosen))
    run = _Run(stream, framing.tokenizer.stream(ids), stops)
    run.follow(report_piece)
    ended = "stop" if stops.found is not None else generator.ended or "new_tokens"
    session = generator.file.session
    return GeneratedText(
        model=str(model),
        loops=generator.loops,
        provider=session.provider,
        memory=session.memory,
        context=generator.context,
        cache_bytes=generator.cache_bytes,
        prompt_tokens=len(ids),
        new_tokens=run.tokens,
        text=run.text + run.rest,
        rest=run.rest,
        ended=ended,
        stop=stops.found,
        prefill=Rate.of(len(ids), run.prefill_seconds),
        decode=Rate.of(run.steps, run.decode_seconds),
        notes=[*generator.notes, *_context_note(ended, run.tokens, new_tokens, generator.context)],
    )


class _Run:
    """Tokens from a stream, as text, and how long each took: the first one the prompt, each other one a step."""

    def __init__(
        self, stream: Iterator[GeneratedToken], decoder: TokenStream, stops: StopStrings
    ) -> None:
        self._stream, self._decoder, self._stops = stream, decoder, stops
        self.text = self.rest = ""
        self.tokens = self.steps = 0
        self.prefill_seconds = self.decode_seconds = 0.0

    def follow(self, report_piece: Callable[[TextPiece], None]) -> None:
        """Take tokens until they end, or a stop string does."""
        pieces = []
        while self._stops.found is None and (token := self._next()) is not None:
            piece = self._stops.add(self._decoder.add(token.id))
            pieces.append(piece)
            report_piece(TextPiece(token.id, piece, token.probability))
        self.text = "".join(pieces)
        if self._stops.found is None:
            self.rest = self._stops.add(self._decoder.rest()) + self._stops.rest()

    def _next(self) -> GeneratedToken | None:
        started = time.perf_counter()
        token = next(self._stream, None)
        seconds = time.perf_counter() - started
        if self.prefill_seconds == 0.0:
            self.prefill_seconds = seconds
        elif token is not None:
            self.steps += 1
            self.decode_seconds += seconds
        self.tokens += token is not None
        return token


def _prompt_ids(framing: Framing, prompt: str, *, chat: bool, system: str | None) -> list[int]:
    if not prompt:
        raise empty_text(by_face('--prompt "..."', 'prompt="..."'))
    ids = framing.frame_chat(prompt, system) if chat else framing.frame(prompt)
    if not ids:
        raise empty_text(by_face('--prompt "..."', 'prompt="..."'))
    return ids


def _context_note(ended: str, tokens: int, wanted: int, context: int | None) -> list[str]:
    if ended != "context":
        return []
    return [f"ended after {tokens} of {wanted} new tokens: the context is {context} positions"]
