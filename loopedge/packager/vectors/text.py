"""Test vectors of a model that writes text: its logits behind a prompt, and a greedy completion."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.artifact.artifact import Artifact
from loopedge.errors import InputError, MissingExtraError
from loopedge.inference.framing import Framing, read_framing
from loopedge.packager.options import DEFAULT_PROMPT, PackageOptions
from loopedge.packager.source import Source
from loopedge.packager.vectors.made import MadeVector, float_check
from loopedge.runtime.generator import Generator
from loopedge.runtime.session import Session, untrained_inputs

__all__ = ["text_vectors"]

Array = npt.NDArray[Any]

PROMPT_TOKENS = 12
"""Of the prompt of a vector without text."""
FLOAT_LEAD, INTEGER_LEAD = 1e-4, 2e-2
"""By how much of the largest logit the best token must lead the second: else another processor may take that one."""


def text_vectors(
    source: Source, reference: Artifact | None, options: PackageOptions
) -> tuple[list[MadeVector], list[str]]:
    """Return the vectors of a model with a cache, and what a person should know of them.

    Args:
        source: The model.
        reference: The float model without a cache, which says what should come out of a quantized one.
        options: Prompt and tokens.
    """
    judged, limit = float_check(source, reference)
    generator = Generator(source.artifact.path, threads=options.threads)
    drawn = np.random.default_rng(1).integers(0, generator.file.ids, (1, PROMPT_TOKENS))
    most = generator.context
    if most is not None:
        drawn = drawn[:, :most]
    counts: list[int | None] = [None]
    chosen = reference is None or reference.metadata.dynamic_loops
    if chosen and generator.file.takes_loops and (generator.loops or 1) > 1:
        counts.append(1)
    made = []
    for loops in counts:
        expected = _logits(source, reference, drawn, loops, options)
        inputs: dict[str, Array] = {"input_ids": drawn}
        if loops is not None:
            inputs["loops"] = np.array(loops, np.int64)
        name = "logits" if loops is None else f"logits, loops {loops}"
        made.append(
            MadeVector(
                name=name, inputs=inputs, outputs={"logits": expected}, judged=judged, limit=limit
            )
        )
    completion, notes = _completion(source, generator, options)
    return made + completion, notes


def _logits(
    source: Source,
    reference: Artifact | None,
    ids: Array,
    loops: int | None,
    options: PackageOptions,
) -> Array:
    """Return float32 (1, 1, vocabulary) after the last token."""
    if reference is None:
        generator = Generator(source.artifact.path, loops=loops, threads=options.threads)
        return generator.prefill(ids[0])[:, None]
    session = Session(reference.path, threads=options.threads)
    chosen = loops if session.takes_loops else None
    with untrained_inputs():
        logits = session.run({session.expected.needed[0]: ids}, loops=chosen)["logits"]
    return np.ascontiguousarray(logits[:, -1:])


def _completion(
    source: Source, generator: Generator, options: PackageOptions
) -> tuple[list[MadeVector], list[str]]:
    """Return the vector of a greedy completion, where text can be made of ids here."""
    try:
        framing = read_framing(source.given.path, source.given.metadata)
    except (MissingExtraError, InputError) as refusal:
        return [], [f"no test vector holds text: {refusal.message}"]
    prompt = options.prompt or DEFAULT_PROMPT
    ids = framing.frame(prompt)
    if not ids:
        return [], [f"no test vector holds text: {prompt!r} has no token"]
    found, certain = _greedy(generator, framing, ids, options.new_tokens, source.quantized)
    if not found:
        return [], ["no test vector holds text: the model's first tokens are nearly equally likely"]
    notes = (
        []
        if certain
        else ["the completion of the test vector ends where two tokens are nearly equally likely"]
    )
    text = framing.tokenizer.decode(found)
    vector = MadeVector(
        name="text",
        inputs={"input_ids": np.array([ids], np.int64)},
        outputs={"completion": np.array([found], np.int64)},
        judged="equal",
        limit=1.0,
        text={"prompt": prompt, "completion": text},
    )
    return [vector], notes


def _greedy(
    generator: Generator, framing: Framing, ids: list[int], new_tokens: int, quantized: bool
) -> tuple[list[int], bool]:
    """Return the most likely tokens, as long as each leads clearly, and whether all do."""
    lead = INTEGER_LEAD if quantized else FLOAT_LEAD
    ends = framing.end_ids | set(generator.file.generation.end_ids)
    most = new_tokens
    if generator.context is not None:
        most = min(most, generator.context - len(ids))
    found: list[int] = []
    logits = generator.prefill(np.array(ids))[0] if most > 0 else np.zeros(1)
    while len(found) < most:
        second, first = np.sort(logits)[-2:]
        if first - second < lead * np.abs(logits).max():
            return found, False
        token = int(logits.argmax())
        if token in ends:
            break
        found.append(token)
        if len(found) < most:
            logits = generator.step(token)[0]
    return found, True
