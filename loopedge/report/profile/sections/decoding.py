"""What a model that decodes does in a second, and what one token reads: tied against untied."""

from collections.abc import Callable, Sequence
from html import escape

from loopedge.profiler.figures import quotient_range
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Decoding, Run
from loopedge.report.page import table
from loopedge.report.profile.cautions import time_caveat
from loopedge.report.profile.colours import colour_of
from loopedge.report.profile.verdict import twin_pairs
from loopedge.report.svg.bars import Part, bar
from loopedge.report.svg.legend import legend
from loopedge.units import ratio_text, size_text

__all__ = ["decoding_section", "tokens_text"]

PARTS = (
    ("weights, once each", "op0"),
    ("weights, again", "op1"),
    ("keys and values of the text", "op2"),
)
"""What one token reads, in words, and the colours."""
MOST_RUNS = 16

Known = list[tuple[str, Run, Decoding]]


def decoding_section(runs: Sequence[Run]) -> list[str]:
    """Return tokens per second, of texts and of prompts, and the bytes that one token reads."""
    known: Known = [
        (label, run, run.decoding)
        for label, run in zip(run_labels(runs), runs, strict=True)
        if run.decoding is not None
    ]
    if not known:
        return []
    lines = ["<h2>Decoding</h2>", *_sentences(known)]
    if len(known) <= MOST_RUNS:
        caveat = time_caveat(*(run for _, run, _ in known))
        note = f" ({caveat})" if caveat else ""
        lines += [
            '<div class="panels">',
            *_speeds(f"Tokens per second: one token behind the text{note}", known, _of_text),
            *_speeds(f"Prompt, tokens per second: the text at once{note}", known, _of_prompt),
            *_bytes(known),
            "</div>",
            *legend([(colour, name) for name, colour in PARTS]),
        ]
    heads = (
        "model", "positions", "tokens/s", "prompt, tokens/s", "weights read", "once each", "an iteration", "held by",
        "keys, values",
    )  # fmt: skip
    rows = [
        (
            label,
            str(run.sequence or "-"),
            tokens_text(item.tokens_per_second),
            tokens_text(item.prompt_tokens_per_second),
            size_text(item.weight_bytes),
            size_text(item.distinct_bytes),
            size_text(item.block_bytes),
            item.fits or "memory",
            size_text(item.cache_bytes),
        )
        for label, run, item in known
    ]
    return [
        *lines,
        *table(heads, rows),
        '<p class="note">One token reads the weights of all products that run, and the keys and values of the text. Weights that '
        "are the same in each iteration are stored once: they may come from the cache of the processor that holds an iteration "
        "(held by). Weights that are all different take room each.</p>",
    ]


def tokens_text(count: float | None) -> str:
    """Say tokens per second with three digits, or all before the point; a dash where they are not known."""
    if count is None:
        return "-"
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def _sentences(known: Known) -> list[str]:
    """Return a sentence for each model that was measured beside its untied twin."""
    decoding = {id(run): item for _, run, item in known}
    found = []
    for tied, untied in twin_pairs([run for _, run, _ in known]):
        one, other = decoding[id(tied)], decoding[id(untied)]
        text = (
            f"{tied.name}: {tokens_text(one.tokens_per_second)} tokens per second tied, "
            f"{tokens_text(other.tokens_per_second)} untied{_against(tied, untied)}; a token reads "
            f"{size_text(one.distinct_bytes)} of different weights tied, {size_text(other.distinct_bytes)} untied."
        )
        found.append(f"<p>{escape(text)}</p>")
    return found


def _against(tied: Run, untied: Run) -> str:
    """Say which is faster, where that is beyond the noise, and what speaks against it."""
    ratio, spread = untied.time_ratio / tied.time_ratio, quotient_range(untied, tied, "time_ratio")
    words = f", {ratio_text(max(ratio, 1 / ratio))} {'faster' if ratio >= 1 else 'slower'}"
    if spread is not None and spread.low <= 1 <= spread.high:
        words = ", the same within the noise"
    caveat = time_caveat(tied, untied)
    return f"{words} ({caveat})" if caveat else words


def _of_text(item: Decoding) -> float | None:
    return item.tokens_per_second


def _of_prompt(item: Decoding) -> float | None:
    return item.prompt_tokens_per_second


def _speeds(caption: str, known: Known, of: Callable[[Decoding], float | None]) -> list[str]:
    """Return bars of tokens per second; none where they are not known of any."""
    speeds = [(label, run, value) for label, run, item in known if (value := of(item)) is not None]
    if not speeds:
        return []
    largest = max(value for *_, value in speeds) or 1.0
    lines = ["<figure>", f"<figcaption><b>{escape(caption)}</b></figcaption>"]
    for label, run, value in speeds:
        lines += bar(label, tokens_text(value), [Part(colour_of(run), label, value / largest)])
    return [*lines, "</figure>"]


def _bytes(known: Known) -> list[str]:
    """Return stacked bars of what one token reads."""
    largest = max(item.weight_bytes + item.cache_bytes for *_, item in known) or 1
    lines = ["<figure>", "<figcaption><b>Bytes that one token reads</b></figcaption>"]
    for label, _, item in known:
        again = item.weight_bytes - item.distinct_bytes
        parts = [
            Part(colour, f"{name}: {size_text(size)}", size / largest)
            for (name, colour), size in zip(
                PARTS, (item.distinct_bytes, again, item.cache_bytes), strict=True
            )
        ]
        lines += bar(label, size_text(item.weight_bytes + item.cache_bytes), parts)
    return [*lines, "</figure>"]
