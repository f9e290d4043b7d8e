"""Refuse Loops that would not end: a trip count is a number of eight bytes, and its iterations take time and memory."""

from pathlib import Path

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView

__all__ = ["MOST_RUNS", "MOST_TRIPS", "check_loops"]

MOST_TRIPS = 65_536
"""Iterations of one Loop, as many as `loopedge.export` writes."""
MOST_RUNS = 1_000_000
"""Iterations of a Loop inside others, in one inference."""


def check_loops(model: ir.Model, source: Path) -> None:
    """Refuse a constant trip count past `MOST_TRIPS`, and Loops in Loops past `MOST_RUNS`.

    A Loop whose condition can end it may name any count: exporters write the largest integer there.

    Raises:
        InputError: As said, or a trip count is not a single number.
    """
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        _check(graph, 1, source)


def _check(graph: ir.Graph, runs: int, source: Path) -> None:
    for node in graph:
        inside = runs
        if node.op_type == "Loop" and not node.domain:
            inside *= _iterations(node, source)
            if inside > MOST_RUNS:
                raise InputError(
                    f"{source}: Loop {node.name} runs {inside:,} times in one inference, inside others; "
                    f"at most {MOST_RUNS:,} are allowed"
                )
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _check(attribute.as_graph(), inside, source)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    _check(body, inside, source)


def _iterations(loop: ir.Node, source: Path) -> int:
    """Return how often a Loop runs where that is known, else 1."""
    view = LoopView(loop)
    count = view.trip_count
    if count is None:
        return 1
    ends_itself = not view.runs_on
    if count > MOST_TRIPS and not ends_itself:
        raise InputError(
            f"{source}: Loop {loop.name or ''} has the constant trip count {count}, at most {MOST_TRIPS:,} are "
            "allowed"
        )
    return 1 if ends_itself else max(count, 1)
