"""Refuse Loops that would not end, or never begin: a trip count is a number of eight bytes, and any may stand there."""

from pathlib import Path

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.metadata import FORM_KEY, MOST_LOOPS

__all__ = ["MOST_RUNS", "check_loops"]

MOST_RUNS = 1_000_000
"""Iterations of a Loop inside others, in one inference."""


def check_loops(model: ir.Model, source: Path) -> None:
    """Refuse a constant trip count below 1 or past `MOST_LOOPS`, and Loops in Loops past `MOST_RUNS`.

    A Loop whose condition can end it may name any count from 1 on: exporters write the largest integer there. A model
    that loopedge wrote may name 0: the last of its iterations stands behind the Loop.

    Raises:
        InputError: As said, or a trip count is not a single number.
    """
    least = 0 if FORM_KEY in model.metadata_props else 1
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        _check(graph, 1, least, source)


def _check(graph: ir.Graph, runs: int, least: int, source: Path) -> None:
    for node in graph:
        inside = runs
        if node.op_type == "Loop" and not node.domain:
            inside *= _iterations(node, least, source)
            if inside > MOST_RUNS:
                raise InputError(
                    f"{source}: Loop {node.name} runs {inside:,} times in one inference, inside others; "
                    f"at most {MOST_RUNS:,} are allowed"
                )
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _check(attribute.as_graph(), inside, least, source)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    _check(body, inside, least, source)


def _iterations(loop: ir.Node, least: int, source: Path) -> int:
    """Return how often a Loop runs where that is known, else 1."""
    view = LoopView(loop)
    count, ends_itself = view.trip_count, not view.runs_on
    if count is None:
        return 1
    if count < least or (count > MOST_LOOPS and not ends_itself):
        raise InputError(
            f"{source}: Loop {loop.name or ''} has the constant trip count {count:,}, allowed is 1 "
            f"to {MOST_LOOPS:,}",
            hint="write the count that the model needs into the file, or make it an input of the graph",
        )
    return 1 if ends_itself else max(count, 1)
