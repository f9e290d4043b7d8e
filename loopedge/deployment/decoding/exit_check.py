"""Verify an early exit for each token: it ends where the source's rule ends it, with what a file without exits gives at k loops.

When it ends is found again from the states of the reference (`loopedge.deployment.decoding.exit_rule`). The reference runs a file that is never done, token by token, at as many loops as the exit took. What the skipped iterations
keep is put into its cache by hand: keys and values of the last iteration that ran, or nothing.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from loopedge.artifact.artifact import Artifact, write_scratch
from loopedge.deployment.decoding.exit_rule import ExitRule
from loopedge.deployment.decoding.plain_decoder import PlainDecoder
from loopedge.errors import InputError, VerificationError
from loopedge.graph.agreement import largest_error
from loopedge.graph.decoding.cache.skipping import ExitPolicy, run_on
from loopedge.graph.metadata import ITERATIONS_OUTPUT, Generation, write_metadata
from loopedge.options import option, option_name

__all__ = ["check_exit", "compare_exits", "never_done"]

PROMPT, TOKENS = 5, 24
"""Tokens that are computed at once, and those that follow, each with an exit of its own."""
EXACT = 1e-4
"""Largest allowed max |y - ref| / max |ref|."""


def check_exit(policy: str | None, tolerance: float | None, *, form: str, cache_type: str) -> None:
    """Refuse an exit that does not go with the rest.

    Raises:
        InputError: The policy is not known, the tolerance is out of bounds or has no exit; the form is another than ``scan``,
            or the cache holds integers.
    """
    if policy is None:
        if tolerance is not None:
            raise InputError(
                f"{option('tolerance', tolerance)} is of an early exit", hint=option("exit", "copy")
            )
        return
    if policy not in get_args(ExitPolicy):
        raise InputError(
            f"{option_name('exit')} is {policy!r}, not known",
            hint=" or ".join(option("exit", each) for each in get_args(ExitPolicy)),
        )
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance is {tolerance}, it must be finite and at least 0")
    if form != "scan":
        raise InputError(
            f"an early exit for each token needs the form scan, not {form}",
            hint=option("form", "scan"),
        )
    if cache_type != "float32":
        raise InputError(
            f"with an early exit the cache holds floats, not {cache_type}",
            hint=option("cache_type", "float32"),
        )


def never_done(artifact: Artifact, path: Path) -> Artifact:
    """Return a copy of a model with an early exit that always runs all iterations."""
    graph = artifact.fresh_graph()
    run_on(graph, tolerance=0.0, never=True)
    for value in [value for value in graph.graph.outputs if value.name == ITERATIONS_OUTPUT]:
        graph.graph.outputs.remove(value)
    known = artifact.metadata.model_copy(update={"exit": None})
    write_metadata(known, graph.metadata_props)
    write_scratch(graph, path)
    return Artifact.open(path)


def compare_exits(
    plain: tuple[Path, Generation],
    written: tuple[Path, Generation],
    policy: ExitPolicy,
    *,
    rule: ExitRule | None = None,
    noise: Mapping[str, float],
    threads: int | None,
) -> float:
    """Compare a file whose tokens exit early with one whose tokens do not; return the mean of the iterations.

    Args:
        plain: The file that is never done, and what it says of itself.
        written: The file with the exit.
        policy: What a skipped iteration keeps.
        rule: Says when a token ends, of the states that the plain file gives; None: that is not compared.
        noise: Inputs that hold noise, with its standard deviation.
        threads: Threads of ONNX Runtime.

    Raises:
        VerificationError: A token differs, or ends at another iteration.
    """
    reference, found = (
        PlainDecoder(path, generation, noise=noise, threads=threads)
        for path, generation in (plain, written)
    )
    drawn = np.random.default_rng(0)
    ids = drawn.integers(0, plain[1].vocab_size or 2, (1, PROMPT + TOKENS))
    length = min(ids.shape[1], plain[1].context or ids.shape[1])
    for decoder in (reference, found):
        decoder.start(1, length)
    counts, loops = [], max(slot.loops or 1 for slot in written[1].slots)
    for start in (0, *range(min(PROMPT, length - 1), length)):
        stop = start + 1 if start else min(PROMPT, length - 1)
        given = found.run(ids[:, start:stop], [stop])
        count = int(found.iterations[0]) if start else None
        wanted = reference.run(ids[:, start:stop], [stop], loops=count)
        error = largest_error(given, wanted).relative
        if not error <= EXACT:
            raise VerificationError(
                f"token {stop} ends after {count} iterations and differs from as many loops: relative error "
                f"{error:.2e}, allowed {EXACT:.0e}",
                measured=error,
                allowed=EXACT,
            )
        if count is not None:
            if rule is not None:
                rule.check(reference.states, count, loops, reference.feeds)
            counts.append(count)
            if policy == "copy":
                reference.copy_rows(count, start)
    return float(np.mean(counts))
