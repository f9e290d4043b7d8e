"""Whether decoding with a cache gives what recomputation gives, for 500 tokens on every architecture.

    python benchmarks/decode/equality.py --output benchmarks/results/decode

A text of random tokens goes through PyTorch whole. Through the generate file it goes in chunks of uneven sizes and then token
by token, up to the context limit; in rows of different lengths; and with the loop count lowered on the way, where the file takes
one. The largest relative error of all logits is printed, and at how many of the positions the most likely token is another
one than PyTorch's. The untrained models have random weights and random timestep rows, so that every attention matters.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import loopedge
from examples.models import (
    hrm_like,
    huginn_like,
    loopformer_like,
    ouro_like,
    parcae_like,
    relaxed_recursive_like,
)

Array = npt.NDArray[Any]

POSITIONS = 512
CHUNKS = (5, 1, 1, 30, 2, 64, 1)
ROWS = (200, 63, 1)
STEPS = 40
ALLOWED = 1e-4


@dataclass(frozen=True, slots=True)
class Outcome:
    """Largest relative error, positions, and those at which the most likely token is another one."""

    error: float
    positions: int
    others: int


def architectures() -> Iterator[tuple[str, Callable[[], torch.nn.Module]]]:
    """Yield the models."""
    for positions in ("learned", "rotary"):
        for layers in (1, 3):
            for timestep in ("none", "sinusoidal"):
                name = f"LoopedTransformer, {positions}, {layers} layer{'s' if layers > 1 else ''}, {timestep}"
                yield name, partial(own, positions, layers, timestep)
    for module in (
        hrm_like,
        huginn_like,
        loopformer_like,
        ouro_like,
        parcae_like,
        relaxed_recursive_like,
    ):
        yield module.__name__.rpartition(".")[2], module.make
    from tests.parity.published.checkpoints import CONFIGS, make_module

    for kind in CONFIGS:
        yield f"published, {kind}", partial(make_module, kind)


def own(positions: Any, layers: int, timestep: Any) -> torch.nn.Module:
    """Return the reference model, its timestep rows made random."""
    torch.manual_seed(0)
    config = loopedge.LoopedConfig(
        d_model=64,
        heads=4,
        layers=layers,
        loops=4,
        vocab_size=97,
        max_length=POSITIONS,
        positions=positions,
        timestep=timestep,
    )
    model = loopedge.LoopedTransformer(config)
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def compare(model: torch.nn.Module, folder: Path) -> tuple[Outcome, Outcome, str]:
    """Compare one row in chunks and token by token, and rows of different lengths; say what lowering the loops gave."""
    source, decoding = folder / "lm.onnx", folder / "lm.generate.onnx"
    inner: Any = model
    inner.max_length = POSITIONS
    dynamic = not hasattr(model, "inner_counts")
    options: dict[str, Any] = {"exit": "none"} if hasattr(model, "halt") else {}
    try:
        loopedge.export(model, source, dynamic_loops=dynamic, force=True, **options)
    except loopedge.errors.InputError:
        loopedge.export(model, source, force=True, **options)
    loopedge.to_generate(source, decoding, force=True)
    vocabulary = loopedge.Generator(decoding).file.vocabulary
    ids = np.random.default_rng(0).integers(0, vocabulary, (1, POSITIONS))
    rows = [ids[0, :length] for length in ROWS]
    return (
        _one_row(model, decoding, ids),
        _several_rows(model, decoding, rows, ids[0, -STEPS:]),
        _lowered(source, decoding, ids),
    )


def whole(model: torch.nn.Module, ids: Array) -> Array:
    """Return PyTorch's logits of a whole text, (1, sequence, vocabulary)."""
    inner: Any = model
    given: list[torch.Tensor] = [torch.tensor(ids)]
    names = getattr(model, "input_names", ("input_ids",))
    for name in names[1:]:
        if name == "attention_mask":
            given.append(torch.ones(ids.shape, dtype=torch.int64))
        elif name == "token_type_ids":
            given.append(torch.zeros(ids.shape, dtype=torch.int64))
        else:
            deviation = inner.random_inputs[name]
            width = inner.example_inputs()[names.index(name)].shape[2:]
            noise = np.random.default_rng(0)  # each row gets what it would get alone
            drawn = noise.standard_normal((*ids.shape, *width)) * deviation
            given.append(torch.tensor(drawn, dtype=torch.float32))
    with torch.no_grad():
        found = model(*given)
    logits: Array = found.numpy()
    return logits


def _one_row(model: torch.nn.Module, path: Path, ids: Array) -> Outcome:
    expected = whole(model, ids)[0]
    generator = loopedge.Generator(path, context=POSITIONS)
    outcome = Outcome(0.0, 0, 0)
    done = 0
    while done < POSITIONS:
        size = CHUNKS[outcome.positions] if outcome.positions < len(CHUNKS) else 1
        piece = ids[0, done : done + size]
        done += len(piece)
        outcome = _judged(outcome, generator.prefill(piece), expected[None, done - 1], expected)
    return outcome


def _several_rows(model: torch.nn.Module, path: Path, rows: list[Array], added: Array) -> Outcome:
    texts = [np.concatenate([row, added]) for row in rows]
    expected = [whole(model, text[None])[0] for text in texts]
    generator = loopedge.Generator(path, batch=len(rows))
    logits = generator.prefill(rows)
    outcome = Outcome(0.0, 0, 0)
    for step in range(len(added)):
        wanted = np.stack(
            [each[len(row) + step - 1] for each, row in zip(expected, rows, strict=True)]
        )
        outcome = _judged(outcome, logits, wanted, expected[0])
        logits = generator.step([int(added[step])] * len(rows))
    return outcome


def _lowered(source: Path, path: Path, ids: Array) -> str:
    """Lower the loop count in mid-text, against the exported file: PyTorch may have other tables for fewer loops."""
    generator = loopedge.Generator(path)
    try:
        generator.change_loops(1)
    except loopedge.errors.InputError:
        return "fixed"
    generator = loopedge.Generator(path)
    if generator.loops is None or generator.loops < 2:
        return "one loop"
    generator.prefill(ids[0, :40])
    again = generator.change_loops(generator.loops - 1)
    session = loopedge.Session(source)
    feeds = {"input_ids": ids[:, :80]}
    for name in ("attention_mask", "token_type_ids"):
        if name in session.inputs:
            feeds[name] = np.full((1, 80), int(name == "attention_mask"))
    expected = session.run(feeds, loops=generator.loops)[session.output_names[0]][0]
    outcome = Outcome(0.0, 0, 0)
    for place in range(40, 80):
        outcome = _judged(
            outcome, generator.step(int(ids[0, place])), expected[None, place], expected
        )
    way = "the text again" if again else "exact at once"
    return f"{way}, {outcome.error:.1e}"


def _judged(before: Outcome, found: Array, wanted: Array, scale: Array) -> Outcome:
    error = float(np.abs(found - wanted).max() / np.abs(scale).max())
    others = int((found.argmax(-1) != wanted.argmax(-1)).sum())
    return Outcome(max(before.error, error), before.positions + len(found), before.others + others)


def main() -> int:
    """Print the table; exit code 1 where a model differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="folder for equality.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [
        "| model | one row: error | other tokens | rows of different lengths: error | other tokens | one loop less in mid-text |",
        "|---|---|---|---|---|---|",
    ]
    missed = False
    print("\n".join(lines), flush=True)
    for name, make in architectures():
        with tempfile.TemporaryDirectory() as folder:
            one, several, lowered = compare(make(), Path(folder))
        missed |= not max(one.error, several.error) <= ALLOWED
        lines.append(
            f"| {name} | {one.error:.1e} | {one.others} of {one.positions} | {several.error:.1e} | "
            f"{several.others} of {several.positions} | {lowered} |"
        )
        print(lines[-1], flush=True)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        text = f"# Cached against whole texts of {POSITIONS} tokens\n\n{__doc__}\n"
        (options.output / "equality.md").write_text(text + "\n" + "\n".join(lines) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
