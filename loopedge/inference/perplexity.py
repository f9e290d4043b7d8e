"""Perplexity of language models on a text: what ``loopedge evaluate`` does.

A file without a cache computes whole windows. A generate file is fed token by token, each step reads the keys and values
that the steps before it have left in the cache: so what the cache rounds, and what an early exit leaves out, counts.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loopedge.artifact.properties import read_properties
from loopedge.errors import InputError, UntrainedWarning
from loopedge.files.arrays import Array
from loopedge.files.input_files import check_file
from loopedge.graph.metadata import ITERATIONS_OUTPUT, Generation, Metadata, read_metadata
from loopedge.inference.scored_text import ScoredText, tokenizer_of
from loopedge.options import option, option_name
from loopedge.runtime.generator import Generator
from loopedge.runtime.session import Session
from loopedge.tasks.likelihood import (
    bits_per_byte,
    negative_log_likelihood,
    perplexity,
    rows_at_once,
)

__all__ = ["DEFAULT_CONTEXT", "SAMPLES", "EvaluateResult", "Evaluation", "evaluate"]

SAMPLES = 256
"""Windows that are scored unless more or fewer are asked for."""
DEFAULT_CONTEXT = 256
"""Tokens of a window, for a model that does not say how many it was trained on."""
TOGETHER = 8
"""Windows that are computed at once."""

Mode = Literal["windows", "cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One model with one loop count.

    Args:
        model: Its file.
        loops: Iterations that were asked for; None: as many as the file says.
        mode: ``windows``: each window was computed whole; ``cache``: token by token.
        perplexity: exp of the mean of -log p(token).
        bits_per_byte: What a byte of the text costs: it does not depend on the tokenizer.
        accuracy: Share of the tokens that were the most likely one.
        change: Perplexity over that of the first model with as many loops, less 1; None for the first model.
        change_error: Standard error of ``change`` over the windows.
        iterations: Mean of the iterations that ran, for a model with an early exit.
        seconds: Wall time.
    """

    model: str
    loops: int | None
    mode: Mode
    perplexity: float
    bits_per_byte: float
    accuracy: float
    change: float | None
    change_error: float | None
    iterations: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """What `evaluate` found."""

    text: str
    context: int
    windows: int
    tokens: int
    text_bytes: float
    evaluations: list[Evaluation]
    notes: list[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """What a model gave for every window, in order.

    Args:
        mode: As in `Evaluation`.
        nats: Sum of -log p(token) of each window, float64 (windows,).
        right: Tokens that were the most likely one.
        iterations: Mean of those that ran, where an early exit says them.
        seconds: Wall time.
    """

    mode: Mode
    nats: Array
    right: int
    iterations: float | None
    seconds: float


def evaluate(
    models: str | Path | Sequence[str | Path],
    text: str | Path,
    *,
    loops: int | Sequence[int] | None = None,
    context: int | None = None,
    samples: int = SAMPLES,
    tolerance: float | None = None,
    threads: int | None = None,
) -> EvaluateResult:
    """Measure how likely language models find a text, side by side on the same windows of it.

    Args:
        models: ``.onnx`` files of one tokenizer: as exported, quantized, or made for generation. The first is what
            the others are compared with.
        text: A file, or a folder of them, in UTF-8. Figures say something of texts that neither trained nor
            calibrated a model.
        loops: A loop count or several, for models with a selectable count; default: as each file says.
        context: Tokens of a window; default: as many as the first model was trained on.
        samples: Most windows, evenly spread over the text.
        tolerance: For models with an early exit by tolerance: another tolerance than the exported one.
        threads: Threads inside an operator; default: ONNX Runtime's own choice.

    Returns:
        A row per model and loop count.

    Raises:
        InputError: A model, the text or an option cannot be used.
        MissingExtraError: The library of the tokenizer is not installed.
    """
    started = time.perf_counter()
    paths = [models] if isinstance(models, str | Path) else list(models)
    counts = [loops] if loops is None or isinstance(loops, int) else list(loops)
    _check_options(paths, counts, context, samples)
    known = [_metadata_of(path) for path in paths]
    scored = ScoredText.open(
        text,
        tokenizer_of(paths[0], known[0]),
        context=context or known[0].trained_length or DEFAULT_CONTEXT,
        samples=samples,
    )
    for path, metadata in zip(paths, known, strict=True):
        _check_model(path, metadata, scored)
    size = scored.text_bytes()
    found: list[Evaluation] = []
    notes: dict[str, None] = {}
    references: dict[int | None, Array] = {}
    for number, (path, metadata) in enumerate(zip(paths, known, strict=True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UntrainedWarning)
            for count, scores in _scores(path, metadata, scored, counts, tolerance, threads):
                reference = references.get(count) if number else None
                found.append(_evaluation(path, count, scores, reference, scored, size))
                if not number:
                    references[count] = scores.nats
        notes |= {f"{Path(path).name}: {warning.message}": None for warning in caught}
    return EvaluateResult(
        text=str(text),
        context=scored.context,
        windows=len(scored.starts),
        tokens=scored.tokens,
        text_bytes=size,
        evaluations=found,
        notes=list(notes),
        seconds=time.perf_counter() - started,
    )


def _check_options(
    paths: Sequence[str | Path],
    counts: Sequence[int | None],
    context: int | None,
    samples: int,
) -> None:
    if not paths:
        raise InputError("no model is named", hint="loopedge evaluate MODEL.onnx --text PATH")
    for name, value in (("context", context), ("samples", samples)):
        if value is not None and value < 1:
            raise InputError(f"{option_name(name)} is {value}, at least 1 is needed")
    if not counts or any(count is not None and count < 1 for count in counts):
        raise InputError(
            f"{option_name('loops')} asks for {', '.join(map(str, counts)) or 'none'}, at least 1 is needed",
            hint=option("loops", 1),
        )


def _metadata_of(path: str | Path) -> Metadata:
    source = check_file(path, needed="an ONNX file", hint="loopedge export model.pt")
    try:
        return read_metadata(read_properties(source))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not an ONNX file that loopedge wrote") from error


def _check_model(path: str | Path, metadata: Metadata, scored: ScoredText) -> None:
    scored.check_tokenizer(path, tokenizer_of(path, metadata))
    if metadata.max_length is not None and scored.context > metadata.max_length:
        raise InputError(
            f"{path} takes at most {metadata.max_length} positions, {option('context', scored.context)}",
            hint=option("context", metadata.max_length),
        )


def _scores(
    path: str | Path,
    metadata: Metadata,
    scored: ScoredText,
    counts: Sequence[int | None],
    tolerance: float | None,
    threads: int | None,
) -> Iterator[tuple[int | None, _Scores]]:
    """Yield what a model gives with each loop count."""
    if metadata.generate is not None:
        for count in counts:
            yield count, _through_cache(path, metadata.generate, scored, count, tolerance, threads)
        return
    session = Session(path, threads=threads)
    for count in counts:
        yield count, _in_windows(session, scored, count, tolerance)


def _in_windows(
    session: Session, scored: ScoredText, loops: int | None, tolerance: float | None
) -> _Scores:
    """Compute whole windows, some at once."""
    began = time.perf_counter()
    at_once = rows_at_once(TOGETHER, scored.context, scored.tokenizer.vocab_size)
    nats, right, iterations = [], 0, []
    for windows in scored.windows(at_once):
        feeds = session.expected.name_array(windows[:, :-1])
        outputs = session.run(feeds, loops, tolerance=tolerance)
        logits = outputs[session.output_names[0]]
        asked = windows[:, 1:]
        if logits.shape[:2] != asked.shape:
            raise InputError(
                f"{session.path} gives the logits of its last position alone, each position is scored",
                hint="loopedge export model.pt, without --logits last",
            )
        nats += [
            negative_log_likelihood(logits[row : row + 1], asked[row : row + 1])
            for row in range(len(asked))
        ]
        right += int((logits.argmax(axis=-1) == asked).sum())
        if session.metadata.exit is not None:
            iterations.append(outputs[ITERATIONS_OUTPUT])
    return _Scores(
        mode="windows",
        nats=np.array(nats),
        right=right,
        iterations=float(np.concatenate(iterations).mean()) if iterations else None,
        seconds=time.perf_counter() - began,
    )


def _through_cache(
    path: str | Path,
    generation: Generation,
    scored: ScoredText,
    loops: int | None,
    tolerance: float | None,
    threads: int | None,
) -> _Scores:
    """Feed windows token by token, some side by side: each reads the cache that its own tokens have left."""
    began = time.perf_counter()
    if tolerance is not None:
        raise InputError(f"{path} takes no tolerance", hint=f"leave out {option_name('tolerance')}")
    exits = generation.exit is not None  # one text at a time
    together = 1 if exits else min(TOGETHER, len(scored.starts))
    generator = Generator(
        path, context=scored.context, loops=loops, batch=together, threads=threads
    )
    nats, right, iterations = [], 0, 0
    for windows in scored.windows(generator.batch):
        rows = len(windows)
        full = windows[
            np.minimum(np.arange(generator.batch), rows - 1)
        ]  # of the last few, one again
        generator.reset()
        own = np.zeros(rows)
        for place in range(scored.context):
            tokens = full[:, place]
            logits = generator.step(tokens) if place else generator.prefill(tokens[:, None])
            asked = windows[:, place + 1]
            iterations += 0 if generator.iterations is None else int(generator.iterations.sum())
            for row in range(rows):
                own[row] += negative_log_likelihood(
                    logits[row][None, None], asked[row : row + 1][None]
                )
            right += int((logits[:rows].argmax(axis=-1) == asked).sum())
        nats.append(own)
    return _Scores(
        mode="cache",
        nats=np.concatenate(nats),
        right=right,
        iterations=iterations / scored.tokens if exits else None,
        seconds=time.perf_counter() - began,
    )


def _evaluation(
    path: str | Path,
    loops: int | None,
    scores: _Scores,
    reference: Array | None,
    scored: ScoredText,
    text_bytes: float,
) -> Evaluation:
    total = float(scores.nats.sum())
    change, error = (None, None) if reference is None else _change(scores.nats, reference, scored)
    return Evaluation(
        model=str(path),
        loops=loops,
        mode=scores.mode,
        perplexity=perplexity(total, scored.tokens),
        bits_per_byte=bits_per_byte(total, text_bytes),
        accuracy=scores.right / scored.tokens,
        change=change,
        change_error=error,
        iterations=scores.iterations,
        seconds=scores.seconds,
    )


def _change(nats: Array, reference: Array, scored: ScoredText) -> tuple[float, float | None]:
    """Return the ratio of two perplexities less 1, and its standard error over the windows, to first order."""
    differences = (nats - reference) / scored.context
    ratio = perplexity(float(differences.sum()), len(differences))
    if len(differences) < 2:
        return ratio - 1, None
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return ratio - 1, ratio * error
