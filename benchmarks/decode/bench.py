"""How fast does a looped language model decode with a cache, and how much memory does that take?

A model in Nanbeige's shape, in float32, 8 and 4 bits, one and two threads: the generate file against the same file written
out, PyTorch with a cache, recomputation of the whole text, and llama.cpp, which must agree to 100 dB in float32 first.
Products of one width take turns in processes of their own. The first run builds llama.cpp (five minutes) and writes
files (five minutes); then it takes twelve.

    python -m benchmarks.decode.bench [--shape large] [--threads 1 2] [--output benchmarks/results/decode]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.decode.agreement import LEAST_DB, agreement_db
from benchmarks.decode.files import MANY, folder_of, make_files, make_many
from benchmarks.decode.llama.source import LlamaMissingError, build_library
from benchmarks.decode.measurement import Effort, Figures, measure
from benchmarks.decode.model import SHAPES, Shape
from benchmarks.decode.processes.process import DecodingProcess
from benchmarks.decode.products import PRODUCTS, RIVALS, Product
from benchmarks.decode.tables import MIB, SESSION_BYTES, Goal, goals, table
from loopedge.profiler.machine import describe_machine

EXIT_BOUND = 4
QUICK = Effort(rounds=2, tokens=4, prefills=1, contexts=(64, 512))
COUNTS = (1, 4, MANY)
PAGE, TOKENS, PROCESSES = 4096, 36, 3


def main() -> int:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SHAPES, default="large")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--widths", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--only", help="labels that hold this text, and the first of their width")
    parser.add_argument("--quick", action="store_true", help="try the program")
    parser.add_argument("--output", type=Path, help="folder for SHAPE.md and SHAPE.json")
    arguments = parser.parse_args()
    products, why = _products(arguments.widths, arguments.only)
    folder = make_files(arguments.shape, with_llama=why is None)
    agreement = agreement_db(products, arguments.shape, folder)
    wrong = _wrong(products, agreement)
    if wrong:
        print("\n".join(wrong))
        return EXIT_BOUND
    effort = QUICK if arguments.quick else Effort()
    lines = [_head(arguments.shape), *([why, ""] if why else [])]
    held = [] if arguments.quick else [_session_memory(arguments.shape)]
    found: list[Figures] = []
    for threads in arguments.threads:
        lines += [f"## {threads} thread{'s' if threads > 1 else ''}", ""]
        for width in arguments.widths:
            print(f"{width}, {threads} threads", file=sys.stderr, flush=True)
            chosen = [product for product in products if product.width == width]
            measured = measure(chosen, arguments.shape, folder, threads, effort)
            found += measured
            lines += [*table(measured, agreement), ""]
        of_threads = [one for one in found if one.threads == threads]
        held += goals(of_threads, _bytes_per_token(arguments.shape))
    lines += ["| held against | measured | allowed | |", "|---|---|---|---|"]
    lines += [goal.row() for goal in held]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        name = arguments.shape
        (arguments.output / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        figures: dict[str, Any] = {
            "machine": describe_machine(),
            "agreement_db": agreement,
            "figures": [one.to_json() for one in found],
        }
        text = json.dumps(figures, indent=1) + "\n"
        (arguments.output / f"{name}.json").write_text(text, encoding="utf-8")
    return EXIT_BOUND if any(goal.blocks and not goal.is_reached for goal in held) else 0


def _products(widths: list[str], only: str | None) -> tuple[list[Product], str | None]:
    """Return what is measured, and why llama.cpp is not."""
    why = None
    try:
        build_library()
    except LlamaMissingError as error:
        why = f"llama.cpp is not there: {error}"
    first = {width: next(p.label for p in PRODUCTS if p.width == width) for width in widths}
    products = [
        product
        for product in PRODUCTS
        if product.width in widths
        and (why is None or product.engine != "llama")
        and (only is None or only in product.label or product.label == first[product.width])
    ]
    return products, why


def _wrong(products: list[Product], agreement: dict[str, float | str]) -> list[str]:
    """Return what computes another model; a cache of halves rounds, and other widths do."""
    return [
        f"{product.label}: {agreement[product.label]}, at least {LEAST_DB:.0f} dB are asked"
        for product in products
        if product.width == "float32" and product.cache == "float32"
        for found in [agreement[product.label]]
        if isinstance(found, str) or found < LEAST_DB
    ]


def _session_memory(shape: str) -> Goal:
    """Compare what a session takes at several loop counts, its cache aside."""
    path = make_many(shape)
    sizes = SHAPES[shape]
    taken = [
        statistics.median(_beside_cache(path, sizes, loops) for _ in range(PROCESSES))
        for loops in COUNTS
    ]
    return Goal(
        name=f"session of {folder_of(shape).name}, anonymous MiB beside the cache at r={', '.join(map(str, COUNTS))}: "
        "most less least",
        measured=(max(taken) - min(taken)) / MIB,
        allowed=SESSION_BYTES / MIB,
        blocks=True,
    )


def _beside_cache(path: Path, sizes: Shape, loops: int) -> float:
    """Return the anonymous bytes of a fresh process that decoded some tokens, those of its cache left out."""
    request = {
        "engine": "generator",
        "file": str(path),
        "context": 128,
        "threads": 1,
        "vocab_size": sizes.vocab_size,
        "loops": loops,
    }
    with DecodingProcess(request) as process:
        process.prefill(TOKENS - 4)
        process.decode(4)
        # Of each head's positions the pages that hold the tokens are touched.
        pages = -(-TOKENS * sizes.head_size * 4 // PAGE)
        cache = pages * PAGE * loops * sizes.layers * sizes.kv_heads * 2
        return float(process.memory()["anon_bytes"] - cache)


def _bytes_per_token(shape: str) -> int:
    sizes = SHAPES[shape]
    return sizes.loops * sizes.layers * sizes.kv_heads * sizes.head_size * 2 * 4


def _head(shape: str) -> str:
    sizes, machine = SHAPES[shape], describe_machine()
    return (
        f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, llama.cpp of llama-cpp-python 0.3.36. "
        f"d={sizes.d_model}, {sizes.layers} layers x {sizes.loops} loops, {sizes.heads} heads, {sizes.kv_heads} of keys, "
        f"MLP {sizes.d_ff}, vocabulary {sizes.vocab_size}, random weights. Tokens per second of processor time on one "
        "thread, of wall time on more; peak: growth over the process with its runtime imported.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
