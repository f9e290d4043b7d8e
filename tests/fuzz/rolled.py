"""Roll a graph whose loops are known, and say what is wrong with what comes out; None where nothing is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from loopedge.errors import InputError
from loopedge.graph.agreement import largest_error
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.rolling.rolling import roll
from tests.fuzz.tied_graphs import SIZES, TiedGraph

__all__ = ["Outcome", "judge_tied"]

Array = NDArray[Any]

MOST_ERROR = 1e-5
"""Relative, of a graph in float32."""
NARROW_ERROR = 2e-2
"""Of one in float16: a graph that is written out keeps float32 between nodes, a Loop rounds at its border."""
FUSED_ERROR = 0.2
"""Of one with weights in integers, when ONNX Runtime multiplies some of them with activations in integers."""
FEWEST = 3
"""Iterations that must become a Loop: two may be too few to be worth one."""
DRAWS = 8
AMPLIFIED = 100
"""A change of the inputs by their last bit may be found in the outputs; so much more of it passes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a graph.

    Args:
        kind: ``whole``, ``in part`` or ``unchanged``.
        problem: What is wrong; None where nothing is.
        missed: Which loops of an unchanged graph were not found; None where all were.
    """

    kind: str
    problem: str | None = None
    missed: str | None = None


def judge_tied(
    graph: TiedGraph, folder: Path, *, command: bool = False, inner: bool = False
) -> Outcome:
    """Roll a graph and compare the outputs.

    Args:
        graph: With its known loops.
        folder: Where files are written.
        command: Write a file by `loopedge.reroll`, which verifies it too; in float16 a steep graph would not pass that.
        inner: Roll what repeats inside an iteration too.
    """
    try:
        by_verb = command and "float16" not in graph.features
        found = _by_verb(graph, folder, inner) if by_verb else _in_memory(graph, inner)
        kind = _kind(graph, found.iterations)
        problem = None if found.rolled is None else _difference(graph, found.rolled)
    except Exception as error:
        return Outcome("unchanged", f"{type(error).__name__}: {error}")
    if kind == "whole" or graph.change is not None:
        return Outcome(kind, problem)
    built = [chain.iterations for chain in graph.chains]
    why = "; ".join(found.reasons)
    return Outcome(kind, problem, f"{built} iterations became {list(found.iterations)}: {why}")


@dataclass(frozen=True, slots=True)
class Found:
    """What rolling gave: the file, the iterations of its loops, and why others were refused."""

    rolled: bytes | None
    iterations: Sequence[int]
    reasons: Sequence[str]


def _in_memory(graph: TiedGraph, inner: bool) -> Found:
    model = ir.from_proto(onnx.ModelProto.FromString(graph.model.SerializeToString()))
    rolling = roll(model, inner=inner)
    counts = [loop.iterations for loop in rolling.loops]
    if not counts:
        return Found(None, [], rolling.reasons)
    keep_names_apart(rolling.model)  # as whatever writes a file does
    return Found(ir.to_proto(rolling.model).SerializeToString(), counts, rolling.reasons)


def _by_verb(graph: TiedGraph, folder: Path, inner: bool) -> Found:
    import loopedge

    source, target = folder / "tied.onnx", folder / "loop.onnx"
    onnx.save(graph.model, source)
    try:
        chosen: Any = "loop" if inner else "unrolled"
        result = loopedge.reroll(source, target, inner=chosen, threads=1, force=True)
    except InputError as error:
        return Found(None, [], [error.message])
    assert result.verified
    return Found(target.read_bytes(), [loop.iterations for loop in result.loops], result.notes)


def _kind(graph: TiedGraph, iterations: Sequence[int]) -> str:
    """Say how much of the loops that were built was found: as many iterations each, or whole parts of one."""
    found = list(iterations)
    missing = 0
    for chain in sorted(graph.chains, key=lambda chain: (not chain.recurs, -chain.iterations)):
        least = chain.iterations - chain.may_differ
        fitting = [count for count in found if count >= least]
        if fitting:
            found.remove(min(fitting))
        elif least >= FEWEST and chain.recurs:
            missing += 1
    if not missing:
        return "whole"
    return "in part" if iterations else "unchanged"


def _difference(graph: TiedGraph, rolled: bytes) -> str | None:
    """Compare with what the source computes, as it is written and as ONNX Runtime optimizes the result."""
    exact = _session(graph.model.SerializeToString(), optimized=False)
    names = [value.name for value in graph.model.graph.output]
    for optimized in (False, True):
        given = _session(rolled, optimized=optimized)
        if [value.name for value in given.get_outputs()] != names:
            return f"outputs {[value.name for value in given.get_outputs()]} instead of {names}"
        fused = optimized and "integers weights" in graph.features
        narrow = "float16" in graph.features
        allowed = FUSED_ERROR if fused else NARROW_ERROR if narrow else MOST_ERROR
        for number in range(len(SIZES)):
            feeds = graph.feeds(number)
            expected = exact.run(names, feeds)
            found = given.run(names, {key.name: feeds[key.name] for key in given.get_inputs()})
            for name, have, want in zip(names, found, expected, strict=True):
                error = largest_error(have, want).relative
                if error <= allowed:
                    continue
                if not error <= AMPLIFIED * _sensitivity(exact, feeds, name, want):
                    where = f"{SIZES[number]}, {'optimized' if optimized else 'as it is written'}"
                    return f"output {name} differs by {error:.1e} at {where}"
    return None


def _sensitivity(session: Any, feeds: dict[str, Array], name: str, expected: Array) -> float:
    """Return how far an output moves at most when the last bits of the inputs do: a steep graph amplifies rounding.

    In several draws, for in a single one what moves an output up and down may cancel.
    """
    generator = np.random.default_rng(0)
    errors = []
    for _ in range(DRAWS):
        moved = {
            key: array
            + np.spacing(array) * generator.choice((-1, 1), array.shape).astype(array.dtype)
            for key, array in feeds.items()
        }
        errors.append(largest_error(session.run([name], moved)[0], expected).relative)
    return max(errors)


def _session(model: bytes, *, optimized: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
